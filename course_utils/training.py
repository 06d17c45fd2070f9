"""The training loop: `fit` over `train_epoch` and `validate_epoch`, and `evaluate` and `predict` for afterwards.

Read `data.py` and `models.py` first; start here with `fit`. A loader is anything with a length that yields (images,
labels); `exercises/parts.py` and `first_batch.py` say what does not fit. Sums stay on the device: Python seldom waits.
"""

import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CyclicLR, LRScheduler, OneCycleLR, ReduceLROnPlateau
from tqdm import tqdm

from course_utils.exercises import first_batch, parts
from course_utils.exercises.first_batch import Diverged
from course_utils.exercises.parts import pick_device as pick_device  # for all who train

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
HEAD = "  epoch  train loss  validation loss  accuracy  learning rate  seconds"


@dataclass
class History:
    """A run's curves, one entry per epoch: losses, accuracies in [0, 1], the first group's rate at an epoch's start."""

    train_loss: list[float] = field(default_factory=list)
    train_accuracy: list[float] = field(default_factory=list)
    validation_loss: list[float] = field(default_factory=list)
    validation_accuracy: list[float] = field(default_factory=list)
    learning_rate: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.seconds)

    def append(self, *entries: float) -> None:
        for curve, entry in zip(vars(self).values(), entries, strict=True):  # in the order above
            curve.append(entry)

    def last_line(self, epochs: int) -> str:
        """The newest epoch as a row under `HEAD`, with a dash for what was not measured."""
        row = f"{f'{len(self)}/{epochs}':>7}  {self.train_loss[-1]:10.4f}  {self.validation_loss[-1]:15.4f}  "
        row += f"{self.validation_accuracy[-1]:8.2%}  {self.learning_rate[-1]:13.3g}  {self.seconds[-1]:7.1f}"
        return row.replace("nan%", "   -").replace("nan", "  -")


@dataclass
class Run:
    """The parts of a run. Hooks get it: `start(run)` first, to restore them, `after_epoch(run)` after each epoch."""

    model: nn.Module
    loader: Iterable
    loss_fn: Callable
    optimizer: Optimizer
    scheduler: LRScheduler | None
    precision: str
    scaler: torch.amp.GradScaler
    epochs: int
    history: History = field(default_factory=History)


def fit(
    model: nn.Module,
    train_loader,
    validation_loader,
    loss_fn: Callable,
    optimizer: Optimizer,
    scheduler=None,
    *,
    epochs: int,
    precision: str = "auto",
    max_parameters: int | None = None,
    hooks: Iterable = (),
    verbose: bool = True,
) -> History:
    """Train for `epochs` epochs, validate after each, and return the curves (NaN where nothing is validated).

    Raises `Diverged`, ValueError over `max_parameters` trainable weights or if parts do not match. `hooks`: see `Run`.
    """
    parts.check_kinds(model, train_loader, validation_loader, scheduler, hooks)
    scaler, hooks = grad_scaler(model, precision), list(hooks)
    run = Run(model, train_loader, loss_fn, optimizer, scheduler, precision, scaler, epochs)
    parts.check(run, validation_loader, max_parameters)
    for hook in hooks:
        hook.start(run)
    parts.check_schedule(run, steps_per_batch)
    say = print if verbose else lambda *_, **__: None
    say(HEAD, flush=True)
    while len(run.history) < run.epochs:  # a hook may end it early
        started, rate = time.perf_counter(), float(optimizer.param_groups[0]["lr"])
        trained = train_epoch(model, run.loader, loss_fn, optimizer, scheduler, precision, scaler)
        validated = validate_epoch(model, validation_loader, loss_fn, precision)
        if isinstance(scheduler, ReduceLROnPlateau):
            scheduler.step(validated[1] if scheduler.mode == "max" else validated[0])  # accuracy, or loss
        elif scheduler and not steps_per_batch(scheduler):
            scheduler.step()
        run.history.append(*trained, *validated, rate, time.perf_counter() - started)
        say(run.history.last_line(run.epochs), flush=True)
        for hook in hooks:
            hook.after_epoch(run)
    return run.history


def train_epoch(model, loader, loss_fn, optimizer, scheduler=None, precision="auto", scaler=None):
    """One epoch: (mean loss, accuracy in [0, 1]) while training. A scheduler that counts epochs is not stepped here."""
    scaler, sums = scaler or grad_scaler(model, precision), Totals()
    model.train()
    optimizer.zero_grad()  # what an interrupted step may have left
    for images, labels in batches(loader, model, "train"):
        logits, loss = forward(model, images, labels, loss_fn, precision, None if sums.images else loader)
        with first_batch.explained(model, images, labels):  # turns torch's errors into advice
            scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        if steps_per_batch(scheduler):
            scheduler.step()
        sums.add(loss, logits, labels)
    return sums.means()


@torch.inference_mode()
def validate_epoch(model: nn.Module, loader, loss_fn, precision: str = "auto") -> tuple[float, float]:
    """(mean loss, accuracy) of `model` on `loader`, NaN without one; the model is left in the mode it was in."""
    if loader is None:
        return math.nan, math.nan
    sums = Totals()
    with evaluating(model):
        for images, labels in batches(loader, model, "validate"):
            logits, loss = forward(model, images, labels, loss_fn, precision, None if sums.images else loader)
            sums.add(loss, logits, labels)
    return sums.means()


def evaluate(model: nn.Module, loader, precision: str = "auto", six_views: bool = False) -> float:
    """Top-1 accuracy of `model` on `loader`, in [0, 1]; with `six_views` it sees each image six times."""
    from course_utils.models import SixViews  # here: training itself needs no network of ours

    asked = SixViews(model) if six_views else model
    return validate_epoch(asked, loader, nn.functional.cross_entropy, precision)[1]


@torch.inference_mode()
def predict(model: nn.Module, loader, precision: str = "auto") -> tuple[np.ndarray, np.ndarray]:
    """Class probabilities, float32 (N, n_classes), and true labels, int64 (N,), in the loader's order."""
    found = []
    with evaluating(model):
        for images, labels in batches(loader, model, "predict"):
            logits, _ = forward(model, images, labels, None, precision, None if found else loader)
            found.append((logits.float().softmax(1).cpu(), labels.cpu()))
    return tuple(torch.cat(pieces).numpy() for pieces in zip(*found, strict=True))


def batches(loader, model: nn.Module, what: str) -> Iterator[tuple[Tensor, Tensor]]:
    """Each batch of `loader`, its images on the model's device and in its memory format, behind a progress bar."""
    weights = list(model.parameters()) or [torch.empty(0)]
    channels_last = any(w.ndim == 4 and not w.is_contiguous() for w in weights)  # as the course's: faster
    memory = torch.channels_last if channels_last else torch.contiguous_format
    looking = getattr(sys.stdout, "isatty", lambda: False)() or "ipykernel" in type(sys.stdout).__module__
    images, loader = None, parts.iterable(loader)
    bar = tqdm(loader, what, file=sys.stdout, leave=False, delay=10, mininterval=1) if looking else loader
    for batch in bar:
        images, labels = first_batch.unpack(batch, weights)
        # Only a copy to CUDA may go on while Python does: elsewhere it could be read before it is complete.
        yield images.to(weights[0].device, memory_format=memory, non_blocking=weights[0].is_cuda), labels
    if images is None:
        raise ValueError("the loader is empty, or a used-up iterator: expected batches of (images, labels)")


def forward(model, images, labels, loss_fn, precision, check_loader=None) -> tuple[Tensor, Tensor | None]:
    """(logits, loss or None) of one batch. A first batch comes with its loader: images, logits and loss are checked."""
    random = first_batch.random_before(model, images, check_loader)
    with autocast(images.device, precision), first_batch.explained(model, images, labels):
        logits = model(images)
        first_batch.check(images, labels, logits, loss_fn, check_loader, model, random)
        if loss_fn is None:
            return logits, None
        loss = loss_fn(logits, labels.to(images.device, non_blocking=images.is_cuda))
        if check_loader is not None:
            first_batch.check_loss(loss, logits, labels, model, loss_fn)
    return logits, loss


class Totals:
    """Running sums of loss and hits, on the device; every 50 batches it asks whether the loss is finite."""

    loss = hits = images = batches = 0

    def add(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        self.loss += loss.detach().float() * len(labels)
        labels = labels.to(logits.device, non_blocking=logits.is_cuda)
        self.hits += (logits.detach().argmax(1) == labels).sum()
        self.images, self.batches = self.images + len(labels), self.batches + 1
        if self.batches % 50 == 0:
            self.means()  # for its exception

    def means(self) -> tuple[float, float]:
        """(mean loss, accuracy) over all images so far; raises `Diverged` where that loss is not finite."""
        loss, hits = float(self.loss) / self.images, int(self.hits) / self.images
        if not math.isfinite(loss):
            advice = "lower the learning rate; in a loss of your own, look for a division or a logarithm of 0"
            raise Diverged(f"a loss of {loss} by batch {self.batches} of this epoch: {advice}")
        return loss, hits


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """A context in which a model is in eval mode; afterwards each of its modules is as it was."""
    modes = {module: module.training for module in parts.network(model).modules()}
    try:
        yield model.eval()
    finally:
        for module, mode in modes.items():
            module.training = mode


def steps_per_batch(scheduler: LRScheduler | None) -> bool:
    """Whether `scheduler` steps every batch (torch's two cycles, any with `per_batch = True`) and not every epoch."""
    return isinstance(scheduler, (OneCycleLR, CyclicLR)) or getattr(scheduler, "per_batch", False)


def pick_precision(device: torch.device, precision: str = "auto") -> torch.dtype:
    """The dtype that the forward pass runs in; "auto" takes 16 bits where `device` has instructions for them.

    Weights stay in float32 in every case ("mixed precision", Micikevicius et al., ICLR 2018).
    """
    if precision == "auto" and device.type == "cuda":
        precision = "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    elif precision == "auto":
        fast = device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()
        precision = "bfloat16" if fast else "float32"
    if precision not in PRECISIONS:
        raise ValueError(f"unknown precision {precision!r}: use 'auto' or one of {sorted(PRECISIONS)}")
    return PRECISIONS[precision]


def autocast(device: torch.device, precision: str = "auto") -> torch.autocast:
    """A context in which networks on `device` compute in the picked precision."""
    dtype = pick_precision(device, precision)
    return torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32)


def grad_scaler(model: nn.Module, precision: str) -> torch.amp.GradScaler:
    """A GradScaler, at work in float16 alone: its range is small, and gradients vanish unless the loss is scaled up."""
    device = next(model.parameters(), torch.empty(0)).device
    float16 = pick_precision(device, precision) == torch.float16
    # From torch's own start, 65,536, the first steps overflow and are skipped, and the scheduler warns of it.
    return torch.amp.GradScaler(device.type, init_scale=1024.0, enabled=float16)


def seed_everything(seed: int) -> None:
    """Seed torch's random numbers: weights, dropout, `per_image`, `DataLoader`. `BatchLoader` has a seed of its own."""
    torch.manual_seed(seed)
