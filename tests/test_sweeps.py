"""Runs, sweeps and records: what is written can be read, is skipped and resumed, and bad records are named."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock

from course_utils import data, training
from course_utils.datasets import cifar as fetch
from course_utils.lab import checkpoints, machine, recipes, records, runs, sweeps
from course_utils.models import count_parameters
from course_utils.lessons import LESSONS

TINY = replace(
    LESSONS["resnet"]["quick"],
    name="tiny",
    network_args={"widths": (4, 4, 8, 8)},
    epochs=1,
    batch_size=500,
    schedule_args={"lr_min": 1e-4, "lr_max": 1e-2, "peak_epoch": 0.5},
)


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A table with one small recipe, whose weights are kept, and records in a folder of their own."""
    monkeypatch.setattr(records, "RECORDED", tmp_path / "recorded")
    monkeypatch.setattr(sweeps, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(recipes, "RECIPES", {"tiny": TINY})
    monkeypatch.setattr(recipes, "KEPT", ("tiny",))
    return TINY


def test_a_run_is_recorded_and_read_back(tiny, tmp_path, capsys):
    record = sweeps.run(tiny, seed=3)
    assert records.of_recipe("tiny") == [record]
    assert record["seed"] == 3
    assert record["recipe"] == tiny.plain()
    assert record["weights"] is None, "only seed 0 keeps its weights"
    assert len(record["history"]["train_loss"]) == 1
    assert [path.suffix for path in (tmp_path / "runs").iterdir()] in ([], [".lock"]), "no checkpoint is left"
    assert f"| tiny | 1 | {100 * record['test_accuracy']:.2f} |" in records.table("t*")
    assert "no run" in records.table("x*")
    assert "tiny seed 3" in capsys.readouterr().out


def git(folder, *command):
    who = ["-c", "user.name=a student", "-c", "user.email=student@localhost"]
    subprocess.run(["git", "-C", str(folder), *who, *command], check=True, capture_output=True)


def test_a_record_names_the_commit_that_the_run_began_with(tiny, tmp_path, monkeypatch):
    package = tmp_path / "checkout" / "course_utils"
    package.mkdir(parents=True)
    monkeypatch.setattr(machine, "__file__", str(package / "machine.py"))
    assert sweeps.run(tiny, 0)["machine"]["commit"] is None, "no checkout"

    def commit(content):
        (package / "machine.py").write_text(content)
        git(package.parent, "add", ".")
        git(package.parent, "commit", "--message", content)
        return machine.commit()

    git(package.parent, "init")
    first = commit("one")
    assert len(first) == 12
    with pytest.MonkeyPatch.context() as patch:
        finish = sweeps.finish
        patch.setattr(sweeps, "finish", lambda *args: (commit("two"), finish(*args))[1])
        assert sweeps.run(tiny, 1)["machine"]["commit"] == first != machine.commit()
    (package / "machine.py").write_text("three")
    assert sweeps.run(tiny, 2)["machine"]["commit"] == machine.commit()
    assert machine.commit().endswith("+")


def test_a_recorded_run_is_measured_again_beside_its_record(tiny, tmp_path, capsys):
    """The weights and the figures of the book hang on the first record: a reader who checks it must not replace it."""
    first = sweeps.run(tiny, 0)
    kept = {path: path.read_bytes() for path in (tmp_path / "recorded").rglob("*") if path.is_file()}
    assert len(kept) == 2, "the record and its weights"
    capsys.readouterr()
    again = sweeps.run(tiny, 0)
    assert {path: path.read_bytes() for path in (tmp_path / "recorded").rglob("*") if path.is_file()} == kept
    assert records.read(tmp_path / "runs" / "tiny-seed0.json") == again
    assert again["test_accuracy"] == first["test_accuracy"], "the same seed on the same machine"
    assert f"recorded before: {first['test_accuracy']:.2%}, kept as" in capsys.readouterr().out


def test_a_sweep_skips_what_is_recorded(tiny, capsys):
    sweeps.sweep("*", [0, 1])
    first = records.path_of("tiny", 0).stat().st_mtime_ns
    assert capsys.readouterr().out.count("on the test set") == 2
    sweeps.sweep("*", [0, 1, 2])
    assert records.path_of("tiny", 0).stat().st_mtime_ns == first
    assert capsys.readouterr().out.count("on the test set") == 1
    assert [record["seed"] for record in records.of_recipe("tiny")] == [0, 1, 2]


def test_a_run_that_cannot_start_does_not_stop_a_sweep(tiny, monkeypatch, capsys):
    needs = replace(tiny, name="needs", network="TransferNet", network_args={"backbone": "tiny"})
    wrong = replace(tiny, name="wrong", crop=-1)
    monkeypatch.setattr(recipes, "RECIPES", {"wrong": wrong, "needs": needs, "tiny": tiny})
    with pytest.raises(RuntimeError, match=r"wrong seed 0: .*\n?.*needs seed 0: "):
        sweeps.sweep("*", [0])
    assert "tiny seed 0: " in capsys.readouterr().out
    assert sweeps.recorded(tiny, 0)


@pytest.mark.parametrize(
    ("text", "says"), [('{"schema"', "is not JSON"), ("[]", "expected an object, found list")]
)
def test_a_broken_record_does_not_stop_a_sweep(tiny, monkeypatch, text, says):
    monkeypatch.setattr(recipes, "RECIPES", {"broken": replace(tiny, name="broken"), "tiny": tiny})
    records.path_of("broken", 0).parent.mkdir(parents=True)
    records.path_of("broken", 0).write_text(text)
    with pytest.raises(RuntimeError, match=rf"broken seed 0: .*seed0\.json.* {says}"):
        sweeps.sweep("*", [0])
    assert sweeps.recorded(tiny, 0)


def test_a_sweep_makes_a_stale_record_anew(tiny, monkeypatch, capsys):
    sweeps.sweep("*", [0])
    monkeypatch.setattr(recipes, "RECIPES", {"tiny": replace(tiny, flip=0.1)})
    stale = Path("tiny", "seed0.json")  # with the system's own slash
    assert f"{stale} does not count: flip: was 0.5, is 0.1" in records.table()
    assert "| tiny |" not in records.table()
    sweeps.sweep("*", [0])
    assert capsys.readouterr().out.count("on the test set") == 2
    assert "| tiny | 1 |" in records.table()
    monkeypatch.setattr(recipes, "RECIPES", {})
    assert "no recipe 'tiny' now" in records.table()


def test_a_setting_that_is_younger_than_a_record_counts_as_its_default(tiny):
    before = {"recipe": {k: v for k, v in tiny.plain().items() if k != "jitter"}}
    assert records.same_recipe(before, tiny)
    assert records.changes(before, replace(tiny, jitter=0.2)) == ["jitter: was 0.0, is 0.2"]


def test_a_setting_that_is_gone_or_renamed_is_a_change(tiny):
    plain = tiny.plain()
    renamed = {"recipe": {"batch" if k == "batch_size" else k: v for k, v in plain.items()}}
    assert not records.same_recipe(renamed, tiny)
    assert "batch: was 500, is 'gone'" in records.changes(renamed, tiny)
    nameless = {"recipe": {k: v for k, v in plain.items() if k != "name"}}
    assert not records.same_recipe(nameless, tiny)
    assert records.same_recipe({"recipe": plain | {"about": "in other words"}}, tiny)


def test_a_run_that_diverges_is_named_and_the_others_have_their_turn(tiny, monkeypatch):
    hot = replace(
        tiny, name="hot", optimizer="SGD", optimizer_args={"lr": 1e30}, schedule="constant", schedule_args={}
    )
    monkeypatch.setattr(recipes, "RECIPES", {"hot": hot, "tiny": tiny})
    with pytest.raises(RuntimeError, match="hot seed 0: the loss is"):
        sweeps.sweep("*", [0])
    assert records.path_of("tiny", 0).exists()
    assert not records.path_of("hot", 0).exists()


def test_a_run_under_way_elsewhere_is_left_alone(tiny, tmp_path):
    (tmp_path / "runs").mkdir()
    with (
        FileLock(tmp_path / "runs" / "tiny-seed0.lock"),
        pytest.raises(RuntimeError, match="another process"),
    ):
        sweeps.run(tiny, 0)


def test_kept_weights_are_verified(tiny, capsys):
    record = sweeps.run(tiny, 0)
    assert record["weights"] == checkpoints.sha256(records.weights_of("tiny", 0))
    sweeps.verify("tiny")
    assert "recorded" in capsys.readouterr().out


def test_a_range_test_has_its_recipes_precision(tiny, monkeypatch):
    asked = {}
    monkeypatch.setattr(runs.schedules, "lr_range_test", lambda *_, **options: asked.update(options))
    runs.range_test(replace(tiny, schedule="range_test", schedule_args={}, precision="float32"), 0)
    assert asked == {"precision": "float32"}


def test_where_nothing_is_kept_nothing_is_verified(tiny):
    with pytest.raises(ValueError, match="no recorded run that matches 'tiny' has kept its weights"):
        sweeps.verify("tiny")


def test_weights_that_do_not_fit_their_record_are_named(tiny, monkeypatch, tmp_path):
    record = sweeps.run(tiny, 0)
    monkeypatch.setattr(recipes, "RECIPES", {"tiny": replace(tiny, flip=0.1)})
    with pytest.raises(RuntimeError, match=r"recipe has changed since this run \(flip: was 0.5, is 0.1\)"):
        sweeps.verify("tiny")
    monkeypatch.setattr(recipes, "RECIPES", {"tiny": replace(tiny, about="in other words")})
    sweeps.verify("tiny")

    records.weights_of("tiny", 0).rename(tmp_path / "elsewhere")
    with pytest.raises(RuntimeError, match=r"seed0\.pt is not there: restore it, or"):
        sweeps.verify("tiny")
    with pytest.raises(FileNotFoundError, match="run tiny --seed 0` makes it"):
        runs.trained_network(tiny)
    (tmp_path / "elsewhere").rename(records.weights_of("tiny", 0))

    better = record | {"test_accuracy": record["test_accuracy"] / 2 + 0.002}
    records.write(better, records.path_of("tiny", 0))
    with pytest.raises(RuntimeError, match="the weights reach"):
        sweeps.verify("tiny")

    training.seed_everything(1)
    checkpoints.save_half(runs.build_network(tiny, 10), records.weights_of("tiny", 0))
    with pytest.raises(RuntimeError, match="not the file that was recorded"):
        sweeps.verify("tiny")


def test_a_range_test_is_recorded_as_a_curve(tiny):
    recipe = replace(
        tiny, name="range", epochs=0, schedule="range_test",
        schedule_args={"lr_min": 1e-6, "lr_max": 1e-3, "steps": 5},
    )  # fmt: skip
    record = sweeps.run(recipe, 0)
    assert record["test_accuracy"] is None
    assert len(record["history"]["train_loss"]) == len(record["history"]["learning_rate"]) == 5


def test_a_network_on_the_kept_weights_of_another(tiny):
    sweeps.run(tiny, 0)
    transfer = replace(
        tiny, name="transfer", network="TransferNet", network_args={"backbone": "tiny", "n_features": 8}
    )
    model = runs.build_network(transfer, 10)
    kept = runs.trained_network(tiny)
    assert model.backbone.prep[0].weight.equal(kept.prep[0].weight)
    assert not model.backbone.prep[0].weight.requires_grad


def test_a_transfer_counts_only_on_the_weights_it_began_with(tiny, monkeypatch):
    backbone = {"backbone": "tiny", "n_features": 8}
    transfer = replace(tiny, name="transfer", network="TransferNet", network_args=backbone)
    monkeypatch.setattr(recipes, "RECIPES", {"tiny": tiny, "transfer": transfer})
    sweeps.sweep("*", [0])
    assert sweeps.recorded(transfer, 0)
    training.seed_everything(1)
    checkpoints.save_half(runs.build_network(tiny, 10), records.weights_of("tiny", 0))
    assert not sweeps.recorded(transfer, 0)
    assert "transfer/seed0.json does not count: backbone's weights: was" in records.table().replace("\\", "/")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda r: r.pop("seed"), r"missing or unknown entries \['seed'\]"),
        (lambda r: r.update(schema=99), "expected schema 1, found 99"),
        (lambda r: r.update(test_accuracy=91.7), r"test_accuracy should be in \[0, 1\], found 91.7"),
        (lambda r: r.update(parameters="many"), "parameters should be"),
        (lambda r: r["history"]["seconds"].append(1.0), "curves differ in length"),
        (lambda r: r["history"].pop("seconds"), "how many seconds each epoch took"),
        (lambda r: r["machine"].pop("name"), r"its machine lacks \['name'\]"),
        (lambda r: r["recipe"].clear(), "its recipe has no name"),
    ],
)
def test_a_malformed_record_says_what_is_wrong(damage, message, tmp_path):
    record = {
        "schema": 1, "recipe": {"name": "tiny"}, "seed": 0, "data": {}, "date": "2026-01-01",
        "machine": {"device": "cpu", "name": "x", "threads": 2}, "precision": "float32",
        "parameters": 1, "history": {"seconds": [1.0], "train_loss": [1.0]}, "seconds": 1.0,
        "validation_accuracy": None, "test_accuracy": 0.5, "weights": None,
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


def test_the_records_of_this_course_were_made_by_its_recipes():
    """A recipe that is changed after its run must be run again."""
    for path in sorted(records.RECORDED.glob("*/seed*.json")):
        record = records.read(path)
        recipe = recipes.get(record["recipe"]["name"])
        assert path == records.path_of(recipe.name, record["seed"])
        assert records.changes(record, recipe) == [], f"{path} was made by a recipe that has changed since"
        pictures = {part: fetch.SOURCES[recipe.data].fingerprints[part] for part in ("train", "test")}
        if backbone := records.backbone_weights(recipe):
            pictures["backbone"] = backbone
        assert record["data"] == pictures, f"{path}: not trained on these pictures"
        if recipe.network != "TransferNet":
            network = runs.build_network(recipe, data.N_CLASSES[recipe.data])
            assert record["parameters"] == count_parameters(network), path
        if record["weights"]:
            kept = records.weights_of(record["recipe"]["name"], record["seed"])
            assert checkpoints.sha256(kept) == record["weights"], kept
            assert kept.stat().st_size < 16_000_000
