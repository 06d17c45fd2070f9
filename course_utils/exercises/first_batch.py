"""What the parts of a run and its first batch show by themselves: each mistake in one line, before an hour is spent.

`fit`, `validate_epoch`, `evaluate`, `predict` and `lr_range_test` all ask here, so that they all say the same. Nothing
is drawn, run or counted for it: a run comes out the same to the last bit. What cannot work is a `TrainingError` that says
what was expected, what was found and what to do; what probably is not meant is a `TrainingWarning`.
"""

import functools
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler

PACKAGE = str(Path(__file__).parents[1])
LARGEST_INPUT = 100  # normalised pixels stay below ten, bytes come up to 255
FEWEST_LABELS = 32  # that many labels in class order are no chance

# What torch says where a batch does not fit, and what to do about it.
ADVICE = {
    "shapes cannot be multiplied": "the pictures have another size than the network was made for: resize them",
    "to have 3 channels": "grey pictures want their channel three times: images.expand(-1, 3, -1, -1)",
    "more than 1 value per channel": "BatchNorm cannot train on one image: give the loader drop_last=True",
    "view size": "the network is in channels-last format: let it say reshape or flatten where it says view",
    "same device": "move the loss function's weight and other tensors of your own to the model's device",
    "Double|scalar type|same dtype": "make the loss's weight and other tensors that come from NumPy .float()",
}


class TrainingError(ValueError):
    """Training cannot go on: what was expected, what was found, and what to do."""


class TrainingWarning(UserWarning):
    """Training goes on, but something is probably wrong: what it is, and where to look."""


def warn(message: str | None) -> None:
    """Warn of `message` at the line outside the package that called `fit` or another function of it."""
    frame, level = sys._getframe(), 1
    while frame and frame.f_code.co_filename.startswith(PACKAGE):
        frame, level = frame.f_back, level + 1
    if message:
        warnings.warn(message, TrainingWarning, stacklevel=level)


# --- The parts, before the first batch.


def check_parts(run, validation_loader=None, max_parameters: int | None = None) -> None:
    """Raise TrainingError where the parts of a `training.Run` do not belong together."""
    trainable = [p for p in run.model.parameters() if p.requires_grad]
    if max_parameters is not None and (found := sum(p.numel() for p in trainable)) > max_parameters:
        raise TrainingError(f"the model has {found:,} trainable weights, over the budget of {max_parameters:,}")
    check_optimizer(run.model, run.optimizer)
    if run.scheduler is not None and getattr(run.scheduler, "optimizer", None) is not run.optimizer:
        raise TrainingError("the scheduler belongs to another optimizer: make it anew, after the optimizer")
    if isinstance(run.scheduler, lr_scheduler.ReduceLROnPlateau) and validation_loader is None:
        raise TrainingError("ReduceLROnPlateau waits for a validation loss: expected a validation loader, found None")
    warn(two_normalisations(run.loader, validation_loader))
    if trainable[0].device.type == "cpu" and (cpus := available_cpus()) < torch.get_num_threads():
        warn(
            f"{torch.get_num_threads()} threads share the {cpus} CPUs that this process may use, which is slower than "
            f"{cpus}: call torch.set_num_threads({cpus})"
        )


def check_optimizer(model: nn.Module, optimizer) -> None:
    """Raise TrainingError where `optimizer` was made for other weights; warn of weights that it leaves out."""
    trainable = {id(p) for p in model.parameters() if p.requires_grad}
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    left_out, strangers = trainable - held, held - {id(p) for p in model.parameters()}
    if not trainable & held or (left_out and strangers):
        raise TrainingError(
            f"the optimizer holds {len(trainable & held)} of the model's {len(trainable)} trainable tensors, and "
            f"{len(strangers)} of another model: make the optimizer anew, after the model"
        )
    if left_out:
        warn(
            f"{len(left_out)} of the model's {len(trainable)} trainable tensors are not in the optimizer and will "
            "not be trained: if that is meant, call requires_grad_(False) on them"
        )


def check_schedule(run, per_batch: bool) -> None:
    """Raise TrainingError where the schedule ends before the run does; warn of one that counts the wrong thing."""
    if run.scheduler is None:
        return
    unit, each = ("batches", len(run.loader)) if per_batch else ("epochs", 1)
    end = end_of(run.scheduler)
    needed = run.scheduler.last_epoch + (run.epochs - len(run.history)) * each
    if end is not None and needed > end:
        raise TrainingError(
            f"the schedule ends after {end} {unit}, and this run would go to {needed}: make it for as many epochs as "
            "`fit` is asked for; after a finished run, or from its checkpoint, make a new schedule"
        )
    period = max(getattr(run.scheduler, "step_size", 0), end or 0)
    if not per_batch and period > needed and period >= len(run.loader):
        warn(
            f"{type(run.scheduler).__name__} is stepped once per epoch, and {run.epochs} epochs do not come to its "
            f"{period}: does it count batches? Divide its numbers by len(loader)"
        )


def end_of(scheduler) -> int | None:
    """The number of steps that a scheduler is made for; None if it can go on for ever."""
    if isinstance(scheduler, lr_scheduler.SequentialLR):
        last = end_of(scheduler._schedulers[-1])
        return last and scheduler._milestones[-1] + last
    if isinstance(scheduler, lr_scheduler.PolynomialLR):  # ends at a rate of zero
        return scheduler.total_iters
    return getattr(scheduler, "total_steps", None) or getattr(scheduler, "T_max", None)


def two_normalisations(train_loader, validation_loader) -> str | None:
    """Two loaders that know the mean and std they normalise by; others cannot be asked."""
    found = [
        [loader.mean.tolist(), loader.std.tolist()]
        for loader in (train_loader, validation_loader)
        if hasattr(loader, "mean") and hasattr(loader, "std")
    ]
    if len(found) == 2 and found[0] != found[1]:
        return (
            "the training and the validation loader normalise differently: give both the mean and std that were "
            "measured on the training images"
        )
    return None


def available_cpus(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """How many CPUs this process may use: torch knows the machine's, but not the share that a container has."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for files in (["cpu.max"], ["cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"]):  # version 2, version 1
        try:
            quota, period = " ".join((cgroup / file).read_text() for file in files).split()
        except (OSError, ValueError):
            continue
        if quota not in ("max", "-1"):
            cpus = min(cpus, max(1, int(quota) // int(period)))
    return cpus


# --- Every batch.


def unpack(batch, weights: list[Tensor]) -> tuple[Tensor, Tensor]:
    """The images and labels of what a loader gave; TrainingError unless a network with these `weights` can take them."""
    if not isinstance(batch, (tuple, list)) or len(batch) != 2 or not all(isinstance(b, Tensor) for b in batch):
        parts = batch if isinstance(batch, dict) else [type(part).__name__ for part in batch][:5]
        raise TrainingError(
            f"expected batches of two tensors (images, labels), found a {type(batch).__name__} of "
            f"{', '.join(map(str, parts))}: let the loader's collate_fn return (images, labels)"
        )
    images, labels = batch
    if images.ndim != 4 or labels.shape != images.shape[:1]:
        raise TrainingError(
            "expected a batch of images (n, channels, height, width) and labels (n,), found "
            f"{tuple(images.shape)} and {tuple(labels.shape)}"
        )
    if images.dtype != weights[0].dtype:
        raise TrainingError(
            f"expected images of the model's {weights[0].dtype}, found {images.dtype}: "
            + ("divide them by 255" if images.dtype == torch.uint8 else "call .float() on the images and the model")
        )
    return images, labels


@contextmanager
def explained(model: nn.Module, images: Tensor, labels: Tensor) -> Iterator[None]:
    """Turn torch's inner error about a batch into a TrainingError that says what came in, and what to do."""
    try:
        yield
    except TrainingError:
        raise
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        if isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error):
            raise
        advice = next((f": {advice}" for words, advice in ADVICE.items() if re.search(words, str(error))), "")
        raise TrainingError(
            f"expected a batch that {type(model).__name__} and its loss can take, found images {images.dtype} "
            f"{tuple(images.shape)} and labels {labels.dtype}{advice} ({str(error).strip().splitlines()[0]})"
        ) from error


def check(images: Tensor, labels: Tensor, logits: Tensor, loss_fn: Callable | None, loader, training: bool) -> None:
    """Raise TrainingError for what a loss or an accuracy cannot mean, and warn of what probably is not meant.

    All is looked at where the `loader` of a first batch is given. Later only the labels of a batch for a GPU are, which
    would answer a wrong one with the end of the session; they have not been moved yet, so that nothing waits.
    """
    if loader is None:
        if labels.device.type == "cpu" != images.device.type:
            check_labels(labels, logits.shape[1])
        return
    if logits.ndim != 2 or logits.shape[1] < 2 or len(logits) != len(labels):
        raise TrainingError(
            f"expected logits ({len(labels)}, n_classes) of two classes or more, found {tuple(logits.shape)}: end the "
            "model in one output per class, two for a yes or no"
        )
    if not torch.isfinite(images).all():
        raise TrainingError("expected finite images, found NaN or infinity: does the normalisation divide by zero?")
    cross_entropy = loss_fn is None or is_cross_entropy(loss_fn)
    if cross_entropy and labels.dtype != torch.int64:
        raise TrainingError(f"expected labels of dtype int64, found {labels.dtype}: call labels.long() on them")
    check_labels(labels, logits.shape[1])
    check_labels(getattr(loader, "labels", labels), logits.shape[1])  # of later batches, too
    if training:
        warn(raw_bytes(images))
        warn(softmaxed(logits.detach()) if cross_entropy else None)
        warn(sorted_by_class(labels))


def check_labels(labels: Tensor, n_classes: int) -> None:
    """Raise TrainingError unless `labels` are indices of the `n_classes` logits."""
    lowest, highest = labels.min().item(), labels.max().item()
    if lowest < 0 or highest >= n_classes:
        raise TrainingError(
            f"expected labels from 0 to {n_classes - 1}, as the model returns {n_classes} logits, found {lowest} "
            f"to {highest}: compare the width of the model's last layer with the data's number of classes"
        )


def check_loss(loss: Tensor | None, loader, training: bool) -> None:
    """Raise TrainingError where the first `loss` is none that could be trained on."""
    if loader is None or loss is None:
        return
    found = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
    if found != ():
        raise TrainingError(f'expected the loss to be a tensor of one number, found {found}: use reduction="mean"')
    if training and not loss.requires_grad:
        raise TrainingError("expected a loss that gradients flow back from, found one without: no .item(), no detach()")


def is_cross_entropy(loss_fn: Callable) -> bool:
    """Whether `loss_fn` is torch's, as a function, a module, or a `functools.partial` of the function."""
    if isinstance(loss_fn, functools.partial):
        loss_fn = loss_fn.func
    return loss_fn is nn.functional.cross_entropy or isinstance(loss_fn, nn.CrossEntropyLoss)


def raw_bytes(images: Tensor) -> str | None:
    if (largest := float(images.abs().max())) < LARGEST_INPUT:
        return None
    return (
        f"the inputs reach {largest:.0f}, which looks like raw bytes: divide pixels by 255, or normalise them, "
        "where the loader makes them"
    )


def softmaxed(logits: Tensor) -> str | None:
    """Rows that are not negative and sum to 1 are probabilities; bfloat16 sums are right to a per cent."""
    sums = logits.float().sum(1)
    if not ((logits >= 0).all() and ((sums - 1).abs() < 0.01).all()):
        return None
    return (
        "the model returns probabilities, but cross entropy wants logits and does the softmax itself: take the "
        "softmax out of the model's last layer"
    )


def sorted_by_class(labels: Tensor) -> str | None:
    """Whether each class comes in one block, and blocks are long: in shuffled batches the classes are mixed."""
    n_classes = len(labels.unique())
    blocks = 1 + int((labels[1:] != labels[:-1]).sum())
    if blocks > n_classes or len(labels) < max(FEWEST_LABELS, 4 * n_classes):
        return None
    return (
        f"the first {len(labels)} labels come sorted by class ({n_classes} of them so far): give the training "
        "loader shuffle=True"
    )
