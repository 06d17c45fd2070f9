"""Checks of the parts of a run and of its first batch: each mistake in one line, before an hour is spent.

`fit`, `validate_epoch`, `evaluate`, `predict` and `lr_range_test` share these checks. They draw no random numbers and
change nothing: a run comes out the same to the last bit. What cannot work is a `TrainingError`, what is probably a
mistake a `TrainingWarning`.
"""

import os
import re
import sys
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from operator import length_hint
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler
from torch.utils.data import BatchSampler, SequentialSampler

PACKAGE = str(Path(__file__).parents[1])
LARGEST_INPUT = 100  # normalised pixels stay below ten, bytes come up to 255
FEWEST_LABELS = 32  # that many labels in class order are no coincidence

# Words of torch's own errors about a batch, and what to do.
ADVICE = {
    "shapes cannot be multiplied": "a Linear layer needs as many in_features as come in (TransferNet: n_features); if "
    "the network was made for pictures of another size, resize them",
    "but got 1 channels": "grey images need three equal channels, images.expand(-1, 3, -1, -1)",
    "to have 3 channels": "channels come before height and width, images.permute(0, 3, 1, 2), and none is alpha",
    "more than 1 value per channel": "BatchNorm cannot train on one image, so give the loader drop_last=True",
    "view size": "the network is in channels-last format, so let it say reshape where it says view",
    "same device": "the loss's weight and other tensors of your own belong on the model's device",
    "Double|scalar type|same dtype": "the loss's weight and other tensors out of NumPy want .float()",
    "Tensor with more than one value is ambiguous": "a loss is made before it is called: nn.CrossEntropyLoss()",
    "Inference tensors": "the model keeps a tensor from a call of evaluate or predict: make it anew in forward",
}


class TrainingError(ValueError):
    """Training cannot go on: what was expected, what was found, and what to do."""


class Diverged(RuntimeError):
    """The loss stopped being a number."""


class TrainingWarning(UserWarning):
    """Training goes on, but something is probably wrong: what it is, and where to look."""


def warn(message: str | None) -> None:
    """Warn of `message`, if any, at the line outside the package that called `fit` or another function of it."""
    frame, level = sys._getframe(), 1
    while frame and frame.f_code.co_filename.startswith(PACKAGE):
        frame, level = frame.f_back, level + 1
    if message:
        warnings.warn(message, TrainingWarning, stacklevel=level)


# --- The parts, before the first batch.


def check_parts(run, validation_loader=None, budget: int | None = None) -> None:
    """Raise TrainingError where the parts of a `training.Run` do not belong together; warn of a slow set-up."""
    if not torch.is_grad_enabled():
        raise TrainingError("autograd is off, so nothing can be trained: call torch.set_grad_enabled(True)")
    trainable = (p for p in run.model.parameters() if p.requires_grad)
    if budget is not None and (found := sum(p.numel() for p in trainable)) > budget:
        raise TrainingError(f"the model has {found:,} trainable weights, over the budget of {budget:,}")
    check_optimizer(run.model, run.optimizer)
    if run.scheduler is not None and getattr(run.scheduler, "optimizer", None) is not run.optimizer:
        raise TrainingError("the scheduler belongs to another optimizer: make it anew, after the optimizer")
    if isinstance(run.scheduler, lr_scheduler.ReduceLROnPlateau) and validation_loader is None:
        raise TrainingError("ReduceLROnPlateau waits for a loss: expected a validation loader, found None")
    TRAINED_ON[the_network(run.model)] = about_images(run.loader)
    compare(run.model, validation_loader)
    cpus, threads = available_cpus(), torch.get_num_threads()
    if threads > cpus and next(run.model.parameters()).device.type == "cpu":
        warn(f"{threads} threads share {cpus} CPU(s), which is slower: call torch.set_num_threads({cpus})")


# What each network was last trained on, to compare with what it is measured on.
TRAINED_ON = weakref.WeakKeyDictionary()


def the_network(model: nn.Module) -> nn.Module:
    """The network inside DataParallel, torch.compile and `SixViews`."""
    inner = (getattr(model, name, None) for name in ("module", "_orig_mod", "model"))
    return next((the_network(one) for one in inner if isinstance(one, nn.Module)), model)


def about_images(loader) -> dict:
    """The classes of a loader's images and what it normalises them with; None for what it does not say."""
    found, std = image_set_of(loader), getattr(loader, "std", None)
    scaling = (loader.mean.tolist(), std.tolist()) if isinstance(std, Tensor) else None
    return {"classes": found and tuple(found.classes), "scaling": scaling}


def compare(model: nn.Module, loader) -> None:
    """Warn where `loader` gives other images than those that `model` was trained on."""
    ours, theirs = TRAINED_ON.get(the_network(model), {}), about_images(loader)
    differ = [name for name in ours if None not in (ours[name], theirs[name]) and ours[name] != theirs[name]]
    for name in differ:
        ours[name] = None  # said once
    if "scaling" in differ:
        warn(
            "training and measuring normalise differently: give both the mean and std of the training images"
        )
    if "classes" in differ:
        both = f"{ours['classes']} and {theirs['classes']}"
        warn(f"training and measuring have different classes, {both}: labels do not agree")


def image_set_of(loader):
    """The `ImageSet` behind one of the course's loaders or datasets; None behind any other."""
    return getattr(loader, "image_set", None) or getattr(getattr(loader, "dataset", None), "image_set", None)


def check_optimizer(model: nn.Module, optimizer) -> None:
    """Raise TrainingError where `optimizer` was made for other weights; warn of weights that it leaves out."""
    trainable = {id(p) for p in model.parameters() if p.requires_grad}
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    left_out, strangers = trainable - held, held - {id(p) for p in model.parameters()}
    share = f"{len(trainable & held)} of the model's {len(trainable)} trainable tensors"
    if not trainable & held or (left_out and strangers):
        advice = "make the optimizer anew, after the model"
        raise TrainingError(f"the optimizer holds {share}, and {len(strangers)} of another model: {advice}")
    if left_out:
        warn(f"the optimizer trains {share}: if that is meant, call requires_grad_(False) on the others")


def check_schedule(run, steps_per_batch: Callable) -> None:
    """Raise TrainingError where the schedule ends before the run does; warn of one that counts the wrong thing."""
    if run.scheduler is None:
        return
    inner, per_batch = list(all_of(run.scheduler)), steps_per_batch(run.scheduler)
    if not per_batch and any(map(steps_per_batch, inner)):
        name = type(run.scheduler).__name__
        raise TrainingError(
            f"a cycle inside a {name} would step once an epoch: if all of it counts batches, set its per_batch = True"
        )
    lowest = getattr(run.scheduler, "eta_min", 0)
    from_here = isinstance(run.scheduler, (lr_scheduler.CosineAnnealingLR, lr_scheduler.PolynomialLR))
    if (
        from_here
        and run.scheduler.last_epoch == 0
        and max(g["lr"] for g in run.optimizer.param_groups) <= lowest
    ):
        raise TrainingError(
            f"the rate would stay at {lowest:g}, where another schedule has left it: make the optimizer anew, too"
        )
    end, each = end_of(run.scheduler), len(run.loader) if per_batch else 1
    needed = getattr(run.scheduler, "last_epoch", 0) + (run.epochs - len(run.history)) * each
    if end is not None and needed > end:
        raise TrainingError(
            f"the schedule ends after {end} {'batches' if per_batch else 'epochs'}, and this run would go to {needed}: "
            "make one for all epochs of the run; to go on after a finished run (or its checkpoint), make a new optimizer "
            "and schedule"
        )
    images = length_hint(image_set_of(run.loader) or getattr(run.loader, "dataset", ()))
    if per_batch and end and end > needed and end == run.epochs * images:
        warn(
            f"the schedule has a step for each of {images} images; the run has {needed} batches: use len(loader)"
        )
    period, batches, name = max(map(period_of, inner)), len(run.loader), type(run.scheduler).__name__
    if not per_batch and any(
        rises_late(f, needed, batches) for f in getattr(run.scheduler, "lr_lambdas", ())
    ):
        warn(
            f"{name} steps by epochs, and hardly rises in {needed}: if it counts batches, set its per_batch = True"
        )
    if not per_batch and period > needed and batches > 1 and period % batches == 0:
        warn(f"{name}'s {period} steps are epochs; the run has {needed}: divide batches by len(loader)")


def rises_late(share: Callable[[int], float], epochs: int, batches: int) -> bool:
    """Whether a LambdaLR's function comes to half of its height in that many batches, but not in that many epochs."""
    try:
        early, late = (max(share(k) for k in range(0, n, 1 + n // 1000)) for n in (epochs, epochs * batches))
    except Exception:  # a table of the epochs ends there
        return False
    return early < late / 2


def all_of(scheduler) -> Iterator:
    """A scheduler and those inside it."""
    yield scheduler
    for one in getattr(scheduler, "_schedulers", ()):
        yield from all_of(one)


def period_of(scheduler) -> int:
    """The largest number of steps among a scheduler's settings."""
    counts = [
        getattr(scheduler, name, 0) or 0
        for name in ("step_size", "total_steps", "total_iters", "T_max", "T_0")
    ]
    return max(*counts, *getattr(scheduler, "milestones", ()), *getattr(scheduler, "_milestones", ()))


def end_of(scheduler) -> int | None:
    """The number of steps that a scheduler is made for; None if it can go on for ever."""
    if isinstance(scheduler, lr_scheduler.ChainedScheduler):
        return min(filter(None, map(end_of, scheduler._schedulers)), default=None)
    if isinstance(scheduler, lr_scheduler.SequentialLR):
        last = end_of(scheduler._schedulers[-1])
        return last and scheduler._milestones[-1] + last
    if isinstance(scheduler, lr_scheduler.PolynomialLR):
        return scheduler.total_iters  # the rate is zero from there
    if isinstance(scheduler, lr_scheduler.CosineAnnealingLR):
        return scheduler.T_max + (scheduler.eta_min > 0)  # zero is no rate to train at
    return getattr(scheduler, "total_steps", None)


def available_cpus(quota_file: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """How many CPUs this process may use: torch counts the machine's, whatever share a container has of them."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = map(int, quota_file.read_text().split())  # microseconds of each period
    except (OSError, ValueError):  # there is none, or it is "max"
        return cpus
    return min(cpus, max(1, quota // period))


# --- Every batch.


def unpack(batch, weights: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Images and labels of what a loader gave; TrainingError where a network with these `weights` cannot take them."""
    pair = isinstance(batch, (tuple, list)) and len(batch) == 2
    if not pair or not all(isinstance(part, Tensor) for part in batch):
        parts = [part if isinstance(batch, dict) else type(part).__name__ for part in list(batch)[:3]]
        found = f"found a {type(batch).__name__} of {parts}: let the loader's collate_fn return the two"
        raise TrainingError(f"expected batches of two tensors (images, labels), {found}")
    images, labels = batch
    if images.ndim != 4 or labels.shape != images.shape[:1]:
        found = f"found {tuple(images.shape)} and {tuple(labels.shape)}"
        raise TrainingError(f"expected images (n, channels, height, width) and labels (n,), {found}")
    if images.dtype != weights[0].dtype:
        advice = "divide by 255" if images.dtype == torch.uint8 else "call .float() on images and model"
        raise TrainingError(f"expected the model's {weights[0].dtype}, found {images.dtype} images: {advice}")
    return images, labels


@contextmanager
def explained(model: nn.Module, images: Tensor, labels: Tensor) -> Iterator[None]:
    """Turn torch's inner error about a batch into a TrainingError that says what came in, and what to do.

    Warns where a model in eval mode is not the same twice.
    """
    random = None if model.training else torch.get_rng_state()
    try:
        yield
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        said = str(error).strip()
        if isinstance(error, (TrainingError, Diverged, torch.OutOfMemoryError)) or "allocate memory" in said:
            raise
        advice = next((f"; {advice}" for words, advice in ADVICE.items() if re.search(words, said)), "")
        raise TrainingError(
            f"expected a batch that {type(model).__name__} and its loss can take, found images {images.dtype} "
            f"{tuple(images.shape)}, labels {labels.dtype}{advice}: {said.partition(chr(10))[0]}"
        ) from error
    if random is not None and not torch.equal(random, torch.get_rng_state()):
        advice = "give functional dropout training=self.training, and keep layers in nn.ModuleList"
        warn(f"{type(model).__name__} draws random numbers in eval mode: {advice}")


def check(images: Tensor, labels: Tensor, logits: Tensor, loss_fn, loader, model: nn.Module) -> None:
    """Raise TrainingError where a loss or an accuracy makes no sense, and Diverged for NaN; `doubt` the rest.

    Only the first batch comes with its `loader`. Of later ones only labels not yet moved to a GPU are checked: a wrong
    one there would end the session, and checking on the GPU itself would mean waiting for it.
    """
    if loader is None:
        if labels.device.type == "cpu" != images.device.type:
            check_labels(labels, logits.shape[1])
        return
    if not isinstance(logits, Tensor):
        found = f"found a {type(logits).__name__}: pick the tensor of logits in the model's forward"
        raise TrainingError(f"expected logits ({len(labels)}, n_classes), {found}")
    if logits.ndim != 2 or logits.shape[1] < 2 or len(logits) != len(labels):
        found = f"found {tuple(logits.shape)}: end the model in one output per class, two for a yes or no"
        raise TrainingError(f"expected logits ({len(labels)}, n_classes) of two classes or more, {found}")
    if not torch.isfinite(images).all():
        raise TrainingError("expected finite images, found NaN or infinity: is a standard deviation zero?")
    if logits.isnan().any():
        raise Diverged("the model returns NaN: make it and its optimizer anew, and lower the learning rate")
    keywords = getattr(loss_fn, "keywords", {})  # of a functools.partial
    if keywords.get("reduction", getattr(loss_fn, "reduction", "mean")) == "sum":
        raise TrainingError('expected a loss averaged over the batch, found a sum: use reduction="mean"')
    loss_fn = getattr(loss_fn, "func", loss_fn)
    if wants_logits(loss_fn) and labels.dtype != torch.int64:
        raise TrainingError(f"expected labels of dtype int64, found {labels.dtype}: call labels.long()")
    check_labels(labels, logits.shape[1])
    if isinstance(later := getattr(loader, "labels", None), Tensor):
        check_labels(later, logits.shape[1])
    if torch.is_inference_mode_enabled():
        compare(model, loader)
    else:
        TRAINED_ON.setdefault(the_network(model), about_images(loader))
    doubt(images, labels, logits.detach(), loss_fn, loader, model.training)


def wants_logits(loss_fn) -> bool:
    """Whether `loss_fn` is cross entropy, or None as in `predict`."""
    return loss_fn in (None, nn.functional.cross_entropy) or isinstance(loss_fn, nn.CrossEntropyLoss)


def doubt(images: Tensor, labels: Tensor, logits: Tensor, loss_fn, loader, training: bool) -> None:
    """Warn of what is probably a mistake in a first batch that can be computed."""
    if (largest := float(images.abs().max())) >= LARGEST_INPUT:
        warn(f"the inputs reach {largest:.0f}, like raw bytes: divide pixels by 255, or normalise them")
    if wants_logits(loss_fn) and (training or loss_fn is None) and (logits >= 0).all():
        who = "cross entropy" if loss_fn else "predict"
        found = "probabilities" if are_probabilities(logits) else "nothing below zero"
        warn(
            f"the model returns {found}, but {who} wants logits: leave out its softmax, sigmoid or last ReLU"
        )
    if loss_fn is None and is_shuffled(loader):
        warn("the answers come in a shuffled order: give the loader shuffle=False")
    if not training and augments(loader):
        warn("the images that are measured are augmented: give this loader no augment, or train=False")
    if not training:
        return
    likelihood = loss_fn is nn.functional.nll_loss or isinstance(loss_fn, nn.NLLLoss)
    if likelihood and (logits.float().logsumexp(1).abs() > 0.1).any():
        warn(
            "NLLLoss wants logarithms of probabilities: end the model in log_softmax, or take CrossEntropyLoss"
        )
    if are_sorted(labels) and not is_shuffled(loader):
        found = f"{len(labels)} labels come sorted by class ({len(labels.unique())} of them so far)"
        warn(f"the first {found}: give the training loader shuffle=True")


def check_labels(labels: Tensor, n_classes: int) -> None:
    """Raise TrainingError unless `labels` are indices of the `n_classes` logits."""
    lowest, highest = labels.min().item(), labels.max().item()
    if lowest < 0 or highest >= n_classes:
        raise TrainingError(
            f"expected labels from 0 to {n_classes - 1}, as the model returns {n_classes} logits, found {lowest} to "
            f"{highest}: compare the width of the model's last layer with the data's number of classes"
        )


def check_loss(loss: Tensor, model: nn.Module, loss_fn) -> None:
    """Raise TrainingError where the first `loss` is none that can be trained on; warn of layers that it passes by."""
    found = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
    if found != ():
        raise TrainingError(f'expected a loss of one number, found {found}: use reduction="mean", no .item()')
    if torch.is_inference_mode_enabled() or not model.training:  # a network may stay in train mode
        return
    if not loss.requires_grad:
        advice = "leave out .detach(), .item() and no_grad()"
        raise TrainingError(f"expected a loss with a gradient, found one without: {advice}")
    weights = {id(p) for p in model.parameters()}
    losses = {id(p) for p in loss_fn.parameters()} if isinstance(loss_fn, nn.Module) else set()
    reached = {id(p) for p in leaves(loss) if isinstance(p, nn.Parameter)}
    if lost := sum(p.requires_grad and id(p) not in reached for p in model.parameters()):
        warn(
            f"{lost} trainable tensors do not reach the loss: does forward leave them out, or detach what they give?"
        )
    if strange := len(reached - weights - losses):
        warn(
            f"{strange} tensors in use are none of model.parameters(): keep layers in nn.ModuleList, not in a list"
        )


def leaves(loss: Tensor) -> list[Tensor]:
    """The tensors whose gradients `loss` gives."""
    found, todo, seen = [], [loss.grad_fn], {None}
    while todo:
        if (node := todo.pop()) not in seen:
            seen.add(node)
            found += [node.variable] if hasattr(node, "variable") else []
            todo += [one for one, _ in node.next_functions]
    return found


def are_probabilities(logits: Tensor) -> bool:
    """Whether no entry is negative and each row sums to 1; bfloat16 sums are right to a per cent."""
    return bool((logits >= 0).all() and ((logits.float().sum(1) - 1).abs() < 0.01).all())


def is_shuffled(loader) -> bool:
    """Whether a `BatchLoader` shuffles, or a `DataLoader` has any sampler but the one that goes from first to last."""
    samplers = {type(getattr(loader, name, None)) for name in ("sampler", "batch_sampler")}
    return getattr(loader, "shuffle", False) or not samplers <= {type(None), SequentialSampler, BatchSampler}


def augments(loader) -> bool:
    """Whether a `BatchLoader`, or a `PerImageDataset` with `per_image`, changes its images at random."""
    transform = getattr(getattr(loader, "dataset", None), "transform", None)
    return bool(getattr(loader, "augment", None)) or "augmented" in str(getattr(transform, "func", ""))


def are_sorted(labels: Tensor) -> bool:
    """Whether each class comes in one block, and blocks are long: in shuffled batches the classes are mixed."""
    n_classes, blocks = len(labels.unique()), 1 + int((labels[1:] != labels[:-1]).sum())
    return blocks <= n_classes and len(labels) >= max(FEWEST_LABELS, 4 * n_classes)
