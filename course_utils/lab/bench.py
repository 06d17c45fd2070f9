"""How fast this machine's processor trains, as ratios: both sides take turns in one process, and medians are compared.

Ratios carry over to other machines far better than seconds do. The pictures are random: speed does
not depend on what they show. Run it on a quiet machine. What `machine.keep_freed_memory` brings is
not in the ratios: it is set for the process, and so for both sides.
"""

import json
import math
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision.transforms import functional

from course_utils import models, training
from course_utils.lab import machine
from course_utils.data import ImageSet
from course_utils.data import BatchLoader, PerImageDataset
from course_utils.transforms import Augment, per_image

MEAN, STD = np.array([0.5, 0.5, 0.5]), np.array([0.25, 0.25, 0.25])
cross_entropy = nn.functional.cross_entropy


def random_images(n: int, n_classes: int) -> ImageSet:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)
    return ImageSet(images, rng.integers(0, n_classes, n), tuple(map(str, range(n_classes))), "random train")


def alternate(sides: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median seconds of each side; they take turns, after one round that does not count."""
    seconds = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name, side in sides.items():
            started = time.perf_counter()
            side()
            if number:
                seconds[name].append(time.perf_counter() - started)
    return {name: median(times) for name, times in seconds.items()}


def our_sgd(model: nn.Module) -> torch.optim.Optimizer:
    """As `runs.build_optimizer` makes it."""
    return torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, fused=True)


def our_epoch(model: nn.Module, loader, loss_fn=cross_entropy, precision="auto") -> Callable[[], Any]:
    """One epoch of `fit`, without validation."""
    optimizer = our_sgd(model)
    return lambda: training.fit(
        model, loader, None, loss_fn, optimizer, epochs=1, precision=precision, verbose=False
    )


def source_epoch(model: nn.Module, loader: DataLoader) -> Callable[[], Any]:
    """One epoch as the source projects ran it: float32, channels first, the loss read back at every step."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)

    def epoch():
        model.train()
        running = 0.0
        for images, labels in loader:
            optimizer.zero_grad()
            loss = cross_entropy(model(images), labels)
            loss.backward()
            optimizer.step()
            running += loss.item()
        return running

    return epoch


def bare_epoch(model: nn.Module, batches: list) -> Callable[[], Any]:
    """The least a training step can be: forward, backward, step, over batches made beforehand."""
    optimizer = our_sgd(model)
    device = training.device_of(model)

    def epoch():
        model.train()
        for images, labels in batches:
            with training.autocast(device):
                loss = cross_entropy(model(images), labels)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    return epoch


def source_smallnet(conv_dropout: float = 0.1) -> nn.Module:
    """The source's SmallNet, layer by layer in its own order, with torch's own dropout."""
    stages = []
    for c_in, c_out in ((3, 32), (32, 64), (64, 128)):
        stages += [nn.Conv2d(c_in, c_out, 3, padding=1), nn.BatchNorm2d(c_out), nn.ReLU()]
        stages += [nn.Dropout(conv_dropout)] if conv_dropout else []
        stages += [nn.MaxPool2d(2)]
    dense = [nn.Flatten(), nn.Linear(2048, 420), nn.ReLU(), nn.Dropout(0.2), nn.Linear(420, 100)]
    return nn.Sequential(*stages, *dense)


def to_tensor_loader(images: ImageSet, batch_size: int) -> DataLoader:
    dataset = PerImageDataset(images, functional.to_tensor)
    return DataLoader(dataset, batch_size=batch_size, shuffle=True)


def against_source(
    source: nn.Module, ours: nn.Module, images: ImageSet, batch_size: int, rounds: int
) -> float:
    """How many times as fast as the source's loop with the source's network `fit` trains the same network of ours."""
    seconds = alternate(
        {
            "source": source_epoch(source, to_tensor_loader(images, batch_size)),
            "ours": our_epoch(ours, BatchLoader(images, batch_size, shuffle=True)),
        },
        rounds,
    )
    return seconds["source"] / seconds["ours"]


def augmented_against_plain(images: ImageSet, rounds: int) -> float:
    make = models.SmallNet
    seconds = alternate(
        {
            "plain": our_epoch(make(), BatchLoader(images, 128, mean=MEAN, std=STD, shuffle=True)),
            "augmented": our_epoch(
                make(), BatchLoader(images, 128, mean=MEAN, std=STD, augment=Augment(), shuffle=True)
            ),
        },
        rounds,
    )
    return seconds["augmented"] / seconds["plain"]


def augmented_against_plain_in_source(images: ImageSet, rounds: int) -> float:
    augmented = DataLoader(PerImageDataset(images, per_image(MEAN, STD)), batch_size=128, shuffle=True)
    seconds = alternate(
        {
            "plain": source_epoch(source_smallnet(), to_tensor_loader(images, 128)),
            "augmented": source_epoch(source_smallnet(), augmented),
        },
        rounds,
    )
    return seconds["augmented"] / seconds["plain"]


def against_bare_loop(make: Callable[[], nn.Module], images: ImageSet, batch_size: int, rounds: int) -> float:
    loader = BatchLoader(images, batch_size, shuffle=True)
    bare = make().to(memory_format=torch.channels_last)
    seconds = alternate(
        {"fit": our_epoch(make(), loader), "bare": bare_epoch(bare, list(loader))},
        rounds,
    )
    return seconds["fit"] / seconds["bare"]


def augmentation_roads(images: ImageSet, rounds: int) -> float:
    """Images a second: the batched road against an image at a time, with as many threads each."""
    workers = min(2, torch.get_num_threads())
    one = DataLoader(PerImageDataset(images, per_image(MEAN, STD)), batch_size=128, num_workers=workers)
    batched = BatchLoader(images, 128, mean=MEAN, std=STD, augment=Augment())
    seconds = alternate({"one": lambda: list(one), "batched": lambda: list(batched)}, rounds)
    return seconds["one"] / seconds["batched"]


def passed_against_hard_coded(images: ImageSet, rounds: int) -> float:
    """Claim S16: the loss as an argument against cross entropy written into the loop."""
    loader = to_tensor_loader(images, 128)

    def epoch_with(loss_fn):
        model = source_smallnet()
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
        return lambda: training.train_epoch(model, loader, loss_fn, optimizer, precision="float32")

    hard_coded = source_epoch(source_smallnet(), loader)
    seconds = alternate({"passed": epoch_with(nn.CrossEntropyLoss()), "hard-coded": hard_coded}, rounds)
    return seconds["passed"] / seconds["hard-coded"]


def linearity(sizes: tuple[int, ...], rounds: int) -> float:
    """The largest ratio between seconds an image at these numbers of images."""
    sides = {}
    for n in sizes:
        loader = BatchLoader(random_images(n, 100), 128, shuffle=True)
        sides[str(n)] = our_epoch(models.SmallNet(conv_dropout=0), loader)
    seconds = alternate(sides, rounds)
    each = [seconds[str(n)] / n for n in sizes]
    return max(each) / min(each)


def megabytes_in_use() -> float:
    """The most memory that this process has had, in MB; NaN on Windows, which does not tell."""
    try:
        import resource
    except ImportError:
        return math.nan
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def peak_memory(n: int) -> float:
    """MB that an augmented epoch on `n` images adds to an interpreter with torch loaded."""
    before = megabytes_in_use()
    train = BatchLoader(random_images(n, 100), 128, augment=Augment(), shuffle=True)
    our_epoch(models.SmallNet(conv_dropout=0), train)()
    return megabytes_in_use() - before


def table(rounds: int = 3, scale: float = 1.0) -> list[tuple[str, str, float]]:
    """(what, the bound that two cores with bf16 instructions should keep, the value) for each row.

    `scale` shrinks the numbers of images, for a look at whether it runs.
    """
    small = random_images(int(6400 * scale), 100)
    ten = random_images(int(2048 * scale), 10)
    sizes = tuple(int(n * scale) for n in (12_500, 25_000, 50_000))
    return [
        # Memory first: the peak is the process's, and must not be some other row's.
        ("peak memory of a CIFAR epoch, SmallNet (MB)", "< 900", peak_memory(int(50_000 * scale))),
        (
            "SmallNet: the source's loop over fit",
            "> 1.6",
            against_source(source_smallnet(), models.SmallNet(), small, 128, rounds),
        ),
        (
            "  without the conv dropout",
            "> 2.4",
            against_source(
                source_smallnet(conv_dropout=0), models.SmallNet(conv_dropout=0), small, 128, rounds
            ),
        ),
        (
            "ResNet: the source's loop over fit",
            "> 2.5",
            against_source(models.CustomResNet(), models.CustomResNet(), ten, 512, rounds),
        ),
        ("augmented over plain epoch, batched", "< 1.05", augmented_against_plain(small, rounds)),
        ("augmented over plain epoch, image by image", "", augmented_against_plain_in_source(small, rounds)),
        ("SmallNet: fit over a bare loop", "< 1.05", against_bare_loop(models.SmallNet, small, 128, rounds)),
        ("ResNet: fit over a bare loop", "< 1.05", against_bare_loop(models.CustomResNet, ten, 512, rounds)),
        ("augmentation: image by image over batched", "> 10", augmentation_roads(small, rounds)),
        ("loss passed in over hard-coded", "", passed_against_hard_coded(small, rounds)),
        ("seconds an image, 12.5k to 50k images", "< 1.10", linearity(sizes, max(1, rounds // 3))),
    ]


def main(path: Path | None = None) -> None:
    """Print the table with the machine it was measured on, and write it to `path` as JSON if given."""
    cpu = torch.device("cpu")  # whatever else there is
    here = machine.describe(cpu) | {"system": platform.system()}
    precision = str(training.pick_precision(cpu)).removeprefix("torch.")
    print(", ".join(f"{key} {value}" for key, value in here.items()))
    print(
        f"precision {precision}" + ("" if precision != "float32" else ": no bf16 here, bounds do not apply")
    )
    rows = table()
    for what, bound, value in rows:
        print(f"{what:48s} {bound:>7s} {value:8.2f}")
    if path:
        entries = [{"what": what.strip(), "bound": bound, "value": value} for what, bound, value in rows]
        path.write_text(
            json.dumps({"machine": here, "precision": precision, "rows": entries}, indent=1) + "\n"
        )
