"""The notebooks' times: kept as they are measured, and shown with what they were measured on."""

import json

import pytest

from course_utils.authoring import sync as authoring
from course_utils.lab import recipes, records, timings
from course_utils.lab.verdicts import NOT_RUN


def test_all_notebooks_were_timed():
    assert set(timings.read()) == set(timings.TITLES), "run `python -m course_utils execute`"


def test_every_notebook_that_is_executed_has_a_row():
    executed = [path for path in authoring.NOTEBOOKS.glob("*.ipynb") if not authoring.is_exercise(path)]
    assert sorted(timings.TITLES) == sorted(path.stem for path in executed)


def test_what_was_measured_is_kept_beside_what_was_known(tmp_path):
    path = tmp_path / "notebooks.json"
    timings.keep({"01_smallnet": 51.4, "02_resnet": 30.0}, path)
    timings.keep({"02_resnet": 28.6}, path)
    kept = timings.read(path)
    assert {name: entry["seconds"] for name, entry in kept.items()} == {"01_smallnet": 51, "02_resnet": 29}
    assert kept["02_resnet"]["machine"]["threads"]


@pytest.mark.parametrize(
    ("name", "change"),
    [("04_unknown", {}), ("01_smallnet", {"seconds": "51"}), ("01_smallnet", {"more": 1})],
    ids=["notebook", "type", "entry"],
)
def test_a_file_with_anything_else_is_refused(tmp_path, name, change):
    path = tmp_path / "notebooks.json"
    entry = {"seconds": 51, "date": "2026-01-01", "precision": "bfloat16", "machine": {}} | change
    path.write_text(json.dumps({name: entry}), encoding="utf-8")
    with pytest.raises(ValueError, match=f"{name}: expected a notebook in"):
        timings.read(path)


def test_the_table_says_what_it_does_not_know(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "RECORDED", tmp_path)
    monkeypatch.setattr(timings, "read", dict)
    assert timings.teachers_table().count(NOT_RUN) == len(timings.TITLES) + len(timings.FULL)


def test_the_full_time_is_at_the_pace_of_a_recorded_run(monkeypatch):
    machine = {"device": "cpu", "name": "a processor", "threads": 2}
    recipe = recipes.get("resnet-fast").plain()
    run = {
        "recipe": recipe,
        "history": {"seconds": [30.0, 30.0, 600.0]},
        "machine": machine,
        "precision": "float32",
    }
    monkeypatch.setattr(records, "of_recipe", lambda name: [run] if name == "resnet-fast" else [])
    text = timings.full("02_resnet")
    assert text.startswith("12 min of training")  # 24 epochs of half a minute: the pause does not count
    assert "<code>resnet-fast</code> (a processor, 2 threads, float32)" in text
    assert timings.full("03_failures") == "the same"
