"""What a lesson trains, by profile, and what it says of it."""

import pytest

from course_utils import lessons
from course_utils.lessons import LESSONS


@pytest.mark.parametrize("lesson", LESSONS)
@pytest.mark.parametrize("profile", ["quick", "full"])
def test_a_lesson_says_what_it_runs(lesson, profile, monkeypatch, capsys):
    monkeypatch.setenv("COURSE_PROFILE", profile)
    recipe = lessons.for_lesson(lesson)
    said = capsys.readouterr().out
    for words in (
        f"profile  {profile}",
        recipe.data,
        f"{recipe.epochs} epochs",
        "two CPU cores",
        "a guess is",
    ):
        assert words in said
    assert ("not CIFAR" in said) == (profile == "quick") == recipe.data.startswith("shapes")


def test_quick_is_the_default_and_unknown_names_list_the_valid_ones(monkeypatch):
    monkeypatch.delenv("COURSE_PROFILE", raising=False)
    assert lessons.profile() == "quick"
    with pytest.raises(ValueError, match="unknown lesson 'vit'.*smallnet, resnet"):
        lessons.for_lesson("vit")
    monkeypatch.setenv("COURSE_PROFILE", "fast")
    with pytest.raises(ValueError, match="unknown profile 'fast'.*'quick' or 'full'"):
        lessons.for_lesson("smallnet")
