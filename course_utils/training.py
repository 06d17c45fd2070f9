"""The training loop: `train_epoch`, `validate_epoch`, `evaluate`, and `fit` over them.

The loss function, the optimizer and the scheduler are arguments; a loader is anything that yields
(images, labels) batches and has a length. The loop runs where the model's weights are. Sums stay on
the device and are read at the end of an epoch, and a run's first batches and then every fiftieth are looked
at for mistakes: so a GPU hardly ever waits for Python.
"""

import math
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from tqdm import tqdm

from course_utils.exercises import first_batch as watch
from course_utils.lab import checkpoints, parallel
from course_utils.models import check_architecture, count_parameters

LossFunction = Callable[[Tensor, Tensor], Tensor]

# Of the table that `fit` prints.
HEAD = "  epoch  train loss  validation loss  accuracy  learning rate  seconds"


@dataclass
class History:
    """The curves of a run, an entry an epoch: losses in nats, accuracies in [0, 1], the rate at the epoch's start."""

    train_loss: list[float] = field(default_factory=list)
    train_accuracy: list[float] = field(default_factory=list)
    validation_loss: list[float] = field(default_factory=list)
    validation_accuracy: list[float] = field(default_factory=list)
    learning_rate: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.seconds)

    def append(self, **entry: float) -> None:
        for name, value in entry.items():
            getattr(self, name).append(value)

    def last_line(self, epochs: int) -> str:
        """The newest epoch as a row under `HEAD`, with a dash for what was not measured."""
        epoch = f"{len(self)}/{epochs}"
        row = (
            f"{epoch:>7}  {self.train_loss[-1]:10.4f}  {self.validation_loss[-1]:15.4f}  "
            f"{self.validation_accuracy[-1]:8.2%}  {self.learning_rate[-1]:13.3g}  {self.seconds[-1]:7.1f}"
        )
        return row.replace("nan%", "   -").replace("nan", "  -")


class Diverged(RuntimeError):
    """The loss stopped being a number."""


def fit(
    model: nn.Module,
    train_loader,
    validation_loader,
    loss_fn: LossFunction,
    optimizer: Optimizer,
    scheduler: LRScheduler | None = None,
    *,
    epochs: int,
    precision: str = "auto",
    max_parameters: int | None = None,
    max_seconds: float | None = None,
    checkpoint: Path | str | None = None,
    recipe: dict[str, Any] | None = None,
    verbose: bool = True,
) -> History:
    """Train for `epochs` epochs, validating after each, and return the curves.

    With `validation_loader=None` nothing is validated, and its curves are NaN.
    `scheduler` steps once a batch. A model with more than `max_parameters` trainable weights is
    refused (ValueError). An epoch that would end after `max_seconds`, going by the slowest so far,
    is not started. With `checkpoint`, everything is saved after each epoch, and a run that was cut
    off goes on from there when called again with the same `recipe` (plain values that name the
    run; another one is refused with a ValueError): to the same bits on a processor, and as nearly as
    it repeats itself on a graphics card.

    Raises `Diverged` at the first loss that is not finite. Of mistakes that the first batches show,
    `watch` warns.
    """
    check_budget(model, max_parameters)
    model.to(memory_format=torch.channels_last)
    scaler = gradient_scaler(model, precision)
    run = Run(model, train_loader, optimizer, scheduler, scaler, History(), recipe or {})
    if checkpoint:
        run.resume(Path(checkpoint))
    history, started = run.history, time.perf_counter() - sum(run.history.seconds)
    watcher = watch.Watch(loss_fn, train_loader, validation_loader)
    verbose = verbose and parallel.rank() == 0
    if verbose:
        print(HEAD, flush=True)
    while len(history) < epochs and in_time(history, started, max_seconds):
        epoch_started = time.perf_counter()
        rate = optimizer.param_groups[0]["lr"]
        train_loss, train_accuracy = train_epoch(
            model,
            train_loader,
            loss_fn,
            optimizer,
            scheduler,
            precision=precision,
            scaler=scaler,
            watcher=watcher,
        )
        validation_loss, validation_accuracy = math.nan, math.nan
        if validation_loader is not None:
            validation_loss, validation_accuracy = validate_epoch(
                model, validation_loader, loss_fn, precision=precision
            )
        history.append(
            train_loss=train_loss,
            train_accuracy=train_accuracy,
            validation_loss=validation_loss,
            validation_accuracy=validation_accuracy,
            learning_rate=rate,
            seconds=time.perf_counter() - epoch_started,
        )
        if verbose:
            print(history.last_line(epochs), flush=True)
        if checkpoint and parallel.rank() == 0:
            run.save(Path(checkpoint))
    return history


def train_epoch(
    model: nn.Module,
    loader,
    loss_fn: LossFunction,
    optimizer: Optimizer,
    scheduler: LRScheduler | None = None,
    *,
    precision: str = "auto",
    scaler: torch.amp.GradScaler | None = None,
    watcher: watch.Watch | None = None,
) -> tuple[float, float]:
    """One pass over `loader` with an optimizer step a batch: mean loss and accuracy, as seen while training.

    `watcher` is shown the images, logits and labels of each step before the loss is worked out.
    """
    device = device_of(model)
    scaler = scaler or gradient_scaler(model, precision)
    model.train()
    optimizer.zero_grad(set_to_none=True)  # what an interrupted step may have left
    totals = Totals(device)
    for images, labels in progress(loader, "train"):
        images, labels = to_device(images, labels, device)
        with autocast(device, precision):
            logits = model(images)
            if watcher:
                watcher(images, logits, labels)
            loss = loss_fn(logits, labels)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)
        if scheduler:
            scheduler.step()
        totals.add(loss, logits, labels)
    return totals.means()


@torch.inference_mode()
def validate_epoch(
    model: nn.Module, loader, loss_fn: LossFunction, *, precision: str = "auto"
) -> tuple[float, float]:
    """Mean loss and accuracy of `model` on `loader`, which are left as they were."""
    device = device_of(model)
    totals = Totals(device)
    model = parallel.unwrap(model)
    with evaluating(model):
        for images, labels in progress(loader, "validate"):
            images, labels = to_device(images, labels, device)
            with autocast(device, precision):
                logits = model(images)
                loss = loss_fn(logits, labels)
            totals.add(loss, logits, labels)
    return totals.means()


def evaluate(model: nn.Module, loader, *, precision: str = "auto") -> float:
    """Top-1 accuracy of `model` on `loader`, in [0, 1]."""
    return validate_epoch(model, loader, nn.functional.cross_entropy, precision=precision)[1]


@torch.inference_mode()
def predict(model: nn.Module, loader, *, precision: str = "auto") -> tuple[np.ndarray, np.ndarray]:
    """Class probabilities, float32 (N, n_classes), and true labels, int64 (N,), in the loader's order."""
    device = device_of(model)
    probabilities, truth = [], []
    with evaluating(model):
        for images, labels in loader:
            with autocast(device, precision):
                logits = model(images.to(device))
            probabilities.append(logits.float().softmax(1).cpu())
            truth.append(labels.cpu())
    return torch.cat(probabilities).numpy(), torch.cat(truth).numpy()


def confusion_matrix(labels: np.ndarray, predictions: np.ndarray, n_classes: int) -> np.ndarray:
    """Counts, int64 (n_classes, n_classes): row = true class, column = predicted class."""
    cells = np.bincount(labels * n_classes + predictions, minlength=n_classes**2)
    return cells.reshape(n_classes, n_classes)


class Totals:
    """Running sums of loss and hits, kept on the device and read once, at the end.

    Whether the losses are finite is asked every `CHECK_EVERY` batches: often enough to stop a run
    that has diverged, rarely enough not to make the device wait.
    """

    CHECK_EVERY = 50

    def __init__(self, device: torch.device):
        self.losses: list[Tensor] = []
        self.loss = torch.zeros((), device=device)
        self.hits = torch.zeros((), dtype=torch.int64, device=device)
        self.images = 0

    def add(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        loss = loss.detach().float()
        self.losses.append(loss)
        self.loss += loss * len(labels)
        self.hits += (logits.detach().argmax(1) == labels).sum()
        self.images += len(labels)
        if len(self.losses) % self.CHECK_EVERY == 0:
            self.check()

    def check(self) -> None:
        finite = torch.isfinite(torch.stack(self.losses[-self.CHECK_EVERY :]))
        if not finite.all():
            first = len(self.losses) - len(finite) + int(finite.long().argmin()) + 1
            raise Diverged(
                f"the loss is {float(self.losses[first - 1])} at batch {first} of this epoch: the usual "
                "causes are a learning rate that is too high, or inputs that are not finite"
            )

    def means(self) -> tuple[float, float]:
        """(mean loss, accuracy) over all images, of all processes."""
        if not self.images:
            raise ValueError("the loader is empty: expected at least one batch of (images, labels)")
        self.check()
        # float32 counts to 16 million exactly, and Apple's MPS has nothing wider.
        sums = torch.stack([self.loss, self.hits.float(), torch.tensor(self.images).to(self.loss)])
        loss, hits, images = parallel.total(sums).tolist()
        return loss / images, hits / images


@dataclass
class Run:
    """All that a run's future depends on, and how to save and restore it."""

    model: nn.Module
    loader: Any
    optimizer: Optimizer
    scheduler: LRScheduler | None
    scaler: torch.amp.GradScaler
    history: History
    recipe: dict[str, Any]

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {
            "recipe": self.recipe,
            "history": asdict(self.history),
            "model": parallel.unwrap(self.model).state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict() if self.scheduler else None,
            "scaler": self.scaler.state_dict(),
            "loader_epoch": getattr(self.loader, "epoch", None),
            "random": random_state(),
        }

    def save(self, path: Path) -> None:
        checkpoints.save(self.state(), path)

    def resume(self, path: Path) -> None:
        """Continue from the checkpoint at `path`, if there is one."""
        state = checkpoints.load(path)
        if state is None:
            return
        if missing := self.state().keys() - state.keys():
            raise ValueError(
                f"{path} is no checkpoint of this `fit`: it has no {', '.join(sorted(missing))}. "
                "Delete the file to start anew, or give another checkpoint path."
            )
        if state["recipe"] != self.recipe:
            raise ValueError(
                f"{path} belongs to another run: expected the recipe {self.recipe}, found "
                f"{state['recipe']}. Delete the file to start anew, or give another checkpoint path."
            )
        model = parallel.unwrap(self.model)
        check_architecture(model, state["model"], path)
        model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scheduler:
            self.scheduler.load_state_dict(state["scheduler"])
        self.scaler.load_state_dict(state["scaler"])
        self.history.__dict__.update(state["history"])
        if state["loader_epoch"] is not None:  # a list of batches has no epochs of its own
            self.loader.epoch = state["loader_epoch"]
        if parallel.rank() == 0:  # the other processes' dropout goes on from their own seeds
            restore_random_state(state["random"])
            print(f"continuing after epoch {len(self.history)} from {path.name}", flush=True)


def random_state() -> dict[str, Any]:
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    mps = torch.mps.get_rng_state() if torch.mps.is_available() else None
    return {"torch": torch.get_rng_state(), "cuda": cuda, "mps": mps}


def restore_random_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
    if state["mps"] is not None and torch.mps.is_available():
        torch.mps.set_rng_state(state["mps"])


class evaluating:
    """A context in which a model is in eval mode; afterwards each of its modules is as it was."""

    def __init__(self, model: nn.Module):
        self.modes = {module: module.training for module in model.modules()}
        self.model = model

    def __enter__(self) -> None:
        self.model.eval()

    def __exit__(self, *_) -> None:
        for module, mode in self.modes.items():
            module.training = mode


def check_budget(model: nn.Module, max_parameters: int | None) -> None:
    found = count_parameters(model, trainable=True)
    if max_parameters is not None and found > max_parameters:
        raise ValueError(f"the model has {found:,} trainable weights, over the budget of {max_parameters:,}")


def in_time(history: History, started: float, max_seconds: float | None) -> bool:
    """Whether another epoch as slow as the slowest so far would end within the budget."""
    if max_seconds is None:
        return True
    if time.perf_counter() - started + max(history.seconds, default=0) <= max_seconds:
        return True
    if parallel.rank() == 0:
        print(f"stopping after {len(history)} epochs: another would exceed the budget of {max_seconds:.0f} s")
    return False


def device_of(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def gradient_scaler(model: nn.Module, precision: str) -> torch.amp.GradScaler:
    """float16's gradients vanish unless the loss is scaled up; for other precisions this does nothing."""
    device = device_of(model)
    needed = pick_precision(device, precision) == torch.float16
    # From torch's own start, 65,536, the first steps overflow and are skipped, and the scheduler warns of it.
    return torch.amp.GradScaler(device.type, init_scale=1024.0, enabled=needed)


def to_device(images: Tensor, labels: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    """The batch on `device`, after a look at its shape."""
    if images.ndim != 4 or labels.shape != images.shape[:1]:
        raise ValueError(
            "expected a batch of images (n, channels, height, width) and labels (n,), found "
            f"{tuple(images.shape)} and {tuple(labels.shape)}"
        )
    return images.to(device, non_blocking=True), labels.to(device, non_blocking=True)


def progress(loader, what: str) -> Iterable:
    """`loader` behind a bar, once an epoch has taken ten seconds and only where somebody may be looking."""
    looking = sys.stdout.isatty() or "ipykernel" in type(sys.stdout).__module__
    options = {} if looking else {"disable": True}
    return tqdm(loader, desc=what, file=sys.stdout, leave=False, delay=10, mininterval=1, **options)


def seed_everything(seed: int) -> None:
    """Seed torch's random numbers (weights and dropout). Loaders take a seed of their own."""
    torch.manual_seed(seed)


PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def pick_device() -> torch.device:
    """The fastest device here: CUDA, then Apple's MPS, then the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def pick_precision(device: torch.device, precision: str = "auto") -> torch.dtype:
    """The dtype that the forward pass runs in; "auto" takes the fastest that `device` has instructions for.

    bfloat16 keeps float32's range, so it needs no loss scaling; older CUDA cards have only float16,
    for which `training` scales the loss. Weights stay in float32 in every case ("mixed precision",
    Micikevicius et al., ICLR 2018).
    """
    if precision != "auto":
        if precision not in PRECISIONS:
            raise ValueError(f"unknown precision {precision!r}: use 'auto' or one of {sorted(PRECISIONS)}")
        return PRECISIONS[precision]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    if device.type == "cpu" and torch.cpu._is_avx512_bf16_supported():
        return torch.bfloat16
    return torch.float32


def autocast(device: torch.device, precision: str = "auto") -> torch.autocast:
    """A context in which networks on `device` compute in the picked precision."""
    dtype = pick_precision(device, precision)
    return torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32)
