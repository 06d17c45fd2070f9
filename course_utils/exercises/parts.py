"""Checks of a run's parts, before its first batch: device, optimizer, schedule, loaders, threads.

`fit` calls most, `lr_range_test` and `evaluate` some. What cannot work is a `TrainingError`, what is probably a
mistake a `TrainingWarning`. `pick_device` is here because it warns, too; `training` passes it on.
"""

import copy
import inspect
import os
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from operator import length_hint
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.optim import lr_scheduler
from torch.utils.data import BatchSampler, RandomSampler, SequentialSampler, Subset

from course_utils.exercises import first_batch
from course_utils.exercises.first_batch import TrainingError, image_set_of, warn

LONG_WARM_UP = 20  # epochs
FEW = 6  # of fewer batches an epoch, too many numbers are multiples
WHOLE = {type(None), SequentialSampler, RandomSampler}  # samplers that leave no place out
ONCE = ("builtins", "itertools", "torch.utils.data.dataloader")  # modules whose iterators do not begin again


def check_kinds(model, train_loader, validation_loader, scheduler, hooks) -> None:
    """Raise TrainingError where something else stands in a part's place."""
    network(model)
    iterable(train_loader)
    if validation_loader is not None:
        iterable(validation_loader)
    if scheduler is not None and (isinstance(scheduler, type) or not hasattr(scheduler, "step")):
        raise TrainingError(f"expected a scheduler, made with the optimizer, found {naming(scheduler)}")
    if hasattr(hooks, "start"):
        raise TrainingError(f"expected a list of hooks, found {naming(hooks)}: put it in brackets")
    for hook in hooks if isinstance(hooks, (list, tuple)) else ():
        if isinstance(hook, type) or not (hasattr(hook, "start") and hasattr(hook, "after_epoch")):
            raise TrainingError(f"expected hooks with start(run) and after_epoch(run), found {naming(hook)}")


def network(model) -> nn.Module:
    """`model`, or a TrainingError for what is no network."""
    if not isinstance(model, nn.Module):
        raise TrainingError(f"expected a network first, as SmallNet() makes one, found {naming(model)}")
    return model


def iterable(loader):
    """`loader`, or a TrainingError for what is none."""
    if isinstance(loader, type) or not (hasattr(loader, "__iter__") or hasattr(loader, "__getitem__")):
        makes = ": BatchLoader(image_set, …) makes one" if type(loader).__name__ == "ImageSet" else ""
        raise TrainingError(f"expected a loader of batches, found {naming(loader)}{makes}")
    if all(hasattr(loader, name) for name in ("store", "image_set", "augment")):  # a BatchLoader
        border, side = getattr(loader.augment, "padding", 0), loader.image_set.images.shape[1]
        if side <= loader.store.shape[1] != side + 2 * border:  # a smaller store was shrunk on purpose
            changed = "the loader's augment was changed after it was made, and its images have the wrong size"
            raise TrainingError(f"{changed}: make a new BatchLoader")
    return loader


def naming(thing) -> str:
    """What something is, for a message: "the class SmallNet" or "a list"."""
    if isinstance(thing, type):
        return f"the class {thing.__name__}"
    kind = type(thing).__name__
    return f"a{'n' * (kind[0] in 'AEIOaeio')} {kind}"


def check(run, validation_loader=None, budget: int | None = None) -> None:
    """Raise TrainingError where the parts of a `training.Run` do not belong together; warn of a slow set-up."""
    if not torch.is_grad_enabled():
        raise TrainingError("autograd is off, so nothing can be trained: call torch.set_grad_enabled(True)")
    if run.epochs < 1 or run.epochs % 1 > 0:  # infinitely many end with a hook
        raise TrainingError(f"expected a whole number of epochs, one or more, found {run.epochs!r}")
    iterators = [one for one in (run.loader, validation_loader) if hasattr(one, "__next__")]
    if run.epochs > 1 and any(type(one).__module__ in ONCE for one in iterators):
        found = "a generator, which gives its batches once"
        raise TrainingError(f"expected a loader for {run.epochs} epochs, found {found}: put them in a list")
    trainable = (p for p in run.model.parameters() if p.requires_grad)
    if budget is not None and (found := sum(p.numel() for p in trainable)) > budget:
        raise TrainingError(f"the model has {found:,} trainable weights, over the budget of {budget:,}")
    check_optimizer(run.model, run.optimizer, loss_fn=run.loss_fn)
    check_frozen(run.model)
    if (name := getattr(image_set_of(run.loader), "name", "")).endswith((" test", " validation")):
        warn(f"the network is trained on {name!r}: data.load and data.split give the training set first")
    elif validation_loader is not run.loader:  # which may be meant
        check_overlap(run.loader, validation_loader)
    groups = run.optimizer.param_groups  # which a wrapper of an optimizer shares with it
    if getattr(getattr(run.scheduler, "optimizer", None), "param_groups", groups) is not groups:
        raise TrainingError("the scheduler belongs to another optimizer: make it anew, after the optimizer")
    if isinstance(run.scheduler, lr_scheduler.ReduceLROnPlateau) and validation_loader is None:
        raise TrainingError("ReduceLROnPlateau waits for a loss: expected a validation loader, found None")
    first_batch.note(run.model, run.loader, anew=True)
    first_batch.compare(run.model, validation_loader)
    cpus, threads = available_cpus(), torch.get_num_threads()
    if threads > cpus and next(run.model.parameters()).device.type == "cpu":
        warn(f"{threads} threads share {cpus} CPU(s), which is slower: call torch.set_num_threads({cpus})")


def check_frozen(model: nn.Module) -> None:
    """Warn of frozen batch norms in eval mode that do not stay in it when the model is put into train mode."""
    norms = [layer for layer in model.modules() if getattr(layer, "running_mean", None) is not None]
    # Frozen: has weights, and trains none of them.
    still = [n for n in norms if not n.training and {p.requires_grad for p in n.parameters()} == {False}]
    if model.training and still:
        model.train()  # as fit is about to do
        if any(norm.training for norm in still):
            found = "fit puts all layers into train mode, and the averages of frozen batch norms move"
            warn(f"{found}: TransferNet keeps them in eval mode")


def check_optimizer(model: nn.Module, optimizer, loaders: str = "two loaders", loss_fn=None) -> None:
    """Raise TrainingError where `optimizer` was made for other weights; warn of weights that it leaves out."""
    if not hasattr(optimizer, "param_groups"):
        order = f"the order is model, {loaders}, loss, optimizer"
        raise TrainingError(f"expected an optimizer, found {naming(optimizer)}: {order}")
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    if closure and closure.default is closure.empty:
        found = f"{type(optimizer).__name__} asks for the loss several times a step"
        raise TrainingError(f"{found}, and fit computes it once: take SGD or AdamW")
    trainable = {id(p) for p in model.parameters() if p.requires_grad}
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    if not trainable and any(True for _ in model.parameters()):
        advice = "call requires_grad_(True) on the layers that are to learn"
        raise TrainingError(f"no weight is trainable: {advice}")
    parts = [part for part in (model, first_batch.bare_loss(loss_fn)) if isinstance(part, nn.Module)]
    left_out, strangers = trainable - held, held - {id(p) for part in parts for p in part.parameters()}
    share = f"{len(trainable & held)} of the model's {len(trainable)} trainable tensors"
    if trainable.isdisjoint(held) or (left_out and strangers):
        advice = "make the optimizer anew, after the model"
        raise TrainingError(f"the optimizer holds {share}, and {len(strangers)} of another model: {advice}")
    if left_out:
        warn(f"the optimizer trains {share}: if that is meant, call requires_grad_(False) on the others")


def check_overlap(loader, validation_loader) -> None:
    """Warn where more than half of what validates is trained on, or more than half of what trains validates."""
    (data, trained), (other, measured) = map(loaded, (loader, validation_loader))
    both = len(trained & measured) if same_pictures(data, other) else 0
    if both > len(measured) / 2:
        warn("the images that validate are those that train, and say nothing about others: see data.split")
    elif both > len(trained) / 2:
        warn("most images that train are among those that validate: see data.split")
    ours, theirs = image_set_of(loader), image_set_of(validation_loader)
    if ours is None or theirs is None or data is other is not None:
        return
    # Its own training accuracy may be meant; and with a sampler, nobody knows which of them are loaded.
    if ours.name == theirs.name and (len(ours) == len(theirs) or data is None or other is None):
        return
    held = {image.tobytes() for image in theirs.images}
    both = {found for image in ours.images if (found := image.tobytes()) in held}  # all would be 150 MB
    if len(both) > min(len(held), len(ours)) / 2:
        advice = "train on the other part that data.split gives, and look for copies among the pictures"
        warn(f"{len(both)} of {len(held)} validation images are trained on as well: {advice}")


def same_pictures(data, other) -> bool:
    """Whether two datasets are one, or torchvision's twins of the same pictures, each with a transform of its own."""
    if data is other or type(data) is not type(other):
        return data is other is not None
    ours, theirs = (getattr(one, "samples", getattr(one, "data", None)) for one in (data, other))
    with suppress(RuntimeError, ValueError):  # of tensors or arrays in a list, which are not compared
        if isinstance(ours, list):
            return ours == theirs
        return isinstance(ours, np.ndarray) and np.array_equal(ours, theirs)
    return False


def loaded(loader) -> tuple[object, set[int]]:
    """The data behind a loader, and the places in it that are loaded; None with a sampler that may leave some out."""
    batched = getattr(loader, "batch_sampler", None)
    samplers = {type(getattr(one, "sampler", None)) for one in (loader, batched)}
    if type(batched) not in (type(None), BatchSampler) or samplers - WHOLE:
        return None, set()
    data = getattr(loader, "dataset", None)
    places = range(length_hint(image_set_of(loader) if data is None else data))
    while isinstance(data, Subset):
        data, places = data.dataset, [int(data.indices[place]) for place in places]
    return getattr(image_set_of(loader) or getattr(data, "image_set", None), "images", data), {*places}


def check_range(
    model: nn.Module, loss_fn, optimizer, lr_min: float, lr_max: float, steps: int, stop_at: float
) -> None:
    """Raise TrainingError where a range test could not rise, or where `check_optimizer` does."""
    check_optimizer(network(model), optimizer, "loader", loss_fn)
    if not 0 < lr_min < lr_max or steps < 2:
        found = f"found {lr_min:g} to {lr_max:g} in {steps} step(s)"
        raise TrainingError(f"expected rates that rise, from one above 0, in two steps or more, {found}")
    if not stop_at > 1:
        raise TrainingError(f"expected a stop_at above 1, a multiple of the lowest loss, found {stop_at}")


def check_schedule(run, steps_per_batch: Callable) -> None:
    """Raise TrainingError where the schedule ends before the run does; warn of one that counts the wrong thing."""
    at_zero = all(group["lr"] == 0 for group in run.optimizer.param_groups)
    if (scheduler := run.scheduler) is None:
        if at_zero:
            raise TrainingError("the optimizer's rate is 0, as after a schedule: make the optimizer anew")
        first = run.optimizer.param_groups[0]
        stepped = getattr(run.optimizer, "_opt_called", False)  # since the schedule was made
        wrapped = hasattr(run.optimizer.step, "_wrapped_by_lr_sched")  # or the rates came with a state dict
        if "initial_lr" in first and wrapped and not stepped and run.epochs > 1:
            found = f"fit was not given it and will not step it: the rate is {float(first['lr']):g}"
            warn(f"a schedule was made for this optimizer, but {found}")
        return
    per_batch, name = steps_per_batch(scheduler), type(scheduler).__name__
    if not per_batch and any(map(steps_per_batch, all_of(scheduler))):
        raise TrainingError(
            f"a cycle inside a {name} would step once an epoch: if all of it counts batches, set its per_batch = True"
        )
    end, each = end_of(scheduler), length_hint(run.loader) if per_batch else 1
    needed = getattr(scheduler, "last_epoch", 0) + (run.epochs - len(run.history)) * each
    if end is not None and needed > end:
        length = f" (an epoch has {each} batches, as len(loader) says)" if per_batch else ""
        raise TrainingError(
            f"the schedule ends after {end} {'batches' if per_batch else 'epochs'}, and this run would go to {needed}: "
            f"make one for all epochs of the run{length}; to go on after a finished run (or its checkpoint), make "
            "optimizer and schedule anew"
        )
    corners, rates = (getattr(scheduler, name, None) for name in ("corners", "rates"))  # of `one_cycle`
    if corners and corners[1] < each and rates[0] < rates[1] and run.epochs >= 5:
        found = f"the rate peaks in the first of {run.epochs} epochs"
        warn(f"{found}: one_cycle's peak_epoch counts epochs; if a share was meant, multiply it by them")
    epochs = getattr(next(iter(getattr(scheduler, "lr_lambdas", ())), None), "epochs", None)  # of `one_cycle`
    if per_batch and epochs == each != run.epochs and end == each * run.epochs:
        warn(
            f"one_cycle was made for {epochs} epochs of {run.epochs} batches, and the run has them the other way round"
        )
    if at_zero and not per_batch and not len(run.history):
        warn(f"{name} begins with a rate of 0, and the first epoch trains nothing: count from epoch + 1")
    if left := left_by_another(scheduler):
        falls = isinstance(scheduler, (lr_scheduler.CosineAnnealingLR, lr_scheduler.PolynomialLR))
        if falls and left[0] <= getattr(scheduler, "eta_min", 0):
            found = "stays at the rate that another schedule left"
            raise TrainingError(f"{name} {found}: make the optimizer anew, too")
        found = f"at the rate {left[0]:g}, not at {left[1]:g}, with which the optimizer began"
        warn(f"{name} starts {found}: if that is not meant, make the optimizer anew")
    doubt_shares(run, needed)
    if not per_batch:
        return doubt_epochs(scheduler, needed, length_hint(run.loader))
    images = length_hint(image_set_of(run.loader) or getattr(run.loader, "dataset", ()))
    if end and end == run.epochs * images > needed:
        found = f"for each of {images} images; the run has {needed} batches"
        warn(f"the schedule has a step {found}: use len(loader)")
    elif end and each and end > needed + each:
        found = f"{end} batches, and the run has {needed}, so it ends before the rate has come down"
        warn(f"the schedule is made for {found}: if you do not go on with it, make it for this run")


def doubt_shares(run, steps: int) -> None:
    """Warn of a LambdaLR whose functions seem to return rates, where they should shares of the optimizer's rate."""
    functions, far = getattr(run.scheduler, "lr_lambdas", ()), max(steps, 1000)  # after any warm-up
    tops = [peak(share, far) for share in functions]
    rate = max(float(group.get("initial_lr", 1)) for group in run.optimizer.param_groups)
    if tops and None not in tops and 0 < (top := max(tops)) < 0.02 and rate < 0.5:
        advice = "it should return a share of that rate, not the rate itself"
        warn(f"the schedule's function gives at most {top:.2g} of the optimizer's rate {rate:g}: {advice}")


def doubt_epochs(scheduler, epochs: int, batches: int) -> None:
    """Warn of a schedule that steps by epochs and seems to have been given batches."""
    name, period = type(scheduler).__name__, max(map(period_of, all_of(scheduler)))
    shares = getattr(scheduler, "lr_lambdas", ())
    advice = "if it counts batches, set its per_batch = True"
    if any(rises_late(share, epochs, batches) for share in shares):
        warn(f"{name} steps by epochs, and hardly rises in {epochs}: {advice}")
    elif epochs > 1 and batches >= FEW and any(falls_late(share, epochs, batches) for share in shares):
        warn(f"{name} steps by epochs, and comes down in {epochs * batches}, not in {epochs}: {advice}")
    whole_batches = epochs * (batches - 1)  # as len(images) // batch_size counts them
    if period > epochs and batches >= FEW and (period % batches == 0 or period == whole_batches > batches):
        advice = "divide batches by len(loader), if batches were meant"
        warn(f"{name}'s {period} steps are epochs; the run has {epochs}: {advice}")


def left_by_another(scheduler) -> tuple[float, float] | None:
    """For a new scheduler over an optimizer whose rate another has changed: that rate, and the one it should have."""
    if getattr(scheduler, "last_epoch", None) != 0 or not hasattr(scheduler, "_get_closed_form_lr"):
        return None
    try:
        begin = scheduler._get_closed_form_lr()
    except ZeroDivisionError:  # of a length of zero
        return None
    now = [float(group["lr"]) for group in scheduler.optimizer.param_groups]
    rates = zip(now, map(float, begin), strict=False)  # of a group that was added later it knows nothing
    return next(((there, own) for there, own in rates if abs(there - own) > 1e-6 * abs(own)), None)


def rises_late(share: Callable[[int], float], epochs: int, batches: int) -> bool:
    """Whether a LambdaLR's function of the step stays low for the epochs of a run, and rises within its batches."""
    early, late = (peak(share, end) for end in (max(epochs, LONG_WARM_UP), epochs * batches))
    return None not in (early, late) and early < late / 2


def falls_late(share: Callable[[int], float], epochs: int, batches: int) -> bool:
    """Whether it is high after the epochs of a run, and comes down to nothing just at the end of its batches."""
    end = epochs * batches
    soon, middle, near, last = (peak(share, step + 1, step) for step in (epochs, end // 2, 4 * end // 5, end))
    if None in (soon, middle, near, last, top := peak(share, end)):
        return False
    return -1e-6 < last < top / 33 < min(soon, near) and middle > top / 5


def peak(share: Callable[[int], float], steps: int, first: int = 0) -> float | None:
    """The highest value of a LambdaLR's function from `first` until `steps`; None where it cannot be asked.

    The function is called for this, so one that says append, next, pop or print, or has two answers to one step, is
    left alone.
    """
    if {"append", "next", "pop", "print"} & {*getattr(getattr(share, "__code__", None), "co_names", ())}:
        return None
    try:
        share = copy.deepcopy(share)  # an object may count its calls; a function stays itself
        with warnings.catch_warnings(action="ignore"), torch.random.fork_rng(devices=[]):
            if share(first) != share(first):  # it counts its calls
                return None
            return max(share(step) for step in range(first, steps, 1 + steps // 1000))
    except Exception:  # a table of the epochs ends there
        return None


def all_of(scheduler) -> Iterator:
    """A scheduler and those inside it."""
    yield scheduler
    for one in getattr(scheduler, "_schedulers", ()):
        yield from all_of(one)


def period_of(scheduler) -> int:
    """The largest number of steps among a scheduler's settings."""
    names = ("step_size", "total_steps", "total_iters", "T_max", "T_0")
    counts = [getattr(scheduler, name, 0) or 0 for name in names]
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


def pick_device() -> torch.device:
    """The fastest device here that trains: CUDA, then Apple's MPS, then the CPU; or the one in `COURSE_DEVICE`.

    Torch's builds leave older graphics cards out. On Apple's processors the gradients of channels-last images fail
    before torch 2.14 and are wrong before macOS 15 (issues 175189 and 107214 of PyTorch).
    """
    if name := os.environ.get("COURSE_DEVICE"):
        if name not in ("cpu", "cuda", "mps"):
            raise ValueError(f"unknown device {name!r} in COURSE_DEVICE: use 'cpu', 'cuda' or 'mps'")
        if name != "cpu" and not (torch.cuda if name == "cuda" else torch.backends.mps).is_available():
            raise ValueError(f"COURSE_DEVICE asks for {name!r}, and PyTorch finds none here: use 'cpu'")
        return torch.device(name)
    if torch.cuda.is_available():
        built_for = [int(re.sub(r"\D", "", name)) for name in torch.cuda.get_arch_list() if "sm_" in name]
        major, minor = torch.cuda.get_device_capability()
        if 10 * major + minor >= min(built_for, default=0):
            return torch.device("cuda")
        found = f"PyTorch {torch.__version__} has no code for {torch.cuda.get_device_name()}, so the processor trains"
        warn(f"{found}: an older PyTorch may have it, see pytorch.org/get-started/previous-versions")
    mps = torch.backends.mps
    if mps.is_available():
        if torch.__version__ >= (2, 14) and mps.is_macos_or_newer(15, 0):
            return torch.device("mps")
        found = "Apple's graphics processor trains from PyTorch 2.14 and macOS 15 on"
        warn(f"{found}, so here the processor does")
    return torch.device("cpu")


def available_cpus(quota_file: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """How many CPUs this process may use: torch counts the machine's, whatever share a container has of them."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = map(int, quota_file.read_text().split())  # microseconds of each period
    except (OSError, ValueError):  # there is none, or it is "max"
        return cpus
    return min(cpus, max(1, quota // period))
