"""Checkpoints: a run that was cut off gives the same bits, another run is refused, and a wrong checksum is damage."""

import os
import re
import subprocess
import sys
import textwrap
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch
from test_training import Learned, cross_entropy, same_weights, sgd, tiny_net, tiny_run, tiny_set
from torch import nn
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader

from course_utils import training
from course_utils.data import BatchLoader, PerImageDataset
from course_utils.exercises.first_batch import TrainingWarning
from course_utils.lab import files
from course_utils.lab.checkpoints import Checkpoint
from course_utils.models import Dropout, SmallNet


class Cut(Exception):
    pass


class CutAfter(int):
    """A hook that ends a run after this epoch, as a lost session does."""

    def start(self, run): ...

    def after_epoch(self, run):
        if len(run.history) == self:
            raise Cut


def cut(path, epochs=2, of=4, **recipe):
    with pytest.raises(Cut):
        tiny_run(of, hooks=[Checkpoint(path, recipe or None), CutAfter(epochs)])


@pytest.fixture(scope="module")
def whole():
    """A run of four epochs that nothing has cut off."""
    return tiny_run(4)


def test_resume_gives_the_same_bits(tmp_path, capsys, whole):
    cut(tmp_path / "run.pt")
    torch.rand(1000)
    resumed, continued = tiny_run(4, hooks=[Checkpoint(tmp_path / "run.pt")])
    assert capsys.readouterr().out == "continuing after epoch 2 from run.pt\n"
    assert same_weights(whole[0], resumed)
    assert whole[1].train_loss == continued.train_loss
    assert whole[1].validation_loss == continued.validation_loss
    assert sorted(os.listdir(tmp_path)) == ["run.pt", "run.pt.previous"]


def fit(hooks, epochs, model=None, loader=None, optimizer=sgd, make=None, loss_fn=cross_entropy, **options):
    training.seed_everything(0)
    model = model or tiny_net()
    optimizer = optimizer(model)
    loader = loader or shuffled()
    options = {"epochs": epochs, "hooks": hooks, "precision": "float32", "verbose": False} | options
    training.fit(model, loader, loader, loss_fn, optimizer, make and make(optimizer), **options)
    return model


def shuffled(n=96, size=16):
    return BatchLoader(tiny_set(n), size, shuffle=True)


SCHEDULERS = {
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(o, 0.05, 24),
    "CyclicLR": lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.05, step_size_up=7),
    "MultiStepLR": lambda o: lr_scheduler.MultiStepLR(o, [1, 3]),
    "ReduceLROnPlateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=0),
    "CosineAnnealingWarmRestarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 3),
    "SequentialLR": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o, 0.1, total_iters=2), lr_scheduler.CosineAnnealingLR(o, 9)], [2]
    ),
    "StepLR with NumPy's numbers": lambda o: lr_scheduler.StepLR(o, np.int64(2), gamma=np.float32(0.3)),
}
SGD, AdamW, RATES = torch.optim.SGD, torch.optim.AdamW, np.geomspace(0.01, 0.1, 3)


def used():
    """A loader that was used before."""
    loader = shuffled()
    next(iter(loader))
    return loader


PARTS = {name: lambda make=make: {"make": make} for name, make in SCHEDULERS.items()} | {
    "AdamW": lambda: {"optimizer": lambda model: AdamW(model.parameters(), lr=0.01, amsgrad=True)},
    "NumPy's numbers": lambda: {"optimizer": lambda m: SGD(m.parameters(), RATES[1], np.float32(0.9))},
    "float16": lambda: {"precision": "float16"},
    "a list of batches": lambda: {"loader": list(BatchLoader(tiny_set(), 16))},
    "a used loader": lambda: {"loader": used()},
}


@pytest.mark.filterwarnings("ignore:the schedule is made for 24")
@pytest.mark.parametrize("parts", PARTS.values(), ids=PARTS)
def test_every_part_resumes_as_it_was(tmp_path, parts, capsys):
    one = fit([], 4, **parts())
    fit([Checkpoint(tmp_path / "run.pt")], 2, **parts())
    two = fit([Checkpoint(tmp_path / "run.pt")], 4, **parts())
    assert same_weights(one, two)
    assert capsys.readouterr().out == "continuing after epoch 2 from run.pt\n"
    assert not list(tmp_path.glob("*damaged*"))


@pytest.mark.filterwarnings("ignore:the schedule is made for 24")
def test_a_cell_that_is_run_again_goes_on(tmp_path):
    """With the very same model, optimizer and scheduler, which have moved on since: that is no other run."""
    model = tiny_net()
    optimizer = sgd(model)
    parts = model, shuffled(), None, cross_entropy, optimizer, lr_scheduler.OneCycleLR(optimizer, 0.05, 24)
    for epochs in (1, 1, 4):
        history = training.fit(*parts, epochs=epochs, hooks=[Checkpoint(tmp_path / "run.pt")], verbose=False)
    assert len(history) == 4


def test_a_finished_run_says_so_and_is_not_cut_short(tmp_path, capsys):
    """Three seeds in a loop over one path would be one run three times."""
    for _ in range(2):
        fit([Checkpoint(tmp_path / "run.pt")], 2)
    advice = "Delete the file to start anew, or give another path"
    assert capsys.readouterr().out == f"run.pt has all 2 epochs: nothing is left to train. {advice}\n"
    with pytest.raises(ValueError, match=rf"run\.pt is after 2 epochs, this run is to have 1\. {advice}"):
        fit([Checkpoint(tmp_path / "run.pt")], 1)


# --- Another run.


class Turning(BatchLoader):
    """A loader of somebody's own, as in the gallery of failures."""


NET, OTHER = tiny_net(), tiny_set(192).subset(np.arange(96, 192))
OTHERS = {
    "expected recipe name 'yours', found 'mine'": {"hooks": "yours"},
    r"expected optimizer groups lr 0\.1, found 0\.05": {"optimizer": lambda model: sgd(model, 0.1)},
    "expected optimizer type 'AdamW', found 'SGD'": {"optimizer": lambda model: AdamW(model.parameters())},
    "expected schedule .*StepLR.*, found None": {"make": lambda o: lr_scheduler.StepLR(o, 3)},
    "expected precision 'torch.bfloat16', found 'torch.float32'": {"precision": "bfloat16"},
    "expected data batch_size 32, found 16": {"loader": shuffled(size=32)},
    "expected data images 90, found 96": {"loader": shuffled(90)},
    "expected data contents": {"loader": BatchLoader(OTHER, 16, shuffle=True)},
    "expected data batches 6, found None": {"loader": list(BatchLoader(tiny_set(), 16))},
    "expected loader 'Turning', found 'BatchLoader'": {"loader": Turning(tiny_set(), 16, shuffle=True)},
    "expected loss .*Loss.*, found '<function cross_entropy>'": {"loss_fn": nn.CrossEntropyLoss()},
    r"expected model 3 p 0\.5, found 0\.2": {"model": nn.Sequential(*NET[:3], Dropout(0.5), *NET[4:])},
}


@pytest.mark.parametrize("message", OTHERS)
def test_another_run_is_refused_with_both_values(tmp_path, message):
    path, parts = tmp_path / "run.pt", dict(OTHERS[message])
    fit([Checkpoint(path, {"name": "mine"})], 1)
    hooks = [Checkpoint(path, {"name": parts.pop("hooks", "mine")})]
    message = f"checkpoint .*run.pt belongs to another run: {message}.*Delete the file"
    with pytest.raises(ValueError, match=message):
        fit(hooks, 2, **parts)


def test_other_layers_that_are_trained_are_another_run(tmp_path):
    frozen = tiny_net()
    frozen[0].requires_grad_(False)
    fit([Checkpoint(tmp_path / "run.pt")], 1, frozen)
    with pytest.raises(ValueError, match=r"expected trained 0\.weight True, found False"):
        fit([Checkpoint(tmp_path / "run.pt")], 2)


def test_a_loss_that_learns_goes_on_learning(tmp_path):
    def run(epochs, hooks):
        loss_fn = Learned()
        both = {"optimizer": lambda model: SGD([*model.parameters(), *loss_fn.parameters()], 0.05)}
        fit(hooks, epochs, loss_fn=loss_fn, **both)
        return loss_fn.scale.item()

    for epochs in (2, 4):
        found = run(epochs, [Checkpoint(tmp_path / "run.pt")])
    assert found == run(4, []) != 1
    fit([Checkpoint(tmp_path / "plain.pt")], 1, loss_fn=nn.CrossEntropyLoss())
    with pytest.raises(ValueError, match="belongs to another run: expected loss"):
        fit([Checkpoint(tmp_path / "plain.pt")], 2, loss_fn=Learned())


def test_other_images_in_a_data_loader_are_refused(tmp_path):
    whole, hooks = tiny_set(192), [Checkpoint(tmp_path / "run.pt")]

    def loader(part):
        images = whole.subset(np.arange(96) + part)
        transformed = PerImageDataset(images, lambda image: torch.from_numpy(image).permute(2, 0, 1) / 255)
        return DataLoader(transformed, 16, shuffle=True)

    fit(hooks, 1, loader=loader(0))
    with pytest.raises(ValueError, match="belongs to another run: expected data contents"):
        fit(hooks, 2, loader=loader(96))


def test_other_class_weights_another_schedule_and_more_epochs_than_it_has_are_refused(tmp_path):
    path = tmp_path / "weighted.pt"
    weighted = [nn.CrossEntropyLoss(weight=torch.tensor(w)) for w in ([1.0, 1, 1], [1.0, 2, 1])]
    fit([Checkpoint(path)], 1, loss_fn=weighted[0])
    with pytest.raises(ValueError, match=r"expected loss weights weight 2\.0, found 1\.0"):
        fit([Checkpoint(path)], 2, loss_fn=weighted[1])
    path = tmp_path / "run.pt"
    tiny_run(2, hooks=[Checkpoint(path)])
    with pytest.raises(ValueError, match="checkpoint .* expected schedule total_steps 24, found 12"):
        tiny_run(4, hooks=[Checkpoint(path)])
    with pytest.raises(
        ValueError, match=r"ends after 12 batches, .* 6 batches, as len\(loader\) says.* checkpoint"
    ):
        tiny_run(4, planned=2, hooks=[Checkpoint(path)])


def test_a_finished_run_still_knows_what_it_was_trained_on(tmp_path):
    scaled = BatchLoader(tiny_set(), 48, shuffle=True, mean=(0.4,) * 3, std=(0.2,) * 3)
    for _ in range(2):  # the second time nothing is left to train
        model = tiny_net()
        options = {"epochs": 1, "verbose": False, "hooks": [Checkpoint(tmp_path / "run.pt")]}
        training.fit(model, scaled, None, cross_entropy, sgd(model), **options)
        with pytest.warns(TrainingWarning, match="training and measuring normalise differently"):
            training.evaluate(model, BatchLoader(tiny_set(), 48))


def test_a_deleted_file_starts_anew_whatever_lies_beside_it(tmp_path, capsys, whole):
    path = tmp_path / "run.pt"
    cut(path, name="mine")
    path.unlink()
    cut(path, epochs=1, name="yours")
    assert "continuing" not in capsys.readouterr().out
    assert not Checkpoint(path).previous.exists(), "that of another run"
    resumed, _ = tiny_run(4, hooks=[Checkpoint(path, {"name": "yours"})])
    assert same_weights(resumed, whole[0])


def test_weights_and_checkpoints_are_not_taken_for_each_other(tmp_path):
    cut(tmp_path / "run.pt")
    with pytest.raises(ValueError, match=r"run\.pt holds more than weights .*is it a checkpoint of `fit`\?"):
        files.load_weights(tiny_net(), tmp_path / "run.pt")
    files.save_weights(tiny_net(), tmp_path / "weights.pt")
    with pytest.raises(ValueError, match=r"weights\.pt is no checkpoint: it has no about, history"):
        tiny_run(hooks=[Checkpoint(tmp_path / "weights.pt")])


def test_weights_are_a_networks(tmp_path):
    model, path = tiny_net(), tmp_path / "weights.pt"
    for save in (
        lambda: files.save_weights(model.state_dict(), path),
        lambda: files.load_weights(path, model),
    ):
        with pytest.raises(ValueError, match="expected a network first, as SmallNet.. makes one, found"):
            save()


# --- Refused before the first batch.

Point = namedtuple("Point", "x y")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (Path("/x"), r"\['about'\]\['recipe'\]\['value'\], a \w*Path"),
        ({"a", "b"}, "a set"),
        (torch.float32, "a dtype"),
        ([1, range(3)], r"\['value'\]\[1\], a range"),
        (np.arange(3), "a ndarray"),
        (BatchLoader, "a type"),
        (float("nan"), "expected a number for recipe value, found NaN"),
        ([np.float64("nan")], "expected a number for recipe value, found NaN"),
    ],
)
def test_a_recipe_that_could_not_be_read_back(tmp_path, value, said):
    model = tiny_net()
    before = [weight.clone() for weight in model.parameters()]
    with pytest.raises(ValueError, match=said):
        fit([Checkpoint(tmp_path / "run.pt", {"value": value})], 1, model)
    assert all(map(torch.equal, before, model.parameters()))
    assert os.listdir(tmp_path) == []


def test_a_recipe_of_plain_values_and_numpys_numbers_and_a_path_from_home(tmp_path, monkeypatch):
    recipe = {"lr": np.float64(0.1), "n": np.int64(3), "on": np.True_, "w": (1, [2]), "none": None}
    recipe["p"] = Point(1, 2)
    for home in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(home, str(tmp_path))
    for epochs in (1, 2):
        fit([Checkpoint("~/run.pt", recipe)], epochs)
    assert files.read_tensors(tmp_path / "run.pt")["about"]["recipe"]["p"] == (1, 2)


PLACES = ["file/run.pt", "folder", *(["/proc/run.pt"] if sys.platform == "linux" else [])]


@pytest.mark.parametrize("place", PLACES)
def test_a_path_that_cannot_be_written_is_found_before_the_first_batch(tmp_path, place):
    (tmp_path / "file").write_text("a file where a folder should be")
    (tmp_path / "folder").mkdir()
    model = tiny_net()
    before = [weight.clone() for weight in model.parameters()]
    with pytest.raises(ValueError, match=f"checkpoint .*{re.escape(str(Path(place)))} cannot be written"):
        fit([Checkpoint(tmp_path / place)], 1, model)
    assert all(map(torch.equal, before, model.parameters()))


# --- Damage.


def test_a_damaged_file_is_set_aside_and_the_one_before_used(tmp_path, capsys, whole):
    path = tmp_path / "run.pt"
    cut(path, epochs=3)
    sound = path.read_bytes()
    for n, content in enumerate((sound[:-1000], b"x", sound[:5000] + b"\x99" + sound[5001:])):
        path.write_bytes(content)
        with pytest.raises(Cut):
            tiny_run(4, hooks=[Checkpoint(path), CutAfter(3)])
        aside = f"run.pt.damaged{n + 1 if n else ''}"
        said = f"run.pt is damaged: set aside as {aside}\ncontinuing after epoch 2 from run.pt.previous\n"
        assert capsys.readouterr().out == said
        assert (tmp_path / aside).read_bytes() == content
    resumed, _ = tiny_run(4, hooks=[Checkpoint(path)])
    assert same_weights(whole[0], resumed)


def test_two_damaged_files_start_the_run_anew(tmp_path, capsys):
    path = tmp_path / "run.pt"
    cut(path)
    for name in ("run.pt", "run.pt.previous"):
        (tmp_path / name).write_bytes(b"")
    cut(path, epochs=1)
    out = capsys.readouterr().out
    assert "run.pt is damaged" in out and "run.pt.previous is damaged" in out and "continuing" not in out


def in_python(program, **values):
    """What a new process prints that runs `program` with this module's names."""
    start = f"import sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\n"
    start += (
        "from test_checkpoints import *\ntorch.set_num_threads(1)\n"  # as here; and more cannot be forked
    )
    program = start + textwrap.dedent(program).format(**values)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


LITTLE_MEMORY = """
    import resource
    fit([], 1)  # what is imported only once is behind us
    for megabytes in (20, 40, 60, 80):
        model = SmallNet(3, hidden=4000)
        now = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + megabytes * 1_000_000, resource.RLIM_INFINITY))
        try:
            fit([Checkpoint({path!r})], 2, model)
        except (MemoryError, RuntimeError) as error:
            assert isinstance(error, MemoryError) or "allocate memory" in str(error), error
            resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            print("short of memory")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's /proc")
def test_memory_that_is_short_is_no_damage(tmp_path):
    path = tmp_path / "run.pt"
    fit([Checkpoint(path)], 1, SmallNet(3, hidden=4000))  # 33 MB of weights, and as much of momentum
    before = path.read_bytes()
    assert in_python(LITTLE_MEMORY, path=str(path)).count("short of memory") == 4
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["run.pt"]


KILLED = """
    import os, signal, time
    tiny_run(2)
    for moment in np.random.default_rng(0).uniform(0.05, 0.6, 10):
        if not (child := os.fork()):
            tiny_run(100_000, hooks=[Checkpoint({path!r})])
        while not os.path.exists({path!r}):
            time.sleep(0.01)
        time.sleep(moment)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="forks a process that has used torch")
def test_killed_at_random_moments_and_resumed(tmp_path):
    """SIGKILL while it trains or writes; whatever is left loads, and goes on to the very same weights."""
    said = in_python(KILLED, path=str(tmp_path / "run.pt"))
    resumed = [int(epoch) for epoch in re.findall(r"continuing after epoch (\d+) from run\.pt", said)]
    state = files.read_tensors(tmp_path / "run.pt")
    reached = len(state["history"]["seconds"])
    assert 10 < reached < 100_000
    assert resumed and resumed == sorted(resumed) and resumed[-1] <= reached
    assert not list(tmp_path.glob("*damaged*"))
    whole, curves = tiny_run(reached, planned=100_000)
    assert all(torch.equal(whole.state_dict()[name], tensor) for name, tensor in state["model"].items())
    assert curves.train_loss == state["history"]["train_loss"]
