"""What `fit` can see by itself: it looks at the first two batches, and warns where they show a common mistake.

Only what passes by anyway is looked at. Nothing is drawn, run or counted for it, so a run comes out the same to the
last bit, and after the second batch the watch reads nothing back from the device.
"""

import functools
import warnings
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from course_utils.lab import parallel
from course_utils.data import BatchLoader

BATCHES = 2  # what is seen in two of them is seen before an hour is spent
LARGEST_INPUT = 100  # normalised pixels stay below ten, bytes come up to 255
FEWEST_LABELS = 32  # that many labels in class order are no chance


class TrainingWarning(UserWarning):
    """Training goes on, but something is probably wrong: what it is, and where to look."""


class Watch:
    """Called with the images, logits and labels of each training step, it looks at those of the first two.

    Gives a `TrainingWarning` each for: loaders that normalise differently, inputs that look like raw bytes, labels
    that come sorted by class, and, where the loss is torch's cross entropy, a softmax in front of it. Raises
    ValueError for labels that cross entropy cannot take. A forgotten `eval()` needs no watch: `validate_epoch` and
    `evaluate` set it themselves.
    """

    def __init__(self, loss_fn: Callable, train_loader, validation_loader=None):
        self.cross_entropy = is_cross_entropy(loss_fn)
        self.loaders = train_loader, validation_loader
        self.labels: list[Tensor] = []

    def __call__(self, images: Tensor, logits: Tensor, labels: Tensor) -> None:
        if len(self.labels) == BATCHES:
            return
        self.labels.append(labels)
        for complaint in self.complaints(images, logits.detach(), labels):
            if complaint and parallel.rank() == 0:
                warnings.warn(complaint, TrainingWarning, stacklevel=4)  # shown at the line that called `fit`

    def complaints(self, images: Tensor, logits: Tensor, labels: Tensor) -> Iterator[str | None]:
        if self.cross_entropy:
            check_labels(labels, logits.shape[1])
        if len(self.labels) == 1:
            yield two_normalisations(*self.loaders)
            yield raw_bytes(images)
            if self.cross_entropy:
                yield softmaxed(logits)
        if len(self.labels) == BATCHES:
            yield sorted_by_class(torch.cat(self.labels))


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


def two_normalisations(train_loader, validation_loader) -> str | None:
    """Two `BatchLoader`s tell by which mean and std they normalise; other loaders cannot be asked."""
    loaders = train_loader, validation_loader
    if not all(isinstance(loader, BatchLoader) for loader in loaders):
        return None
    train, validation = ([loader.mean.tolist(), loader.std.tolist()] for loader in loaders)
    if train == validation:
        return None
    return (
        "the training and the validation loader normalise differently: give both the mean and std that were "
        "measured on the training images"
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
