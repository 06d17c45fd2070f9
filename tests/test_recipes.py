"""Recipes and profiles: plain values, the claims' networks, and errors that name the valid choices."""

import json

import numpy as np
import pytest

from course_utils.lab import recipes, runs
from course_utils.data import ImageSet
from course_utils.models import count_parameters
from course_utils.lab.recipes import RECIPES
from course_utils.lessons import LESSONS


def test_names_are_keys_and_values_are_plain():
    for name, recipe in RECIPES.items():
        assert recipe.name == name
        assert json.loads(json.dumps(recipe.plain())) == recipe.plain()


def test_the_lessons_full_networks_keep_their_budgets():
    small, resnet = (LESSONS[lesson]["full"] for lesson in ("smallnet", "resnet"))
    assert count_parameters(runs.build_network(small, 100)) == 996_376
    assert count_parameters(runs.build_network(resnet, 10)) == 6_575_370
    assert small.data == "cifar100"
    assert resnet.data == "cifar10"


def test_unknown_names_list_the_valid_ones(monkeypatch):
    with pytest.raises(ValueError, match="unknown recipe 'smalnet'.*smallnet-source"):
        recipes.get("smalnet")
    with pytest.raises(ValueError, match="unknown lesson 'vit'.*smallnet, resnet"):
        lessons.for_lesson("vit")
    monkeypatch.setenv("COURSE_PROFILE", "fast")
    with pytest.raises(ValueError, match="unknown profile 'fast'.*'quick' or 'full'"):
        lessons.for_lesson("smallnet")


@pytest.mark.parametrize("lesson", LESSONS)
@pytest.mark.parametrize("profile", ["quick", "full"])
def test_a_lesson_says_what_it_runs(lesson, profile, monkeypatch, capsys):
    monkeypatch.setenv("COURSE_PROFILE", profile)
    recipe = lessons.for_lesson(lesson)
    out = capsys.readouterr().out
    for word in (
        f"profile  {profile}",
        recipe.data,
        f"{recipe.epochs} epochs",
        "two CPU cores",
        "a guess is",
    ):
        assert word in out
    assert ("not CIFAR" in out) == (profile == "quick") == recipe.data.startswith("shapes")


def test_quick_is_the_default(monkeypatch):
    monkeypatch.delenv("COURSE_PROFILE", raising=False)
    assert lessons.profile() == "quick"


def test_every_recipe_can_be_built():
    """Network, optimizer and schedule take the arguments that the table gives them."""
    for recipe in RECIPES.values():
        backbone = recipe.network_args.get("backbone")
        if recipe.network == "TransferNet" and backbone not in ("resnet18", "CustomResNet"):
            continue  # needs trained weights: those of another run, or ImageNet's
        model = runs.build_network(recipe, 10)
        optimizer = runs.build_optimizer(recipe, model)
        if recipe.schedule != "range_test":
            scheduler = runs.build_schedule(recipe, optimizer, steps_per_epoch=2)
            optimizer.step()
            scheduler.step()


def test_the_headlines_keep_their_budgets():
    weights = {
        name: count_parameters(runs.build_network(recipes.get(name), 100))
        for name in ("smallnet-best", "budgetnet")
    }
    assert weights["smallnet-best"] == 996_376
    assert weights["budgetnet"] < 1_000_000
    for name in ("resnet-assignment", "resnet-best", "resnet-fast"):
        assert count_parameters(runs.build_network(recipes.get(name), 10)) == 6_575_370


def test_each_new_ablation_changes_what_it_says():
    """Against its baseline, entry by entry: what one recipe leaves out is what the comparison measures."""
    cycle = RECIPES["resnet-8"].schedule_args
    assert changed("resnet-8", "resnet-8-annealed") == {"schedule_args": cycle | {"lr_end": 0.0}}
    assert changed("smallnet-augmented", "smallnet-jitter") == {"jitter": 0.2}
    assert changed("smallnet-source", "smallnet-no-decay") == {"optimizer_args": {"lr": 0.1, "momentum": 0.9}}
    assert changed("smallnet-source", "smallnet-separable") == {"network_args": {"separable": True}}
    assert changed("transfer-random", "transfer-imagenet") == {"network_args": {}}
    for name, control in (
        ("transfer-resnet", "transfer-random-custom"),
        ("transfer-fine-tuned", "transfer-scratch"),
    ):
        random = RECIPES[name].network_args | {"backbone": "CustomResNet"}
        assert changed(name, control) == {"network_args": random}
    assert RECIPES["resnet-fast"].network_args == {"logit_scale": 0.125}  # which has no part in the features
    low = {"optimizer_args": {"lr": 0.01, "momentum": 0.9, "weight_decay": 5e-4}}
    for rung in ("smallnet-start", "smallnet-batch128", "smallnet-deep"):
        assert changed(rung, f"{rung}-0.01") == low
    assert changed("smallnet-wide", "smallnet-sgd-0.01") == low


def changed(baseline: str, name: str) -> dict:
    """The entries in which a recipe differs from its baseline, but for its name and description."""
    before, after = RECIPES[baseline].plain(), RECIPES[name].plain()
    return {k: v for k, v in after.items() if v != before[k] and k not in ("name", "about")}


def test_the_jitter_of_a_recipe_reaches_its_loader():
    images = ImageSet(np.full((64, 32, 32, 3), 100, np.uint8), np.zeros(64, np.int64), ("one",), "grey")
    stats = np.array([0.4, 0.4, 0.4]), np.ones(3)
    brightness = {}
    for name in ("smallnet-source", "smallnet-jitter"):
        loader = runs.build_loader(recipes.get(name), images, stats, True, seed=0)
        brightness[name] = {round(float(image.mean()), 3) for image in next(iter(loader))[0]}
    assert len(brightness["smallnet-source"]) == 1
    assert len(brightness["smallnet-jitter"]) > 10


def test_a_pattern_finds_recipes_and_a_wrong_one_lists_them():
    assert [recipe.name for recipe in recipes.matching("resnet-f*")] == ["resnet-fast"]
    with pytest.raises(ValueError, match="no recipe matches 'vgg\\*'.*smallnet-source"):
        recipes.matching("vgg*")
