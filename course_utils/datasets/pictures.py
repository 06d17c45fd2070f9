"""Single pictures: any picture file as 32×32 pixels, and pictures drawn by code."""

import struct
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from course_utils.datasets import shapes

SIZE = 32  # pixels a side


def read_picture(path: str | Path) -> np.ndarray:
    """Any picture file as uint8 (32, 32, 3): cut to a square around its middle and resized; transparent is white.

    Raises ValueError, naming the file, where it is missing or cannot be read as a picture.
    """
    try:
        with Image.open(path) as picture:
            # Photographs are often stored on their side.
            upright = _eight_bits(ImageOps.exif_transpose(picture)).convert("RGBA")
    # Pillow has many ways to say that a file is damaged.
    except (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} cannot be read as a picture: {error}") from error
    opaque = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright)
    return np.asarray(ImageOps.fit(opaque.convert("RGB"), (SIZE, SIZE)))


def _eight_bits(picture: Image.Image) -> Image.Image:
    """Grey of sixteen bits in eight. Pillow's own conversion cuts off at 255, which makes nearly all of it white."""
    if not picture.mode.startswith("I"):
        return picture
    return Image.fromarray((np.asarray(picture).clip(0, 65535) // 256).astype(np.uint8))


def drawn(data: str) -> np.ndarray:
    """A picture for a network trained on `data`, uint8 (32, 32, 3): a shape, a sunflower, or a ship at sea."""
    if data.startswith("shapes"):
        images, labels = shapes.draw(len(shapes.CLASSES), seed=2)
        return images[labels == shapes.CLASSES.index("ringed heart")][0]
    picture = sunflower() if data == "cifar100" else ship()
    return np.asarray(picture.resize((SIZE, SIZE)))


def sunflower() -> Image.Image:
    picture = Image.new("RGB", (320, 320), "forestgreen")
    pen = ImageDraw.Draw(picture)
    # Pointed, to the right of the middle.
    petal = np.array([(50, -13), (107, -22), (150, 0), (107, 22), (50, 13)])
    for angle in np.arange(0, 2 * np.pi, np.pi / 9):
        right, down = np.cos(angle), np.sin(angle)
        turned = 160 + petal @ np.array([(right, down), (-down, right)])
        pen.polygon([tuple(corner) for corner in turned], fill="gold", outline="orange")
    pen.ellipse((95, 95, 225, 225), fill="saddlebrown")
    return picture


def ship() -> Image.Image:
    picture = Image.new("RGB", (320, 320), "skyblue")
    pen = ImageDraw.Draw(picture)
    pen.rectangle((0, 150, 320, 320), fill="steelblue")
    pen.polygon([(10, 180), (310, 180), (270, 240), (50, 240)], fill="firebrick")
    pen.rectangle((90, 120, 230, 180), fill="white")
    for left in (120, 180):
        pen.rectangle((left, 80, left + 20, 120), fill="black")  # funnels
    for mast in (60, 265):
        pen.line((mast, 60, mast, 180), fill="black", width=8)
    return picture
