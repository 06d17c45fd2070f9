"""Every figure of the course, from plain arrays (or a `History`) to a matplotlib `Figure`.

A figure looks the same whoever draws it: each function starts from matplotlib's defaults plus
`STYLE` and leaves your own settings as it found them. Wrong input raises a `ValueError` that names
what was expected and what was found. In a notebook, end the cell with `plt.show()`.
"""

import functools
import textwrap
from collections.abc import Callable, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from course_utils import schedules
from course_utils.lab import machine, records

WIDTH = 5  # inches, every figure; a phone has 350 px for them, where 10 points are as high as type of 9.7 px
LETTERS, SMALL_LETTERS = 11, 10  # points
# Okabe and Ito's colours (jfly.uni-koeln.de/color), told apart under every common colour blindness.
# Their yellow is left out: it fades on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
BLUE, VERMILION, GREEN = COLOURS[:3]  # "C0" would be looked up when drawn, long after `STYLE` is gone
STYLE = {
    "figure.facecolor": "white",  # opaque: a transparent figure vanishes in dark mode
    "figure.dpi": 200,  # 1,000 px wide: sharp on a high-density screen, and still a small file
    "figure.titlesize": 12,
    "font.size": LETTERS,
    "axes.labelsize": LETTERS,
    "axes.titlesize": SMALL_LETTERS,
    "axes.prop_cycle": cycler(linestyle=["-", "--"]) * cycler(color=COLOURS),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.limits": (-3, 5),
    "axes.formatter.use_mathtext": True,
    "grid.color": "0.9",
    "image.interpolation": "nearest",
}
END_DOT = {"marker": "o", "markersize": 4, "markevery": [-1]}  # shows a run of one epoch, too
LOSS = "loss (cross entropy, nats)"
# A History's lists: the name on the axis, and the factor from what is stored to what is shown.
QUANTITIES = {
    "train_loss": (f"training {LOSS}", 1),
    "validation_loss": (f"validation {LOSS}", 1),
    "train_accuracy": ("training top-1 accuracy (%)", 100),
    "validation_accuracy": ("validation top-1 accuracy (%)", 100),
    "learning_rate": ("learning rate", 1),
    "seconds": ("time per epoch (s)", 1),
}


def _styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Run `draw` in our style, whatever the caller's is, and leave the caller's as it was."""

    @functools.wraps(draw)
    def styled(*args, **kwargs) -> Figure:
        # Loads the backend. In a notebook that turns interactive mode on, which is a setting too:
        # done inside the context, leaving it would turn the mode off again.
        plt.draw_if_interactive()
        with plt.style.context(["default", STYLE]):
            return draw(*args, **kwargs)

    return styled


# ---- images ----


@_styled
def show_images(
    images: np.ndarray,
    labels: np.ndarray | None = None,
    classes: Sequence[str] | None = None,
    columns: int | None = None,
    title: str = "",
) -> Figure:
    """A grid of `images` (uint8, N×H×W×3), each under its class: the name or else the number.

    A row has 8 images by default, and fewer where names need the room.
    """
    images = _images(images, "images")
    captions = [""] * len(images)
    if labels is not None:
        labels = _labels(labels, images, classes)
        captions = [str(k if classes is None else classes[k]) for k in labels]
    roomy = 8 if labels is None else 4 if len(images) <= 8 else 6
    return _grid(images, captions, columns or roomy, title)


@_styled
def show_augmented(originals: np.ndarray, augmented: np.ndarray, title: str = "") -> Figure:
    """Beside each of `originals` (uint8, N×H×W×3) its K in `augmented` (uint8, N×K×H×W×3)."""
    originals, augmented = _images(originals, "originals"), np.asarray(augmented)
    n, *size = originals.shape
    fits = augmented.ndim == 5 and [len(augmented), *augmented.shape[2:]] == [n, *size]
    _expect(fits, f"augmented of shape ({n}, K, {str(size)[1:-1]})", augmented.shape)
    _images(augmented.reshape(-1, *size), "augmented")
    rows = np.concatenate([originals[:, None], augmented], axis=1)
    columns = rows.shape[1]
    captions = ["original", *(f"version {k}" for k in range(1, columns))]
    captions += [""] * (columns * (n - 1))
    return _grid(rows.reshape(-1, *size), captions, columns, title)


@_styled
def worst_mistakes(
    images: np.ndarray,
    labels: np.ndarray,
    probabilities: np.ndarray,
    classes: Sequence[str],
    n: int = 8,
) -> Figure:
    """The `n` images of which a wrong class was most probable to the model, with both classes.

    `images` uint8 N×H×W×3; `labels` (N,); `probabilities` (N, classes), as softmax gives them.
    """
    images = _images(images, "images")
    labels = _labels(labels, images, classes)
    probabilities = _probabilities(probabilities, (len(images), len(classes)))
    said, at = probabilities.argmax(1), 100 * probabilities.max(1)
    wrong = np.flatnonzero(said != labels)
    worst = wrong[np.argsort(-at[wrong], kind="stable")][:n]
    if len(worst) == 0:
        return _say("no mistakes among these images")
    text = "true: {}\nsaid: {}\nat {:.1f} %"
    captions = [text.format(classes[labels[i]], classes[said[i]], at[i]) for i in worst]
    return _grid(images[worst], captions, columns=4)


@_styled
def filters(weights: np.ndarray, title: str = "") -> Figure:
    """The filters of a first convolution, `weights` (out, 3, k, k), as pictures: grey is zero.

    All share one scale, the 99th percentile of |weight|, so that one outlier cannot grey the rest.
    """
    weights = np.asarray(weights, dtype=float)
    fits = weights.ndim == 4 and weights.shape[1] == 3 and weights.size > 0
    _expect(fits, "weights of shape (out, 3, k, k)", weights.shape)
    _expect(np.isfinite(weights).all(), "finite weights", "nan or inf among them")
    scale = np.percentile(np.abs(weights), 99) or 1
    pictures = np.clip(0.5 + 0.5 * weights / scale, 0, 1).transpose(0, 2, 3, 1)
    return _grid(pictures, [""] * len(pictures), 8, title)


@_styled
def prediction_bars(
    image: np.ndarray, probabilities: np.ndarray, classes: Sequence[str], top: int = 5
) -> Figure:
    """One `image` (uint8, H×W×3) beside its `top` classes by `probabilities` (classes,)."""
    image = _images(np.asarray(image)[None], "[image]")[0]
    probabilities = _probabilities(probabilities, (len(classes),))
    best = np.argsort(-probabilities, kind="stable")[:top]
    figure, (picture, bars) = plt.subplots(
        1, 2, figsize=(WIDTH, 2.3), layout="constrained", width_ratios=(1, 1.6)
    )
    picture.imshow(image)
    picture.set_axis_off()
    _bars(bars, [classes[k] for k in best], 100 * probabilities[best])
    bars.set(xlabel="probability (%)", xlim=(0, 115), xticks=(0, 50, 100))
    return figure


# ---- curves ----


@_styled
def learning_curves(
    history: object,
    reference: tuple[str, np.ndarray, np.ndarray] | None = None,
    title: str = "",
    measured_on: str = "validation",
) -> Figure:
    """Loss, accuracy and learning rate of one `History` over its epochs, one panel each.

    `reference` is a curve to measure against: `(label, epochs, accuracy in %)`. `measured_on` names the images that
    the history calls validation: "test" where the test set was used for them.
    """
    curves = _curves(history, "train_loss", "validation_loss", "validation_accuracy", "learning_rate")
    last = len(curves["train_loss"])
    epochs = np.arange(1, last + 1)
    if reference is not None:
        label, *points = reference
        at, percent = _pair(*points, "reference epochs", "reference accuracies")
        last = max(last, int(at.max()))
    figure, (loss, accuracy, rate) = plt.subplots(
        3, 1, sharex=True, figsize=(WIDTH, 6.6), layout="constrained", height_ratios=(3, 3, 2)
    )
    _title(figure, title)
    loss.plot(epochs, curves["train_loss"], label="training")
    loss.plot(epochs, curves["validation_loss"], label=measured_on)
    loss.set_ylabel(LOSS.replace(" ", "\n", 1))
    accuracy.plot(epochs, 100 * curves["validation_accuracy"], color=VERMILION, label=measured_on)
    accuracy.set_ylabel("top-1 accuracy (%)")
    if reference is not None:
        accuracy.plot(at, percent, "--", color="0.35", label=label)
    rate.plot(epochs, curves["learning_rate"], color=GREEN, **END_DOT)
    rate.set(ylabel="learning rate", ylim=(0, None))
    _epoch_axis(rate, last)
    _label_ends(loss, accuracy)
    figure.align_ylabels()
    return figure


@_styled
def recorded_runs(
    runs: Sequence[Mapping], reference: tuple[str, np.ndarray, np.ndarray] | None = None
) -> Figure:
    """`learning_curves` of one recipe's recorded runs (`records.of_recipe`), as the mean over their seeds.

    The title names the recipe, its data, the seeds, and the machine and date of the last run.
    """
    if not runs:
        return _say("No run of this recipe is recorded here.")
    if runs[0]["history"].get("validation_accuracy", [None])[-1] is None:
        return _say("Nothing was validated in this recipe's runs: there is no curve.")
    recipe, latest = runs[0]["recipe"], max(runs, key=lambda run: run["date"])
    seeds = f"seed{'s' * (len(runs) > 1)} " + ", ".join(str(run["seed"]) for run in runs)
    where = machine.in_words(latest["machine"], latest["precision"]).replace(" threads", "\u00a0threads")
    seeds = seeds.replace(" ", "\u00a0")  # a line breaks neither here nor before "threads"
    title = f"Recorded: {recipe['name']} on {recipe['data']}, {seeds}; {where}, {latest['date']}"
    measured_on = "test" if recipe["curve_on_test"] else "validation"
    return learning_curves(records.mean_history(runs), reference, title, measured_on)


@_styled
def compare_histories(
    histories: Mapping[str, object], quantity: str = "validation_accuracy", title: str = ""
) -> Figure:
    """One line a run: `histories` is `{label: History}`, `quantity` one of `QUANTITIES`."""
    known = ", ".join(QUANTITIES)
    _expect(quantity in QUANTITIES, f"quantity to be one of {known}", repr(quantity))
    _expect(len(histories) > 0, "histories, at least one", "none")
    label, factor = QUANTITIES[quantity]
    curves = {run: factor * _curves(history, quantity)[quantity] for run, history in histories.items()}
    height = max(4, 1 + 0.4 * len(curves))
    figure, axes = plt.subplots(figsize=(WIDTH, height), layout="constrained")
    _title(figure, title)
    for run, values in curves.items():
        axes.plot(np.arange(1, len(values) + 1), values, label=run)
    axes.set_ylabel(label)
    _epoch_axis(axes, max(map(len, curves.values())))
    _label_ends(axes)
    return figure


@_styled
def schedule(
    rates: np.ndarray,
    steps_per_epoch: int | None = None,
    title: str = "",
    log: bool = False,
    marks: Mapping[str, float] | None = None,
) -> Figure:
    """The learning rate at each step, `rates` (steps,); over epochs, if `steps_per_epoch` is given.

    The first step is at 0: nothing is completed yet. `marks` is `{label: x}`, a vertical each.
    """
    rates = _numbers(rates, "rates")
    figure, axes = plt.subplots(figsize=(WIDTH, 3.5), layout="constrained")
    _title(figure, title)
    axes.plot(np.arange(len(rates)) / (steps_per_epoch or 1), rates)
    axes.set(xlabel="epochs completed" if steps_per_epoch else "step", ylabel="learning rate")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    if log:
        axes.set_yscale("log")
    else:
        axes.set_ylim(0, None)
    _mark(axes, marks or {})
    return figure


@_styled
def range_test(rates: np.ndarray, losses: np.ndarray, suggestion: float | None = None) -> Figure:
    """Loss against learning rate (both (steps,)) as the rate grows; the suggested rate is marked.

    Faint are the losses, strong their running mean. The y axis keeps to where the network learns,
    though the loss explode afterwards; where it is no longer finite, the background is grey.
    Source: L. N. Smith, "Cyclical learning rates for training neural networks", WACV 2017.
    """
    rates, losses = _pair(rates, losses, "rates", "losses")
    lowest, highest = rates.min(), rates.max()
    _expect(lowest > 0, "rates above 0, for a logarithmic axis", f"{lowest:g}")
    _expect(np.isfinite(losses[0]), "a finite loss at the first rate", losses[0])
    end = int(np.argmin([*np.isfinite(losses), False]))  # the first that is not finite
    if suggestion is not None:
        tested = lowest <= suggestion <= rates[end - 1]
        _expect(tested, f"suggestion in {lowest:g} to {rates[end - 1]:g}", f"{suggestion:g}")
    low, top = _learning_limits(losses[:end])
    mean = schedules.running_mean(losses[:end])
    figure, axes = plt.subplots(figsize=(WIDTH, 3.5), layout="constrained")
    axes.plot(rates[:end], losses[:end], color=BLUE, alpha=0.35, linewidth=1)
    axes.plot(rates[:end], mean, color=BLUE, linewidth=2)
    axes.set(xscale="log", xlim=(lowest, highest), ylim=(low, top))
    axes.set(xlabel="learning rate", ylabel=LOSS)
    if end < len(rates):
        axes.axvspan(rates[end], highest, color="0.85", linewidth=0)
        middle, across = np.sqrt(rates[end] * highest), axes.get_xaxis_transform()
        axes.text(middle, 0.03, "not finite", transform=across, rotation=90, ha="center")
    if suggestion is not None:
        axes.plot(suggestion, np.interp(suggestion, rates[:end], mean), "o", color=VERMILION)
        _mark(axes, {f"suggested: {suggestion:.1e}": suggestion})
    return figure


# ---- confusion ----


@_styled
def confusion(matrix: np.ndarray, classes: Sequence[str], title: str = "") -> Figure:
    """A confusion matrix (counts, a row for each true class) with each row in per cent of its sum.

    Up to 12 classes it shows the numbers, above 25 only every tenth name. Colours follow the square
    root, so that mistakes of a few per cent can be seen beside a diagonal of ninety.
    """
    shares, n = _row_percent(matrix, classes), len(classes)
    figure, axes = plt.subplots(figsize=(WIDTH, 5 if n <= 12 else 6.4), layout="compressed")
    _title(figure, title)
    image = axes.imshow(
        shares, cmap="Blues", norm=PowerNorm(0.5, 0, 100), aspect="equal" if n <= 12 else "auto"
    )
    axes.set(xlabel="predicted class", ylabel="true class")
    axes.grid(False)
    if n > 12:
        ticks = np.arange(0, n, 1 if n <= 25 else 10)
        axes.set_xticks(ticks[::4], ticks[::4])
        axes.set_yticks(ticks, [f"{classes[k]} {k}" for k in ticks], size=SMALL_LETTERS)
        bar = figure.colorbar(image, label="share of the true class (%)", location="bottom", aspect=30)
        bar.set_ticks([0, 5, 20, 50, 100])
        return figure
    axes.set_xticks(range(n), classes, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(n), classes)
    for (row, column), share in np.ndenumerate(shares):
        if share >= 0.5:  # a nought in every empty cell would hide the others
            colour = "white" if share > 35 else "black"
            axes.text(column, row, f"{share:.0f}", ha="center", va="center", color=colour)
    return figure


@_styled
def most_confused(matrix: np.ndarray, classes: Sequence[str], n: int = 10) -> Figure:
    """The `n` largest shares off the diagonal of a confusion matrix (counts, true class a row)."""
    shares = _row_percent(matrix, classes)
    np.fill_diagonal(shares, 0)
    worst = [k for k in np.argsort(-shares, axis=None, kind="stable")[:n] if shares.flat[k] > 0]
    if not worst:
        return _say("no mistakes in this matrix")
    pairs = [divmod(k, len(classes)) for k in worst]
    names = [f"{classes[true]} → {classes[predicted]}" for true, predicted in pairs]
    figure, axes = plt.subplots(figsize=(WIDTH, 1 + 0.32 * len(pairs)), layout="constrained")
    _bars(axes, names, shares.flat[worst])
    axes.set_xlabel("share of the true class (%)")
    return figure


# ---- the pieces ----


def _grid(images: np.ndarray, captions: list[str], columns: int, title: str = "") -> Figure:
    """Images row by row, each under its caption, wrapped to about the width of the picture."""
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    cell = WIDTH / max(columns, 4)
    captions = [_wrap(caption.replace("_", " "), int(12 * cell)) for caption in captions]
    lines = [len(caption.splitlines()) for caption in captions]
    tall = sum(max(lines[row * columns : (row + 1) * columns]) for row in range(rows))
    size = (cell * columns, cell * rows + 0.19 * tall + (0.4 if title else 0))
    figure, axes = plt.subplots(rows, columns, figsize=size, layout="compressed", squeeze=False)
    _title(figure, title)
    for place in axes.flat:
        place.set_axis_off()
    for place, image, caption in zip(axes.flat, images, captions, strict=False):
        place.imshow(image)
        place.set_title(caption, pad=3)
    return figure


def _bars(axes: Axes, names: list[str], percents: np.ndarray) -> None:
    """Horizontal bars, the first on top, each with its number."""
    bars = axes.barh(names, percents)
    axes.bar_label(bars, [f"{value:.1f}" for value in percents], padding=3)
    axes.invert_yaxis()
    axes.grid(False, axis="y")
    axes.margins(x=0.12)


def _label_ends(*panels: Axes) -> None:
    """Write each line's name at its right end in its colour, moved apart until none overlap."""
    panels[0].figure.draw_without_rendering()  # only with the layout settled are heights known
    leader = {"arrowstyle": "-", "linestyle": ":", "color": "0.5", "relpos": (0, 0.5)}
    place = {"textcoords": "axes fraction", "annotation_clip": False, "va": "center"}
    for axes in panels:
        lines = sorted(axes.lines, key=lambda line: _end(line)[1])
        names = [_wrap(line.get_label(), 14) for line in lines]
        row = 1.25 * LETTERS / 72 * axes.figure.dpi / axes.bbox.height
        to_axes = axes.transData + axes.transAxes.inverted()
        ends = np.array([to_axes.transform(_end(line))[1] for line in lines])
        heights = _apart(ends, np.array([row * len(name.splitlines()) for name in names]))
        for line, name, height in zip(lines, names, heights, strict=True):
            line.set(**END_DOT)
            letters = 0.75 * np.array(to_rgb(line.get_color()))  # darker: they need more contrast
            axes.annotate(name, _end(line), (1.06, height), arrowprops=leader, color=letters, **place)


def _apart(wanted: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Centres near those `wanted`, in their order, for things of these `sizes` between 0 and 1."""
    stacked = np.cumsum(sizes) - sizes / 2  # centres, if all lay on the floor
    centres = stacked + np.maximum.accumulate(np.maximum(wanted - stacked, 0))  # up, off the last
    return np.minimum(centres, stacked + 1 - sizes.sum())  # down again, under the ceiling


def _end(line: Line2D) -> tuple[float, float]:
    """The last finite point of a line."""
    x, y = line.get_data()
    last = np.flatnonzero(np.isfinite(y))[-1]
    return x[last], y[last]


def _epoch_axis(axes: Axes, last: int) -> None:
    """Whole epochs: 1, and the round numbers up to `last`."""
    ticks = MaxNLocator(nbins=10, steps=[1, 2, 5, 10], integer=True).tick_values(0, last)
    clear_of_one = 1 + (ticks[1] - ticks[0]) / 2
    axes.set_xticks([1, *ticks[(ticks > clear_of_one) & (ticks <= last)]])
    axes.set(xlabel="epoch", xlim=(0.5, last + 0.5))


def _mark(axes: Axes, marks: Mapping[str, float]) -> None:
    """A dashed vertical at each mark, up to its label in a row of its own above the axes."""
    across = axes.get_xaxis_transform()  # x as data, y as axes fraction
    for row, (label, x) in enumerate(marks.items()):
        height = 1.05 + 0.09 * (len(marks) - 1 - row)
        right_half = axes.transAxes.inverted().transform(across.transform((x, 0)))[0] > 0.5
        side = "right" if right_half else "left"
        axes.axvline(x, ymax=height, color="0.35", linestyle="--", linewidth=1, clip_on=False)
        axes.text(x, height, f" {label} ", transform=across, ha=side, va="center")


def _learning_limits(losses: np.ndarray) -> tuple[float, float]:
    """Limits for a y axis from below the lowest loss to a little above where the losses start."""
    start, low = np.median(losses[: max(1, len(losses) // 10)]), losses.min()
    drop = max(start - low, 0.1 * abs(start))
    return low - 0.15 * drop, start + 0.5 * drop


def _title(figure: Figure, title: str) -> None:
    if title:
        figure.suptitle(_wrap(title, int(8.5 * figure.get_figwidth())))


def _wrap(text: str, width: int) -> str:
    """Break each line between words, never inside one."""
    lines = (textwrap.fill(line, width, break_long_words=False) for line in text.splitlines())
    return "\n".join(lines)


def _say(text: str) -> Figure:
    figure = plt.figure(figsize=(WIDTH, 1))
    figure.text(0.5, 0.5, text, ha="center", va="center")
    return figure


# ---- what may come in ----


def _expect(ok: bool, expected: str, found: object) -> None:
    if not ok:
        raise ValueError(f"expected {expected}; found {found}")


def _images(images: np.ndarray, name: str) -> np.ndarray:
    images = np.asarray(images)
    fits = images.dtype == np.uint8 and images.ndim == 4 and images.shape[3] == 3 and images.size
    _expect(fits, f"{name} uint8 of shape (N, height, width, 3)", f"{images.dtype} {images.shape}")
    return images


def _labels(labels: np.ndarray, images: np.ndarray, classes: Sequence[str] | None) -> np.ndarray:
    labels = np.asarray(labels)
    _expect(labels.shape == (len(images),), f"labels of shape ({len(images)},)", labels.shape)
    if classes is not None:
        known = labels.min() >= 0 and labels.max() < len(classes)
        _expect(known, f"labels 0 to {len(classes) - 1}", f"{labels.min()} to {labels.max()}")
    return labels


def _probabilities(probabilities: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    values = np.asarray(probabilities, dtype=float)
    _expect(values.shape == shape, f"probabilities of shape {shape}", values.shape)
    fits = values.min() >= 0 and np.allclose(values.sum(-1), 1, atol=0.02)  # bfloat16's rounding
    found = f"{values.min():.3g} to {values.max():.3g}: are these logits, before the softmax?"
    _expect(fits, "probabilities of 0 to 1 that sum to 1", found)
    return values


def _numbers(values: np.ndarray, name: str) -> np.ndarray:
    values = np.asarray(values, dtype=float)
    finite = np.isfinite(values).sum()
    fits = values.ndim == 1 and finite > 0
    _expect(fits, f"{name} of shape (n,), not all nan", f"{values.shape}, {finite} of them finite")
    return values


def _pair(x: np.ndarray, y: np.ndarray, x_name: str, y_name: str) -> tuple[np.ndarray, np.ndarray]:
    x, y = _numbers(x, x_name), _numbers(y, y_name)
    _expect(len(x) == len(y), f"as many {x_name} as {y_name}", f"{len(x)} and {len(y)}")
    return x, y


def _curves(history: object, *names: str) -> dict[str, np.ndarray]:
    """Lists of a `History` as arrays, all of one length."""
    curves = {name: _numbers(getattr(history, name), f"history.{name}") for name in names}
    lengths = {name: len(values) for name, values in curves.items()}
    _expect(len(set(lengths.values())) == 1, "history lists of one length", lengths)
    return curves


def _row_percent(matrix: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """Each row of counts in per cent of its sum; a class that never came stays at 0."""
    matrix, n = np.asarray(matrix, dtype=float), len(classes)
    _expect(matrix.shape == (n, n), f"matrix of shape ({n}, {n})", matrix.shape)
    counts = np.isfinite(matrix).all() and matrix.min() >= 0 and matrix.any()
    _expect(counts, "matrix of counts, not all 0", f"{matrix.min():g} to {matrix.max():g}")
    return 100 * matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
