"""Two processes started by torchrun do what one does: one driver for all of it, each process leaving what it found."""

import re
import subprocess
import sys
import textwrap

import pytest
import torch
from torch import nn

from course_utils import data, training
from course_utils.lab import machine, recipes, runs

DRIVER = """
    import sys
    from dataclasses import replace
    from pathlib import Path
    import torch
    from torch import nn
    from torch.nn.parallel import DistributedDataParallel
    from course_utils import data, models, training
    from course_utils.lab import processes, recipes, records, runs, sweeps

    torch.set_num_threads(1)
    training.pick_device = lambda: torch.device("cpu")
    out, network = Path(sys.argv[1]), {"widths": (8, 16, 32), "hidden": 64}
    recipe = replace(
        recipes.get("smallnet-best"), name="tiny", data="shapes10", network_args=network, epochs=2, batch_size=97,
        schedule_args={"lr_min": 0.01, "lr_max": 0.1, "peak_epoch": 1}, precision="float32",
    )
    records.RECORDED, recipes.RECIPES, recipes.KEPT = out / "recorded", {"tiny": recipe}, ("tiny",)
    few = tuple(data.take(part, n) for part, n in zip(data.load("shapes10"), (700, 300)))
    data.load = lambda name, root=None: few

    # 1. A run that is cut off after an epoch, and resumed.
    after_epoch, train, outcomes = runs.RunCheckpoint.after_epoch, runs.train, []

    def cut(self, run):
        after_epoch(self, run)
        raise InterruptedError

    runs.RunCheckpoint.after_epoch = cut
    try:
        sweeps.run(recipe, 0)
    except InterruptedError:
        runs.RunCheckpoint.after_epoch = after_epoch
    runs.train = lambda *given: outcomes.append(train(*given)) or outcomes[0]
    record = sweeps.run(recipe, 0)
    found = {"record": record, "weights": outcomes[0].model.state_dict(), "batches": len(runs.prepare(recipe, 0).train)}

    # 2. The gradient of one batch, in networks of the course's memory format and of torch's own.
    for name, net in (
        ("ours", models.SmallNet(10, batch_norm=False, conv_dropout=0, dense_dropout=0, **network)),
        ("own", nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.Flatten(), nn.Linear(3920, 10))),
    ):
        loader = runs.RunLoader(recipe, data.take(few[0], 60), 60, shuffle=True)
        found[f"{name} weights"] = {key: value.clone() for key, value in net.state_dict().items()}
        loss_fn = nn.CrossEntropyLoss()
        optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
        training.train_epoch(DistributedDataParallel(net), loader, loss_fn, optimizer, precision="float32")
        found[f"{name} stepped"] = net.state_dict()

    # 3. What is refused.
    refused = []
    for attempt in (lambda: sweeps.sweep("tiny", [0]), lambda: runs.RunLoader(recipe, data.take(few[0], 10), 7)):
        try:
            attempt()
        except ValueError as error:
            refused.append(str(error))
    torch.save(found | {"refused": refused}, out / f"{processes.rank()}.pt")
    processes.stop()
"""


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """What the two processes found, and what they printed."""
    if sys.platform == "win32":
        pytest.skip("torchrun needs libuv, which PyTorch's builds for Windows lack")
    out = tmp_path_factory.mktemp("two")
    (out / "driver.py").write_text(textwrap.dedent(DRIVER))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [*launcher, str(out / "driver.py"), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return [torch.load(out / f"{rank}.pt", weights_only=True) for rank in range(2)], done.stdout, out


def test_the_network_that_is_tested_is_the_one_that_is_saved(both, drawn, monkeypatch):
    """To the last image, BatchNorm's running statistics included; and its validation is the last of the curve."""
    (first, second), _, _ = both
    for name, value in first["weights"].items():
        assert value.equal(second["weights"][name]), name
    recipe = recipes.RECIPES["smallnet-best"]
    settings = {key: value for key, value in first["record"]["recipe"].items() if hasattr(recipe, key)}
    tiny = type(recipe)(**settings)
    few = tuple(data.take(part, n) for part, n in zip(drawn, (700, 300), strict=True))
    monkeypatch.setattr(data, "load", lambda name, root=None: few)
    loaders, model = runs.prepare(tiny, 0), runs.build_network(tiny, 10)
    model.load_state_dict(first["weights"])
    assert runs.test_accuracy(model, loaders) == first["record"]["test_accuracy"]
    validated = training.evaluate(model, loaders.validation, precision="float32")
    assert validated == first["record"]["history"]["validation_accuracy"][-1]


def test_both_have_one_history_and_leave_one_record(both):
    (first, second), printed, out = both
    assert first["record"]["history"] == second["record"]["history"]
    assert len(re.findall(r"^ +\d/2 ", printed, re.MULTILINE)) == 2, "the first process alone reports"
    assert printed.count("tiny seed 0: ") == 1
    assert [path.name for path in sorted(out.rglob("*.json"))] == ["seed0.json"]
    assert "2 × 1 thread," in machine.in_words(first["record"]["machine"], "float32")


def test_a_run_of_two_is_resumed(both):
    _, printed, _ = both
    assert printed.count("continuing after epoch 1 from seed0.checkpoint") == 2


@pytest.mark.parametrize("name", ["ours", "own"])
def test_two_processes_make_the_step_of_one(both, name, drawn, monkeypatch):
    (first, second), _, _ = both
    assert all(value.equal(second[f"{name} stepped"][key]) for key, value in first[f"{name} stepped"].items())
    few = data.take(data.take(drawn[0], 700), 60)
    images, labels = next(iter(runs.RunLoader(recipes.get("smallnet-best"), few, 60, shuffle=True)))
    if name == "ours":
        plain = {"batch_norm": False, "conv_dropout": 0, "dense_dropout": 0}
        net = runs.models.SmallNet(10, widths=(8, 16, 32), hidden=64, **plain)
    else:
        layers = nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.Flatten(), nn.Linear(3920, 10)
        net = nn.Sequential(*layers)
    net.load_state_dict(first[f"{name} weights"])
    nn.functional.cross_entropy(net(images), labels).backward()
    for key, weight in net.named_parameters():
        step = first[f"{name} weights"][key] - first[f"{name} stepped"][key]
        torch.testing.assert_close(step, weight.grad, rtol=1e-4, atol=1e-6, msg=key)


def test_what_two_processes_cannot_do_is_refused(both):
    (first, _), _, _ = both
    sweep, batch = first["refused"]
    assert "a sweep is for one process" in sweep
    assert batch.startswith("expected two images or more of each batch for each process, found a batch of 3")
