"""What a first batch and the parts of a run show by themselves: each mistake in one line, before an hour is spent.

`fit`, `validate_epoch`, `evaluate`, `predict` and `lr_range_test` all ask here, so that they all say the same. Nothing
is drawn, run or counted for it: a run comes out the same to the last bit. What cannot work is a ValueError that says
what was expected, what was found and what to do; what probably is not meant is a `TrainingWarning`.
"""

import functools
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler

LARGEST_INPUT = 100  # normalised pixels stay below ten, bytes come up to 255
FEWEST_LABELS = 32  # that many labels in class order are no chance


class TrainingWarning(UserWarning):
    """Training goes on, but something is probably wrong: what it is, and where to look."""


def warn(message: str | None) -> None:
    if message:
        warnings.warn(message, TrainingWarning, stacklevel=5)  # shown at the line that called `fit`


# --- The parts, before the first batch.


def check_parts(run, validation_loader=None, max_parameters: int | None = None) -> None:
    """Raise ValueError where the parts of a `training.Run` do not belong together."""
    trainable = [p for p in run.model.parameters() if p.requires_grad]
    if max_parameters is not None and (found := sum(p.numel() for p in trainable)) > max_parameters:
        raise ValueError(f"the model has {found:,} trainable weights, over the budget of {max_parameters:,}")
    check_optimizer(run.model, run.optimizer)
    if run.scheduler is not None and run.scheduler.optimizer is not run.optimizer:
        raise ValueError("the scheduler belongs to another optimizer: make it anew, after the optimizer")
    if isinstance(run.scheduler, lr_scheduler.ReduceLROnPlateau) and validation_loader is None:
        raise ValueError("ReduceLROnPlateau waits for a validation loss: expected a validation loader, found None")
    warn(two_normalisations(run.loader, validation_loader))


def check_optimizer(model: nn.Module, optimizer) -> None:
    trainable = {id(p) for p in model.parameters() if p.requires_grad}
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    left_out, strangers = trainable - held, held - {id(p) for p in model.parameters()}
    if not trainable & held or (left_out and strangers):
        raise ValueError(
            f"the optimizer holds {len(trainable & held)} of the model's {len(trainable)} trainable tensors, and "
            f"{len(strangers)} of another model: make the optimizer anew, after the model"
        )
    if left_out:
        warn(
            f"{len(left_out)} of the model's {len(trainable)} trainable tensors are not in the optimizer and will "
            "not be trained: if that is meant, call requires_grad_(False) on them"
        )


def check_schedule(run, per_batch: bool) -> None:
    """Raise ValueError where the schedule ends before the run does; warn of one that counts the wrong thing."""
    scheduler = run.scheduler
    if scheduler is None:
        return
    unit, each = ("steps", len(run.loader)) if per_batch else ("epochs", 1)
    end = getattr(scheduler, "total_steps", None) or getattr(scheduler, "T_max", None)
    needed = scheduler.last_epoch + (run.epochs - len(run.history)) * each
    if end is not None and needed > end:
        raise ValueError(
            f"the schedule ends after {end} {unit}, and this run would go to {needed}: make it for as many epochs as "
            "`fit` is asked for; a finished run needs a new schedule (and a new checkpoint)"
        )
    if not per_batch and max(getattr(scheduler, "step_size", 0), end or 0) > max(needed, 1):
        warn(
            f"{type(scheduler).__name__} is stepped once per epoch, and {run.epochs} epochs do not reach its first "
            "change: does it count batches? Divide its numbers by len(loader)"
        )


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


# --- Every batch.


def unpack(batch, weights: list[Tensor]) -> tuple[Tensor, Tensor]:
    """The images and labels of what a loader gave; ValueError unless a network with these `weights` can take them."""
    if not isinstance(batch, (tuple, list)) or len(batch) != 2 or not all(isinstance(b, Tensor) for b in batch):
        found = sorted(batch) if isinstance(batch, dict) else [type(part).__name__ for part in batch]
        raise ValueError(
            f"expected batches of two tensors (images, labels), found a {type(batch).__name__} of {found}: let the "
            "loader's collate_fn return (images, labels)"
        )
    images, labels = batch
    if images.ndim != 4 or labels.shape != images.shape[:1]:
        raise ValueError(
            "expected a batch of images (n, channels, height, width) and labels (n,), found "
            f"{tuple(images.shape)} and {tuple(labels.shape)}"
        )
    if images.dtype != weights[0].dtype:
        advice = "divide them by 255 where the loader makes them" if images.dtype == torch.uint8 else (
            "call .float() on both"
        )
        raise ValueError(f"expected images {weights[0].dtype} like the model, found {images.dtype}: {advice}")
    return images, labels


@contextmanager
def explained(model: nn.Module, images: Tensor, labels: Tensor) -> Iterator[None]:
    """Turn torch's inner error about a batch into a ValueError that says what came in."""
    try:
        yield
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        if isinstance(error, torch.cuda.OutOfMemoryError) or str(error).startswith("expected "):
            raise
        raise ValueError(
            f"expected a batch that {type(model).__name__} and the loss can take, found images {images.dtype} "
            f"{tuple(images.shape)} and labels {labels.dtype}: {error}"
        ) from error


# --- The first batch.


def check(images: Tensor, labels: Tensor, logits: Tensor, loss_fn: Callable | None, training: bool) -> None:
    """Raise ValueError for what a loss or an accuracy cannot mean, and warn of what probably is not meant."""
    if logits.ndim != 2 or logits.shape[1] < 2 or len(logits) != len(labels):
        raise ValueError(
            f"expected logits ({len(labels)}, n_classes), n_classes at least 2, found {tuple(logits.shape)}: end the "
            "model in one output per class, two for a yes or no"
        )
    if not torch.isfinite(images).all():
        raise ValueError("expected finite images, found NaN or infinity: does the normalisation divide by zero?")
    cross_entropy = loss_fn is None or is_cross_entropy(loss_fn)
    if cross_entropy:
        check_labels(labels, logits.shape[1])
    if training:
        warn(raw_bytes(images))
        warn(softmaxed(logits.detach()) if cross_entropy else None)
        warn(sorted_by_class(labels))


def is_cross_entropy(loss_fn: Callable) -> bool:
    """Whether `loss_fn` is torch's, as a function, a module, or a `functools.partial` of the function."""
    if isinstance(loss_fn, functools.partial):
        loss_fn = loss_fn.func
    return loss_fn is nn.functional.cross_entropy or isinstance(loss_fn, nn.CrossEntropyLoss)


def check_labels(labels: Tensor, n_classes: int) -> None:
    """Raise ValueError unless `labels` are int64 indices of the `n_classes` logits; a GPU would only abort."""
    if labels.dtype != torch.int64:
        raise ValueError(f"expected labels of dtype int64, found {labels.dtype}: call labels.long() on them")
    lowest, highest = int(labels.min()), int(labels.max())
    if lowest < 0 or highest >= n_classes:
        raise ValueError(
            f"expected labels from 0 to {n_classes - 1}, as the model returns {n_classes} logits, found {lowest} "
            f"to {highest}: compare the width of the model's last layer with the data's number of classes"
        )


def raw_bytes(images: Tensor) -> str | None:
    largest = float(images.abs().max())
    if largest < LARGEST_INPUT:
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
