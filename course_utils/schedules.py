"""Learning-rate schedules, and the range test that picks a rate.

Every schedule steps once a *batch*: one rule for step decay and for one cycle, so that `fit` need not
know which it was given. Each returns torch's `LambdaLR`, and its rates can be looked at beforehand
with `rates_of`.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from course_utils import training




def constant(optimizer: Optimizer) -> LambdaLR:
    """The optimizer's own rate throughout."""
    return LambdaLR(optimizer, lambda step: 1.0)


def step_decay(optimizer: Optimizer, step_epochs: int, gamma: float, steps_per_epoch: int) -> LambdaLR:
    """Multiply the optimizer's rate by `gamma` after every `step_epochs` epochs."""
    if step_epochs < 1 or steps_per_epoch < 1:
        raise ValueError(
            f"step_epochs and steps_per_epoch must be at least 1, found {step_epochs} and {steps_per_epoch}"
        )
    return LambdaLR(optimizer, lambda step: gamma ** (step // (step_epochs * steps_per_epoch)))


def one_cycle(
    optimizer: Optimizer,
    epochs: int,
    steps_per_epoch: int,
    lr_min: float,
    lr_max: float,
    peak_epoch: float,
    lr_end: float | None = None,
) -> LambdaLR:
    """Straight lines from `lr_min` up to `lr_max` at `peak_epoch`, and down to `lr_end` at the end.

    `lr_end` defaults to `lr_min`: the cycle without annihilation. `lr_end=0` anneals to nothing.
    The optimizer's own rate is ignored.
    Source: Smith and Topin, "Super-convergence", arXiv:1708.07120.
    """
    if not 0 < peak_epoch < epochs:
        raise ValueError(f"peak_epoch must lie between 0 and epochs={epochs}, found {peak_epoch}")
    corners = (0, peak_epoch * steps_per_epoch, epochs * steps_per_epoch)
    rates = (lr_min, lr_max, lr_min if lr_end is None else lr_end)
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] = lr_max
    return LambdaLR(optimizer, lambda step: float(np.interp(step, corners, rates)) / lr_max)


def rates_of(schedule: Callable[[Optimizer], LambdaLR], steps: int, lr: float = 1.0) -> np.ndarray:
    """The rates of the first `steps` steps of `schedule(optimizer)`, float64 (steps,), without training anything.

    >>> rates_of(lambda optimizer: step_decay(optimizer, 5, 0.2, steps_per_epoch=1), 6, lr=0.1)
    array([0.1 , 0.1 , 0.1 , 0.1 , 0.1 , 0.02])
    """
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr)
    scheduler = schedule(optimizer)
    factor, base = scheduler.lr_lambdas[0], scheduler.base_lrs[0]
    return np.array([base * factor(step) for step in range(steps)])


@dataclass(frozen=True)
class RangeTest:
    """What `lr_range_test` saw: a loss for each rate (both float64, (steps,)), and the rate it suggests."""

    rates: np.ndarray
    losses: np.ndarray

    @property
    def suggestion(self) -> float:
        """A tenth of the rate at which the running mean of the losses is lowest.

        At the minimum itself the loss is about to rise: a rate from there is already too high. The
        rule of thumb is older than its reasons; it gives the order of magnitude.
        """
        return float(self.rates[int(np.argmin(running_mean(self.losses)))]) / 10


def running_mean(losses: np.ndarray) -> np.ndarray:
    """The mean of each loss and its neighbours, a thirtieth of all on either side, float64 (steps,).

    A mean over past steps alone lags: on a curve as flat at the bottom as a range test's, its lowest
    point comes many steps late. At the ends, where a neighbour is missing, the others are averaged.
    """
    half = max(1, len(losses) // 30)
    window = np.ones(2 * half + 1)
    sums, counts = (np.convolve(v, window)[half:-half] for v in (losses, np.ones(len(losses))))
    return sums / counts


def lr_range_test(
    model: nn.Module,
    loader,
    loss_fn: Callable[[Tensor, Tensor], Tensor],
    optimizer: Optimizer,
    lr_min: float = 1e-8,
    lr_max: float = 0.1,
    steps: int = 100,
    precision: str = "auto",
) -> RangeTest:
    """Train for `steps` batches while the rate grows geometrically, and note the loss at each rate.

    The test ends early once the loss is not finite or four times its lowest. Model and optimizer
    are put back as they were, so that training starts from the same weights as it would have; the loader's
    order and torch's random numbers go on. Raises ValueError where no loss is finite, or without a batch.
    Source: Smith, "Cyclical learning rates for training neural networks", WACV 2017.
    """
    before = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    modes = {module: module.training for module in model.modules()}
    model.train()
    rates, losses = [], []
    try:
        for rate, batch in zip(np.geomspace(lr_min, lr_max, steps), endless(loader), strict=False):
            for group in optimizer.param_groups:
                group["lr"] = rate
            loss = range_test_step(model, batch, loss_fn, optimizer, precision)
            if not math.isfinite(loss) or loss > 4 * min(losses, default=loss):
                break
            rates.append(rate)
            losses.append(loss)
    finally:
        model.load_state_dict(before[0])
        optimizer.load_state_dict(before[1])
        optimizer.zero_grad(set_to_none=True)
        for module, mode in modes.items():
            module.training = mode
    if not losses:
        raise ValueError(f"the loss is not finite at the lowest rate, {lr_min:g}: look at the inputs")
    return RangeTest(np.array(rates), np.array(losses))


def range_test_step(model, batch, loss_fn, optimizer, precision) -> float:
    device = next(model.parameters()).device
    images, labels = (tensor.to(device) for tensor in batch)
    with training.autocast(device, precision):
        loss = loss_fn(model(images), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return float(loss.detach())


def endless(loader):
    """The loader's batches, starting again whenever it runs out."""
    if len(loader) == 0:
        raise ValueError("the loader is empty: expected at least one batch of (images, labels)")
    while True:
        yield from loader
