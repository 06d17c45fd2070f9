"""Your own picture: how a file becomes 32×32 pixels, and that a network sees it as it saw its training pictures."""

import hashlib

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from course_utils import data, training
from course_utils.datasets import cifar as fetch
from course_utils.lab import checkpoints, pictures, recipes, records
from course_utils.data import ImageSet
from course_utils.data import BatchLoader
from course_utils.models import CustomResNet, SmallNet

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 128, 0), (0, 0, 255), (255, 255, 255)


def striped(*colours) -> Image.Image:
    """Upright stripes of 100×100 pixels from left to right."""
    picture = Image.new("RGB", (100 * len(colours), 100))
    for place, colour in enumerate(colours):
        picture.paste(colour, (100 * place, 0, 100 * place + 100, 100))
    return picture


def save(picture: Image.Image, path, **options):
    picture.save(path, **options)
    return path


def test_a_wide_picture_is_cut_to_its_middle(tmp_path):
    picture = pictures.read(save(striped(RED, GREEN, BLUE), tmp_path / "wide.png"))
    assert (picture.shape, picture.dtype) == ((32, 32, 3), np.uint8)
    assert (picture[:, 2:-2] == GREEN).all()  # at the edges, the resampling looks a little over the cut


def test_a_photograph_is_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # Orientation: the camera was held with its left side down
    path = save(striped(RED, BLUE).resize((100, 100)), tmp_path / "photo.png", exif=exif)
    picture = pictures.read(path)
    assert (picture[:14] == RED).all()
    assert (picture[18:] == BLUE).all()


@pytest.mark.parametrize(
    ("mode", "colour", "seen"),
    [
        ("1", 1, 255), ("L", 128, 128), ("P", 128, 128), ("RGB", (128, 128, 128), 128),
        ("RGBA", (128, 128, 128, 255), 128), ("LA", (128, 255), 128), ("CMYK", (0, 0, 0, 127), 128),
        ("I;16", 128 * 256 + 99, 128), ("I", 128 * 256, 128),
    ],
)  # fmt: skip
def test_every_kind_of_picture_can_be_read(tmp_path, mode, colour, seen):
    path = tmp_path / ("picture.tif" if mode in ("CMYK", "I") else "picture.png")
    picture = Image.new(mode, (50, 40), colour)
    if mode == "P":
        picture.putpalette([level for level in range(256) for _ in "rgb"])
    picture = pictures.read(save(picture, path))
    assert picture.shape == (32, 32, 3)
    assert (picture == seen).all()


def test_a_grey_photograph_of_sixteen_bits_is_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    grey = np.repeat(np.array([[0, 200]], np.uint16) * 256, 64, axis=0).repeat(32, axis=1)
    picture = pictures.read(save(Image.fromarray(grey), tmp_path / "scan.png", exif=exif))
    assert (picture[:14] == 0).all()
    assert (picture[18:] == 200).all()


def test_what_is_transparent_is_white(tmp_path):
    picture = striped(RED, RED).convert("RGBA")
    picture.putalpha(0)
    assert (pictures.read(save(picture, tmp_path / "clear.png")) == WHITE).all()


def test_what_cannot_be_read_is_named(tmp_path):
    text = tmp_path / "notes.jpg"
    text.write_text("no picture")
    for path in (text, tmp_path / "missing.jpg"):
        with pytest.raises(ValueError, match=f"{path.name} cannot be read as a picture"):
            pictures.read(path)


@pytest.mark.parametrize("name", data.N_CLASSES)
def test_a_drawn_picture_is_as_those_of_the_data_set(name):
    picture = pictures.drawn(name)
    assert (picture.shape, picture.dtype) == ((32, 32, 3), np.uint8)
    np.testing.assert_array_equal(picture, pictures.drawn(name))


def test_only_networks_that_know_shapes_are_shown_one():
    shape, ship = pictures.drawn("shapes100"), pictures.drawn("cifar10")
    assert (ship[-1] == (70, 130, 180)).all()  # the sea
    assert not (shape[-1] == shape[-1, 0]).all()  # the shapes' ground is noisy
    assert (pictures.drawn("cifar100")[0, 0] == (34, 139, 34)).all()  # the sunflower's meadow


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_the_class_names_are_those_of_the_data_set(name):
    joined = "\n".join(pictures.CLASSES[name])
    found = hashlib.sha256(joined.encode()).hexdigest()[:16]
    assert found == fetch.SOURCES[name].fingerprints["classes"]
