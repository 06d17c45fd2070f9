"""Rates against the published log, and a range test that leaves no trace."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from course_utils import schedules
from course_utils.schedules import constant, lr_range_test, one_cycle, rates_of, step_decay

# The rate at the start of each of the assignment's 24 epochs, as its log printed them.
PUBLISHED_RATES = [
    "3.2e-06", "6.656e-05", "1.2992e-04", "1.9328e-04", "2.5664e-04", "3.2000e-04", "3.0333e-04", "2.8665e-04",
    "2.6998e-04", "2.5331e-04", "2.3663e-04", "2.1996e-04", "2.0326e-04", "1.8659e-04", "1.6992e-04", "1.5324e-04",
    "1.3657e-04", "1.1989e-04", "1.0322e-04", "8.6568e-05", "6.9895e-05", "5.3221e-05", "3.6547e-05", "1.9874e-05",
]  # fmt: skip


def sgd(lr=0.1):
    return torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr)


def test_one_cycle_is_the_published_log():
    rates = rates_of(lambda o: one_cycle(o, 24, 98, 3.2e-6, 3.2e-4, peak_epoch=5), 24 * 98)
    for epoch, (published, rate) in enumerate(zip(PUBLISHED_RATES, rates[::98], strict=True)):
        digits = len(published.split("e")[0]) - 2
        if 12 <= epoch <= 18:
            # Here the log leaves the straight line through its own other entries by one part in
            # ten thousand. We keep the line.
            assert rate == pytest.approx(float(published), abs=3e-8)
        else:
            assert f"{rate:.{digits}e}" == published


def test_one_cycle_corners_and_annihilation():
    rates = rates_of(lambda o: one_cycle(o, 10, 4, 0.01, 0.4, peak_epoch=2.5, lr_end=0.0), 41)
    assert rates[0] == pytest.approx(0.01)
    assert rates.argmax() == 10
    assert rates.max() == pytest.approx(0.4)
    assert rates[-1] == 0
    assert np.allclose(np.diff(rates, 2)[[0, 5, 15, 30]], 0), "straight lines between the corners"


def test_schedules_step_with_the_optimizer():
    optimizer = sgd(lr=0.1)
    scheduler = step_decay(optimizer, step_epochs=2, gamma=0.2, steps_per_epoch=3)
    seen = []
    for _ in range(14):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert seen == pytest.approx([0.1] * 6 + [0.02] * 6 + [0.004] * 2)
    assert seen == pytest.approx(list(rates_of(lambda o: step_decay(o, 2, 0.2, 3), 14, lr=0.1)))


def test_constant_leaves_the_rate():
    assert list(rates_of(constant, 3, lr=0.3)) == [0.3] * 3


def test_dead_schedule():
    rates = rates_of(lambda o: step_decay(o, 5, 0.2, 1), 330, lr=0.1)
    assert rates[-1] == pytest.approx(0.1 * 0.2**65)
    assert rates[:25].sum() / rates.sum() == pytest.approx(1 - 0.2**5)


@pytest.mark.parametrize("peak", [0, 24, 30])
def test_a_peak_outside_the_cycle_is_refused(peak):
    with pytest.raises(ValueError, match=f"epochs=24, found {peak}"):
        one_cycle(sgd(), 24, 98, 1e-6, 1e-3, peak_epoch=peak)


def test_a_step_of_no_epochs_is_refused():
    with pytest.raises(ValueError, match="at least 1, found 0"):
        step_decay(sgd(), 0, 0.2, 10)


def range_test_problem():
    torch.manual_seed(0)
    images = torch.randn(64, 3, 4, 4)
    labels = (images.mean((1, 2, 3)) > 0).long()
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(48, 2))
    return model, [(images[:32], labels[:32]), (images[32:], labels[32:])]


def test_range_test_restores_model_and_optimizer():
    model, loader = range_test_problem()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.5)
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    lr_range_test(model.eval(), loader, nn.functional.cross_entropy, optimizer, steps=20, precision="float32")
    assert not model.training
    assert optimizer.param_groups[0]["lr"] == 0.5
    assert not optimizer.state
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())
    assert all(weight.grad is None for weight in model.parameters()), "the next step would add to them"


def test_range_test_leaves_each_module_in_its_mode():
    model, loader = range_test_problem()
    frozen = model.train()[0].eval()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    lr_range_test(model, loader, nn.functional.cross_entropy, optimizer, steps=2, precision="float32")
    assert model.training
    assert not frozen.training


def test_range_test_says_why_it_has_nothing_to_show():
    model, loader = range_test_problem()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    with pytest.raises(ValueError, match="not finite at the lowest rate, 1e-08"):
        lr_range_test(model, loader, lambda *_: model(loader[0][0]).sum() * math.nan, optimizer)
    with pytest.raises(ValueError, match="the loader is empty"):
        lr_range_test(model, [], nn.functional.cross_entropy, optimizer)


def test_range_test_covers_the_range_and_suggests_before_the_minimum():
    model, loader = range_test_problem()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.5)
    result = lr_range_test(
        model, loader, nn.functional.cross_entropy, optimizer, 1e-6, 0.03, steps=60, precision="float32"
    )
    assert len(result.rates) == len(result.losses) == 60
    assert result.rates[[0, -1]] == pytest.approx([1e-6, 0.03])
    lowest = result.rates[np.argmin(schedules.running_mean(result.losses))]
    assert result.suggestion == pytest.approx(lowest / 10)
    assert lowest > 1e-3, "the loss falls over most of this range"


def test_range_test_stops_when_the_loss_explodes():
    model, loader = range_test_problem()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    result = lr_range_test(
        model, loader, nn.functional.cross_entropy, optimizer, 1e-3, 1e9, steps=60, precision="float32"
    )
    assert 2 < len(result.rates) < 60
    assert np.isfinite(result.losses).all()


def test_suggestion_does_not_lag_behind_the_losses():
    """The valley's floor is four tenths of a power of ten wide and its middle at 0.01."""
    rates = np.geomspace(1e-6, 1, 120)
    from_the_middle = np.abs(np.log10(rates) + 2)
    noise = 0.02 * np.random.default_rng(0).standard_normal(120)
    result = schedules.RangeTest(rates, 1 + np.maximum(from_the_middle, 0.2) + noise)
    assert result.suggestion == pytest.approx(0.01 / 10, rel=0.6)


@pytest.mark.parametrize("steps", [1, 2, 5, 100])
def test_running_mean_is_centred_and_knows_its_ends(steps):
    assert schedules.running_mean(np.full(steps, 3.0)) == pytest.approx([3.0] * steps)
    ramp = np.arange(float(steps))
    assert schedules.running_mean(ramp)[3:-3] == pytest.approx(ramp[3:-3])
