"""The loop: it learns, repeats, stops, refuses, resumes, and leaves alone what it should."""

import copy
import math
import os
import platform
import re
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from course_utils import training
from course_utils.lab import checkpoints
from course_utils.data import ImageSet
from course_utils.data import BatchLoader
from course_utils.models import CustomResNet, Dropout, SmallNet
from course_utils.schedules import one_cycle
from course_utils.transforms import Augment

cross_entropy = nn.functional.cross_entropy


def tiny_set(n=96):
    """Three classes that differ in colour: learned in a few steps."""
    rng = np.random.default_rng(0)
    labels = np.arange(n, dtype=np.int64) % 3
    images = rng.integers(0, 120, (n, 32, 32, 3), dtype=np.uint8)
    images[np.arange(n), :, :, labels] += 100
    return ImageSet(images, labels, ("red", "green", "blue"), "colours train")


def tiny_net():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=4),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        Dropout(0.2),
        nn.Flatten(),
        nn.Linear(256, 3),
    )


def tiny_run(epochs=3, seed=0, planned=None, **options):
    """(model, history) of a short run with everything in it: augmentation, dropout, momentum, a schedule."""
    planned = planned or epochs
    training.seed_everything(seed)
    model = tiny_net()
    train = BatchLoader(tiny_set(), 16, augment=Augment(), shuffle=True, seed=seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    scheduler = one_cycle(optimizer, planned, len(train), 0.01, 0.05, peak_epoch=1)
    history = training.fit(
        model, train, BatchLoader(tiny_set(30), 10), cross_entropy, optimizer, scheduler, epochs=epochs,
        precision="float32", verbose=False, **options,
    )  # fmt: skip
    return model, history


def same_weights(a, b):
    return all(
        torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    )


def test_fit_lowers_the_loss():
    _, history = tiny_run(epochs=5)
    assert len(history) == 5
    assert history.train_loss[-1] < 0.5 * history.train_loss[0]
    assert history.validation_accuracy[-1] > 0.9
    assert history.learning_rate[0] == pytest.approx(0.01)
    assert history.learning_rate[1] == pytest.approx(0.05)
    assert all(seconds > 0 for seconds in history.seconds)


def test_fit_repeats_with_a_seed_and_differs_with_another():
    (a, first), (b, second), (c, _) = tiny_run(), tiny_run(), tiny_run(seed=1)
    assert same_weights(a, b)
    assert first.train_loss == second.train_loss
    assert not same_weights(a, c)


def test_the_loss_function_is_the_one_passed_in():
    model, loader = tiny_net(), BatchLoader(tiny_set(), 16)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    loss, _ = training.train_epoch(model, loader, lambda logits, labels: logits.sum() * 0 + 7, optimizer)
    assert loss == pytest.approx(7)


def test_scheduler_steps_once_a_batch():
    model, loader = tiny_net(), BatchLoader(tiny_set(), 16)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
    training.train_epoch(model, loader, cross_entropy, optimizer, scheduler)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1 * 0.5 ** len(loader))


def test_evaluation_leaves_the_model_as_it_was():
    model = tiny_net().train()
    model[1].eval()  # a frozen layer must stay frozen
    before, modes = copy.deepcopy(model), [m.training for m in model.modules()]
    accuracy = training.evaluate(model, BatchLoader(tiny_set(), 16))
    assert 0 <= accuracy <= 1
    assert same_weights(model, before)
    assert [m.training for m in model.modules()] == modes


def test_evaluation_builds_no_graph():
    seen = []
    model = tiny_net()
    model.register_forward_hook(lambda module, inputs, output: seen.append(output))
    training.evaluate(model, BatchLoader(tiny_set(), 16))
    training.predict(model, BatchLoader(tiny_set(), 16))
    assert seen
    assert not any(output.requires_grad for output in seen)


def test_means_weigh_every_image_the_same():
    """The last batch is smaller; a mean over batches would overrate it."""
    model, parts = tiny_net().eval(), tiny_set(50)
    whole = training.validate_epoch(model, BatchLoader(parts, 50), cross_entropy, precision="float32")
    parts = training.validate_epoch(model, BatchLoader(parts, 48), cross_entropy, precision="float32")
    assert whole == pytest.approx(parts, rel=1e-5)


def test_predict_and_confusion_matrix():
    model = tiny_net()
    probabilities, labels = training.predict(model, BatchLoader(tiny_set(), 16), precision="float32")
    assert probabilities.shape == (96, 3)
    assert np.allclose(probabilities.sum(1), 1, atol=1e-5)
    assert np.array_equal(labels, tiny_set().labels)
    accuracy = training.evaluate(model, BatchLoader(tiny_set(), 16), precision="float32")
    matrix = training.confusion_matrix(labels, probabilities.argmax(1), 3)
    assert matrix.sum(1).tolist() == [32, 32, 32]
    assert np.trace(matrix) / 96 == pytest.approx(accuracy)
    assert training.confusion_matrix(np.array([0, 2]), np.array([1, 2]), 3)[0, 1] == 1


def test_a_line_an_epoch_and_no_bar_in_a_log(capsys):
    training.seed_everything(0)
    model = tiny_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    loader = BatchLoader(tiny_set(), 16)
    training.fit(model, loader, loader, cross_entropy, optimizer, epochs=2)
    out, err = capsys.readouterr()
    head, *rows = out.splitlines()
    assert err == ""
    assert (head, len(rows)) == (training.HEAD, 2)
    assert rows[0].split()[0] == "1/2" and rows[0].split()[4] == "0.01"
    for row in rows:  # numbers end where the words of the head end
        assert [m.end() for m in re.finditer(r"\S+", row)] == [
            m.end() for m in re.finditer(r"\S+( \S+)*", head)
        ]


def test_no_validation_gives_nan_curves_and_dashes_in_print(capsys):
    model, loader = tiny_net(), BatchLoader(tiny_set(), 16)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    history = training.fit(model, loader, None, cross_entropy, optimizer, epochs=1)
    assert math.isnan(history.validation_loss[0])
    head, row = capsys.readouterr().out.splitlines()
    assert row.split()[2:4] == ["-", "-"] and len(row) == len(head)
    assert history.train_loss[0] > 0


def test_a_model_over_budget_is_refused():
    with pytest.raises(ValueError, match="996,376 trainable weights, over the budget of 500,000"):
        training.fit(SmallNet(), [], [], cross_entropy, None, epochs=1, max_parameters=500_000)


def test_fit_stops_at_its_time_budget(capsys):
    _, history = tiny_run(epochs=50, max_seconds=0.2)
    assert 1 <= len(history) < 50
    assert "budget of 0 s" in capsys.readouterr().out


@pytest.mark.parametrize("bad_step", [1, 5])
def test_the_first_loss_that_is_not_finite_is_named(bad_step):
    model, loader = tiny_net(), BatchLoader(tiny_set(), 16)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    steps = iter(range(1, 100))

    def loss_fn(logits, labels):
        return cross_entropy(logits, labels) * (math.nan if next(steps) >= bad_step else 1)

    with pytest.raises(training.Diverged, match=f"nan at batch {bad_step} of this epoch"):
        training.train_epoch(model, loader, loss_fn, optimizer)


def test_a_rate_far_too_high_is_reported_as_divergence():
    training.seed_everything(0)  # with some weights all ReLUs die at once, and nothing can diverge any more
    model, loader = tiny_net(), BatchLoader(tiny_set(), 16)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e30)
    with pytest.raises(training.Diverged, match="learning rate"):
        training.fit(model, loader, loader, cross_entropy, optimizer, epochs=3, verbose=False)


def test_bad_batches_are_refused():
    model = tiny_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with pytest.raises(ValueError, match="empty"):
        training.train_epoch(model, [], cross_entropy, optimizer)
    flat = [(torch.rand(4, 3072), torch.zeros(4, dtype=torch.long))]
    with pytest.raises(ValueError, match=r"expected a batch of images .* found \(4, 3072\)"):
        training.train_epoch(model, flat, cross_entropy, optimizer)
    short = [(torch.rand(4, 3, 32, 32), torch.zeros(3, dtype=torch.long))]
    with pytest.raises(ValueError, match=r"found \(4, 3, 32, 32\) and \(3,\)"):
        training.validate_epoch(model, short, cross_entropy)


# --- Precision


def test_unknown_precision_names_the_valid_ones():
    with pytest.raises(ValueError, match="'auto' or one of.*bfloat16"):
        training.pick_precision(torch.device("cpu"), "half")


def test_auto_precision_follows_the_hardware(monkeypatch):
    cpu, cuda, mps = (torch.device(name) for name in ("cpu", "cuda", "mps"))
    for supported, expected in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda supported=supported: supported)
        assert training.pick_precision(cpu) == expected
    for supported, expected in ((True, torch.bfloat16), (False, torch.float16)):
        monkeypatch.setattr(
            torch.cuda, "is_bf16_supported", lambda including_emulation=True, supported=supported: supported
        )
        assert training.pick_precision(cuda) == expected
    assert training.pick_precision(mps) == torch.float32


class RecordingScaler(torch.amp.GradScaler):
    """A gradient scaler that works as torch's does and notes what it is asked to do."""

    def __init__(self, **options):
        super().__init__("cpu", **options)
        self.asked = []

    def scale(self, loss):
        self.asked.append("scale")
        return super().scale(loss)

    def step(self, optimizer):
        self.asked.append("step")
        return super().step(optimizer)

    def update(self):
        self.asked.append("update")
        super().update()


def test_float16_goes_through_the_scaler_and_learns():
    model, loader, scaler = tiny_net(), BatchLoader(tiny_set(), 16), RecordingScaler(init_scale=2.0**8)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    losses = [
        training.train_epoch(model, loader, cross_entropy, optimizer, precision="float16", scaler=scaler)[0]
        for _ in range(5)
    ]
    assert scaler.asked == ["scale", "step", "update"] * 5 * len(loader)
    assert losses[-1] < 0.7 * losses[0]


def test_an_overflow_in_float16_skips_the_step_and_halves_the_scale():
    model, loader, scaler = tiny_net(), BatchLoader(tiny_set(16), 16), RecordingScaler(init_scale=2.0**40)
    before = copy.deepcopy(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    training.train_epoch(model, loader, cross_entropy, optimizer, precision="float16", scaler=scaler)
    for old, new in zip(before.parameters(), model.parameters(), strict=True):
        assert torch.equal(old, new), "infinite gradients must not reach the weights"
    assert scaler.get_scale() == 2.0**39


def test_only_float16_needs_a_scaler():
    for precision, needed in (("float16", True), ("bfloat16", False), ("float32", False)):
        assert training.gradient_scaler(tiny_net(), precision).is_enabled() == needed


class CountReads(TorchDispatchMode):
    """Counts the operations that make Python wait for a number from the device."""

    READS = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal")

    def __init__(self):
        super().__init__()
        self.reads = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.overloadpacket.__name__.removesuffix(".default") in self.READS:
            self.reads.append(str(function))
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("images", [48, 480])
def test_nothing_is_read_back_inside_a_step(images):
    """However many steps an epoch has, the device is asked for numbers at its end alone."""
    model = SmallNet(3, widths=(4, 4), hidden=8)
    batches = list(BatchLoader(tiny_set(images), 16, augment=Augment(), shuffle=True))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    with CountReads() as counted:
        training.train_epoch(model, batches, cross_entropy, optimizer)
    assert len(counted.reads) <= 4, counted.reads


# --- Checkpoints


def test_weights_survive_a_round_trip(tmp_path):
    model, other = tiny_net(), tiny_net()
    models.save_weights(model, tmp_path / "deep" / "weights.pt")
    models.load_weights(other, tmp_path / "deep" / "weights.pt")
    assert same_weights(model, other)
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["weights.pt"]


def test_weights_of_another_architecture_are_refused(tmp_path):
    models.save_weights(SmallNet(hidden=200), tmp_path / "weights.pt")
    with pytest.raises(
        ValueError, match=r"head\.1\.weight is expected as \(420, 2048\), found \(200, 2048\)"
    ):
        models.load_weights(SmallNet(), tmp_path / "weights.pt")


def test_a_file_that_runs_code_is_refused(tmp_path):
    torch.save(print, tmp_path / "evil.pt")
    with pytest.raises(ValueError, match=r"evil\.pt is damaged, or is no file of plain weights"):
        models.load_weights(tiny_net(), tmp_path / "evil.pt")


@pytest.mark.parametrize(
    "content", [b"", b"version https://git-lfs.github.com/spec/v1\n", b"PK\x03\x04 cut off"]
)
def test_a_file_that_is_no_weights_is_named(tmp_path, content):
    (tmp_path / "weights.pt").write_bytes(content)
    with pytest.raises(
        ValueError, match=r"weights\.pt is damaged, or is no file of plain weights: get or make it again"
    ):
        models.load_weights(tiny_net(), tmp_path / "weights.pt")


@pytest.mark.parametrize("state", [torch.ones(3), [torch.ones(3)], None])
def test_a_file_of_something_else_is_named(tmp_path, state):
    torch.save(state, tmp_path / "weights.pt")
    with pytest.raises(ValueError, match=r"weights\.pt is damaged, or is no file of plain weights"):
        models.load_weights(tiny_net(), tmp_path / "weights.pt")


def test_no_flipped_bit_goes_unnoticed(tmp_path):
    """Wherever the damage is, loading says so, or it is in a part of the file that holds no weight."""
    model, other, path = tiny_net(), tiny_net(), tmp_path / "weights.pt"
    models.save_weights(model, path)
    whole, refused = path.read_bytes(), 0
    for place in range(0, len(whole), 97):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        try:
            models.load_weights(other, path)
        except ValueError:
            refused += 1
        else:
            assert same_weights(model, other), f"byte {place}"
    assert refused > 30


def test_resume_gives_the_same_bits(tmp_path, capsys):
    whole, curves = tiny_run(epochs=4)

    class Stop(Exception):
        pass

    def stop_after_two(state, path, save=checkpoints.save):
        save(state, path)
        if len(state["history"]["seconds"]) == 2:
            raise Stop

    path = tmp_path / "run.pt"
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stop):
        patch.setattr(checkpoints, "save", stop_after_two)
        tiny_run(epochs=4, checkpoint=path)
    torch.rand(1000)
    resumed, continued = tiny_run(epochs=4, checkpoint=path)
    assert "continuing after epoch 2" in capsys.readouterr().out
    assert same_weights(whole, resumed)
    assert curves.train_loss == continued.train_loss
    assert curves.validation_loss == continued.validation_loss


def test_gradients_that_others_have_left_do_not_count():
    """An interrupted step leaves some, and so would a range test that did not tidy up."""
    training.seed_everything(0)
    models = [tiny_net(), tiny_net()]
    models[1].load_state_dict(models[0].state_dict())
    for weight in models[1].parameters():
        weight.grad = torch.full_like(weight, 1e6)
    for model in models:
        training.seed_everything(1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        training.train_epoch(
            model, BatchLoader(tiny_set(), 16), cross_entropy, optimizer, precision="float32"
        )
    assert same_weights(*models)


def in_two_parts(loader, epochs, path):
    """The weights of `epochs` epochs over `loader()` in one go, and of as many with a break in the middle."""
    models = []
    for parts in ([epochs], [epochs // 2, epochs]):
        for until in parts:
            training.seed_everything(0)
            model, optimizer = (net := tiny_net()), torch.optim.SGD(net.parameters(), lr=0.05)
            kept = path if len(parts) > 1 else None
            training.fit(
                model, loader(), None, cross_entropy, optimizer, epochs=until, precision="float32",
                verbose=False, checkpoint=kept,
            )  # fmt: skip
        models.append(model)
    return models


def test_a_loader_that_was_used_before_resumes_where_it_was(tmp_path):
    def used_loader():
        loader = BatchLoader(tiny_set(), 16, shuffle=True)
        next(iter(loader))
        return loader

    assert same_weights(*in_two_parts(used_loader, 4, tmp_path / "run.pt"))


def test_a_plain_list_of_batches_resumes(tmp_path):
    batches = list(BatchLoader(tiny_set(), 16))
    assert same_weights(*in_two_parts(lambda: batches, 4, tmp_path / "run.pt"))


def test_a_changed_tensor_is_damage_even_if_it_can_be_read(tmp_path, capsys):
    path = tmp_path / "run.pt"
    checkpoints.write({"weight": torch.ones(1000)}, path)
    content = path.read_bytes()
    middle = content.index(torch.ones(1000).numpy().tobytes()) + 2000
    path.write_bytes(content[:middle] + b"\x99" + content[middle + 1 :])
    assert not torch.equal(torch.load(path, weights_only=True)["weight"], torch.ones(1000)), "torch reads it"
    assert checkpoints.load(path) is None
    assert "run.pt is damaged (BadZipFile)" in capsys.readouterr().out


def test_weights_and_checkpoints_are_not_taken_for_each_other(tmp_path):
    tiny_run(epochs=2, checkpoint=tmp_path / "run.pt")
    with pytest.raises(ValueError, match=r"run\.pt holds more than weights .*is it a checkpoint of `fit`\?"):
        models.load_weights(tiny_net(), tmp_path / "run.pt")
    models.save_weights(tiny_net(), tmp_path / "weights.pt")
    with pytest.raises(ValueError, match=r"weights\.pt is no checkpoint .* it has no history"):
        tiny_run(epochs=2, checkpoint=tmp_path / "weights.pt")


@pytest.mark.parametrize("part", ["model", "optimizer", "scheduler", "scaler", "random"])
def test_a_checkpoint_without_one_of_its_parts_is_named(tmp_path, part):
    path = tmp_path / "run.pt"
    tiny_run(epochs=1, planned=2, checkpoint=path)
    state = torch.load(path, weights_only=True)
    del state[part]
    torch.save(state, path)
    with pytest.raises(ValueError, match=rf"run\.pt is no checkpoint of this `fit`: it has no {part}\."):
        tiny_run(epochs=2, checkpoint=path)


@pytest.mark.filterwarnings("error")
def test_the_first_steps_in_float16_are_not_skipped():
    """As on a graphics card without bfloat16. A skipped step makes torch warn of the scheduler behind it."""
    training.seed_everything(0)
    model, loader = CustomResNet(), BatchLoader(tiny_set(32), 16)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    scheduler = one_cycle(optimizer, 1, len(loader), 0.01, 0.05, peak_epoch=0.5)
    training.train_epoch(model, loader, cross_entropy, optimizer, scheduler, precision="float16")


def test_another_recipe_is_refused_with_both_named(tmp_path):
    tiny_run(checkpoint=tmp_path / "run.pt", recipe={"name": "mine"})
    with pytest.raises(ValueError, match=r"expected the recipe {'name': 'yours'}, found {'name': 'mine'}"):
        tiny_run(checkpoint=tmp_path / "run.pt", recipe={"name": "yours"})


def test_a_truncated_checkpoint_is_set_aside_and_the_one_before_used(tmp_path, capsys):
    whole, _ = tiny_run(epochs=3)
    path = tmp_path / "run.pt"
    tiny_run(epochs=3, checkpoint=path)
    path.write_bytes(path.read_bytes()[:-1000])
    resumed, _ = tiny_run(epochs=3, checkpoint=path)
    out = capsys.readouterr().out
    assert "run.pt is damaged" in out
    assert "continuing after epoch 2" in out
    assert (tmp_path / "run.pt.damaged").exists()
    assert same_weights(whole, resumed)


KILLED = """
    import sys
    sys.path.insert(0, {tests!r})
    from pathlib import Path
    from test_training import tiny_run
    tiny_run(epochs=2)  # what is imported and set up only once is behind us
    print("started", flush=True)
    tiny_run(epochs=100_000, checkpoint=Path(sys.argv[1]))
"""


def test_killed_at_random_moments_and_resumed(tmp_path):
    """SIGKILL while it trains or writes; whatever is left loads, and goes on to the very same weights."""
    path, script = tmp_path / "run.pt", tmp_path / "train.py"
    script.write_text(textwrap.dedent(KILLED).format(tests=os.path.dirname(__file__)))
    moments = np.random.default_rng(0).uniform(0.05, 0.6, 10)
    for moment in moments:
        run = subprocess.Popen([sys.executable, script, path], stdout=subprocess.PIPE, text=True)
        assert run.stdout.readline() == "started\n"
        with pytest.raises(subprocess.TimeoutExpired):
            run.wait(moment)
        run.kill()
        run.wait()
        run.stdout.close()
    state = checkpoints.load(path)
    reached = len(state["history"]["seconds"])
    assert 0 < reached < 100_000
    whole, curves = tiny_run(epochs=reached, planned=100_000)
    assert all(torch.equal(whole.state_dict()[name], tensor) for name, tensor in state["model"].items())
    assert curves.train_loss == state["history"]["train_loss"]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="speaks to Linux's C library")
def test_freed_memory_is_kept_for_the_next_batch():
    """Blocks of 64 MB that come and go cost no fresh pages (16,384 each) once they have been there."""
    program = """
    import resource
    import torch
    from course_utils import training

    machine.keep_freed_memory()
    for step in range(20):  # the first few still take what later ones come back to
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.zeros(2**24).add(1)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 1000
