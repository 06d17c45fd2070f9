"""The learning rate: `one_cycle`, which changes it every batch, and the range test that picks it.

Read after `training.py`. Step decay is torch's own `StepLR`, and a constant rate is no scheduler at all: `fit` knows
which schedulers count batches and which epochs. `rates_of` looks at a schedule's rates without training anything.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate, count

import numpy as np


def one_cycle(
    optimizer, epochs: int, steps_per_epoch: int, lr_min: float, lr_max: float, peak_epoch: float, lr_end=None
):
    """A `LambdaLR` in straight lines, step by step: from `lr_min` up to `lr_max` at `peak_epoch`, and down to `lr_end`.

    `lr_end` defaults to `lr_min`; with `lr_end=0` the rate falls to nothing ("annihilation"). Of the optimizer's own
    rates only their ratios count: the highest becomes `lr_max`. Raises ValueError where peak or rates are out of order.
    Source: Smith and Topin, "Super-convergence", arXiv:1708.07120.
    """
    from torch.optim.lr_scheduler import LambdaLR  # here: a page with recorded runs need not wait for torch

    if not 0 < peak_epoch < epochs:
        raise ValueError(f"peak_epoch must lie between 0 and epochs={epochs}, found {peak_epoch}")
    rates = (lr_min, lr_max, lr_min if lr_end is None else lr_end)
    if not 0 <= lr_min <= lr_max or lr_max == 0 or not 0 <= rates[2] <= lr_max:
        found = f"found {lr_min:g}, {lr_max:g}, and {rates[2]:g} at the end: none may be below 0"
        raise ValueError(f"expected rates that rise from lr_min to lr_max, {found} or above lr_max")
    corners = (0, peak_epoch * steps_per_epoch, epochs * steps_per_epoch)
    for group, share in zip(optimizer.param_groups, shares_of(optimizer), strict=True):
        group["lr"] = group["initial_lr"] = lr_max * share
    scheduler = LambdaLR(optimizer, lambda step: float(np.interp(step, corners, rates)) / lr_max)
    scheduler.lr_lambdas[0].epochs = epochs  # for `fit`; not on the scheduler, whose attributes are saved
    scheduler.per_batch, scheduler.total_steps = True, epochs * steps_per_epoch  # for `fit`
    scheduler.corners, scheduler.rates = corners, rates  # for a checkpoint, which cannot look into a lambda
    return scheduler


def shares_of(optimizer) -> list[float]:
    """Each group's initial rate over the highest of them; 1.0 for all where that is 0."""
    rates = [group.get("initial_lr", group["lr"]) for group in optimizer.param_groups]
    return [rate / max(rates) if max(rates) else 1.0 for rate in rates]


def rates_of(schedule: Callable, steps: int, lr: float = 1.0) -> np.ndarray:
    """The rates of `steps` steps of `schedule(optimizer)`, float64 (steps,).

    Raises ValueError if it is none, is another optimizer's, or waits for losses.

    >>> rates_of(lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 5, gamma=0.2), 6, lr=0.1)
    array([0.1 , 0.1 , 0.1 , 0.1 , 0.1 , 0.02])
    """
    import torch

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    scheduler, rates = schedule(optimizer), []
    if not hasattr(scheduler, "step") or isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
        found = type(scheduler).__name__
        raise ValueError(f"expected a function that returns a schedule not ruled by losses, found {found}")
    if getattr(scheduler, "optimizer", optimizer) is not optimizer:
        raise ValueError("expected a function that makes a schedule for the optimizer it is given")
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()  # changes nothing; torch warns if a scheduler steps before its optimizer
        scheduler.step()
    return np.array(rates)


@dataclass(frozen=True)
class RangeTest:
    """What `lr_range_test` saw: a loss for each rate (both float64, (steps,)), and the rates that two rules suggest."""

    rates: np.ndarray
    losses: np.ndarray
    diverged: bool = False  # whether the test ended early, where the loss exploded

    @property
    def smoothed(self) -> np.ndarray:
        """The mean of each loss and its neighbours, a thirtieth of all on either side, float64 (steps,).

        A mean over past steps alone would lag: where a curve is flat at the bottom, its lowest point would come late.
        """
        half = max(1, len(self.losses) // 30)
        window = np.ones(2 * half + 1)
        sums, counts = (np.convolve(v, window)[half:-half] for v in (self.losses, np.ones(len(self.losses))))
        return sums / counts

    @property
    def suggestion(self) -> float:
        """A tenth of the rate at which the smoothed loss is lowest, but no rate below those tested.

        At the minimum itself the loss is about to rise. This rule of thumb gives the order of magnitude at best.
        """
        return max(float(self.rates[np.argmin(self.smoothed)]) / 10, float(self.rates[0]))

    @property
    def steepest(self) -> float:
        """The rate at which the loss falls fastest, as torch-lr-finder suggests it (the assignment's rule).

        The loss is smoothed as there, by a running mean in which each loss counts a twentieth, up to where that mean is
        over five times its lowest; the first ten rates and the last five are left out. There the test itself goes on
        until then: `stop_at=1000` does that. Raises ValueError for fewer than seventeen.
        """
        running = np.array([*accumulate(self.losses, lambda mean, loss: 0.95 * mean + 0.05 * loss)])
        low = np.minimum.accumulate(running)
        exploded = np.flatnonzero(running - low > 4 * np.abs(low))
        running = running[: exploded[0] + 1] if len(exploded) else running
        if len(running) < 17:
            raise ValueError(f"expected at least 17 steps to look for a fall in, found {len(running)}")
        return float(self.rates[10:][np.argmin(np.gradient(running[10:-5]))])

    @property
    def advice(self) -> str | None:
        """What to change in a range that does not hold the answer; None where it does."""
        smoothed, first, last = self.smoothed, f"{self.rates[0]:.2g}", f"{self.rates[-1]:.2g}"
        lowest = int(np.argmin(smoothed))
        noise = np.std(self.losses[: lowest + 1] - smoothed[: lowest + 1])
        if smoothed[0] - smoothed[lowest] <= noise:
            if smoothed[-1] - smoothed[lowest] > 4 * noise:
                return f"the loss never fell, and rises on the way to the rate {last}: start lower, or train anew"
            return f"the loss never fell, up to the rate {last}: raise lr_max, or look at the data"
        if self.rates[lowest] / 10 < self.rates[0]:
            return f"the loss is lowest near the range test's lowest rate, {first}: start lower"
        if not self.diverged and lowest >= len(smoothed) - 1 - max(1, len(smoothed) // 30):
            return f"the loss still falls at the range test's highest rate, {last}: raise lr_max"
        return None


def lr_range_test(
    model, loader, loss_fn, optimizer, lr_min=1e-8, lr_max=0.1, steps=100, precision="auto", stop_at=4.0
) -> RangeTest:
    """Train for `steps` batches while the (highest) rate grows geometrically, and note the loss at each rate.

    It ends once the loss is not finite or over `stop_at` times its lowest. Model, optimizer and loss are put back; the
    loader's order and random numbers are not. Raises ValueError as `fit` does, or if no loss is finite.
    Source: Smith, "Cyclical learning rates for training neural networks", WACV 2017.
    """
    from course_utils import training  # here, as it imports torch: see `one_cycle`
    from course_utils.exercises import first_batch, parts

    parts.check_range(model, loss_fn, optimizer, lr_min, lr_max, steps, stop_at)
    learning = (model, optimizer, first_batch.bare_loss(loss_fn))
    kept = [part for part in learning if hasattr(part, "state_dict") and not isinstance(part, type)]
    before = copy.deepcopy([part.state_dict() for part in kept])
    rates, losses, scaler = [], [], training.grad_scaler(model, precision)
    shares = shares_of(optimizer)
    endless = (batch for _ in count() for batch in training.batches(loader, model, "range test"))
    with training.evaluating(model):  # each module is put back into its mode
        model.train()
        try:
            for rate, batch in zip(np.geomspace(lr_min, lr_max, steps), endless, strict=False):
                for group, share in zip(optimizer.param_groups, shares, strict=True):
                    group["lr"] = rate * share
                _, loss = training.forward(model, *batch, loss_fn, precision, None if losses else loader)
                optimizer.zero_grad()
                with first_batch.explained(model, *batch):
                    scaler.scale(loss).backward()
                scaler.step(optimizer)
                scaler.update()
                found = float(loss.detach())
                low = min([found, *losses])
                if not math.isfinite(found) or found - low > (stop_at - 1) * abs(low):
                    break
                rates.append(rate)
                losses.append(found)
        finally:
            for part, state in zip(kept, before, strict=True):
                part.load_state_dict(state)
            optimizer.zero_grad()
    if not losses:
        raise ValueError(f"the loss is not finite at the lowest rate, {lr_min:g}: look at the inputs")
    result = RangeTest(np.array(rates), np.array(losses), diverged=len(rates) < steps)
    first_batch.warn(result.advice)
    return result
