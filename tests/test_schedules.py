"""Rates against the published log, and a range test that leaves no trace and suggests what it has tested."""

import json
import math
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from test_training import Learned
from torch import nn

from course_utils import schedules
from course_utils.exercises.first_batch import TrainingError, TrainingWarning
from course_utils.schedules import RangeTest, lr_range_test, one_cycle, rates_of

# The rate at the start of each of the assignment's 24 epochs, as its log printed them.
PUBLISHED_RATES = [
    "3.2e-06", "6.656e-05", "1.2992e-04", "1.9328e-04", "2.5664e-04", "3.2000e-04", "3.0333e-04", "2.8665e-04",
    "2.6998e-04", "2.5331e-04", "2.3663e-04", "2.1996e-04", "2.0326e-04", "1.8659e-04", "1.6992e-04", "1.5324e-04",
    "1.3657e-04", "1.1989e-04", "1.0322e-04", "8.6568e-05", "6.9895e-05", "5.3221e-05", "3.6547e-05", "1.9874e-05",
]  # fmt: skip
RECORDED = Path(schedules.__file__).parent / "lab" / "recorded"


def test_one_cycle_is_the_published_log():
    rates = rates_of(lambda o: one_cycle(o, 24, 98, 3.2e-6, 3.2e-4, peak_epoch=5), 24 * 98)
    for epoch, (published, rate) in enumerate(zip(PUBLISHED_RATES, rates[::98], strict=True)):
        digits = len(published.split("e")[0]) - 2
        if 12 <= epoch <= 18:
            # Here the log leaves the straight line through its own other entries by one to two
            # parts in ten thousand. We keep the line.
            assert rate == pytest.approx(float(published), abs=3e-8)
        else:
            assert f"{rate:.{digits}e}" == published


class Below(nn.CrossEntropyLoss):
    """A cross entropy with a bonus."""

    def forward(self, logits, labels):
        return super().forward(logits, labels) - 5


def test_groups_of_weights_keep_the_ratio_of_their_rates():
    slow, fast = nn.Linear(2, 2), nn.Linear(2, 2)
    groups = [{"params": slow.parameters(), "lr": 1e-4}, {"params": fast.parameters(), "lr": 1e-2}]
    optimizer = torch.optim.SGD(groups)
    for _ in range(2):  # a second cycle on the same optimizer, which the first left at zero
        cycle = one_cycle(optimizer, 2, 4, 0.01, 0.1, peak_epoch=1, lr_end=0.0)
        rates = []
        for _ in range(8):
            rates.append([group["lr"] for group in optimizer.param_groups])
            optimizer.step()
            cycle.step()
        assert [low / high for low, high in rates] == pytest.approx([0.01] * 8)
        assert max(high for _, high in rates) == pytest.approx(0.1)


def test_a_range_test_keeps_them_as_well():
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 3), nn.Linear(3, 3))
    groups = [{"params": network[1].parameters(), "lr": 0.0}, {"params": network[2].parameters(), "lr": 1e-2}]
    optimizer, kept = torch.optim.SGD(groups), network[1].weight.detach().clone()
    seen = []
    network.register_forward_hook(lambda *_: seen.append(torch.equal(network[1].weight, kept)))
    loader = [(torch.rand(8, 3, 2, 2), torch.arange(8) % 3)]
    with warnings.catch_warnings(action="ignore"):
        lr_range_test(network, loader, nn.functional.cross_entropy, optimizer, 1e-3, 1e-1, 20, "float32")
    assert len(seen) == 20 and all(seen)


@pytest.mark.parametrize("rates", [(3.2e-4, 3.2e-6), (-0.1, 0.1), (0.0, 0.0), (0.1, float("nan"))])
def test_one_cycle_rises(rates):
    with pytest.raises(ValueError, match="expected rates that rise from lr_min to lr_max, found"):
        rates_of(lambda o: one_cycle(o, 24, 98, *rates, peak_epoch=5), 1)
    with pytest.raises(ValueError, match="found 0.01, 0.1, and -0.01 at the end: none may be below 0"):
        rates_of(lambda o: one_cycle(o, 24, 98, 0.01, 0.1, peak_epoch=5, lr_end=-0.01), 1)
    with pytest.raises(ValueError, match="and 0.5 at the end: none may be below 0 or above lr_max"):
        rates_of(lambda o: one_cycle(o, 24, 98, 0.01, 0.1, peak_epoch=5, lr_end=0.5), 1)


def test_one_cycle_corners_and_annihilation():
    rates = rates_of(lambda o: one_cycle(o, 10, 4, 0.01, 0.4, peak_epoch=2.5, lr_end=0.0), 41)
    assert rates[0] == pytest.approx(0.01)
    assert rates.argmax() == 10
    assert rates.max() == pytest.approx(0.4)
    assert rates[-1] == 0
    assert np.allclose(np.diff(rates, 2)[[0, 5, 15, 30]], 0), "straight lines between the corners"
    for peak in (0, 24, 30):
        with pytest.raises(ValueError, match=f"epochs=24, found {peak}"):
            rates_of(lambda o, peak=peak: one_cycle(o, 24, 98, 1e-6, 1e-3, peak_epoch=peak), 1)


# --- The range test.


def problem(seed=0):
    torch.manual_seed(seed)
    images = torch.randn(64, 3, 4, 4)
    labels = (images.mean((1, 2, 3)) > 0).long()
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(48, 2))
    return model, [(images[:32], labels[:32]), (images[32:], labels[32:])]


def run(
    lr_min, lr_max, steps=60, make=torch.optim.Adam, loss_fn=nn.functional.cross_entropy, trained=0, **more
):
    """The result of a range test, and what it warned of."""
    model, loader = problem()
    optimizer = make(model.parameters(), lr=0.03)
    for _ in range(trained):
        for images, labels in loader:
            optimizer.zero_grad()
            loss_fn(model(images), labels).backward()
            optimizer.step()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = lr_range_test(model, loader, loss_fn, optimizer, lr_min, lr_max, steps, "float32", **more)
    assert all(warning.category is TrainingWarning for warning in caught)
    return result, [str(warning.message) for warning in caught]


def test_range_test_restores_model_and_optimizer():
    model, loader = problem()
    frozen = model.train()[0].eval()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.5)
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    lr_range_test(model, loader, nn.functional.cross_entropy, optimizer, 1e-6, 1, 60, "float32")
    assert model.training and not frozen.training
    assert optimizer.param_groups[0]["lr"] == 0.5
    assert not optimizer.state
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())
    assert all(weight.grad is None for weight in model.parameters()), "the next step would add to them"


def test_range_test_restores_a_loss_that_learns():
    model, loader = problem()
    loss_fn = Learned()
    optimizer = torch.optim.SGD([*model.parameters(), loss_fn.scale], lr=0.5)
    lr_range_test(model, loader, loss_fn, optimizer, 1e-3, 1, 60, "float32")
    assert loss_fn.scale == 1


def test_range_test_explains_an_error_in_the_backward_pass_as_fit_does():
    class InPlace(nn.Module):
        def forward(self, images):
            half = images.mean((2, 3)).sigmoid() * self.scale
            out = half.sigmoid()
            out += half
            return out

        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(3))

    model = InPlace()
    optimizer, batch = torch.optim.SGD(model.parameters()), (torch.rand(8, 3, 4, 4), torch.zeros(8).long())
    with pytest.raises(ValueError, match=r"write x = x \+ r"):
        lr_range_test(model, [batch], nn.CrossEntropyLoss(), optimizer, 1e-3, 1, 20, "float32")


def test_range_test_covers_the_range_and_suggests_before_the_minimum():
    result, said = run(1e-3, 1, make=torch.optim.SGD)
    assert len(result.rates) == len(result.losses) == 60
    assert result.rates[[0, -1]] == pytest.approx([1e-3, 1])
    lowest = result.rates[np.argmin(result.smoothed)]
    assert result.suggestion == pytest.approx(lowest / 10)
    assert 0.1 < lowest < 1, "the loss falls over most of this range"
    assert result.rates[10] <= result.steepest < lowest
    assert said == []


def test_a_range_test_of_a_loss_below_zero_goes_on():
    loader = [(torch.rand(8, 3, 2, 2), torch.arange(8) % 3)]
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    with warnings.catch_warnings(action="ignore"):
        found = lr_range_test(network, loader, Below(), optimizer, 1e-6, 1e-4, 20, "float32")
    assert len(found.losses) == 20 and found.losses.max() < 0


def test_range_test_stops_when_the_loss_explodes_and_says_where_there_is_none():
    result, _ = run(1e-3, 1e9, make=torch.optim.SGD)
    assert 2 < len(result.rates) < 60
    assert np.isfinite(result.losses).all()
    with pytest.raises(ValueError, match="stop_at above 1, a multiple of the lowest loss, found 0.5"):
        run(1e-3, 1, stop_at=0.5)
    further, _ = run(1e-3, 1e9, make=torch.optim.SGD, stop_at=1000)
    assert len(result.rates) < len(further.rates)
    assert 4 < further.losses[-1] / further.losses.min() < 1000
    with pytest.raises(ValueError, match="not finite at the lowest rate, 1e-08"):
        run(1e-8, 1, loss_fn=lambda logits, labels: logits.sum() * math.nan)


@pytest.mark.parametrize(
    ("lr_min", "lr_max", "trained", "message"),
    [
        (0.2, 100, 0, "lowest near the range test's lowest rate, 0.2: start lower"),
        (1e-2, 1e3, 300, "never fell, and rises on the way to the rate .*: start lower"),
        (1e-3, 0.1, 0, "still falls at the range test's highest rate, 0.1: raise lr_max"),
        (1e-12, 1e-9, 0, "never fell, up to the rate 1e-09: raise lr_max"),
    ],
)
def test_a_range_that_does_not_hold_the_answer_is_told(lr_min, lr_max, trained, message):
    result, [said] = run(lr_min, lr_max, make=torch.optim.SGD, trained=trained)
    assert result.rates[0] <= result.suggestion <= result.rates[-1]
    assert re.search(message, said), said


def test_suggestion_does_not_lag_behind_the_losses():
    """The valley's floor is four tenths of a power of ten wide and its middle at 0.01."""
    rates = np.geomspace(1e-6, 1, 120)
    from_the_middle = np.abs(np.log10(rates) + 2)
    noise = 0.02 * np.random.default_rng(0).standard_normal(120)
    result = RangeTest(rates, 1 + np.maximum(from_the_middle, 0.2) + noise)
    assert result.suggestion == pytest.approx(0.01 / 10, rel=0.6)


@pytest.mark.parametrize("steps", [1, 2, 5, 100])
def test_the_smoothed_loss_is_centred_and_knows_its_ends(steps):
    assert RangeTest(np.ones(steps), np.full(steps, 3.0)).smoothed == pytest.approx([3.0] * steps)
    ramp = np.arange(float(steps))
    assert RangeTest(ramp, ramp).smoothed[3:-3] == pytest.approx(ramp[3:-3])


def test_the_steepest_fall_is_that_of_the_smoothed_losses_inside_the_range():
    """Written out step by step, as torch-lr-finder does it: a mean that runs on, ends left out, the least gradient."""
    rng = np.random.default_rng(3)
    rates = np.geomspace(1e-6, 1, 100)
    losses = 2.3 - 1.5 / (1 + np.exp(-4 * (np.log10(rates) + 3))) + 0.02 * rng.standard_normal(100)
    losses[:5] = [9, 7, 5, 4, 3]  # steeper still, but among the first ten
    losses[-8:] = [
        60,
        90,
        99,
        1,
        99,
        1,
        1,
        1,
    ]  # and behind the place where the mean is over five times its lowest
    mean, history = losses[0], []
    for loss in losses:
        mean += 0.05 * (loss - mean)
        history.append(mean)
        if mean > 5 * min(history):
            break
    assert len(history) == 94
    inside = history[10:-5]
    falls = [inside[1] - inside[0], *((b - a) / 2 for a, b in zip(inside, inside[2:], strict=False))]
    assert RangeTest(rates, losses).steepest == pytest.approx(rates[10 + int(np.argmin(falls))])
    with pytest.raises(ValueError, match="at least 17 steps .* found 16"):
        _ = RangeTest(rates[:16], losses[:16]).steepest


def test_the_recorded_range_tests_suggest_what_they_did():
    found = []
    for seed in range(3):
        history = json.loads((RECORDED / "resnet-lr-range" / f"seed{seed}.json").read_text())["history"]
        result = RangeTest(np.array(history["learning_rate"]), np.array(history["train_loss"]))
        assert result.advice is None
        found.append((f"{result.suggestion:.1e}", f"{result.steepest:.1e}"))
    assert found == [("1.7e-04", "1.3e-04"), ("2.0e-04", "4.6e-04"), ("1.7e-04", "7.7e-05")]


def test_step_decay_is_torchs_own():
    rates = rates_of(lambda o: torch.optim.lr_scheduler.StepLR(o, 5, gamma=0.2), 330, lr=0.1)
    own = torch.optim.lr_scheduler.StepLR(torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1), 5)
    with pytest.raises(ValueError, match="a function that makes a schedule for the optimizer it is given"):
        rates_of(lambda _: own, 330, lr=0.1)
    assert own.last_epoch == 0, "which would have been used up"
    for schedule in (lambda _: None, torch.optim.lr_scheduler.ReduceLROnPlateau):
        with pytest.raises(
            ValueError, match="a schedule not ruled by losses, found (NoneType|ReduceLROnPlateau)"
        ):
            rates_of(schedule, 330)
    assert list(rates[:6]) == pytest.approx([0.1] * 5 + [0.02])
    assert rates[-1] == pytest.approx(0.1 * 0.2**65)
    assert rates[:25].sum() / rates.sum() == pytest.approx(1 - 0.2**5)


@pytest.mark.parametrize(
    ("lr_min", "lr_max", "steps"), [(0.1, 1e-6, 5), (0.0, 0.1, 5), (-1.0, 0.1, 5), (1e-4, 0.1, 1)]
)
def test_a_range_that_does_not_rise_is_refused(lr_min, lr_max, steps):
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(
        TrainingError, match="expected rates that rise, from one above 0, in two steps or more, found"
    ):
        lr_range_test(model, [], nn.CrossEntropyLoss(), optimizer, lr_min, lr_max, steps)
