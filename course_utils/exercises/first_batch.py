"""Checks of a run's first batch, and quick ones of all: each mistake in one line, before an hour is spent.

`fit`, `validate_epoch`, `evaluate`, `predict` and `lr_range_test` share these checks. They draw no random numbers and
change nothing: a run comes out the same to the last bit. What cannot work is a `TrainingError`, what is probably a
mistake a `TrainingWarning`.
"""

import functools
import math
import os
import re
import sys
import warnings
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import zip_longest
from operator import eq, length_hint
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import is_lazy
from torch.optim.swa_utils import AveragedModel
from torch.utils import data

# Torch is a caller, too: of what `@torch.inference_mode()` decorates.
INSIDE = tuple(str(folder) + os.sep for folder in (Path(__file__).parents[1], Path(torch.__file__).parent))
LARGEST_INPUT = 100  # normalised pixels stay below ten, bytes come up to 255
SMALLEST_INPUT = 0.02  # in [0, 1], the brightest pixel of a batch lies well above
ALIKE = 2.5  # up to this ratio two batches' spreads of pixels may differ by chance; normalising makes it about four
ACTIVATIONS = {name: name for name in "Relu Sigmoid Gelu Tanh LeakyRelu Silu Softplus Hardswish Mish".split()}
ACTIVATIONS |= {"Hardtanh": "ReLU6", "Elu": "SELU or ELU"}  # as torch names an operation, and we
KEEPING = {"ToCopy", "View", "UnsafeView", "Squeeze", "Unsqueeze", "Clone"}  # which change no number
IMAGENET = 1.0  # the spread of the pixels that a pretrained network learned from
RANDOM = "Rand|ColorJitter|TrivialAugment|AutoAugment|AugMix|ElasticTransform|OneOf|SomeOf"
FEWEST = 32  # that many labels in class order are no coincidence, and that many images have a spread worth comparing

# Words of torch's own errors about a batch, and what to do.
ADVICE = {
    "shapes cannot be multiplied": "a Linear layer needs as many in_features as come in (TransferNet: n_features); if "
    "the network was made for pictures of another size, resize them",
    "but got 1 channels": "grey images need three equal channels, images.expand(-1, 3, -1, -1)",
    "to have 3 channels": "channels come before height and width, images.permute(0, 3, 1, 2), and none is alpha",
    "more than 1 value per channel": "BatchNorm cannot train on one image, so give the loader drop_last=True"
    ", or a larger batch_size",
    "view size": "where the network says view, let it say reshape: memory is in another order"
    " in channels-last format, and after a permute or a transpose",
    "for 'Long'|output type Long|got Long": "a loss is called with (logits, labels), and one_hot(…) needs .float()",
    "same device|on MPS device|on mps": "the loss's weight and other tensors of your own belong on the model's device",
    "Long but found|to be Long": "labels have to be int64: call labels.long()",
    "inplace operation": "x += r changes what an activation keeps for its gradient: write x = x + r",
    "a second time": "what lasts from one batch to the next, as a running average does, needs .detach()",
    r"\bDouble(Tensor)?\b": "the loss's weight and other tensors out of NumPy want .float()",
    r"BFloat16|\bHalf(Tensor)?\b": 'a part of the network does not follow mixed precision: try precision="float32"',
    "scalar type|same dtype": "the loss's weight and other tensors out of NumPy want .float()",
    "Inference tensors": "the model keeps a tensor from a call of evaluate or predict: make it anew in forward",
}


# Losses that would spread labels over the logits, silently where a batch has as many images as there are classes.
OF_NUMBERS = (nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss, nn.HuberLoss, nn.BCELoss, nn.BCEWithLogitsLoss)
OF_NUMBERS += (functional.mse_loss, functional.l1_loss, functional.smooth_l1_loss, functional.huber_loss)
OF_NUMBERS += (functional.binary_cross_entropy, functional.binary_cross_entropy_with_logits)
DATASET = "if this is a dataset, DataLoader(dataset, batch_size=64) makes its loader"
COLUMN = "labels.squeeze(1) makes one number of each"
SHARES = "labels.argmax(1) of one-hot rows gives one class an image; mixed labels, as of CutMix, belong in the loss"
CHANNELS = "a convolution takes as many channels as the layer before it gives, the first one three"


class TrainingError(ValueError):
    """Training cannot go on: what was expected, what was found, and what to do."""


class Diverged(RuntimeError):
    """The loss stopped being a number."""


class TrainingWarning(UserWarning):
    """Training goes on, but something is probably wrong: what it is, and where to look."""


def warn(message: str | None) -> None:
    """Warn of `message`, if any, at the line outside the package that called `fit` or another function of it."""
    frame, level = sys._getframe(), 1
    while frame and frame.f_code.co_filename.startswith(INSIDE):
        frame, level = frame.f_back, level + 1
    if message:
        warnings.warn(message, TrainingWarning, stacklevel=level)


def unpack(batch, weights: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Images and labels of what a loader gave; TrainingError where a network with these `weights` cannot take them."""
    pair = isinstance(batch, (tuple, list)) and len(batch) == 2
    if not pair or not all(isinstance(part, Tensor) for part in batch):
        some = list(batch)[:3] if isinstance(batch, (tuple, list, dict, Tensor)) else []
        parts = [part if isinstance(batch, dict) else type(part).__name__ for part in some]
        advice = "let the loader's collate_fn return the two"
        if pair and isinstance(batch[1], (int, np.integer)):
            advice = DATASET
        elif pair and all(isinstance(part, (Tensor, np.ndarray)) for part in batch):
            advice = "torch.from_numpy makes tensors of arrays"
        elif pair and isinstance(batch[1], (list, tuple)) and isinstance([*batch[1], 0][0], str):
            advice = "labels are numbers of classes, from 0, and not their names"
        found = f"found a {type(batch).__name__} of {parts}: {advice}"
        raise TrainingError(f"expected batches of two tensors (images, labels), {found}")
    images, labels = batch
    if images.ndim != 4 or labels.shape != images.shape[:1]:
        advice = {0: DATASET, 2: COLUMN if labels.shape[-1:] == (1,) else SHARES}.get(labels.ndim, "")
        found = f"found {tuple(images.shape)} and {tuple(labels.shape)}{advice and ': ' + advice}"
        raise TrainingError(f"expected images (n, channels, height, width) and labels (n,), {found}")
    if images.dtype != weights[0].dtype:
        advice = "divide by 255" if images.dtype == torch.uint8 else "call .float() on images and model"
        raise TrainingError(f"expected the model's {weights[0].dtype}, found {images.dtype} images: {advice}")
    return images, labels


@contextmanager
def explained(model: nn.Module, images: Tensor, labels: Tensor) -> Iterator[None]:
    """Turn torch's inner error about a batch into a TrainingError that says what came in, and what to do."""
    try:
        yield
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        said = str(error).strip()
        passed = isinstance(error, (TrainingError, Diverged, torch.AcceleratorError))
        compiler = type(error).__module__.startswith(("torch._dynamo", "torch._inductor"))
        compiler &= type(error).__name__ != "TorchRuntimeError"  # which is the network's
        if passed or compiler or re.search("out of memory|allocate memory", said):
            raise
        # Where the images have their three channels, it is a later layer that differs.
        known = ({"to have .* channels": CHANNELS} if images.shape[1] == 3 else {}) | ADVICE
        advice = next((f"; {advice}" for words, advice in known.items() if re.search(words, said)), "")
        raise TrainingError(
            f"expected a batch that {type(model).__name__} and its loss can take, found images {images.dtype} "
            f"{tuple(images.shape)}, labels {labels.dtype}{advice}: {said.partition(chr(10))[0]}"
        ) from error


def random_before(model: nn.Module, images: Tensor, loader) -> Tensor | None:
    """Where the random numbers stand before a first batch; None before a later one, or one that draws lazy weights."""
    return None if loader is None or any(map(is_lazy, model.parameters())) else random_state(images.device)


def random_state(device: torch.device) -> Tensor:
    """Where the random numbers of a device stand; nothing on a device that does not say."""
    states = {"cpu": torch.get_rng_state, "mps": torch.mps.get_rng_state}
    states["cuda"] = lambda: torch.cuda.get_rng_state(device)
    return states.get(device.type, lambda: torch.empty(0))()


def check(
    images: Tensor, labels: Tensor, logits: Tensor, loss_fn, loader, model: nn.Module, random: Tensor | None
) -> None:
    """Raise TrainingError where a loss or an accuracy makes no sense, and Diverged for NaN; `doubt` the rest.

    Only the first batch comes with its `loader`. Of later ones only labels not yet moved to a GPU are checked: a wrong
    one there would end the session, and checking on the GPU itself would mean waiting for it.
    """
    if loader is None:
        if labels.device.type == "cpu" and images.device.type != "cpu":
            check_labels(labels, logits.shape[1])
        return
    check_logits(images, labels, logits)
    if not model.training:
        moved = random is not None and not torch.equal(random, random_state(images.device))
        check_eval_mode(model, moved)
    n_classes, given = logits.shape[1], gives(logits, loss_fn)
    check_loss_fn(loss_fn, loader.labels if gives_as_stored(loader) else labels, n_classes)
    if torch.is_inference_mode_enabled():
        compare(model, loader, images, given, n_classes if wants_logits(loss_fn) else 0, int(labels.max()))
    else:
        note(model, loader, images, given)
    doubt(images, labels, logits, loss_fn, loader, model.training)


def check_logits(images: Tensor, labels: Tensor, logits: Tensor) -> None:
    """Raise TrainingError where `logits` are not two or more numbers for each image, and Diverged for NaN."""
    if not isinstance(logits, Tensor):
        advice = "pick the tensor of logits in the model's forward"
        if logits is None:
            advice = "the model's forward returns nothing, so end it with a return"
        found = f"found a {type(logits).__name__}: {advice}"
        raise TrainingError(f"expected logits ({len(labels)}, n_classes), {found}")
    if logits.ndim != 2 or logits.shape[1] < 2 or len(logits) != len(labels):
        advice = "end the model in one output per class, two for a yes or no"
        if logits.ndim == 2 and len(logits) != len(labels):
            advice = "its forward mixes images up, so flatten with x.flatten(1)"
        found = f"found {tuple(logits.shape)}: {advice}"
        raise TrainingError(f"expected logits ({len(labels)}, n_classes) of two classes or more, {found}")
    if not torch.isfinite(images).all():
        raise TrainingError("expected finite images, found NaN or infinity: is a standard deviation zero?")
    if logits.isnan().any():
        old = "if it was trained before, make it and its optimizer anew and lower the learning rate"
        new = "if it is new, look for a division or a root in forward"
        raise Diverged(f"the model returns NaN: {old}; {new}")


def check_eval_mode(model: nn.Module, moved: bool) -> None:
    """Warn of a network that is partly in train mode: random numbers were drawn (`moved`), a list holds norms, or a
    norm has no averages.
    """
    name = type(model).__name__
    if moved:
        advice = "give functional dropout training=self.training, and keep layers in nn.ModuleList"
        warn(f"{name} draws random numbers in eval mode: if not meant, {advice}")
    if any(isinstance(layer, _BatchNorm) and layer.running_mean is None for layer in model.modules()):
        advice = "so an answer depends on its batch: if not meant, leave out track_running_stats=False"
        warn(f"a batch norm of {name} has no running averages, {advice}")
    if hidden_norms(model):
        advice = "they go on training, and measuring moves their batch norm: keep them in nn.ModuleList"
        warn(f"{name} has networks in a list, where eval mode does not reach them: {advice}")


def check_loss_fn(loss_fn, labels: Tensor, n_classes: int) -> None:
    """Raise TrainingError where `loss_fn` sums, where its weights make no loss, and for `labels` it cannot take."""
    if isinstance(loss_fn, type):
        made = f"{'nn.' * loss_fn.__module__.startswith('torch.nn')}{loss_fn.__name__}()"
        raise TrainingError(f"a loss is made before it is called: {made}")
    keywords = getattr(loss_fn, "keywords", {})  # of a functools.partial
    reduction, weight = (keywords.get(name, getattr(loss_fn, name, None)) for name in ("reduction", "weight"))
    if reduction == "sum":
        raise TrainingError('expected a loss averaged over the batch, found a sum: use reduction="mean"')
    of_classes = wants_logits(loss_fn) or wants_logarithms(loss_fn)
    if of_classes and isinstance(weight, Tensor) and not (weight.isfinite().all() and weight.any()):
        found = "only zeros" if weight.isfinite().all() else "NaN or infinity"
        raise TrainingError(f"the weights of the classes hold {found}: is there a class without pictures?")
    if wants_logits(loss_fn) and labels.dtype != torch.int64:
        raise TrainingError(f"expected labels of dtype int64, found {labels.dtype}: call labels.long()")
    if type(bare_loss(loss_fn)) in OF_NUMBERS or bare_loss(loss_fn) in OF_NUMBERS:
        found = getattr(bare_loss(loss_fn), "__name__", type(bare_loss(loss_fn)).__name__)
        raise TrainingError(f"{found} compares numbers, and labels are classes: take nn.CrossEntropyLoss()")
    ignored = keywords.get("ignore_index", getattr(loss_fn, "ignore_index", None))
    check_labels(labels if ignored is None else labels[labels != ignored], n_classes)


def hidden_norms(model: nn.Module) -> list[nn.Module]:
    """Batch norms in train mode in plain lists and dictionaries, which torch does not look into."""
    own = ("_modules", "_parameters", "_buffers")
    todo = [value for part in model.modules() for name, value in vars(part).items() if name not in own]
    found, seen = [], set()
    while todo:
        if isinstance(one := todo.pop(), nn.Module):
            found += one.modules()
        elif isinstance(one, (list, tuple, dict)) and id(one) not in seen:  # which may hold itself
            seen.add(id(one))
            todo += one.values() if isinstance(one, dict) else one
    return [layer for layer in found if layer.training and getattr(layer, "running_mean", None) is not None]


def wants_logits(loss_fn) -> bool:
    """Whether `loss_fn` is cross entropy, or None as in `predict`."""
    loss_fn = bare_loss(loss_fn)
    return loss_fn in (None, nn.functional.cross_entropy) or isinstance(loss_fn, nn.CrossEntropyLoss)


def wants_logarithms(loss_fn) -> bool:
    """Whether `loss_fn` is the negative log-likelihood."""
    return bare_loss(loss_fn) is nn.functional.nll_loss or isinstance(bare_loss(loss_fn), nn.NLLLoss)


def bare_loss(loss_fn):
    """The loss itself, of which a functools.partial has filled in arguments."""
    return loss_fn.func if isinstance(loss_fn, functools.partial) else loss_fn


def doubt_pixels(images: Tensor, loader) -> None:
    """Warn of pixels on a scale that no network of the course is trained on."""
    store, pixels = image_set_of(loader), images.float()
    largest = float(pixels.abs().max())
    if store is not None and 0 < store.images[:100].max() <= 1:
        warn("all pixels are 0 or 1: if they were floats, multiply by 255 before the cast to uint8")
    elif largest >= LARGEST_INPUT:
        warn(
            f"the inputs reach {largest:.0f}, like raw bytes: unless the network does it, divide pixels by 255"
        )
    elif 0 < largest < SMALLEST_INPUT:
        advice = "were pixels divided by 255 twice, or cast to whole numbers?"
        warn(f"the inputs stay below {largest:.2g}: {advice}")
    elif abs(mean := float(pixels.mean())) > 1 and float(pixels.std((0, 2, 3)).max()) < SMALLEST_INPUT:
        advice = "were pixels in [0, 1] normalised as if they were bytes?"
        warn(f"all the inputs are close to {mean:.2g}: {advice}")
    if is_scrambled(images):
        warn("red, green and blue lie side by side, as after a reshape: use permute(0, 3, 1, 2)")


def is_scrambled(images: Tensor) -> bool:
    """Whether red, green and blue of a pixel lie side by side, as after a reshape from (n, height, width, 3).

    Then the third pixel to the right has the same colour. In photographs it differs twice as much as the next one.
    """
    if images.shape[1] != 3 or len(images) < FEWEST or images.shape[3] < 8:
        return False
    near, far = ((images[..., step:] - images[..., :-step]).abs().mean() for step in (1, 3))
    return bool(far < 0.8 * near)


def doubt(images: Tensor, labels: Tensor, logits: Tensor, loss_fn, loader, training: bool) -> None:
    """Warn of what is probably a mistake in a first batch that can be computed."""
    doubt_pixels(images, loader)
    if loss_fn is None and are_probabilities(logits):
        warn("the model returns probabilities, but predict wants logits: leave out its softmax")
    if loss_fn is None and is_shuffled(loader):
        warn("the answers come in a shuffled order: give the loader shuffle=False and no random sampler")
    if not training and augments(loader):
        warn("the images that are measured are augmented: give this loader no augment, or train=False")
    if torch.is_inference_mode_enabled() and (found := not_each_once(loader)):
        warn(f"what is measured is not each image once: {found}")
    if not training:
        return
    if wants_logarithms(loss_fn) and (logits.float().logsumexp(1).abs() > 0.1).any():
        advice = "end the model in log_softmax, or take CrossEntropyLoss"
        warn(f"NLLLoss wants logarithms of probabilities: {advice}")
    if len(labels) < FEWEST and gives_as_stored(loader):
        labels = loader.labels  # a small batch does not tell
    if are_sorted(labels) and in_given_order(loader):
        found = f"{len(labels)} labels come sorted by class ({len(labels.unique())} of them so far)"
        warn(f"the first {found}: give the training loader shuffle=True, unless it draws at random by itself")


def check_labels(labels: Tensor, n_classes: int) -> None:
    """Raise TrainingError unless `labels` are indices of the `n_classes` logits."""
    lowest, highest = (labels.min().item(), labels.max().item()) if len(labels) else (0, 0)
    if lowest < 0 or highest >= n_classes:
        raise TrainingError(
            f"expected labels from 0 to {n_classes - 1}, as the model returns {n_classes} logits, found {lowest} to "
            f"{highest}: compare the width of the model's last layer with the data's number of classes"
        )


def check_loss(loss: Tensor, logits: Tensor, labels: Tensor, model: nn.Module, loss_fn) -> None:
    """Raise TrainingError where the first `loss` is none that can be trained on; warn of what it is computed from, of
    a slip in a loss of one's own, and of layers that it passes by.
    """
    found = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        raise TrainingError(f'expected a loss of one number, found {found}: use reduction="mean", no .item()')
    if torch.is_inference_mode_enabled() or not model.training:  # a network may stay in train mode
        return
    if not loss.requires_grad:
        advice = "leave out .detach(), .item() and no_grad()"
        raise TrainingError(f"expected a loss with a gradient, found one without: {advice}")
    of_logits = wants_logits(loss_fn)
    if not (of_logits or wants_logarithms(loss_fn)):
        known = (labels >= 0) & (labels < logits.shape[1])  # the others are ignored, see `check_loss_fn`
        doubt_own_loss(float(loss.detach()), logits.detach().float()[known], labels[known])
    nodes = graph_of(loss)
    if (last := before_softmax(nodes)) in ACTIVATIONS:
        warn(f"the model ends in a {ACTIVATIONS[last]}, but cross entropy wants logits: leave it out")
    elif of_logits and are_probabilities(logits):
        warn("the model returns probabilities, but cross entropy wants logits: leave out its softmax")
    elif last == "Softmax":
        advice = "leave it out of the model, or of the loss"
        warn(f"a softmax comes before cross entropy, which wants logits: {advice}")
    if any(isinstance(node, torch.autograd.function.BackwardCFunction) for node in nodes):
        return  # a function of somebody's own, as of gradient checkpointing, may hide a part
    leaves = [getattr(node, "variable", None) for node in nodes]
    reached = {id(leaf) for leaf in leaves if isinstance(leaf, nn.Parameter)}
    if any(p.requires_grad and id(p) not in reached for p in model.parameters()):
        advice = "does forward leave them out, or detach what they give?"
        warn(f"some trainable weights have no part in the first loss: if not by chance, {advice}")
    owners = model, bare_loss(loss_fn), getattr(loss_fn, "__self__", None)  # of a method
    own = {id(p) for one in owners if isinstance(one, nn.Module) for p in one.parameters()}
    if reached - own:
        advice = "keep layers in nn.ModuleList, not in a list, and weights of a loss in an nn.Module"
        warn(f"{len(reached - own)} tensors that are trained belong to no module: {advice}")


def doubt_own_loss(loss: float, logits: Tensor, labels: Tensor) -> None:
    """Warn of a loss that is cross entropy, but for its sign or for a sum or mean too many, or that is below zero."""
    plain = float(nn.functional.cross_entropy(logits, labels.to(logits.device).long()))
    slips = {}
    if plain > min(1, 0.9 * math.log(logits.shape[1])):  # lower, minus a mean probability may look alike
        slips[-plain] = "of the wrong sign: put a minus before the logarithm"
    if len(labels) > 2:
        slips[plain * len(labels)] = "summed over the batch: take the mean over images"
    if logits.shape[1] > 2 < len(labels):  # of two classes, a focal loss begins at as little
        slips[plain / len(labels)] = "divided by the size of the batch once too often"
    if logits.shape[1] > 2:
        slips[plain / logits.shape[1]] = "averaged over classes as well: sum over these, then take the mean"
    for value, slip in slips.items():
        if plain and math.isclose(loss, value, rel_tol=0.02):
            return warn(f"the loss looks like cross entropy {slip}, if that is not meant")
    if loss < 0 and plain > math.log(logits.shape[1]) / 2:  # later a penalty may outweigh cross entropy
        warn("the loss is below zero: is a logarithm missing, or a softmax before it?")


def graph_of(loss: Tensor) -> set:
    """The nodes of the graph that leads back from `loss`; a leaf's node has it as its `variable`."""
    found, todo = set(), [loss.grad_fn]
    while todo:
        if (node := todo.pop()) is not None and node not in found:
            found.add(node)
            todo += [one for one, _ in node.next_functions]
    return found


def before_softmax(nodes: set) -> str:
    """What should not come before the softmax in a loss and does, as torch names it ("Relu"); empty if nothing."""
    for node in nodes:
        if kind(node) in ("LogSoftmax", "BinaryCrossEntropyWithLogits"):
            while kind(node := node.next_functions[0][0]) in KEEPING:
                pass
            if kind(node) in (*ACTIVATIONS, "Softmax") and getattr(node, "_saved_min_val", 0) >= 0:
                return kind(node)
    return ""


def kind(node) -> str:
    """The operation that a node of a graph goes back through."""
    return re.sub(r"Backward\d$", "", type(node).__name__)


def are_probabilities(logits: Tensor) -> bool:
    """Whether no entry is negative and each row sums to 1; bfloat16 sums are right to a per cent."""
    return bool((logits >= 0).all() and ((logits.float().sum(1) - 1).abs() < 0.01).all())


def is_shuffled(loader) -> bool:
    """Whether a `BatchLoader` or a `DataLoader` says that it shuffles."""
    says = getattr(loader, "shuffle", False) is True  # other libraries have a method of this name
    kinds = (data.RandomSampler, data.SubsetRandomSampler, data.WeightedRandomSampler)
    batched = getattr(getattr(loader, "batch_sampler", None), "sampler", None)
    return says or isinstance(getattr(loader, "sampler", None), kinds) or isinstance(batched, kinds)


def in_given_order(loader) -> bool:
    """Whether it goes from the first image to the last, as any loader without a sampler of its own."""
    samplers = {type(getattr(loader, name, None)) for name in ("sampler", "batch_sampler")}
    return not is_shuffled(loader) and samplers <= {type(None), data.SequentialSampler, data.BatchSampler}


def augments(loader) -> bool:
    """Whether a `BatchLoader`, `per_image` or one of torchvision's transforms changes its images at random."""
    ours = getattr(loader, "augment", None)
    if type(ours).__name__ == "Augment":
        return any((ours.padding, ours.flip, ours.hole and ours.hole_chance, ours.jitter))
    transform = getattr(whole(getattr(loader, "dataset", None)), "transform", None)
    random = any(is_random(step) for step in steps_of(transform))
    return random or getattr(getattr(transform, "func", None), "__name__", "") == "_augmented"


def steps_of(transform) -> Iterator:
    """A transform and those that it is composed of, of torchvision or of albumentations."""
    yield transform
    inner = transform if isinstance(transform, nn.Sequential) else getattr(transform, "transforms", None)
    for one in inner if isinstance(inner, (list, tuple, nn.ModuleList, nn.Sequential)) else ():
        yield from steps_of(one)


def is_random(step) -> bool:
    """Whether a transform changes images at random, by its name or, in albumentations, by its chance."""
    theirs, chance = type(step).__module__.startswith("albumentations"), getattr(step, "p", 1)
    return bool(re.match(RANDOM, type(step).__name__)) or (theirs and 0 < chance < 1)


def not_each_once(loader) -> str:
    """What keeps a `DataLoader` from giving each image of its dataset once; an empty string if nothing does."""
    sampler = getattr(loader, "sampler", None)
    if isinstance(sampler, data.WeightedRandomSampler) or getattr(sampler, "replacement", False):
        return f"a {type(sampler).__name__} draws some of them twice and others never"
    drops, size = getattr(loader, "drop_last", False) is True, getattr(loader, "batch_size", None)
    left_out = length_hint(sampler) % size if drops and isinstance(size, int) else 0
    return f"drop_last leaves {left_out} out" if left_out else ""


def whole(dataset):
    """The dataset that a `Subset` is a part of."""
    while isinstance(dataset, data.Subset):
        dataset = dataset.dataset
    return dataset


def are_sorted(labels: Tensor) -> bool:
    """Whether each class comes in one block, and blocks are long: in shuffled batches the classes are mixed."""
    n_classes, blocks = len(labels.unique()), 1 + int((labels[1:] != labels[:-1]).sum())
    return blocks <= n_classes and len(labels) >= max(FEWEST, 4 * n_classes)


# --- What a network was last trained on, and is measured on.

TRAINED_ON = weakref.WeakKeyDictionary()  # and what was said of it
SPREAD = "_pixel_spread"


def note(model: nn.Module, loader, images=None, given: str | None = None, anew: bool = False) -> None:
    """Remember what `model` is trained on and gives; with `anew`, whatever was said before may be said again."""
    network, about = unwrap(model), about_batch(loader, images, given)
    known, said = TRAINED_ON.get(network, ({}, set()))
    same = not anew and all(known.get(name) == about[name] for name in ("classes", "scaling"))
    TRAINED_ON[network] = about, said if same else set()
    if about["spread"] is not None:
        check_frozen_parts(network, about["spread"], about["scaling"])


def check_frozen_parts(network: nn.Module, spread: float, scaling: list[float] | None) -> None:
    """Warn where a frozen part in eval mode, such as a backbone, learned from images that were normalised otherwise."""
    for part in network.modules():
        ours = vars(part).get(SPREAD)
        if any(weight.requires_grad for weight in part.parameters()):
            vars(part)[SPREAD] = spread  # in an attribute, which copies of the part carry
        elif ours == IMAGENET and scaling and max(scaling[len(scaling) // 2 :]) < 1:
            continue  # they are normalised; dark pictures spread by less even so
        elif ours and not part.training and not AGREE["spread"](ours, spread):
            found = f"the pixels spread by {spread:.2g}, those that trained its frozen part by {ours:.2g}"
            return warn(f"{found}: normalise images as for the network that the part was taken from")


def spreads(network: nn.Module) -> dict[str, float | None]:
    """The spread of the pixels that each part of a network last learned from; None where that is not known."""
    return {name: vars(part).get(SPREAD) for name, part in network.named_modules()}


def note_spreads(network: nn.Module, known: dict[str, float | None]) -> None:
    """Note what `spreads` said of a network whose weights this one has now."""
    for name, part in network.named_modules():
        vars(part)[SPREAD] = known.get(name)


AGREE = {  # whether two loaders say the same, but for rounding and chance; all else has to be equal
    "scaling": lambda ours, theirs: len(ours) == len(theirs) and np.allclose(ours, theirs, atol=1e-3),
    "spread": lambda ours, theirs: max(ours, theirs) <= ALIKE * min(ours, theirs),
}


def compare(
    model: nn.Module, loader, images=None, given: str | None = None, n_logits: int = 0, highest: int = 0
) -> None:
    """Warn, once, where `model` is measured on images of other or fewer classes, or normalised in another way, or
    where it gives something else than in training.
    """
    ours, said = TRAINED_ON.get(unwrap(model), ({}, set()))
    theirs = about_batch(loader, images, given)
    both = [name for name in ours if None not in (ours[name], theirs[name])]
    differ = {name for name in both if not AGREE.get(name, eq)(ours[name], theirs[name])}
    if "scaling" in both:  # says more
        differ -= {"spread", "signed"}
    if n_logits > (n := len(theirs["classes"] or ())) > max(1, highest) and "classes" not in differ:
        differ.add("width")
    if "width" in differ - said:
        found = f"the model returns {n_logits} logits, and the data have {n} classes"
        warn(f"{found}: if it was made for these, give it n_classes={n}")
    if "scaling" in differ - said:
        advice = "give both the mean and std of the training images"
        warn(f"training and measuring normalise differently: {advice}")
    if "spread" in differ - said:
        found = f"the pixels spread by {theirs['spread']:.2g}, those that trained the network by {ours['spread']:.2g}"
        warn(f"{found}: if that is not meant, normalise both alike")
    elif "signed" in differ - said:
        found = "pixels go below zero in training or in measuring alone"
        warn(f"{found}: if that is not meant, normalise both alike")
    if "classes" in differ - said:
        pairs = zip_longest(ours["classes"], theirs["classes"], fillvalue=None)
        found = "as {!r} and {!r}".format(*next(pair for pair in pairs if pair[0] != pair[1]))
        warn(f"training and measuring have different classes, {found}: labels do not agree")
    if "gives" in differ - said:
        found = f"in training the model returned {ours['gives']}, and now {theirs['gives']}"
        warn(f"{found}: accuracies are the same, but losses cannot be compared")
    said |= differ


def unwrap(model: nn.Module) -> nn.Module:
    """The network inside torch.compile, DataParallel, DistributedDataParallel and `SixViews`."""
    if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel, AveragedModel)):
        return unwrap(model.module)
    inner = model.model if type(model).__name__ == "SixViews" else getattr(model, "_orig_mod", None)
    return model if inner is None else unwrap(inner)


def about_batch(loader, images: Tensor | None = None, given: str | None = None) -> dict:
    """A loader's classes and scaling, the spread of a batch's pixels, and what a network gives; None if not known."""
    dataset = whole(getattr(loader, "dataset", loader))  # a `BatchLoader` has its `ImageSet` itself
    classes = getattr(getattr(dataset, "image_set", dataset), "classes", None)
    if not isinstance(classes, (list, tuple)) or getattr(dataset, "target_transform", None):
        classes = None  # it does not say, or its labels are others
    both = [getattr(loader, name, None) for name in ("mean", "std")]
    known = all(isinstance(one, Tensor) for one in both)
    scaling = torch.cat([one.flatten() for one in both]).tolist() if known else None
    spread = signed = None
    if images is not None and len(images) >= FEWEST:
        spread, signed = float(images.float().std()), bool((images < 0).any())
    classes = classes and tuple(map(str, classes))
    return {"classes": classes, "scaling": scaling, "spread": spread, "signed": signed, "gives": given}


def gives(logits: Tensor, loss_fn) -> str | None:
    """What a network gives to cross entropy, in a word; None where another loss asks, or nobody."""
    if loss_fn is None or not wants_logits(loss_fn):
        return None
    return "probabilities" if are_probabilities(logits) else "logits"


def gives_as_stored(loader) -> bool:
    """Whether a loader is the course's, and no class of somebody's own that may give other labels than it holds."""
    return getattr(getattr(type(loader), "__iter__", None), "__module__", "").startswith("course_utils.")


def image_set_of(loader):
    """The `ImageSet` behind one of the course's loaders or datasets; None behind any other."""
    found = getattr(loader, "image_set", None) or getattr(getattr(loader, "dataset", None), "image_set", None)
    return found if isinstance(getattr(found, "images", None), np.ndarray) else None
