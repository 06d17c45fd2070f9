"""The loop: it learns, repeats, steps each schedule as it counts, and leaves alone what it should."""

import copy
import io
import math
import re
import sys
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler
from torch.optim.lr_scheduler import LinearLR
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from course_utils import training
from course_utils.data import BatchLoader, ImageSet
from course_utils.exercises.first_batch import TrainingWarning
from course_utils.models import CustomResNet, Dropout, SmallNet
from course_utils.schedules import one_cycle
from course_utils.transforms import Augment

cross_entropy = nn.functional.cross_entropy


def tiny_set(n=96):
    """Three classes that differ in colour: learned in a few steps."""
    rng = np.random.default_rng(n)
    labels = np.arange(n, dtype=np.int64) % 3
    images = rng.integers(0, 120, (n, 32, 32, 3), dtype=np.uint8)
    images[np.arange(n), :, :, labels] += 100
    return ImageSet(images, labels, ("red", "green", "blue"), "colours train")


def tiny_net():
    features = [nn.Conv2d(3, 4, 3, stride=4), nn.BatchNorm2d(4), nn.ReLU(), Dropout(0.2)]
    return nn.Sequential(*features, nn.Flatten(), nn.Linear(256, 3))


def sgd(model, lr=0.05):
    return torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)


class Learned(nn.CrossEntropyLoss):
    """A loss with a weight of its own."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, logits, labels):
        return super().forward(self.scale * logits, labels)


def tiny_run(epochs=3, seed=0, planned=None, hooks=(), **options):
    """(model, history) of a short run with everything in it: augmentation, dropout, momentum, a schedule."""
    training.seed_everything(seed)
    model = tiny_net()
    train = BatchLoader(tiny_set(), 16, augment=Augment(), shuffle=True, seed=seed)
    optimizer = sgd(model)
    scheduler = one_cycle(optimizer, planned or epochs, len(train), 0.01, 0.05, peak_epoch=1)
    options = {"epochs": epochs, "precision": "float32", "verbose": False, "hooks": hooks} | options
    loss_fn, validation = nn.CrossEntropyLoss(label_smoothing=0.1), BatchLoader(tiny_set(30), 10)
    with warnings.catch_warnings():
        if planned:  # a part of a longer run
            warnings.filterwarnings("ignore", "the schedule is made for")
        return model, training.fit(model, train, validation, loss_fn, optimizer, scheduler, **options)


def same_weights(a, b):
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


def test_fit_lowers_the_loss_and_hooks_see_each_epoch():
    class Seen(list):
        def start(self, run):
            self.append(len(run.history))

        def after_epoch(self, run):
            self.append(len(run.history))

    seen = Seen()
    _, history = tiny_run(epochs=5, hooks=[seen])
    assert seen == [0, 1, 2, 3, 4, 5]
    assert history.train_loss[-1] < 0.8 * history.train_loss[0]
    assert history.validation_accuracy[-1] > 0.9
    assert history.learning_rate[:2] == pytest.approx([0.01, 0.05])
    assert all(seconds > 0 for seconds in history.seconds)


def test_a_peak_within_the_first_epoch_may_be_a_share():
    def run(epochs, peak_epoch, lr_min=0.01):
        model, loader = tiny_net(), BatchLoader(tiny_set(), 16)
        optimizer = sgd(model)
        scheduler = one_cycle(optimizer, epochs, len(loader), lr_min, 0.05, peak_epoch)
        training.fit(model, loader, None, cross_entropy, optimizer, scheduler, epochs=epochs, verbose=False)

    run(4, 0.8)  # a fifth of the epochs
    run(5, 1)
    run(5, 0.3, lr_min=0.05)  # it begins at its peak
    with pytest.warns(
        UserWarning, match="peaks in the first of 5 epochs: one_cycle's peak_epoch counts epochs; if a share"
    ):
        run(5, 0.3)


def test_fit_repeats_with_a_seed_and_differs_with_another():
    (a, first), (b, second), (c, _) = tiny_run(), tiny_run(), tiny_run(seed=1)
    assert same_weights(a, b)
    assert first.train_loss == second.train_loss
    assert not same_weights(a, c)


# --- Schedules: torch's own loop is the oracle.


@pytest.mark.parametrize(
    ("make", "per_batch"),
    [
        (lambda o: lr_scheduler.CosineAnnealingLR(o, 4), False),
        (lambda o: lr_scheduler.StepLR(o, 2, 0.2), False),
        (lambda o: lr_scheduler.ExponentialLR(o, 0.5), False),
        (lambda o: lr_scheduler.LambdaLR(o, lambda epoch: 1 / (1 + epoch)), False),
        (lambda o: lr_scheduler.ChainedScheduler([LinearLR(o), lr_scheduler.StepLR(o, 3)], o), False),
        (lambda o: lr_scheduler.OneCycleLR(o, 0.1, 4 * 6), True),
        (lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.1, step_size_up=9), True),
        (lambda o: one_cycle(o, 4, 6, 0.01, 0.1, peak_epoch=1), True),
    ],
)
def test_a_scheduler_is_stepped_as_it_counts(make, per_batch):
    model, loader = tiny_net(), BatchLoader(tiny_set(), 16, shuffle=True)
    optimizer, other = sgd(model), torch.optim.SGD([nn.Parameter(torch.zeros(1))], 0.05, momentum=0.9)
    expected, by_hand = [], make(other)
    for _ in range(4):
        expected.append(other.param_groups[0]["lr"])
        for _ in range(len(loader) if per_batch else 1):
            other.step()
            by_hand.step()
    parts = model, loader, None, cross_entropy, optimizer, make(optimizer)
    assert training.fit(*parts, epochs=4, verbose=False).learning_rate == expected


def test_a_plateau_that_waits_for_a_maximum_is_told_the_accuracy():
    model, loader = tiny_net(), BatchLoader(tiny_set(), 16)
    told, scheduler = [], lr_scheduler.ReduceLROnPlateau(optimizer := sgd(model), mode="max")
    scheduler.step = told.append
    history = training.fit(
        model, loader, loader, cross_entropy, optimizer, scheduler, epochs=2, verbose=False
    )
    assert told == history.validation_accuracy


def test_a_plateau_is_told_the_validation_loss():
    model, loader = tiny_net(), BatchLoader(tiny_set(), 16)
    optimizer = sgd(model)
    scheduler = lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.1, patience=0)
    found = iter([2] * 6 + [1] * 6 + [1.5] * 6 + [1] * 6)  # in validation, in each batch of four epochs

    def loss_fn(logits, labels):
        return logits.sum() * 0 + (7 if model.training else next(found))

    history = training.fit(model, loader, loader, loss_fn, optimizer, scheduler, epochs=4, verbose=False)
    assert (history.train_loss, history.validation_loss) == ([7] * 4, [2, 1, 1.5, 1])
    assert history.learning_rate == pytest.approx([0.05, 0.05, 0.05, 0.005])


# --- Evaluation.


def test_evaluation_leaves_the_model_as_it_was_and_builds_no_graph():
    seen, model = [], tiny_net().train()
    model[1].eval()  # a frozen layer must stay frozen
    model.register_forward_hook(lambda module, inputs, output: seen.append(output.requires_grad))
    before, modes = copy.deepcopy(model.state_dict()), [m.training for m in model.modules()]
    accuracy = training.evaluate(model, BatchLoader(tiny_set(), 16))
    training.predict(model, BatchLoader(tiny_set(), 16))
    assert 0 <= accuracy <= 1
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert [m.training for m in model.modules()] == modes
    assert len(seen) == 12 and not any(seen)


def test_means_weigh_every_image_the_same():
    """The last batch is smaller; a mean over batches would overrate it."""
    model, images = tiny_net().eval(), tiny_set(50)
    whole = training.validate_epoch(model, BatchLoader(images, 50), cross_entropy, precision="float32")
    parts = training.validate_epoch(model, BatchLoader(images, 48), cross_entropy, precision="float32")
    assert whole == pytest.approx(parts, rel=1e-5)


def test_predict_agrees_with_evaluate():
    model, loader = tiny_net(), BatchLoader(tiny_set(), 16)
    probabilities, labels = training.predict(model, loader, precision="float32")
    assert (probabilities.shape, probabilities.dtype) == ((96, 3), np.float32)
    assert np.allclose(probabilities.sum(1), 1, atol=1e-5)
    assert np.array_equal(labels, tiny_set().labels)
    assert (probabilities.argmax(1) == labels).mean() == training.evaluate(model, loader, "float32")
    without_weights = nn.Sequential(nn.AvgPool2d(32), nn.Flatten())  # the mean colours are the logits
    assert training.evaluate(without_weights, loader) == 1


# --- What is printed.


@pytest.mark.parametrize(
    ("looks", "drawn"),
    [({}, False), ({"isatty": lambda self: True}, True), ({"__module__": "ipykernel.iostream"}, True)],
)
def test_a_bar_is_drawn_where_somebody_looks_on(looks, drawn, monkeypatch):
    asked = []

    def bar(loader, *_, **options):
        asked.append(options)
        return loader

    monkeypatch.setattr(sys, "stdout", type("Out", (io.StringIO,), looks)())
    monkeypatch.setattr(training, "tqdm", bar)
    training.evaluate(tiny_net(), BatchLoader(tiny_set(), 16))
    assert len(asked) == drawn
    # TQDM_DISABLE decides about the rest, as it does for nbval.
    assert not any("disable" in options for options in asked)


def test_a_line_an_epoch_and_no_bar_in_a_log(capsys):
    model, loader = tiny_net(), BatchLoader(tiny_set(), 16)
    for validation, blanks in ((loader, 0), (None, 2)):
        history = training.fit(model, loader, validation, cross_entropy, sgd(model, 0.01), epochs=2)
        out, err = capsys.readouterr()
        head, *rows = out.splitlines()
        assert (err, head, len(rows)) == ("", training.HEAD, 2)
        assert rows[0].split()[0] == "1/2" and rows[0].split()[4] == "0.01"
        assert rows[0].split().count("-") == blanks
        assert math.isnan(history.validation_loss[0]) == (validation is None)
        for row in rows:  # numbers end where the words of the head end
            ends = [m.end() for m in re.finditer(r"\S+( \S+)*", head)]
            assert validation is None or [m.end() for m in re.finditer(r"\S+", row)] == ends
            assert len(row) == len(head)


def test_a_hook_may_exchange_the_loader():
    class NoMoreAugmentation:
        def start(self, run):
            pass

        def after_epoch(self, run):
            run.loader = plain

    plain = BatchLoader(tiny_set(), 16, shuffle=True)
    tiny_run(epochs=3, hooks=[NoMoreAugmentation()])
    assert plain.epoch == 2


# --- Divergence.


@pytest.mark.parametrize(("bad_step", "said"), [(1, "batch 6"), (55, "batch 100")])
def test_a_loss_that_is_not_finite_ends_the_epoch(bad_step, said):
    model, steps = tiny_net(), iter(range(1, 1000))
    loader = BatchLoader(tiny_set(), 16) if bad_step == 1 else BatchLoader(tiny_set(480), 4)

    def loss_fn(logits, labels):
        return cross_entropy(logits, labels) * (math.nan if next(steps) >= bad_step else 1)

    with pytest.raises(training.Diverged, match=f"nan by {said} of this epoch.*learning rate"):
        training.train_epoch(model, loader, loss_fn, sgd(model))


# --- Precision.


def test_auto_precision_follows_the_hardware(monkeypatch):
    cpu, cuda, mps = (torch.device(name) for name in ("cpu", "cuda", "mps"))
    for fast, on_cpu, on_cuda in ((True, "bfloat16", "bfloat16"), (False, "float32", "float16")):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda fast=fast: fast)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True, fast=fast: fast)
        assert training.pick_precision(cpu) == getattr(torch, on_cpu)
        assert training.pick_precision(cuda) == getattr(torch, on_cuda)
    assert training.pick_precision(mps) == torch.float32
    with pytest.raises(ValueError, match="'auto' or one of.*bfloat16"):
        training.pick_precision(cpu, "half")


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")]
)
def test_the_fastest_device_is_picked(cuda, mps, expected, monkeypatch):
    pretend(monkeypatch, cuda, mps)
    assert training.pick_device().type == expected


def pretend(monkeypatch, cuda=False, mps=False, card=(8, 0), built_for=None, macos=15, version="2.14.1"):
    """That this computer has a graphics card, or is a Mac."""
    monkeypatch.delenv("COURSE_DEVICE", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: built_for or ["sm_75", "sm_90a", "compute_120"])
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: card)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla P100")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    monkeypatch.setattr(torch.backends.mps, "is_macos_or_newer", lambda major, minor: macos >= major)
    monkeypatch.setattr(torch, "__version__", type(torch.__version__)(version))


@pytest.mark.parametrize(
    ("there", "said"),
    [
        (
            {"cuda": True, "card": (6, 0)},
            "has no code for Tesla P100, so the processor trains: an older PyTorch",
        ),
        (
            {"mps": True, "version": "2.13.0"},
            "trains from PyTorch 2.14 and macOS 15 on, so here the processor",
        ),
        ({"mps": True, "macos": 14}, "trains from PyTorch 2.14 and macOS 15 on, so here the processor"),
    ],
    ids=["an old card", "an old torch", "an old macOS"],
)
def test_a_device_that_this_torch_cannot_train_on_is_left_alone(there, said, monkeypatch):
    pretend(monkeypatch, **there)
    with pytest.warns(TrainingWarning, match=said):
        assert training.pick_device().type == "cpu"


def test_a_card_by_amd_has_other_names(monkeypatch):
    pretend(monkeypatch, cuda=True, built_for=["gfx90a"])
    assert training.pick_device().type == "cuda"


def test_the_device_can_be_named(monkeypatch):
    pretend(monkeypatch, cuda=True)
    for name in ("cpu", "cuda"):
        monkeypatch.setenv("COURSE_DEVICE", name)
        assert training.pick_device().type == name
    for name, said in (
        ("gpu", "unknown device 'gpu' in COURSE_DEVICE: use 'cpu', 'cuda'"),
        ("mps", "finds none here"),
    ):
        monkeypatch.setenv("COURSE_DEVICE", name)
        with pytest.raises(ValueError, match=said):
            training.pick_device()


def test_float16_goes_through_the_scaler_and_learns():
    training.seed_everything(0)
    model, loader = tiny_net(), BatchLoader(tiny_set(), 16)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8, growth_interval=6)  # doubles after each epoch
    optimizer, options = sgd(model, 0.02), {"precision": "float16", "scaler": scaler}
    losses = [training.train_epoch(model, loader, cross_entropy, optimizer, **options)[0] for _ in range(5)]
    assert scaler.get_scale() == 2.0**13
    assert losses[-1] < 0.7 * losses[0]


def test_an_overflow_in_float16_skips_the_step_and_halves_the_scale():
    model, loader = tiny_net(), BatchLoader(tiny_set(16), 16)
    scaler, before = torch.amp.GradScaler("cpu", init_scale=2.0**40), copy.deepcopy(list(model.parameters()))
    training.train_epoch(model, loader, cross_entropy, sgd(model), precision="float16", scaler=scaler)
    assert all(map(torch.equal, before, model.parameters())), "infinite gradients must not reach the weights"
    assert scaler.get_scale() == 2.0**39


def test_only_float16_needs_a_scaler_and_its_first_steps_are_not_skipped():
    """As on a graphics card without bfloat16. A skipped step makes torch warn of the scheduler behind it."""
    for precision, needed in (("float16", True), ("bfloat16", False), ("float32", False)):
        assert training.grad_scaler(tiny_net(), precision).is_enabled() == needed
    training.seed_everything(0)
    model, loader = CustomResNet(widths=(16, 32, 64, 128)), BatchLoader(tiny_set(32), 16)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    scheduler = one_cycle(optimizer, 1, len(loader), 0.01, 0.05, peak_epoch=0.5)
    training.train_epoch(model, loader, cross_entropy, optimizer, scheduler, precision="float16")


# --- What it costs, and what it leaves alone.


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


def test_no_copy_to_the_cpu_is_used_before_it_is_complete():
    model, found = tiny_net(), []

    class Moves(TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            if function is torch.Tensor.to:
                found.append((kwargs or {}).get("non_blocking", False))
            return function(*args, **(kwargs or {}))

    with Moves():
        training.train_epoch(model, BatchLoader(tiny_set(), 48), cross_entropy, sgd(model))
    assert found and not any(found)


def test_nothing_is_read_back_inside_a_step():
    """However many steps an epoch has, the device is asked for numbers of its first batch and its end alone."""
    model, reads = SmallNet(3, widths=(4, 4), hidden=8), []
    for n in (48, 480):
        batches = list(BatchLoader(tiny_set(n), 16, augment=Augment(), shuffle=True))
        with CountReads() as counted:
            training.train_epoch(model, batches, cross_entropy, sgd(model))
        reads.append(len(counted.reads))
    assert 0 < reads[0] == reads[1] < 20


def test_gradients_that_others_have_left_do_not_count():
    """An interrupted step leaves some, and so would a range test that did not tidy up."""
    training.seed_everything(0)
    models = [tiny_net(), tiny_net()]
    models[1].load_state_dict(models[0].state_dict())
    for weight in models[1].parameters():
        weight.grad = torch.full_like(weight, 1e6)
    for model in models:
        training.seed_everything(1)
        parts = model, BatchLoader(tiny_set(), 16), cross_entropy, sgd(model)
        training.train_epoch(*parts, precision="float32")
    assert same_weights(*models)


class Tutorial(nn.Module):
    """Flattens as many a tutorial does, which needs images that are contiguous."""

    def __init__(self, seen):
        super().__init__()
        self.conv, self.fc, self.seen = nn.Conv2d(3, 6, 5), nn.Linear(6 * 7 * 7, 3), seen

    def forward(self, x):
        self.seen.add(x.is_contiguous())
        return self.fc(nn.functional.max_pool2d(self.conv(x).relu(), 4).view(-1, 6 * 7 * 7))


def test_a_network_of_ones_own_gets_contiguous_images_and_keeps_its_memory_format():
    model, loader = Tutorial(seen := set()), BatchLoader(tiny_set(), 16)
    training.fit(model, loader, loader, cross_entropy, sgd(model), epochs=1, verbose=False)
    training.predict(model, loader)
    assert seen == {True}
    assert model.conv.weight.is_contiguous()


def test_the_courses_networks_get_channels_last_images_from_any_loader():
    model, seen = SmallNet(3, widths=(4, 4), hidden=8), set()
    model.features[0].register_forward_pre_hook(
        lambda _, x: seen.add(x[0].is_contiguous(memory_format=torch.channels_last))
    )
    ordinary = [(torch.rand(16, 3, 32, 32), torch.arange(16) % 3)] * 2
    training.fit(model, ordinary, ordinary, cross_entropy, sgd(model), epochs=1, verbose=False)
    assert seen == {True}


def test_a_rate_in_a_tensor_is_noted_as_it_was():
    """Torch's tutorial on compiling an optimizer keeps the rate in one; a schedule changes it in place."""
    model, loader = tiny_net(), BatchLoader(tiny_set(), 16)
    optimizer = torch.optim.SGD(model.parameters(), lr=torch.tensor(0.1))
    halves = lr_scheduler.StepLR(optimizer, 1, 0.5)
    history = training.fit(model, loader, None, cross_entropy, optimizer, halves, epochs=3, verbose=False)
    assert history.learning_rate == pytest.approx([0.1, 0.05, 0.025])
