"""Records: what they must contain, which count, and that those of this course were made by its recipes."""

import functools
import json
import os
from dataclasses import replace

import pytest
import torch
from made_up import HERE, record, write

from course_utils.data import N_CLASSES
from course_utils.datasets import cifar
from course_utils.lab import recipes, records, runs
from course_utils.lab.recipes import RECIPES
from course_utils.models import count_parameters

NAME = "smallnet-source"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda r: r.pop("seed"), r"missing or unknown entries \['seed'\]"),
        (lambda r: r.update(note="hand made"), r"missing or unknown entries \['note'\]"),
        (lambda r: r.update(schema=99), "expected schema 1, found 99"),
        (lambda r: r.update(test_accuracy=91.7), r"test_accuracy should be in \[0, 1\], found 91.7"),
        (lambda r: r.update(parameters="many"), "parameters should be"),
        (lambda r: r.update(parameters=True), "parameters should be"),
        (lambda r: r.update(flops=1.5), "flops should be"),
        (lambda r: r["history"]["seconds"].append(1.0), "curves differ in length"),
        (lambda r: r["history"].pop("seconds"), "how many seconds each epoch took"),
        (lambda r: r["history"].pop("learning_rate"), "a trained run has more curves: learning_rate"),
        (lambda r: r["history"].update(seconds=3.0), "the curve seconds should be a list of numbers"),
        (lambda r: r["history"].update(seconds=["<b>", 1.0, 1.0]), "the curve seconds should be a list of numbers"),
        (lambda r: r["history"].update(train_loss=[float("nan")] * 3), "the curve train_loss should be"),
        (lambda r: r.update(machine={"device": "cpu", "threads": 2}), "a machine should have texts as device"),
        (lambda r: r.update(machine=HERE | {"threads": "2"}), "a machine should have texts as device"),
        (lambda r: r.update(machine=HERE | {"processes": "2"}), "a machine should have texts as device"),
        (lambda r: r.update(resumed_from=["x"]), "a machine should have texts as device"),
        (lambda r: r["recipe"].clear(), "its recipe has no name"),
        (lambda r: r.update(six_views=float("nan")), r"six_views should be in \[0, 1\], found nan"),
        (lambda r: r.update(validation_accuracy=1.5), r"validation_accuracy should be in \[0, 1\]"),
        (lambda r: r["history"].update(train_accuracy=[0.5, 0.5, 5.0]), r"train_accuracy should be in \[0, 1\]"),
        (lambda r: r.update(parameters=-1), r"parameters should be in \[0, inf\], found -1"),
        (lambda r: r.update(seconds=-3.0), r"seconds should be in \[0, inf\], found -3"),
        (lambda r: r["history"].update(seconds=[1.0, None, 1.0]), "how many seconds each epoch took"),
        (lambda r: r.update(test_accuracy=None), "a trained run has a test accuracy, and a range test has none"),
    ],
)  # fmt: skip
def test_a_malformed_record_says_what_is_wrong(damage, message, empty):
    write(NAME, 50.0)
    path, made = records.path_of(NAME, 0), record(NAME, 0, 50.0)
    damage(made)
    path.write_text(json.dumps(made))
    with pytest.raises(ValueError, match=rf"seed0\.json: .*{message}"):
        records.read(path)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"{", "is not JSON"),
        (b"[]", "expected an object, found list"),
        ("{}".encode("utf-16"), "is not JSON in UTF-8"),
    ],
)
def test_what_is_no_record_is_named(content, says, empty):
    (empty / "seed0.json").write_bytes(content)
    with pytest.raises(ValueError, match=rf"seed0\.json:? {says}"):
        records.read(empty / "seed0.json")


@pytest.mark.parametrize(
    "place",
    [f"{NAME}/seed1.json", f"{NAME}/seed01.json", f"{NAME}/seed0-old.json", "smallnet-best/seed0.json"],
)
def test_a_copy_under_another_name_is_not_another_run(place, empty):
    write(NAME, 50.0)
    (empty / place).parent.mkdir(exist_ok=True)
    (empty / place).write_bytes(records.path_of(NAME, 0).read_bytes())
    with pytest.raises(ValueError, match=f"is a copy: the record in it is of {NAME} seed 0"):
        records.of_recipe((empty / place).parent.name)


def test_two_records_of_one_seed_are_not_two_runs(empty):
    write(NAME, 50.0, 52.0)
    path = records.path_of(NAME, 0)
    path.with_stem("seed0-0badcafe").write_bytes(path.read_bytes())
    for counting in (records.of_recipe, records.table):
        with pytest.raises(ValueError, match=f"{NAME}: seed 0 is recorded in two files"):
            counting(NAME)


def test_a_record_is_written_whole_or_not_at_all(empty, monkeypatch):
    def full_disk(*paths):
        raise OSError("no space left")

    write(NAME, 50.0)
    path = records.path_of(NAME, 0)
    before = path.read_bytes()
    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(OSError, match="no space left"):
        records.write(record(NAME, 0, 60.0), path)
    assert path.read_bytes() == before
    assert [one.name for one in path.parent.iterdir()] == ["seed0.json"]


@pytest.mark.parametrize("seed", [-1, 10**6, 1.0, "0"])
def test_a_seed_that_is_none_is_named(seed):
    with pytest.raises(ValueError, match=rf"{NAME}: expected a seed from 0 to 999999, found {seed!r}"):
        records.path_of(NAME, seed)


def test_what_no_run_writes_is_doubted():
    made = functools.partial(record, NAME, 0, 50.0, epochs=3)
    assert records.doubts(made()) == []
    assert records.doubts(made(epochs=500)) == ["its recipe has 500 epochs, its curves have 3"]
    assert records.doubts(made(date="9999-01-01")) == ["its date is none"]
    odd = {"date": "<img>", "precision": "int3", "weights": "0", "machine": HERE | {"commit": "HEAD"}}
    expected = [f"its {name} is none" for name in ("date", "precision", "commit", "weights")]
    assert records.doubts(made(**odd)) == expected
    better = made() | {"validation_accuracy": 0.99}
    assert records.doubts(better) == ["its validation accuracy is not the last of its curve"]


def test_a_setting_that_is_younger_than_a_record_counts_as_its_default():
    recipe = RECIPES[NAME]
    before = {"recipe": {key: value for key, value in recipe.plain().items() if key != "jitter"}}
    assert records.changes(before, recipe) == []
    assert records.changes(before, replace(recipe, jitter=0.2)) == ["jitter: was 0.0, is 0.2"]


def test_a_setting_that_is_gone_or_renamed_is_a_change():
    recipe, plain = RECIPES[NAME], RECIPES[NAME].plain()
    renamed = {"recipe": {"batch" if key == "batch_size" else key: value for key, value in plain.items()}}
    assert "batch: was 128, is 'gone'" in records.changes(renamed, recipe)
    nameless = {"recipe": {key: value for key, value in plain.items() if key != "name"}}
    assert records.changes(nameless, recipe) != []
    assert records.changes({"recipe": plain | {"about": "in other words"}}, recipe) == []


def test_a_resumed_run_names_all_its_machines(empty):
    there = HERE | {"name": "another"}
    resumed = record(NAME, 0, 50.0) | {"resumed_from": [there, HERE | {"commit": "0" * 12}]}
    assert records.where(resumed) == "another, 2 threads, bfloat16, then a processor, 2 threads, bfloat16"


def test_operations_are_the_records_own_or_computed_from_the_recipe(empty):
    (empty / "flops.json").write_text(json.dumps({NAME: 7 * 10**13}))
    assert records.petaflop("smallnet-best") is None
    write(NAME, 50.0)
    assert records.petaflop(NAME) == 0.07
    assert records.table(NAME).endswith("| smallnet-source | 1 | 50.00 | 996,376 | 0.5 | 0.07 |")
    records.write(record(NAME, 0, 50.0) | {"flops": 8 * 10**13}, records.path_of(NAME, 0))
    assert records.petaflop(NAME) == 0.08
    assert "no run" in records.table("x*")


def test_epochs_on_small_images_have_a_pace_of_their_own():
    seconds = [50.0, 50.0, 500.0, 90.0, 90.0, 900.0]
    made = {"recipe": {"small_epochs": 3}, "history": {"seconds": seconds}}
    assert records.minutes(made) == 7.0
    assert records.minutes(made | {"recipe": {"small_epochs": 6}}) == 9.0
    assert records.minutes(made | {"recipe": {}}) == 9.0


@functools.cache
def weights_of(name):
    with torch.device("meta"):
        return count_parameters(runs.build_network(RECIPES[name], N_CLASSES[RECIPES[name].data]))


def test_the_records_of_this_course_were_made_by_its_recipes():
    """A recipe that is changed after its run must be run again."""
    for path in sorted(records.RECORDED.glob("*/seed*.json")):
        found = records.read(path)
        recipe = recipes.get(found["recipe"]["name"])
        assert path == records.path_of(recipe.name, found["seed"])
        assert records.changes(found, recipe) == [], f"{path} was made by a recipe that has changed since"
        assert records.doubts(found) == [], path
        pictures = {part: cifar.SOURCES[recipe.data].fingerprints[part] for part in ("train", "test")}
        if backbone := records.backbone_weights(recipe):
            pictures["backbone"] = backbone
        assert found["data"] == pictures, f"{path}: not trained on these pictures"
        if recipe.network != "TransferNet":
            assert found["parameters"] == weights_of(recipe.name), path
        if found["weights"]:
            saved = path.with_suffix(".pt")
            assert records.sha256(saved) == found["weights"], saved
            assert saved.stat().st_size < 16_000_000
