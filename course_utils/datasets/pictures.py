"""Single pictures: a picture file as 32×32 pixels, and pictures drawn by code."""

import warnings
from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from course_utils.datasets import shapes

SIZE = 32  # pixels a side
MAX_PIXELS = 64_000_000  # a camera's; a file of a few kB can declare gigabytes
# What Pillow reads of itself: for others (PostScript) it starts another program.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "AVIF")
EXTENSIONS = {end: kind for end, kind in Image.registered_extensions().items() if kind in FORMATS}
READABLE = sorted({*EXTENSIONS.values()})  # AVIF not everywhere
# As stored -> upright: https://www.media.mit.edu/pia/Research/deepview/exif.html, tag 0x0112.
TURNS = "FLIP_LEFT_RIGHT ROTATE_180 FLIP_TOP_BOTTOM TRANSPOSE ROTATE_270 TRANSVERSE ROTATE_90".split()
UPRIGHT = {stored: Image.Transpose[turn] for stored, turn in enumerate(TURNS, start=2)}


def read_picture(path: str | Path) -> np.ndarray:
    """A picture file as uint8 (32, 32, 3): cut to a square around its middle and resized; transparent is white.

    Of a photograph's EXIF data only the orientation is read; where that fails, the picture is taken as it is stored.
    Raises ValueError, naming the file, where it is missing, too large or not one of `FORMATS`.
    """
    path = Path(path).expanduser()
    try:
        # Without warnings of odd metadata, which is not read.
        with warnings.catch_warnings(action="ignore"), Image.open(path, formats=READABLE) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                found = f"{picture.width}×{picture.height} pixels"
                raise ValueError(f"{found}, expected at most {MAX_PIXELS / 1e6:.0f} million in all")
            square = ImageOps.fit(_eight_bits(picture), (SIZE, SIZE))
            with suppress(Exception):
                square = square.transpose(UPRIGHT[picture.getexif()[0x0112]])
    except Exception as error:  # Pillow has many ways to say that a file is damaged
        reason = str(error) or type(error).__name__
        raise ValueError(f"{path} cannot be read as a picture: {reason}") from error
    opaque = Image.alpha_composite(Image.new("RGBA", square.size, "white"), square.convert("RGBA"))
    return np.array(opaque.convert("RGB"))


def _eight_bits(picture: Image.Image) -> Image.Image:
    """Grey of sixteen bits in eight (Pillow's own conversion cuts off at 255), and colours that can be averaged."""
    if picture.mode.startswith("I"):
        values = np.asarray(picture).clip(0, 65535)
        if values.max() < 16384:
            found = f"its pixels come up to {values.max()} of 65,535"
            raise ValueError(f"{found}, as if it had fewer bits: if so, stretch them, or save it with 8")
        return Image.fromarray((values // 256).astype(np.uint8))
    if picture.mode == "F":
        raise ValueError("its pixels are 32-bit floats, expected 8 or 16 bits")
    if picture.mode == "RGB" and "transparency" not in picture.info:
        return picture
    return picture.convert("RGBA")


def drawn(data: str) -> np.ndarray:
    """A picture for a network trained on `data`, uint8 (32, 32, 3): a shape, a sunflower, or a ship at sea."""
    if data.startswith("shapes"):
        images, labels = shapes.draw(len(shapes.CLASSES), seed=2)
        return images[labels == shapes.CLASSES.index("ringed heart")][0]
    picture = sunflower() if data == "cifar100" else ship()
    return np.array(picture.resize((SIZE, SIZE)))


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
