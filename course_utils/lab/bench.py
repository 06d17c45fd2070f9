"""How fast this machine's processor trains, as ratios: both sides take turns in one process, and medians are compared.

Ratios carry over to other machines far better than seconds do. The pictures are random: speed does not depend on what
they show. Run it on a quiet machine. `machine.keep_freed_memory` is not called: it would help both sides of a ratio.
"""

import json
import math
import platform
import sys
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from timeit import timeit
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader
from torchvision.transforms.functional import to_tensor

from course_utils import training
from course_utils.data import BatchLoader, ImageSet, PerImageDataset
from course_utils.lab import files, machine, records
from course_utils.models import CustomResNet, SmallNet
from course_utils.transforms import Augment, per_image

SCALING = {"mean": np.full(3, 0.5), "std": np.full(3, 0.25)}


def seconds(*sides: Callable[[], object], rounds: int) -> np.ndarray:
    """Seconds of each side (a row) in each round; they take turns, after one round that does not count."""
    # timeit would switch garbage collection off.
    taken = [[timeit(side, "gc.enable()", number=1) for side in sides] for _ in range(rounds + 1)]
    return np.array(taken[1:]).T


# ---- an epoch, four ways ----


def fit(model, loader, optimizer, loss_fn):
    training.fit(model, loader, None, loss_fn, optimizer, epochs=1, verbose=False)


def bare(model, batches, optimizer, loss_fn):
    """The least a training step can be: forward, backward, step, over batches made beforehand."""
    for images, labels in batches:
        with training.autocast(images.device):
            loss = loss_fn(model(images), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def source(model, loader, optimizer, loss_fn):
    """As the source projects did it: float32, channels first, the loss read back at every step."""
    running = 0.0
    for images, labels in loader:
        optimizer.zero_grad()
        loss = loss_fn(model(images), labels)
        loss.backward()
        optimizer.step()
        running += loss.item()


def written_in(model, loader, optimizer, loss_fn):
    """The same with the loss function written into the loop (claim S16): nothing else may differ."""
    running = 0.0
    for images, labels in loader:
        optimizer.zero_grad()
        loss = cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        running += loss.item()


def epoch(loop, model: nn.Module, loader) -> Callable[[], None]:
    """`loop` with the optimizer and the memory format that belong to it."""
    ours = loop in (fit, bare)
    model.to(memory_format=torch.channels_last if ours else torch.contiguous_format)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, fused=ours)
    return partial(loop, model, loader, optimizer, cross_entropy)


def convolutions(model: nn.Module, images: torch.Tensor, times: int) -> Callable[[], None]:
    """Forward and backward of `model`'s convolutions alone, each on what it sees of `images`, so many times."""
    seen = []
    for layer in (layer for layer in model.modules() if isinstance(layer, nn.Conv2d)):
        layer.register_forward_hook(lambda layer, x, y: seen.append((layer, x[0].detach(), y)))
    with training.autocast(images.device):
        model.to(memory_format=torch.channels_last)(images)
    for _, given, _ in seen[1:]:  # there is no gradient for the images
        given.requires_grad_()
    parts = [(layer, given, torch.ones_like(found)) for layer, given, found in seen]

    def run() -> None:
        for layer, given, gradient in times * parts:
            with training.autocast(images.device):
                found = nn.functional.conv2d(given, layer.weight, layer.bias, padding=layer.padding)
            wanted = [x for x in (given, layer.weight, layer.bias) if x is not None and x.requires_grad]
            torch.autograd.grad(found, wanted, gradient)

    return run


# ---- an epoch by others' trainers; they are no requirement of the course ----


def lightning(model: nn.Module, loader) -> Callable[[], None]:
    """An epoch by Lightning's `Trainer` in the same precision as ours, without logs, bars and checkpoints."""
    from lightning import LightningModule, Trainer

    class Module(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def training_step(self, batch, _):
            return cross_entropy(self.model(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=1e-3, momentum=0.9)

    half = training.pick_precision(torch.device("cpu")) == torch.bfloat16
    off = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    settings = {"max_epochs": 1, "accelerator": "cpu", "precision": "bf16-mixed" if half else "32-true"}
    return lambda: Trainer(**settings, **dict.fromkeys(off, False)).fit(Module(), loader)


def fastai(model: nn.Module, loader) -> Callable[[], None]:
    """An epoch by fastai's `Learner`, which computes in float32 on a processor, without logs."""
    from fastai.data.core import DataLoaders
    from fastai.learner import Learner
    from fastai.optimizer import SGD
    from fastai.torch_core import default_device

    default_device(False)  # a processor, whatever there is: see `main`
    learner = Learner(DataLoaders(loader, []), model, loss_func=cross_entropy, opt_func=partial(SGD, mom=0.9))

    def run() -> None:
        with learner.no_logging():
            learner.fit(1, lr=1e-3)

    return run


OTHERS = {"lightning": ("Lightning", lightning), "fastai": ("fastai", fastai)}

# ---- the table ----


def source_smallnet(conv_dropout: float = 0.1) -> nn.Module:
    """The source's SmallNet, layer by layer in its own order, with torch's own dropout."""
    layers = []
    for c_in, c_out in ((3, 32), (32, 64), (64, 128)):
        layers += [nn.Conv2d(c_in, c_out, 3, padding=1), nn.BatchNorm2d(c_out), nn.ReLU()]
        layers += [nn.Dropout(conv_dropout), nn.MaxPool2d(2)] if conv_dropout else [nn.MaxPool2d(2)]
    head = [nn.Flatten(), nn.Linear(2048, 420), nn.ReLU(), nn.Dropout(0.2), nn.Linear(420, 100)]
    return nn.Sequential(*layers, *head)


def random_images(n: int, n_classes: int) -> ImageSet:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)
    return ImageSet(images, rng.integers(0, n_classes, n), tuple(map(str, range(n_classes))), "random train")


def sides(scale: float) -> list[tuple[str, str, Callable[[], object], Callable[[], object]]]:
    """(what, the bound that two cores with bf16 instructions should keep, one side, the other) for each ratio."""
    small, ten = random_images(int(6400 * scale), 100), random_images(int(2048 * scale), 10)
    tensors, tensors_ten = PerImageDataset(small, to_tensor), PerImageDataset(ten, to_tensor)
    augmented = PerImageDataset(small, per_image(**SCALING))
    plain, plain_ten = DataLoader(tensors, 128, shuffle=True), DataLoader(tensors_ten, 512, shuffle=True)
    workers = DataLoader(augmented, 128, num_workers=min(2, torch.get_num_threads()))
    ours, ours_ten = BatchLoader(small, 128, **SCALING, shuffle=True), BatchLoader(ten, 512, shuffle=True)
    batched = BatchLoader(small, 128, **SCALING, augment=Augment(), shuffle=True)
    by_fit, ten_by_fit = epoch(fit, SmallNet(), ours), epoch(fit, CustomResNet(), ours_ten)
    by_source = epoch(source, source_smallnet(), plain)
    ten_by_source = epoch(source, CustomResNet(), plain_ten)
    without = epoch(source, source_smallnet(0), plain), epoch(fit, SmallNet(conv_dropout=0), ours)
    one_by_one = epoch(source, source_smallnet(), DataLoader(augmented, 128, shuffle=True))
    augmented_ten = PerImageDataset(ten, per_image(**SCALING))
    workers_ten = DataLoader(augmented_ten, 512, num_workers=workers.num_workers)
    batched_ten = BatchLoader(ten, 512, **SCALING, augment=Augment(), shuffle=True)
    nets = [
        ("SmallNet", "> 2.0", SmallNet, workers, batched),
        ("ResNet", "> 1.3", CustomResNet, workers_ten, batched_ten),
    ]
    others = [
        (f"{net}, augmented: {name} over fit", bound, theirs(make(), slow), epoch(fit, make(), fast))
        for module, (name, theirs) in OTHERS.items()
        if find_spec(module)
        for net, bound, make, slow, fast in nets
    ]
    alone = convolutions(SmallNet(), next(iter(ours))[0], len(ours))
    alone_ten = convolutions(CustomResNet(), next(iter(ours_ten))[0], len(ours_ten))
    bare_small, bare_ten = epoch(bare, SmallNet(), list(ours)), epoch(bare, CustomResNet(), list(ours_ten))
    return [
        ("SmallNet: the source's loop over fit", "> 1.6", by_source, by_fit),
        ("without the conv dropout", "> 2.4", *without),
        ("ResNet: the source's loop over fit", "> 2.5", ten_by_source, ten_by_fit),
        ("augmented over plain epoch, batched", "< 1.05", epoch(fit, SmallNet(), batched), by_fit),
        ("augmented over plain epoch, image by image", "", one_by_one, by_source),
        ("SmallNet: fit over a bare loop", "< 1.05", by_fit, bare_small),
        ("ResNet: fit over a bare loop", "< 1.05", ten_by_fit, bare_ten),
        ("SmallNet: its convolutions alone over fit", "", alone, by_fit),
        ("ResNet: its convolutions alone over fit", "", alone_ten, ten_by_fit),
        *others,
        ("augmentation: image by image over batched", "> 10", partial(list, workers), partial(list, batched)),
        ("loss passed in over hard-coded", "", by_source, epoch(written_in, source_smallnet(), plain)),
    ]


def added_megabytes(n: int) -> float:
    """MB that an augmented epoch on `n` images adds to this process; NaN on Windows, which does not tell."""
    if sys.platform == "win32":
        return math.nan
    from resource import RUSAGE_SELF, getrusage

    before = getrusage(RUSAGE_SELF).ru_maxrss
    loader = BatchLoader(random_images(n, 100), 128, augment=Augment(), shuffle=True)
    epoch(fit, SmallNet(conv_dropout=0), loader)()
    return (getrusage(RUSAGE_SELF).ru_maxrss - before) * (1e-6 if sys.platform == "darwin" else 1024e-6)


def growth(sizes: list[int]) -> float:
    """The largest ratio between seconds an image at these numbers of images."""
    loaders = [BatchLoader(random_images(n, 100), 128, shuffle=True) for n in sizes]
    each = seconds(*(epoch(fit, SmallNet(conv_dropout=0), one) for one in loaders), rounds=1)[:, 0] / sizes
    return float(each.max() / each.min())


def table(rounds: int = 3, scale: float = 1.0) -> list[dict[str, Any]]:
    """Each row's {what, bound, value}, and of a ratio each of its "rounds"; `scale` shrinks the numbers of images."""
    sizes = [int(n * scale) for n in (12_500, 25_000, 50_000)]
    # Memory first: the peak is the process's, and must not be some other row's.
    memory = {"what": "peak memory of a CIFAR epoch, SmallNet (MB)", "bound": "< 900"}
    found = [memory | {"value": added_megabytes(sizes[-1])}]
    for what, bound, *both in sides(scale):
        one, other = seconds(*both, rounds=rounds)
        value = float(np.median(one) / np.median(other))
        found.append({"what": what, "bound": bound, "value": value, "rounds": (one / other).tolist()})
    last = {"what": "seconds an image, 12.5k to 50k images", "bound": "< 1.10"}
    return [*found, last | {"value": growth(sizes)}]


def main(path: Path | None = None) -> None:
    """Print the table with the machine it was measured on, and write it to `path` as JSON if given."""
    if path:
        files.try_to_write(path, "the table")
    cpu = torch.device("cpu")  # whatever else there is
    here = machine.describe(cpu) | {"system": platform.system()}
    precision = str(training.pick_precision(cpu)).removeprefix("torch.")
    note = ": no bf16 here, bounds do not apply" if precision == "float32" else ""
    print(", ".join(f"{key} {value}" for key, value in here.items()) + f"\nprecision {precision}{note}")
    for name in [module for module in OTHERS if not find_spec(module)]:
        print(f"{name}: not installed, left out")
    rows = table()
    for row in rows:
        print(f"{row['what']:48s} {row['bound']:>7s} {row['value']:8.2f}")
    if path:
        contents = {"machine": here, "precision": precision, "rows": rows}
        records.write_text(json.dumps(contents, indent=1) + "\n", path)
