"""The lessons' settings: what a profile trains, what it tells of it, and the networks that the full ones promise."""

import pytest

from course_utils import lessons, models


@pytest.mark.parametrize("profile", ["quick", "full"])
@pytest.mark.parametrize("lesson", lessons.LESSONS)
def test_a_lesson_says_what_it_runs(lesson, profile, monkeypatch, capsys):
    monkeypatch.setenv("COURSE_PROFILE", profile)
    recipe = lessons.for_lesson(lesson)
    out = capsys.readouterr().out
    for words in (f"profile  {profile}", recipe.data, f"{recipe.epochs} epochs", "two CPU cores", "a guess"):
        assert words in out
    assert ("not CIFAR" in out) == (profile == "quick") == recipe.data.startswith("shapes")


def test_a_cell_may_change_the_dictionaries_of_its_recipe():
    lessons.for_lesson("smallnet").optimizer_args["lr"] = 0.5
    again = lessons.for_lesson("smallnet")
    assert again == lessons.LESSONS["smallnet"]["quick"] and again.optimizer_args["lr"] != 0.5


def test_quick_is_the_default_and_an_unknown_profile_is_refused(monkeypatch):
    monkeypatch.delenv("COURSE_PROFILE", raising=False)
    assert lessons.profile() == "quick"
    monkeypatch.setenv("COURSE_PROFILE", "fast")
    with pytest.raises(ValueError, match="unknown profile 'fast'.*'quick' or 'full'"):
        lessons.for_lesson("smallnet")


def test_the_full_networks_have_the_sizes_of_the_exercises():
    small, resnet = (lessons.LESSONS[lesson]["full"] for lesson in ("smallnet", "resnet"))
    assert models.count_parameters(models.SmallNet(100, **small.network_args)) == 996_376
    assert models.count_parameters(models.CustomResNet(10, **resnet.network_args)) == 6_575_370


def test_a_quick_lesson_differs_from_the_full_one_in_its_cost_alone():
    cost = {"name", "about", "data", "batch_size", "epochs"}
    cost |= {"network_args", "optimizer_args", "schedule_args"}
    for profiles in lessons.LESSONS.values():
        quick, full = profiles["quick"].plain(), profiles["full"].plain()
        assert {name for name in full if quick[name] != full[name]} <= cost
        assert all(quick[name].keys() == full[name].keys() for name in ("optimizer_args", "schedule_args"))
