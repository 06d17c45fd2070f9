"""Augmentation, twice: the assignment's pipeline, an image at a time, and a batched twin with the same distribution.

Read after `data.py`. Both crop after padding by 4, flip left-right, and cut one 8×8 hole, on `uint8` pixels; padding
and hole are filled with the data's mean colour, which normalisation turns into zero. The batched one can jitter, too.

Sources: crop and flip, He et al., CVPR 2016; the hole ("cutout"), DeVries and Taylor, arXiv:1708.04552.
"""

import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def check_scaling(mean: np.ndarray | tuple, std: np.ndarray | tuple) -> None:
    """Raise ValueError for a mean or a deviation that pixels in [0, 1] never have, and for a deviation of 0."""
    mean_colour(mean)
    if np.shape(std) != (3,):
        raise ValueError(f"expected three standard deviations, found {np.ravel(std)}")
    for channel, value in zip(("red", "green", "blue"), std, strict=True):
        if not value > 0:
            found = f"found {float(value):g} in the {channel} channel: are all its pixels alike?"
            raise ValueError(f"expected standard deviations above 0, {found} Use 1 for that channel")
        if value > 1:
            raise ValueError(f"expected deviations of pixels in [0, 1], found {value:g}: divide std by 255")


def mean_colour(rgb: np.ndarray | tuple) -> tuple[int, int, int]:
    """The `uint8` colour nearest to one given in [0, 1] for each channel; ValueError outside that."""
    if np.shape(rgb) != (3,) or not all(0 <= value <= 1 for value in rgb):
        raise ValueError(f"expected mean or fill in [0, 1], three, found {np.ravel(rgb)} (are these bytes?)")
    return tuple(round(255 * float(value)) for value in rgb)


def per_image(mean: np.ndarray, std: np.ndarray, train: bool = True) -> Callable[[np.ndarray], Tensor]:
    """The assignment's pipeline: `uint8` (32, 32, 3) in, normalised float (3, 32, 32) out.

    torchvision crops the PIL image, albumentations does the rest. `train=False` only normalises.
    """
    # Here, as both are slow to import. Albumentations would also ask the network for a newer version of itself.
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    import albumentations as A
    from albumentations.pytorch import ToTensorV2
    from torchvision.transforms import v2

    check_scaling(mean, std)
    finish = [A.Normalize(mean=tuple(mean), std=tuple(std)), ToTensorV2()]
    if not train:
        return partial(_transformed, A.Compose(finish))
    fill = mean_colour(mean)
    hole = {"num_holes_range": (1, 1), "hole_height_range": (8, 8), "hole_width_range": (8, 8)}
    cutout = A.CoarseDropout(**hole, fill=fill, p=0.5)
    crop = v2.RandomCrop(32, padding=4, fill=fill)
    # Not local functions: DataLoader could not pass those to its workers.
    return partial(_augmented, crop, A.Compose([A.HorizontalFlip(p=0.5), cutout, *finish]))


def _augmented(crop: Callable, rest: Callable, image: np.ndarray) -> Tensor:
    if np.shape(image)[:2] != (32, 32):  # also of PIL's pictures, which torchvision's datasets give
        raise ValueError(f"expected pictures of 32×32 to crop them to that size, found {np.shape(image)}")
    # Albumentations has a random generator of its own; all workers in all epochs get the same copy of it. Torch's
    # differs by worker and epoch and follows `torch.manual_seed`: it seeds albumentations' for each image.
    seed = int(torch.randint(2**31, (), device="cpu"))
    rest.set_random_state(np.random.default_rng(seed), random.Random(seed))
    return _transformed(rest, np.asarray(crop(Image.fromarray(np.asarray(image)))))


def _transformed(transform: Callable, image: np.ndarray) -> Tensor:
    return transform(image=np.asarray(image))["image"]


@dataclass(frozen=True)
class Draws:
    """One batch's random choices, an entry an image: int64 (n,), but `flip` is bool (n,) and `light` float32 (n, 3).

    `top` and `left` say where the crop starts in the padded image, `hole_top` and `hole_left` where the hole starts in
    the cropped and flipped one, -1 for none. `light` has three factors: of brightness, contrast and saturation.
    """

    top: Tensor
    left: Tensor
    flip: Tensor
    hole_top: Tensor
    hole_left: Tensor
    light: Tensor


@dataclass(frozen=True)
class Augment:
    """Crop, flip, colour jitter and hole for a whole batch at once, drawn independently for each image.

    `padding` and `hole` are in pixels, `flip` and `hole_chance` probabilities; each factor of
    `jitter_colours` is drawn within `jitter` of 1. Zero switches a step off. `Augment()` is the assignment's pipeline.

    With `alternate` chance decides in the first epoch whether an image is flipped, then it alternates: none is seen the
    same way round twice in a row (Jordan, arXiv:2404.00498). With `reflect` the border is the image's own, mirrored.
    """

    padding: int = 4
    flip: float = 0.5
    hole: int = 8
    hole_chance: float = 0.5
    jitter: float = 0.0
    alternate: bool = False
    reflect: bool = False

    def __post_init__(self) -> None:
        for name, what in {"flip": "probability", "hole_chance": "probability", "jitter": "share"}.items():
            if (value := getattr(self, name)) is True or not 0 <= value <= 1:  # flip=True would be certain
                raise ValueError(f"expected {name} to be a {what}, 0 to 1, found {value!r}")
        for name in ("padding", "hole"):
            if not isinstance(value := getattr(self, name), (int, np.integer)) or value < 0:
                raise ValueError(f"expected {name} in whole pixels, 0 or more, found {value!r}")

    def draw(self, n: int, size: int, rng: np.random.Generator) -> Draws:
        """Random choices for `n` images of `size` × `size` pixels."""
        if self.hole > size:
            raise ValueError(f"a hole of {self.hole} pixels does not fit into images of {size}")
        shift = rng.integers(0, 2 * self.padding + 1, (2, n))
        flip = rng.random(n) < self.flip
        hole = rng.integers(0, size - self.hole + 1, (2, n))
        hole[:, rng.random(n) >= self.hole_chance] = -1
        light = np.ones((n, 3), dtype=np.float32)
        if self.jitter:  # drawn only if needed: the other choices stay what they were without it
            light += rng.uniform(-self.jitter, self.jitter, (n, 3)).astype(np.float32)
        return Draws(*map(torch.from_numpy, (*shift, flip, *hole, light)))

    def __call__(self, padded: Tensor, indices: Tensor, draws: Draws, fill: Tensor) -> Tensor:
        """The images `indices` of the `padded` store with `draws` applied: `uint8` (n, size, size, 3).

        `indices`, int64 (n,), and `draws` are on the CPU: to ask a GPU which images to flip would be to wait for it.
        """
        size, device = padded.shape[1] - 2 * self.padding, padded.device
        images = crop(padded, *(to_device(one, device) for one in (indices, draws.top, draws.left)), size)
        flipped = to_device(draws.flip.nonzero().squeeze(1), device)
        images[flipped] = images[flipped].flip(2)
        if self.jitter:
            images = jitter_colours(images, to_device(draws.light, device))
        return cut_holes(images, draws.hole_top, draws.hole_left, self.hole, fill)


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """`tensor` on `device`. Python does not wait for a copy to CUDA: it would have to wait for all steps before."""
    return tensor.to(device, non_blocking=device.type == "cuda")


def pad(images: Tensor, padding: int, fill: Tensor) -> Tensor:
    """`uint8` (N, H, W, 3) images with a border of `padding` pixels in the colour `fill`, uint8 (3,)."""
    n, height, width, channels = images.shape
    padded = fill.expand(n, height + 2 * padding, width + 2 * padding, channels).contiguous()
    padded[:, padding : padding + height, padding : padding + width] = images
    return padded


def crop(padded: Tensor, indices: Tensor, top: Tensor, left: Tensor, size: int) -> Tensor:
    """Cut the `size` × `size` window at (`top`, `left`), int64 (n,), out of the images `indices`, in one gather."""
    channels = padded.shape[3]
    # A window for every possible corner, without memory of its own: (N, tops, lefts, size, size * channels).
    windows = padded.flatten(2).unfold(1, size, 1).unfold(2, size * channels, channels)
    return windows[indices, top, left].view(-1, size, size, channels)


def jitter_colours(images: Tensor, light: Tensor) -> Tensor:
    """`uint8` (n, H, W, 3) images with their own brightness, contrast and saturation; `light` is float32 (n, 3).

    Each factor blends an image with a plainer one, as torchvision's `ColorJitter` does: black, its mean
    grey, its greyscale version. A factor of 1 changes nothing. The order is fixed.
    """
    brightness, contrast, saturation = (factor[:, None, None, None] for factor in light.unbind(1))
    colours = (images.float() * brightness).clamp(0, 255)
    mean_grey = grey(colours).mean((1, 2, 3), keepdim=True)
    colours = (mean_grey + contrast * (colours - mean_grey)).clamp(0, 255)
    greys = grey(colours)
    return (greys + saturation * (colours - greys)).clamp(0, 255).round().to(torch.uint8)


def grey(colours: Tensor) -> Tensor:
    """Perceived brightness of (n, H, W, 3) colours: (n, H, W, 1), with the weights of ITU-R BT.601."""
    weights = to_device(torch.from_numpy(np.float32([0.299, 0.587, 0.114])), colours.device)
    return (colours * weights).sum(3, keepdim=True)


def cut_holes(images: Tensor, top: Tensor, left: Tensor, size: int, fill: Tensor) -> Tensor:
    """Paint a `size` × `size` square of `fill` at (`top`, `left`), int64 (n,), in place; -1 leaves an image whole."""
    image = (top >= 0).nonzero().squeeze(1)
    square = torch.arange(size, device=top.device)
    rows, columns = top[image, None] + square, left[image, None] + square
    places = image[:, None, None], rows[:, :, None], columns[:, None, :]
    images[tuple(to_device(place, images.device) for place in places)] = fill
    return images


def normalise(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """`uint8` (N, H, W, 3) to float32 (N, 3, H, W) of (pixels / 255 - mean) / std, in channels-last memory.

    Stored with the channels last and viewed with them first, a batch is in the order in which convolutions run fastest.
    """
    n, height, width, channels = images.shape
    scale, shift = (1 / (255 * std)).repeat(width), (mean / std).repeat(width)
    # A row at a time: an inner loop of 96 values vectorises, one of 3 does not.
    rows = images.view(n, height, width * channels).float().mul_(scale).sub_(shift)
    return rows.view(n, height, width, channels).permute(0, 3, 1, 2)
