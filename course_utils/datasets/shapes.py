"""The embedded data set: ten shapes in ten textures, drawn by code: no download needed.

An image is a clean drawing that is then made difficult. `_frames` places a coordinate system in each image, one
function a shape says what is inside, one function a texture says how it is filled, and `_draw_chunk` adds colours,
clutter and noise. All of it works on many images at a time: one number an image has the shape (n, 1, 1), so that it
combines with the (n, 32, 32) coordinates, and colours come as (n, 3, 1, 1), channels first.

The classes are made for augmentation: none is another's mirror image, and none hangs on a detail that a 4-pixel shift
or an 8×8 cutout can take away.
"""

from collections.abc import Callable

import numpy as np

SIZE = 32  # pixels a side
CHUNK = 500  # images drawn at once: a (500, 3, 32, 32) float32 array is 6 MB

Array = np.ndarray

# Where the pixels are, from the middle, y up: (1, 1, 32) and (1, 32, 1).
X = np.arange(SIZE, dtype=np.float32)[None, None, :] - (SIZE - 1) / 2
Y = -X.transpose(0, 2, 1)


def exactly(function: np.ufunc, *values: Array) -> Array:
    """`function` in float64, rounded to float32: in float32 itself, processors differ in the last bit of a sine.

    One pixel that differs by one step is another picture to `data.split`, which would hold out others.
    """
    return function(*values, dtype=np.float64).astype(np.float32)


# --- Shapes. Coordinates in shape units: the origin in the middle, x to the right, y up; a shape is about 2 wide and 2
# high. Each function returns how far inside the outline a point lies: exact near the edges, where anti-aliasing needs
# it, and negative outside.


def star(x: Array, y: Array) -> Array:
    """Five points: fold the plane into one tenth of the star, where its outline is one straight line."""
    radius, tenth = np.sqrt(x**2 + y**2), np.pi / 5
    angle = abs((exactly(np.arctan2, x, y) + tenth) % (2 * tenth) - tenth)
    return 0.5 - radius * exactly(np.cos, angle - 1.08)


def heart(x: Array, y: Array) -> Array:
    """A diamond, and a circle on each of its two upper edges."""
    x, y = 0.9 * abs(x), y + 0.12
    lobes = 0.62 - np.sqrt((x - 0.43) ** 2 + (y - 0.43) ** 2)
    return np.maximum(lobes, 0.62 - (x + abs(y)) * 0.7071)


OUTLINES: dict[str, Callable[..., Array]] = {
    "circle": lambda x, y: 0.9 - np.sqrt(x**2 + y**2),
    "ring": lambda x, y: 0.2 - abs(np.sqrt(x**2 + y**2) - 0.9),
    "square": lambda x, y: 0.8 - np.maximum(abs(x), abs(y)),
    "diamond": lambda x, y: 0.75 - 0.8 * abs(x) - 0.6 * abs(y),
    "triangle": lambda x, y: 0.57 - np.maximum(-(y + 0.2), 0.866 * abs(x) + 0.5 * (y + 0.2)),
    "cross": lambda x, y: np.minimum(1.0 - np.maximum(abs(x), abs(y)), 0.36 - np.minimum(abs(x), abs(y))),
    "star": star,
    "heart": heart,
    # A disc with a bite out of its right side.
    "moon": lambda x, y: np.minimum(1.05 - np.sqrt(x**2 + y**2), np.sqrt((x - 0.5) ** 2 + y**2) - 0.8),
    "hourglass": lambda x, y: np.minimum(0.95 - abs(y), (0.16 + abs(y) - abs(x)) * 0.7071),
}

# --- Textures. The same coordinates; `cycles` is the number of periods in a shape unit, `phase` a random number in
# [0, 1). Each function returns the mixture of the two inks: 0 the first, 1 the second.


def wave(cycles: Array) -> Array:
    """Stripes with slightly soft edges: 0 and 1 alternate, one period a cycle."""
    return np.clip(0.5 + 1.5 * exactly(np.sin, 2 * np.pi * cycles), 0, 1)


def checked(x: Array, y: Array, cycles: Array, phase: Array) -> Array:
    across = exactly(np.sin, np.pi * (1.15 * cycles * x + phase))
    return np.clip(0.5 + 3 * across * exactly(np.sin, np.pi * (1.15 * cycles * y + phase)), 0, 1)


def dotted(x: Array, y: Array, cycles: Array, phase: Array) -> Array:
    across = exactly(np.cos, 2 * np.pi * (cycles * x + phase))
    return np.clip(3 * (across + exactly(np.cos, 2 * np.pi * (cycles * y + phase)) - 0.6), 0, 1)


def cloudy(x: Array, y: Array, cycles: Array, phase: Array) -> Array:
    """Four waves of unrelated lengths and directions: soft spots without order."""
    waves = ((0.8, 0.2, 1.0), (-0.4, 0.7, 3.0), (0.2, -0.6, 5.0), (0.6, 0.5, 7.0))
    total = sum(exactly(np.sin, 2 * np.pi * (cycles * (a * x + b * y) + m * phase)) for a, b, m in waves)
    return np.clip(0.5 + 0.35 * total, 0, 1)


FILLS: dict[str, Callable[..., Array]] = {
    "plain": lambda x, y, cycles, phase: np.zeros_like(x),
    "h-striped": lambda x, y, cycles, phase: wave(cycles * y + phase),
    "v-striped": lambda x, y, cycles, phase: wave(cycles * x + phase),
    # Leaning left; the mirrored half of the images makes it one class that leans either way.
    "d-striped": lambda x, y, cycles, phase: wave(cycles * (x + y) * 0.7071 + phase),
    "checked": checked,
    "dotted": dotted,
    # Around a point above the middle, or a circle could follow the band of the ring shape unseen.
    "ringed": lambda x, y, cycles, phase: wave(1.25 * cycles * np.sqrt(x**2 + (y - 0.35) ** 2) + phase),
    # One smooth ramp over the whole shape, in any direction.
    "shaded": lambda x, y, cycles, phase: np.clip(0.5 + 0.8 * _along(x, y, 2 * np.pi * phase), 0, 1),
    "zigzag": lambda x, y, cycles, phase: wave(cycles * y + 1.1 * abs((0.8 * cycles * x + phase) % 1 - 0.5)),
    "cloudy": cloudy,
}

SHAPES = tuple(OUTLINES)
TEXTURES = tuple(FILLS)
CLASSES = tuple(f"{texture} {shape}" for shape in SHAPES for texture in TEXTURES)


def draw(n: int, seed: int) -> tuple[Array, Array]:
    """Draw `n` images, uint8 (n, 32, 32, 3) RGB, and their labels, int64 (n,), into `CLASSES`.

    A label is 10 x shape + texture. The classes come in random order, and their counts differ by at most one. The same
    `n` and `seed` give the same images on every processor.
    """
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n, dtype=np.int64) % len(CLASSES))
    images = np.empty((n, SIZE, SIZE, 3), np.uint8)
    for start in range(0, n, CHUNK):
        part = slice(start, start + CHUNK)
        images[part] = _draw_chunk(labels[part], rng)
    return images, labels


def _draw_chunk(labels: Array, rng: np.random.Generator) -> Array:
    n = len(labels)
    x, y, pixels_per_unit = _frames(n, rng)
    outline = _call_by_label(OUTLINES, labels // 10, x, y)
    cycles, phase = _uniform(rng, n, 1.4, 1.9), _uniform(rng, n, 0, 1)
    fill = _call_by_label(FILLS, labels % 10, x, y, cycles, phase)

    ground, first, second = _palettes(n, rng)
    canvas = np.broadcast_to(ground, (n, 3, SIZE, SIZE))
    for _ in range(2):
        canvas = _blend(canvas, rng.random((n, 3, 1, 1), dtype=np.float32), _blob(n, rng))
    canvas = _blend(canvas, _blend(first, second, fill), _coverage(outline * pixels_per_unit))
    canvas = _blend(canvas, rng.random((n, 3, 1, 1), dtype=np.float32), _line(n, rng))
    noise = rng.standard_normal(canvas.shape, dtype=np.float32)
    canvas = canvas + _uniform(rng, n, 0.02, 0.06)[:, None] * noise
    return (255 * canvas.clip(0, 1) + 0.5).astype(np.uint8).transpose(0, 2, 3, 1)


def _frames(n: int, rng: np.random.Generator) -> tuple[Array, Array, Array]:
    """Coordinates x and y (n, 32, 32) in shape units, and the pixels in a unit (n, 1, 1).

    Place, scale and a small rotation vary. Half are mirrored, so that the data set is its own mirror image.
    """
    pixels = _uniform(rng, n, 8, 11)
    x, y = (X - _uniform(rng, n, -5, 5)) / pixels, (Y - _uniform(rng, n, -5, 5)) / pixels
    x, y = _rotate(x, y, _uniform(rng, n, -0.2, 0.2))
    mirror = rng.choice(np.array([-1, 1], np.float32), (n, 1, 1))
    return mirror * x, y, pixels


def _palettes(n: int, rng: np.random.Generator) -> Array:
    """Colours of the ground, which is dark, and of the two brighter inks: (3, n, 3, 1, 1).

    Four palettes are drawn for each image, and the one whose closest two colours differ most is kept.
    """
    darkest = np.array([0.0, 0.36, 0.6], np.float32)[:, None]
    palettes = darkest + 0.4 * rng.random((n, 4, 3, 3), dtype=np.float32)  # [image, palette, colour, RGB]
    differences = abs(palettes - np.roll(palettes, 1, axis=2)).sum(axis=3).min(axis=2)
    best = palettes[np.arange(n), differences.argmax(axis=1)]
    return best.transpose(1, 0, 2)[..., None, None]


def _blob(n: int, rng: np.random.Generator) -> Array:
    """Coverage (n, 32, 32) of one ellipse an image, anywhere."""
    x, y = X - _uniform(rng, n, -16, 16), Y - _uniform(rng, n, -16, 16)
    x, y = _rotate(x, y, _uniform(rng, n, 0, np.pi))
    wide, high = _uniform(rng, n, 2, 7), _uniform(rng, n, 2, 7)
    return _coverage((1 - np.sqrt((x / wide) ** 2 + (y / high) ** 2)) * np.minimum(wide, high))


def _line(n: int, rng: np.random.Generator) -> Array:
    """Coverage (n, 32, 32) of one line right across each image, one to two pixels wide."""
    turn, offset = _uniform(rng, n, 0, np.pi), _uniform(rng, n, -14, 14)
    return _coverage(_uniform(rng, n, 0.4, 1) - abs(_along(X, Y, turn) - offset))


def _rotate(x: Array, y: Array, angle: Array) -> tuple[Array, Array]:
    return _along(x, y, angle), exactly(np.cos, angle) * y - exactly(np.sin, angle) * x


def _along(x: Array, y: Array, angle: Array) -> Array:
    return exactly(np.cos, angle) * x + exactly(np.sin, angle) * y


def _uniform(rng: np.random.Generator, n: int, low: float, high: float) -> Array:
    """One random number an image, (n, 1, 1), float32."""
    return rng.uniform(low, high, (n, 1, 1)).astype(np.float32)


def _coverage(distance: Array) -> Array:
    """Anti-aliasing: how much of a pixel is covered when its centre is `distance` pixels inside the outline."""
    return np.clip(distance + 0.5, 0, 1)


def _blend(under: Array, over: Array, coverage: Array) -> Array:
    return under + coverage[:, None] * (over - under)


def _call_by_label(functions: dict[str, Callable], labels: Array, *arguments: Array) -> Array:
    """Call for each image the function its label names; all arguments have one row an image."""
    out = np.empty_like(arguments[0])
    for label, function in enumerate(functions.values()):
        rows = labels == label
        out[rows] = function(*(argument[rows] for argument in arguments))
    return out
