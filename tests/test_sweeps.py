"""Recorded runs on a small set: skipped, resumed, never replaced, and verified as far as they can be."""

import shutil
import subprocess
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from filelock import FileLock
from torch import nn

from course_utils import data, models, training
from course_utils.datasets import cifar
from course_utils.exercises import first_batch, parts
from course_utils.lab import machine, processes, recipes, records, runs, sweeps
from course_utils.lab.files import read_tensors
from course_utils.lessons import LESSONS, Recipe

TINY = replace(
    LESSONS["resnet"]["quick"],
    name="tiny",
    network_args={"widths": (4, 4, 8, 8), "dropout": 0.1},
    epochs=2,
    batch_size=100,
    schedule_args={"lr_min": 1e-4, "lr_max": 1e-2, "peak_epoch": 0.5},
)


@contextmanager
def tiny_table(folder, few):
    """A table with one small recipe, whose weights are saved, few images, and records in `folder`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "RECORDED", folder)
        patch.setattr(recipes, "RECIPES", {"tiny": TINY})
        patch.setattr(recipes, "KEPT", ("tiny",))
        patch.setattr(data, "load", lambda name, root=None: few)
        yield patch


@pytest.fixture(scope="module")
def made(few, tmp_path_factory):
    """The folder of two recorded runs, made once."""
    folder = tmp_path_factory.mktemp("made")
    with tiny_table(folder, few):
        sweeps.sweep("*", [0, 1])
    return folder


@pytest.fixture
def empty(few, tmp_path, monkeypatch):
    """A table of recipes without records; its MonkeyPatch."""
    monkeypatch.chdir(tmp_path)
    with tiny_table(tmp_path / "recorded", few) as patch:
        yield patch


@pytest.fixture
def tiny(empty, made):
    """The same with the two records that were made."""
    shutil.copytree(made, records.RECORDED)
    return empty


def files():
    found = [path for end in ("json", "pt") for path in records.RECORDED.rglob(f"*.{end}")]
    return {path: path.read_bytes() for path in found}


def curves(record):
    return {name: curve for name, curve in record["history"].items() if name != "seconds"}


def test_a_run_is_recorded_and_read_back(tiny):
    first, second = records.of_recipe("tiny")
    assert (first["seed"], second["seed"]) == (0, 1)
    assert first["recipe"] == TINY.plain()
    assert first["weights"] == records.sha256(records.weights_of("tiny", 0))
    assert second["weights"] is None, "only seed 0 saves its weights"
    assert first["flops"] == runs.training_flops(TINY)
    assert "resumed_from" not in first
    assert [len(curve) for curve in first["history"].values()] == [2] * 6
    left = {path.suffix for path in records.path_of("tiny", 0).parent.iterdir()}
    assert left <= {".json", ".pt", ".lock"}, "no checkpoint is left"


def test_a_sweep_skips_what_is_recorded(tiny, capsys):
    before = files()
    sweeps.sweep("*", [0, 1])
    assert files() == before
    said = capsys.readouterr().out
    assert "on the test set" not in said and said.count("recorded already") == 2


def git(folder, *command):
    who = ["-c", "user.name=a student", "-c", "user.email=student@localhost"]
    subprocess.run(["git", "-C", str(folder), *who, *command], check=True, capture_output=True)


def test_a_record_names_the_commit_that_the_run_began_with(tiny, tmp_path):
    code = tmp_path / "checkout" / "course_utils" / "lab" / "machine.py"
    code.parent.mkdir(parents=True)
    tiny.setattr(machine, "__file__", str(code))
    assert machine.commit() is None, "no checkout"

    def commit(content):
        code.write_text(content)
        git(tmp_path / "checkout", "add", ".")
        git(tmp_path / "checkout", "commit", "--message", content)
        return machine.commit()

    git(tmp_path / "checkout", "init")
    first, finished = commit("one"), records.of_recipe("tiny")[1] | {"seed": 2}
    assert len(first) == 12
    tiny.setattr(sweeps, "finish", lambda *_: (commit("two"), (finished, None))[1])
    assert sweeps.run(TINY, 2)["machine"]["commit"] == first != machine.commit()
    code.write_text("three")
    assert machine.commit().endswith("+")


def test_a_record_that_comes_during_a_run_stays(empty, made, tmp_path, capsys):
    finish, before = sweeps.finish, {}

    def meanwhile(*run):
        shutil.copytree(made, records.RECORDED, dirs_exist_ok=True)
        (records.RECORDED / "tiny" / "seed0.pt").write_bytes(b"another's")
        before.update(files())
        return finish(*run)

    empty.setattr(sweeps, "finish", meanwhile)
    sweeps.run(TINY, 0)
    assert files() == before
    assert (tmp_path / "runs" / "tiny-seed0.json").exists()
    assert "recorded before: " in capsys.readouterr().out
    shutil.rmtree(records.RECORDED)
    sweeps.run(replace(TINY, epochs=1), 0)
    weights, mine = sorted(files().keys() - before.keys(), key=lambda path: path.suffix, reverse=True)
    assert records.read(mine)["weights"] == records.sha256(weights)
    assert records.read(mine)["recipe"]["epochs"] == 1, "of another recipe, so it is recorded beside"


def test_a_record_is_never_replaced(empty, made, tmp_path, capsys):
    """Another process writes it between our look and our lock; and a finished checkpoint is still there."""
    only_one, before = sweeps.only_one, {}

    @contextmanager
    def too_late(*run):
        shutil.copytree(made, records.RECORDED)
        (records.RECORDED / "tiny" / "seed0.checkpoint").write_text("finished")
        before.update(files())
        with only_one(*run):
            yield

    empty.setattr(sweeps, "only_one", too_late)
    again = sweeps.run(TINY, 0)
    assert files() == before
    assert not (records.RECORDED / "tiny" / "seed0.checkpoint").exists()
    assert curves(again) == curves(records.of_recipe("tiny")[0]), "the same seed on the same machine"
    said = capsys.readouterr().out
    assert "2/2" in said and "damaged" not in said, "from the start"
    assert f" minutes, recorded before: {again['test_accuracy']:.2%}, saved as" in said
    assert (tmp_path / "runs" / "tiny-seed0.json").exists()


def test_a_recipe_that_is_not_the_one_in_the_table_replaces_no_record(tiny):
    before = files()
    sweeps.run(replace(TINY, flip=0.1), 0)
    assert before.items() <= files().items() and len(files()) > len(before)


def test_an_edited_recipe_is_recorded_beside_the_old_one(tiny, capsys):
    before = files()
    edited = replace(TINY, flip=0.1)
    tiny.setattr(recipes, "RECIPES", {"tiny": edited})
    table = records.table()
    assert f"{records.RECORDED / 'tiny' / 'seed0.json'} does not count: flip: was 0.5, is 0.1" in table
    assert "| tiny |" not in table
    sweeps.sweep("*", [0])
    assert before.items() <= files().items()
    assert "| tiny | 1 |" in records.table()
    assert (len(records.of_recipe("tiny")), len(records.of_recipe("tiny", stale=True))) == (1, 3)
    place, plain = records.path_of("tiny", 0), Recipe.plain
    assert place.stem.startswith("seed0-")
    with tiny.context() as later:
        later.setattr(Recipe, "plain", lambda self: plain(self) | {"younger": 0})
        assert records.path_of("tiny", 0) == place
    assert sweeps.difference(edited, sweeps.recorded(edited, 0), None) == "", "with weights of its own"
    with pytest.raises(RuntimeError, match=r"recipe has changed since this run \(flip: was 0.5, is 0.1\)"):
        sweeps.verify("tiny")
    (records.RECORDED / "tiny" / "seed0.json").unlink()  # which does not count
    assert records.path_of("tiny", 0) == place, "it stays where it is, and is not run again"
    tiny.setattr(recipes, "RECIPES", {})
    assert "no recipe 'tiny' now" in records.table()


def test_a_run_that_was_cut_off_goes_on_from_another_folder_and_machine(empty, made, tmp_path, capsys):
    """It ends with the bits of one that was not, and names both machines."""
    after_epoch, describe = runs.RunCheckpoint.after_epoch, machine.describe

    def cut(self, run):
        after_epoch(self, run)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(machine, "describe", lambda **_: describe() | {"name": "another"})
        patch.setattr(runs.RunCheckpoint, "after_epoch", cut)
        plain = Recipe.plain  # the course is updated meanwhile, and gets a setting
        patch.setattr(Recipe, "plain", lambda self: {k: v for k, v in plain(self).items() if k != "reflect"})
        sweeps.run(TINY, 0)
    (tmp_path / "elsewhere").mkdir()
    empty.chdir(tmp_path / "elsewhere")
    record = sweeps.run(TINY, 0)
    assert "continuing after epoch 1" in capsys.readouterr().out
    with tiny_table(made, None):
        whole = records.of_recipe("tiny")[0]
    assert curves(record) == curves(whole)
    assert record["weights"] == whole["weights"]
    assert [one["name"] for one in record["resumed_from"]] == ["another"]
    assert records.where(record).startswith("another, ")


def test_a_run_that_fails_is_named_and_the_others_have_their_turn(empty, capsys):
    hot = {"optimizer": "SGD", "optimizer_args": {"lr": 1e30}, "schedule": "constant", "schedule_args": {}}
    table = {
        "wrong": replace(TINY, name="wrong", crop=-1),
        "needs": replace(TINY, name="needs", network="TransferNet", network_args={"backbone": "tiny"}),
        "broken": replace(TINY, name="broken"),
        "hot": replace(TINY, name="hot", **hot),
        "tiny": TINY,
    }
    empty.setattr(recipes, "RECIPES", table)
    (records.RECORDED / "broken").mkdir(parents=True)
    records.path_of("broken", 0).write_text("{")
    with pytest.raises(RuntimeError) as raised:
        sweeps.sweep("*", [0])
    names = [line.partition(" seed 0: ")[0] for line in str(raised.value).splitlines() if " seed 0: " in line]
    assert names == ["wrong", "needs", "broken", "hot"]
    said = capsys.readouterr().out
    assert all(line in said for line in str(raised.value).splitlines())
    assert said.index(str(raised.value).splitlines()[0]) < said.index("hot seed 0: "), "at once"
    assert "seed0.json is not JSON" in str(raised.value) and "a loss of nan" in str(raised.value)
    assert [path.parent.name for path in files() if path.suffix == ".pt"] == ["tiny"]


def test_a_result_that_could_not_be_written_is_not_computed(tiny, tmp_path):
    (tmp_path / "runs").touch()
    tiny.setattr(sweeps, "finish", None)
    with pytest.raises(ValueError, match=r"runs.tiny-seed0\.json cannot be written"):
        sweeps.run(TINY, 0)


def test_a_run_under_way_elsewhere_is_left_alone(empty):
    (records.RECORDED / "tiny").mkdir(parents=True)
    elsewhere = FileLock(records.RECORDED / "tiny" / "seed0.lock")
    with elsewhere, pytest.raises(RuntimeError, match="tiny seed 0 is being run by another process"):
        sweeps.run(TINY, 0)


def test_a_seed_that_is_none_is_refused(empty):
    for start in (sweeps.run, runs.train, runs.range_test):
        with pytest.raises(ValueError, match="tiny: expected a seed from 0 to 999999, found -1"):
            start(TINY, -1)
    assert files() == {}


def test_a_run_uses_no_more_threads_than_it_may(monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(parts, "available_cpus", lambda: 1)
    monkeypatch.setattr("torch.get_num_threads", lambda: 64)
    monkeypatch.setattr("torch.set_num_threads", asked.append)
    machine.cap_threads()
    assert asked == [1]
    assert capsys.readouterr().out == "64 threads would share 1 CPU(s): using 1\n"


def test_a_range_test_is_recorded_as_a_curve(empty):
    rates = {"lr_min": 1e-6, "lr_max": 1e-3, "steps": 20}
    how = {"schedule": "range_test", "schedule_args": rates, "precision": "float32"}
    recipe = replace(TINY, name="range", epochs=0, **how)
    empty.setattr(recipes, "RECIPES", {"range": recipe})
    empty.setattr(first_batch, "warn", lambda advice: None)  # so few steps find nothing
    record = sweeps.run(recipe, 0)
    assert (record["test_accuracy"], record["precision"]) == (None, "float32")
    assert len(record["history"]["train_loss"]) == len(record["history"]["learning_rate"]) == 20
    assert record["flops"] == runs.training_flops(TINY) // (2 * 4500) * 20 * 100
    assert "| range | 1 | – |" in records.table()
    recipe.schedule_args.pop("steps")  # 100, as `lr_range_test` has it
    assert sweeps.run(recipe, 1)["flops"] == 5 * record["flops"]
    recipe.schedule_args["steps"] = 12
    with pytest.raises(ValueError, match="at least 17 steps to look for a fall in, found 12"):
        sweeps.run(recipe, 2)
    empty.setattr(processes, "world", lambda: 2)
    with pytest.raises(ValueError, match="range: a range test is for one process"):
        runs.range_test(recipe, 2)
    assert {path.name for path in files()} == {"seed0.json", "seed1.json"}


# ---- what was saved, verified ----


def test_saved_weights_are_verified_and_what_is_not_is_named(tiny, capsys):
    halved = read_tensors(records.weights_of("tiny", 0)).values()
    assert all(value.element_size() == 2 for value in halved if value.is_floating_point()), "half the space"
    sweeps.verify("tiny")
    said = capsys.readouterr().out
    assert "tiny seed 0: recorded" in said
    assert "not checked, as their weights are not saved: tiny (1)" in said
    shutil.rmtree(records.RECORDED / "tiny")
    with pytest.raises(
        RuntimeError, match="nothing to check: no run of a recipe that matches 'tiny' is recorded"
    ):
        sweeps.verify("tiny")


def change(seed=0, **entries):
    path = records.RECORDED / "tiny" / f"seed{seed}.json"
    records.write(records.read(path) | entries, path)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda weights: change(weights=None, test_accuracy=0.99), "has no hash of its weights"),
        (lambda weights: (weights.unlink(), change(weights=None)), "has no hash of its weights"),
        (lambda weights: shutil.copy(weights, weights.with_name("seed1.pt")), "tiny seed 1: the record has no hash"),
        (lambda weights: shutil.copy(weights, weights.with_name("seed5.pt")), "seed5.pt lies there without a record"),
        (lambda weights: weights.unlink(), r"seed0\.pt is not there: restore it, or"),
        (lambda weights: change(test_accuracy=0.99), "the weights reach .* says 99"),
        (lambda weights: change(six_views=0.99), "the weights reach .* in six views, the record says 99"),
        (lambda weights: change(date="yesterday"), "its date is none"),
        (lambda weights: runs.save_half(runs.build_network(TINY, 10), weights), "is not the file that was rec"),
        (lambda weights: change(parameters=123), "its parameters should be .*, the record says 123"),
        (lambda weights: change(seed=1, recipe=TINY.plain() | {"epochs": 9}), "has 9 epochs, its curves have 2"),
        (lambda weights: change(data={"train": "0", "test": "0"}), "its data should be"),
        (lambda weights: weights.with_name("seed1.json").write_text("{"), "seed1.json is not JSON"),
        (lambda weights: shutil.copytree(weights.parent, records.RECORDED / "gone"), "gone belongs to no recipe"),
    ],
)  # fmt: skip
def test_weights_that_do_not_fit_their_record_are_named(tiny, damage, says):
    damage(records.weights_of("tiny", 0))
    with pytest.raises(RuntimeError, match=says):
        sweeps.verify("*")


def test_data_that_cannot_be_had_are_one_failure_of_several(tiny):
    def missing(name, root=None):
        raise cifar.FetchError("no mirror answers")

    tiny.setattr(data, "load", missing)
    shutil.copytree(records.RECORDED / "tiny", records.RECORDED / "gone")
    with pytest.raises(RuntimeError, match="(?s)tiny seed 0: no mirror answers.*gone belongs to no recipe"):
        sweeps.verify("*")


def test_a_network_that_takes_its_weights_no_longer_is_one_failure_of_several(tiny):
    class Other(models.CustomResNet):
        def __init__(self, **args):
            super().__init__(**args)
            self.prep.append(nn.BatchNorm2d(args["widths"][0]))

    tiny.setattr(models, "CustomResNet", Other)
    (records.RECORDED / "gone").mkdir()
    (records.RECORDED / "gone" / "seed0.json").touch()
    with pytest.raises(
        RuntimeError, match=r"(?s)tiny seed 0: .* another architecture: prep.*gone belongs to no"
    ):
        sweeps.verify("*")


def test_a_weight_that_half_precision_cannot_hold_is_kept(tmp_path):
    network = runs.build_network(TINY, 10)
    with torch.no_grad():
        network.head.weight[0, 0] = 1e5
    runs.save_half(network, tmp_path / "seed0.pt")
    saved = read_tensors(tmp_path / "seed0.pt")
    assert saved["head.weight"][0, 0] == 1e5
    assert [name for name, w in saved.items() if w.dtype == torch.float32] == ["head.weight"]


def test_three_of_few_images_may_come_out_otherwise(tiny):
    said = records.of_recipe("tiny")[0]["test_accuracy"]  # of 200
    change(test_accuracy=said + 3 / 200)
    sweeps.verify("tiny")
    change(test_accuracy=said + 4 / 200)
    with pytest.raises(RuntimeError, match="the weights reach"):
        sweeps.verify("tiny")


def test_a_transfer_counts_only_on_the_weights_it_began_with(tiny):
    backbone = {"backbone": "tiny", "n_features": 8}
    transfer = replace(TINY, name="transfer", network="TransferNet", network_args=backbone)
    tiny.setattr(recipes, "RECIPES", {"tiny": TINY, "transfer": transfer})
    model, saved = runs.build_network(transfer, 10), runs.trained_network(TINY)
    assert model.backbone.prep[0].weight.equal(saved.prep[0].weight)
    assert not model.backbone.prep[0].weight.requires_grad
    sweeps.sweep("*", [0])
    assert sweeps.recorded(transfer, 0)
    training.seed_everything(1)
    runs.save_half(runs.build_network(TINY, 10), records.weights_of("tiny", 0))
    assert not sweeps.recorded(transfer, 0)
    assert "seed0.json does not count: backbone's weights: was" in records.table("transfer")
    records.weights_of("tiny", 0).unlink()
    with pytest.raises(FileNotFoundError, match="run tiny --seed 0` makes it"):
        runs.trained_network(TINY)


def test_a_cards_float32_is_no_tf32(empty, monkeypatch):
    """Neither in the test at the end, nor in a run that is said to be in float32."""
    convolutions, found = torch.backends.cudnn.conv, []
    before = convolutions.fp32_precision

    def note(*args, precision, **options):
        found.append((convolutions.fp32_precision, torch.backends.cudnn.enabled, precision))
        raise KeyboardInterrupt

    for name in ("evaluate", "fit"):
        monkeypatch.setattr(training, name, note)
    monkeypatch.setattr(runs.schedules, "lr_range_test", note)
    calls = [
        lambda: runs.test_accuracy(nn.Identity(), runs.Loaders(None, None, None, 10)),
        lambda: runs.train(replace(TINY, precision="float32"), 0),
        lambda: runs.range_test(replace(TINY, precision="float32", schedule_args={}), 0),
        lambda: runs.train(replace(TINY, precision="bfloat16"), 0),
    ]
    for call in calls:
        with pytest.raises(KeyboardInterrupt):
            call()
    assert found == [("ieee", True, "float32")] * 3 + [(before, True, "bfloat16")]
    assert convolutions.fp32_precision == before


def test_what_is_skipped_in_float16_leaves_the_momentum_alone():
    for precision, fused in (("float16", False), ("float32", True)):
        recipe = replace(
            TINY, optimizer="SGD", optimizer_args={"lr": 0.1, "momentum": 0.9}, precision=precision
        )
        group = runs.build_optimizer(recipe, runs.build_network(recipe, 10)).param_groups[0]
        assert bool(group["fused"]) == fused


@pytest.mark.parametrize(("device", "cards", "said"), [("cuda", 1, "1 card"), ("mps", 0, "0 card")])
def test_processes_that_would_share_a_card_are_refused(device, cards, said, monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_torchelastic_launched", lambda: True)
    monkeypatch.setattr(training, "pick_device", lambda: torch.device(device))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cards)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(ValueError, match=f"2 processes cannot share {said}.* set COURSE_DEVICE=cpu"):
        processes.start()
