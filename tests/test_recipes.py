"""Recipes, profiles and records: plain values in, verified values out, and errors that name the valid choices."""

import json
from dataclasses import replace

import pytest

from course_utils import recipes, records
from course_utils.models import count_parameters
from course_utils.recipes import LESSONS, RECIPES

TINY = replace(
    LESSONS["resnet"]["quick"],
    name="tiny",
    network_args={"widths": (4, 4, 8, 8)},
    epochs=1,
    batch_size=500,
    schedule_args={"lr_min": 1e-4, "lr_max": 1e-2, "peak_epoch": 0.5},
)


def test_names_are_keys_and_values_are_plain():
    for name, recipe in RECIPES.items():
        assert recipe.name == name
        assert json.loads(json.dumps(recipe.plain())) == recipe.plain()


def test_the_lessons_full_networks_keep_their_budgets():
    small, resnet = (LESSONS[lesson]["full"] for lesson in ("smallnet", "resnet"))
    assert count_parameters(recipes.build_network(small, 100)) == 996_376
    assert count_parameters(recipes.build_network(resnet, 10)) == 6_575_370
    assert small.data == "cifar100"
    assert resnet.data == "cifar10"


def test_unknown_names_list_the_valid_ones(monkeypatch):
    with pytest.raises(ValueError, match="unknown recipe 'smalnet'.*smallnet-source"):
        recipes.get("smalnet")
    with pytest.raises(ValueError, match="unknown lesson 'vit'.*smallnet, resnet"):
        recipes.for_lesson("vit")
    monkeypatch.setenv("COURSE_PROFILE", "fast")
    with pytest.raises(ValueError, match="unknown profile 'fast'.*'quick' or 'full'"):
        recipes.for_lesson("smallnet")


@pytest.mark.parametrize("lesson", LESSONS)
@pytest.mark.parametrize("profile", ["quick", "full"])
def test_a_lesson_says_what_it_runs(lesson, profile, monkeypatch, capsys):
    monkeypatch.setenv("COURSE_PROFILE", profile)
    recipe = recipes.for_lesson(lesson)
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
    assert recipes.profile() == "quick"


def test_a_run_is_recorded_and_read_back(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(records, "RECORDED", tmp_path / "recorded")
    monkeypatch.setattr(records, "RUNS", tmp_path / "runs")
    record = records.run(TINY, seed=3)
    assert records.of_recipe("tiny") == [record]
    assert record["seed"] == 3
    assert record["recipe"] == TINY.plain()
    assert len(record["history"]["train_loss"]) == 1
    assert list((tmp_path / "runs").iterdir()) == [], "no checkpoint is left behind"
    assert records.summary("tiny")[0] == record["test_accuracy"]
    assert "| tiny | 1 |" in records.table("t*")
    assert "no run" in records.table("x*")
    assert "tiny seed 3" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda r: r.pop("seed"), r"missing or unknown entries \['seed'\]"),
        (lambda r: r.update(schema=99), "expected schema 1, found 99"),
        (lambda r: r.update(test_accuracy=91.7), r"test_accuracy should be in \[0, 1\], found 91.7"),
        (lambda r: r.update(parameters="many"), "parameters should be"),
        (lambda r: r["history"]["seconds"].append(1.0), "curves differ in length"),
    ],
)
def test_a_malformed_record_says_what_is_wrong(damage, message, tmp_path, monkeypatch):
    monkeypatch.setattr(records, "RECORDED", tmp_path)
    record = {
        "schema": 1, "recipe": {}, "seed": 0, "date": "2026-01-01", "machine": {}, "precision": "float32",
        "parameters": 1, "history": {"seconds": [1.0], "train_loss": [1.0]}, "seconds": 1.0,
        "validation_accuracy": None, "test_accuracy": 0.5,
    }  # fmt: skip
    records.write(record, tmp_path / "seed0.json")
    damage(record)
    (tmp_path / "seed0.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match=message):
        records.read(tmp_path / "seed0.json")


def test_a_record_that_is_not_json_is_named(tmp_path):
    (tmp_path / "seed0.json").write_text("{")
    with pytest.raises(ValueError, match="seed0.json is not JSON"):
        records.read(tmp_path / "seed0.json")
