"""Images as arrays, and batches of them: the `ImageSet`, the data sets by name, the split, `BatchLoader`, own folders.

Read this file first, then `transforms.py`. An image stays what it was on the disk, 32×32×3 bytes, until a batch of it
is needed: CIFAR is 184 MB that way, and 737 MB as float32. Where CIFAR comes from is in `datasets/cifar.py`.
"""

import warnings
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from course_utils import transforms
from course_utils.datasets import cifar, folders, shapes

N_CLASSES = {"cifar10": 10, "cifar100": 100, "shapes10": 10, "shapes100": 100}


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Labelled images; lists and tensors become arrays. Raises ValueError if the parts do not fit together.

    images   uint8 (n, height, width, 3)
    labels   int64 (n,), each the index of a class
    classes  the names, in label order
    name     for messages: "cifar100 train"
    """

    images: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    name: str

    def __post_init__(self) -> None:
        images, labels = np.asarray(self.images), np.asarray(self.labels)
        vars(self).update(images=images, labels=labels)  # frozen, so nothing can be assigned
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
            advice = ": for pixels in [0, 1], take (255 * images).round().astype(np.uint8); to 255, images.clip(0, 255)"
            found = f"{images.dtype} {images.shape}{advice if images.dtype.kind == 'f' else ''}"
            raise ValueError(f"{self.name}: expected images uint8 (n, height, width, 3), found {found}")
        if labels.dtype != np.int64 or labels.ndim != 1:
            raise ValueError(f"{self.name}: expected labels int64 (n,), found {labels.dtype} {labels.shape}")
        if (n := len(images)) != (m := len(labels)):
            raise ValueError(f"{self.name}: expected one label per image, found {n} images, {m} labels")
        if len(labels) and not 0 <= labels.min() <= labels.max() < self.n_classes:
            found = f"{labels.min()} to {labels.max()}"
            raise ValueError(f"{self.name}: expected labels 0 to {self.n_classes - 1}, found {found}")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def n_classes(self) -> int:
        return len(self.classes)

    def subset(self, indices: np.ndarray) -> "ImageSet":
        """The images at these places (integers, or a mask), copied. Raises ValueError for a mask of 0 and 1."""
        places, n = np.asarray(indices), len(self)
        if places.dtype != bool and places.shape == (n,) and n > 2 and np.isin(places, (0, 1)).all():
            raise ValueError("expected places or a mask of bools, found noughts and ones: mask.astype(bool)")
        # Only tensors become arrays: with one place they count as a number, while [] would be an array of floats.
        chosen = places if isinstance(indices, Tensor) else indices
        return replace(self, images=self.images[chosen], labels=self.labels[chosen])


# --- The data sets by name.


def load(name: str, root: str | Path | None = None) -> tuple[ImageSet, ImageSet]:
    """The training and the test set of `"cifar10"`, `"cifar100"`, `"shapes10"` or `"shapes100"`, in that order.

    CIFAR is read from `<root>/<name>.npz`, and fetched once if it is not there; `root` is by default
    `cifar.data_folder()`. The shapes are drawn by code: 5,000 to train, 1,000 to test. Prints where they are from.

    Raises ValueError for an unknown name or a damaged file, cifar.FetchError if CIFAR is neither found nor fetched.
    """
    if name not in N_CLASSES:
        raise ValueError(f"unknown data set {name!r}, expected one of {', '.join(N_CLASSES)}")
    if name.startswith("shapes"):
        print(f"{name}: drawn by code")
        parts, classes = [shapes.draw(5000, seed=0), shapes.draw(1000, seed=1)], shapes.CLASSES
        if name == "shapes10":  # the shape alone, whatever its texture
            parts = [(images, labels // len(shapes.TEXTURES)) for images, labels in parts]
            classes = shapes.SHAPES
    else:
        arrays, classes = cifar.load_arrays(name, root), cifar.CLASSES[name]
        parts = [(arrays[f"x_{part}"], arrays[f"y_{part}"].astype(np.int64)) for part in ("train", "test")]
    train, test = parts
    return ImageSet(*train, classes, f"{name} train"), ImageSet(*test, classes, f"{name} test")


def split(image_set: ImageSet, validation: float = 0.1, seed: int = 0) -> tuple[ImageSet, ImageSet]:
    """Set a share of every class aside: returns the rest, to train on, and the validation set.

    Each class gives `round(validation * its count)` images, chosen by the seed. The choice depends on the images, not
    on their order in the file, so that everybody's validation set is the same, wherever their CIFAR came from. Warns of
    classes that are too small to be in both parts. Raises ValueError for a share outside [0, 1).
    """
    if not 0 <= validation < 1:
        raise ValueError(f"expected a validation share of at least 0 and below 1, found {validation}")
    place, count = _shuffled_places(image_set, seed)
    quota = np.array([round(validation * n) for n in count])
    for part, left_out in (("validation", quota == 0), ("training", quota == count)):
        if validation and (without := np.flatnonzero(left_out & (count > 0))).size:
            names = ", ".join(image_set.classes[label] for label in without)
            warnings.warn(f"{image_set.name}: {names} too small to have a {part} picture", stacklevel=2)
    held_out = place < quota[image_set.labels]
    name, end = image_set.name.removesuffix(" train"), "" if image_set.name.endswith(" test") else " train"
    train, held = image_set.subset(~held_out), image_set.subset(held_out)
    return replace(train, name=name + end), replace(held, name=f"{name} validation")


def take(image_set: ImageSet, n: int, seed: int = 0) -> ImageSet:
    """`n` images chosen by the seed, with the classes in the proportion of the whole: for quick experiments."""
    if n != int(n) or not 0 < n <= len(image_set):
        raise ValueError(f"{image_set.name}: expected 1 to {len(image_set)} images to take, found {n}")
    place, count = _shuffled_places(image_set, seed)
    first = np.argsort(place / count[image_set.labels], kind="stable")[: int(n)]
    return image_set.subset(np.sort(first))


def _shuffled_places(image_set: ImageSet, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """For each image its place 0, 1, … in the shuffled queue of its class, and for each class its count."""
    labels = image_set.labels
    contents = [zlib.crc32(image.tobytes()) for image in image_set.images]
    by_class = np.lexsort((contents, labels))  # class by class, and in each by contents: see `split`
    count = np.bincount(labels, minlength=image_set.n_classes)
    place = np.empty_like(labels)
    rng = np.random.default_rng(seed)
    for members in np.split(by_class, np.cumsum(count)[:-1]):
        place[rng.permutation(members)] = np.arange(len(members))
    return place, count


def channel_stats(image_set: ImageSet) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of red, green and blue over all pixels, scaled to [0, 1]: float64 (3,) each."""
    if not len(image_set):
        raise ValueError(f"{image_set.name}: no images to measure")
    # How often each of the 256 values occurs says the same as the pixels do, exactly, and needs no float copy.
    parts = (image_set.images[k : k + 1000].reshape(-1, 3).T for k in range(0, len(image_set), 1000))
    counts = sum(np.array([np.bincount(channel, minlength=256) for channel in part]) for part in parts)
    values, share = np.arange(256) / 255, counts / counts.sum(axis=1, keepdims=True)
    mean = share @ values
    return mean, np.sqrt((share * (values - mean[:, None]) ** 2).sum(axis=1))


# --- Batches.


class BatchLoader:
    """Yields (images, labels) batches: float32 (n, 3, H, W) channels-last, normalised, and int64 (n,).

    Images are gathered, augmented and normalised a batch at a time from one `uint8` store, which keeps CIFAR's 50,000
    training images in 154 MB (240 MB padded for the crop). The order and the augmentation of epoch `e` depend on
    (seed, e) alone, whatever ran before: set `epoch` to continue an interrupted run exactly where it was. A last image
    that would make a batch of its own joins the batch before: batch norm needs several.

    `mean`, `std` and `fill` are three numbers each, for pixels in [0, 1]; by default pixels are only scaled to that.
    `fill`, by default `mean`, colours border and cutout. The images are stored, and batches made, on `device`.
    """

    def __init__(
        self,
        image_set: ImageSet,
        batch_size: int = 128,
        *,
        mean: np.ndarray | tuple = (0.0, 0.0, 0.0),
        std: np.ndarray | tuple = (1.0, 1.0, 1.0),
        augment: transforms.Augment | None = None,
        fill: np.ndarray | tuple | None = None,
        shuffle: bool = False,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ):
        if len(image_set) == 0:
            raise ValueError(f"{image_set.name}: no images to load")
        if not isinstance(batch_size, (int, np.integer)) or batch_size < 1:
            raise ValueError(f"expected a whole number of images per batch, found batch_size={batch_size!r}")
        if augment is not None and not isinstance(augment, transforms.Augment):
            raise ValueError(f"expected augment=Augment(…), or None for none, found {augment!r}")
        height, width = image_set.images.shape[1:3]
        if augment and height != width:
            raise ValueError(f"{image_set.name}: expected square images to augment, found {height}×{width}")
        transforms.check_scaling(mean, std)
        self.image_set, self.batch_size = image_set, int(batch_size)
        self.augment, self.shuffle, self.seed = augment, shuffle, seed
        self.device, self.epoch = torch.device(device), 0
        self.mean, self.std = (torch.as_tensor(x, dtype=torch.float32, device=device) for x in (mean, std))
        colour = transforms.mean_colour(mean if fill is None else fill)
        self.fill = torch.tensor(colour, dtype=torch.uint8, device=self.device)
        images, border = image_set.images, augment.padding if augment else 0
        if augment and augment.reflect:
            images = np.pad(images, [(0, 0), (border, border), (border, border), (0, 0)], mode="reflect")
        arrays = (np.require(x, requirements=["C", "WRITEABLE"]) for x in (images, image_set.labels))
        self.store, self.labels = (torch.from_numpy(x).to(self.device) for x in arrays)
        if border and not augment.reflect:
            self.store = transforms.pad(self.store, border, self.fill)

    def __len__(self) -> int:
        return len(self.sizes())

    def sizes(self) -> list[int]:
        """The number of images in each batch of an epoch."""
        full, rest = divmod(len(self.image_set), self.batch_size)
        whole = [self.batch_size] * full
        return [*whole[:-1], whole[-1] + 1] if whole and rest == 1 else whole + [rest] * (rest > 0)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        rng = np.random.default_rng((self.seed, self.epoch))
        self.epoch += 1
        n = len(self.image_set)
        order = torch.from_numpy(rng.permutation(n) if self.shuffle else np.arange(n))
        for batch in order.split(self.sizes()):
            labels = self.labels[transforms.to_device(batch, self.device)]
            yield transforms.normalise(self.pixels(batch, rng), self.mean, self.std), labels

    def pixels(self, batch: Tensor, rng: np.random.Generator) -> Tensor:
        """The images at `batch` as `uint8` (n, H, W, 3), augmented if this loader augments."""
        if self.augment is None:
            return self.store[transforms.to_device(batch, self.device)]
        draws = self.augment.draw(len(batch), self.image_set.images.shape[1], rng)
        if self.augment.alternate and self.augment.flip:  # `epoch` counts from 1 here: `__iter__` adds first
            first = np.random.default_rng(self.seed).random(len(self.image_set)) < self.augment.flip
            draws = replace(draws, flip=torch.from_numpy(first)[batch] ^ (self.epoch % 2 == 0))
        return self.augment(self.store, batch, draws, self.fill)


class PerImageDataset(Dataset):
    """The ordinary way: one transformed image and its label at a time, for torch's `DataLoader`."""

    def __init__(self, image_set: ImageSet, transform: Callable[[np.ndarray], Tensor]):
        self.image_set, self.transform = image_set, transform

    def __len__(self) -> int:
        return len(self.image_set)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.image_set.images[index]), int(self.image_set.labels[index])


def from_folder(path: str | Path) -> tuple[ImageSet, ImageSet]:
    """The training and the test set from a folder of pictures: `train/<class>/…`, `test/<class>/…`, see `folders.read`.

    A picture that is not 32×32 is cut to a square around its middle and resized. Without a test part, a fifth of every
    class is set aside for it, the same one every time. Warns of a class without any test picture.

    Raises ValueError where `folders.read` does, and if a fifth of each class is nothing.
    """
    path = Path(path).expanduser()
    name = path.resolve().name
    classes, train, test = folders.read(path)
    train = ImageSet(*train, classes, f"{name} train")
    if test:
        test = ImageSet(*test, classes, f"{name} test")
    else:
        with warnings.catch_warnings(action="ignore"):  # of too small classes: said below
            train, test = split(train, validation=0.2)
        test = replace(test, name=f"{name} test")
        n = len(train) + len(test)
        print(f"{name}: no test part, so {len(test)} of {n} pictures are set aside for it")
    if not len(test):
        raise ValueError(f"{path}: expected a folder {path / 'test'}, or at least three pictures a class")
    if missing := [classes[label] for label in range(len(classes)) if label not in test.labels]:
        warnings.warn(f"{name}: no test picture of {', '.join(missing)}", stacklevel=2)
    folders.tell_copies(name, train.images, test.images)
    return train, test
