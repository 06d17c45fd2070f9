"""The embedded data set: well formed, repeatable, and whole after flip, shift and cutout."""

import hashlib

import numpy as np
import pytest

from course_utils.datasets import shapes


def test_names():
    assert len(set(shapes.SHAPES)) == len(set(shapes.TEXTURES)) == 10
    assert len(set(shapes.CLASSES)) == 100
    label = 10 * shapes.SHAPES.index("heart") + shapes.TEXTURES.index("dotted")
    assert shapes.CLASSES[label] == "dotted heart"


@pytest.mark.parametrize("n", [1, 250, 1000])
def test_draw_gives_balanced_labelled_images(n):
    images, labels = shapes.draw(n, seed=4)
    assert images.shape == (n, 32, 32, 3) and images.dtype == np.uint8
    assert labels.shape == (n,) and labels.dtype == np.int64
    counts = np.bincount(labels, minlength=100)
    assert len(counts) == 100 and np.ptp(counts) <= 1


def test_the_drawings_are_those_of_the_recorded_lessons_and_another_seed_gives_others():
    """All 5,000, to the last bit: a processor that draws one pixel otherwise holds out other pictures."""
    images, labels = shapes.draw(5000, seed=0)
    assert hashlib.sha256(images).hexdigest().startswith("1ef84aceb61ea460")
    other, labels_other = shapes.draw(5000, seed=8)
    assert not np.array_equal(labels, labels_other)
    assert (images == other).mean() < 0.05
    weights = np.cos(np.arange(5000))
    assert abs(np.corrcoef(labels[:-1], labels[1:])[0, 1]) < 0.1, "shuffled"
    assert weights @ images.mean((1, 2, 3)) == pytest.approx(-681.782, abs=0.1)
    assert weights @ labels == pytest.approx(683.941142)


# --- Identity under augmentation, on clean drawings without colour, clutter and noise


def frame(scale=9.5, angle=0.0, mirror=1):
    """Coordinates of a 32x32 image with the shape in its middle."""
    centres = np.arange(32) - 15.5
    x, y = mirror * centres[None, :] / scale, -centres[:, None] / scale
    return np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x


def shifted(image, dy, dx):
    """Move by up to 8 pixels; zeros come in."""
    return np.pad(image, 8)[8 - dy : 40 - dy, 8 - dx : 40 - dx]


def holed(image, top, left):
    image = image.copy()
    image[top : top + 8, left : left + 8] = 0
    return image


def damaged(image):
    """The image flipped, shifted into the four corners, and with a cutout at each place of a grid."""
    yield image[:, ::-1]
    yield from (shifted(image, dy, dx) for dy in (-4, 4) for dx in (-4, 4))
    yield from (holed(image, top, left) for top in range(2, 24, 3) for left in range(2, 24, 3))


def test_shapes_keep_their_identity():
    """After a flip, shift or hole a mask is still nearest to its own shape: by intersection over union,
    over templates of several sizes, leans and places, of which only the moon's come mirrored too.

    A hole that bites an edge off may fool this simple judge, but not one hole in twenty."""
    views = [(s, a) for s in (8.5, 9.5, 10.5) for a in (-0.15, 0, 0.15)]
    places = [(dy, dx) for dy in range(-4, 5, 2) for dx in range(-4, 5, 2)]
    templates, owners = [], []
    for label, outline in enumerate(shapes.OUTLINES.values()):
        for mirror in (1, -1)[: 2 if outline is shapes.OUTLINES["moon"] else 1]:
            masks = [outline(*frame(*view, mirror)) > 0 for view in views]
            templates += [shifted(mask, *place).ravel() for mask in masks for place in places]
        owners += [label] * (len(templates) - len(owners))
    templates, owners = np.array(templates, np.float32), np.array(owners)

    for label, (name, outline) in enumerate(shapes.OUTLINES.items()):
        masks = np.array([m.ravel() for m in damaged(outline(*frame()) > 0)], np.float32)
        common = masks @ templates.T
        union = masks.sum(1)[:, None] + templates.sum(1) - common
        nearest = owners[(common / union).argmax(1)]
        assert (nearest[:5] == label).all(), f"{name} is lost by a flip or shift"
        assert (nearest == label).mean() > 0.95, f"{name} taken for {set(nearest)} after a hole"


def texture_views(fill, rng, n):
    """`n` clean views of a texture in a disc: -1 to 1 inside, 0 outside, sizes and phases at random."""
    for _ in range(n):
        x, y = frame(rng.uniform(8, 11), rng.uniform(-0.2, 0.2), rng.choice([-1, 1]))
        cycles, phase = rng.uniform(1.4, 1.9), rng.uniform()
        yield (2 * fill(x, y, cycles, phase) - 1) * (shapes.OUTLINES["circle"](x, y) > 0)


def spectrum(image):
    """The size of each frequency, wherever in the image it sits."""
    size = abs(np.fft.rfft2(image)).ravel()
    return size / np.linalg.norm(size)


def test_textures_keep_their_identity():
    """After a flip, shift or hole the spectrum of a texture is still nearest to one of its own kind."""
    rng = np.random.default_rng(0)
    fills = list(shapes.FILLS.values())
    known = [[spectrum(v) for v in texture_views(fill, rng, 100)] for fill in fills]
    bank = np.array(known).reshape(1000, -1)
    for label, name in enumerate(shapes.TEXTURES):
        spectra = [spectrum(d) for v in texture_views(fills[label], rng, 5) for d in damaged(v)]
        nearest = (np.array(spectra) @ bank.T).argmax(1) // 100
        assert (nearest == label).mean() > 0.98, f"{name}: {np.bincount(nearest, minlength=10)}"
