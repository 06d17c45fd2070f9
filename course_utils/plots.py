"""Every figure that the lessons draw, from plain arrays (or a `History`) to a matplotlib `Figure`.

Read what you need: each function stands alone, and the few pieces that they share come last. A figure is drawn in
matplotlib's defaults plus `STYLE`, and leaves your own settings alone. In a notebook, end the cell with `plt.show()`.
"""

import functools
import textwrap
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from course_utils.schedules import RangeTest

WIDTH = 5  # inches, every figure; on a phone, which shows it 350 px wide, 10-point letters are 9.7 px high
LETTERS, SMALL_LETTERS = 11, 10  # points
# Okabe and Ito's colours (jfly.uni-koeln.de/color), told apart by the colour-blind; no yellow: it fades on white.
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
    "legend.frameon": False,
}
LOSS, SHARE = "loss", "share of the true class (%)"
END_DOT = {"marker": "o", "markersize": 4, "markevery": [-1]}  # shows a run of one epoch, too
WHOLE = {"integer": True, "min_n_ticks": 1, "steps": [1, 2, 5, 10]}  # ticks of an axis of epochs or steps
# A History's lists: the name on the axis, and the factor from what is stored to what is shown.
QUANTITIES = {
    "train_loss": (f"training {LOSS}", 1),
    "validation_loss": (f"validation {LOSS}", 1),
    "train_accuracy": ("training top-1 accuracy (%)", 100),
    "validation_accuracy": ("validation top-1 accuracy (%)", 100),
    "learning_rate": ("learning rate", 1),
    "seconds": ("time per epoch (s)", 1),
}


def styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Run `draw` in our style, whatever the caller's is, and leave the caller's as it was."""

    @functools.wraps(draw)
    def in_style(*args, **kwargs) -> Figure:
        # Loads the backend. In a notebook that turns interactive mode on: a setting, which the context would undo.
        plt.draw_if_interactive()
        with plt.style.context(["default", STYLE]):
            return draw(*args, **kwargs)

    return in_style


@styled
def show_images(images, labels=None, classes=None, columns: int | None = None, title: str = "") -> Figure:
    """A grid of `images`, uint8 (N, height, width, 3), under the names that `classes` has for `labels` (N,), if given.

    A row has 8 images by default, and fewer where names need the room.
    """
    known = labels.tolist() if hasattr(labels, "tolist") else labels
    names = [""] * len(images) if known is None else known if classes is None else [classes[k] for k in known]
    columns = columns or (8 if labels is None else 4 if len(images) <= 8 else 6)
    return grid(images, [str(name) for name in names], columns, title)


@styled
def show_augmented(originals: np.ndarray, augmented: np.ndarray, title: str = "") -> Figure:
    """Beside each of `originals`, uint8 (N, H, W, 3), its K versions in `augmented`, uint8 (N, K, H, W, 3)."""
    rows = np.concatenate([np.asarray(originals)[:, None], augmented], axis=1)
    n, columns, *shape = rows.shape
    captions = ["original", *(f"version {k}" for k in range(1, columns))] + [""] * ((n - 1) * columns)
    return grid(rows.reshape(-1, *shape), captions, columns, title)


@styled
def worst_mistakes(images, labels, probabilities, classes: Sequence[str], n: int = 8) -> Figure:
    """The `n` most confidently misclassified images, with both classes.

    `images` uint8 (N, H, W, 3), `labels` (N,), `probabilities` (N, n_classes) as `training.predict` gives them.
    """
    probabilities = check_probabilities(probabilities, classes)
    if not len(images) == len(labels) == len(probabilities):
        found = f"{len(images)} images, {len(labels)} labels, {len(probabilities)} answers"
        raise ValueError(f"expected a label and an answer for each image, found {found}")
    said, percent = probabilities.argmax(1), 100 * probabilities.max(1)
    wrong = np.flatnonzero(said != labels)
    worst = wrong[np.argsort(-percent[wrong], kind="stable")][:n]
    if len(worst) == 0:
        return say("no mistakes among these images")
    captions = [f"true: {classes[labels[i]]}\nsaid: {classes[said[i]]}\nat {percent[i]:.1f} %" for i in worst]
    return grid(images[worst], captions, 4)


@styled
def prediction_bars(image, probabilities, classes: Sequence[str], top: int = 5) -> Figure:
    """One `image`, uint8 (H, W, 3), beside its `top` classes by `probabilities` (n_classes,)."""
    probabilities = check_probabilities(probabilities, classes)
    best = np.argsort(-probabilities, kind="stable")[:top]
    size = {"figsize": (WIDTH, 2.3), "width_ratios": (1, 1.6), "layout": "constrained"}
    figure, (left, right) = plt.subplots(1, 2, **size)
    left.imshow(image)
    left.set_axis_off()
    bars(right, [classes[k] for k in best], 100 * probabilities[best])
    right.set(xlabel="probability (%)", xlim=(0, 115), xticks=(0, 50, 100))
    return figure


@styled
def learning_curves(history, reference=None, title: str = "", measured_on: str = "validation") -> Figure:
    """Loss, accuracy and learning rate of one `History`, or a record's, over its epochs, one panel each.

    `reference` is a curve to measure against: `(label, epochs, accuracy in %)`. `measured_on` names the images that
    the history calls validation: "test" where the test set was used for them.
    """
    if isinstance(reference, str):
        raise ValueError(f"expected (label, epochs, percents), found {reference!r}: title=… sets the title")
    history = as_history(history)
    epochs = np.arange(1, len(history.train_loss) + 1)
    size = {"figsize": (WIDTH, 6.6), "height_ratios": (3, 3, 2)}
    figure, (loss, accuracy, rate) = plt.subplots(3, 1, sharex=True, layout="constrained", **size)
    set_title(figure, title)
    loss.plot(epochs, history.train_loss, **END_DOT, label="training")
    measured = not np.isnan(history.validation_loss).all()
    loss.plot(epochs, history.validation_loss, **END_DOT, label=measured_on if measured else None)
    name, colour = (measured_on, VERMILION) if measured else ("training", BLUE)
    percent = 100 * np.array(history.validation_accuracy if measured else history.train_accuracy)
    accuracy.plot(epochs, percent, **END_DOT, color=colour, label=name)
    if reference:
        label, *curve = reference
        accuracy.plot(*curve, "--", color="0.35", label=no_math(label))
    stepwise = "steps-post" if 0 in np.diff(history.learning_rate) else "default"  # or it always changes
    rate.plot(epochs - 1, history.learning_rate, **END_DOT, color=GREEN, drawstyle=stepwise)
    rate.set(xlabel="epoch", ylabel="learning rate", ylim=(0, None))
    rate.xaxis.set_major_locator(MaxNLocator(**WHOLE))
    for axes, label in (loss, LOSS), (accuracy, "top-1 accuracy (%)"):
        axes.set_ylabel(label)
        axes.legend()
    return figure


def as_history(history):
    """A `History` as it is; a record's "history" with the same attributes, as float arrays, NaN for None."""
    named = isinstance(history, Mapping)
    return SimpleNamespace(**{k: np.array(x, float) for k, x in history.items()}) if named else history


@styled
def recorded_runs(runs: Sequence[Mapping], reference=None) -> Figure:
    """`learning_curves` of one recipe's runs, dicts as in `lab/records.py`, as the mean over their seeds."""
    if not runs or None in runs[0]["history"].get("validation_accuracy", [None]):
        return say("There is no recorded curve of this recipe.")
    found = {f"{run['recipe']['name']} of {len(run['history']['train_loss'])} epochs" for run in runs}
    if len(found) > 1:
        raise ValueError(f"expected equal runs of one recipe, found {' and '.join(sorted(found))}")
    latest = max(runs, key=lambda run: run["date"])
    recipe, curves = latest["recipe"], latest["history"]
    mean = {name: np.mean([run["history"][name] for run in runs], axis=0) for name in curves}
    seeds = ("seeds " if len(runs) > 1 else "seed ") + ", ".join(str(run["seed"]) for run in runs)
    machines = ", ".join(dict.fromkeys(run["machine"]["name"] for run in runs))  # each once, in their order
    title = f"Recorded: {recipe['name']} on {recipe['data']}, {seeds}; {machines}, {latest['date']}"
    measured_on = "test" if recipe.get("curve_on_test") else "validation"
    figure = learning_curves(mean, reference, title, measured_on)
    if smoothing := recipe.get("label_smoothing"):  # which raises the lowest loss that can be reached
        figure.axes[0].set_ylabel(f"loss (label smoothing {smoothing:g})")
    return figure


@styled
def compare_histories(histories: Mapping, quantity: str = "validation_accuracy", title: str = "") -> Figure:
    """One line a run: `histories` is `{label: History}` or a record's, `quantity` one of `QUANTITIES`."""
    if quantity not in QUANTITIES:
        raise ValueError(f"unknown quantity {quantity!r}, expected one of {', '.join(QUANTITIES)}")
    label, factor = QUANTITIES[quantity]
    figure, axes = plt.subplots(figsize=(WIDTH, 3.5 + 0.25 * len(histories)), layout="constrained")
    set_title(figure, title)
    for run, history in histories.items():
        values = factor * np.array(getattr(as_history(history), quantity))
        run = no_math(run) + " (not measured)" * bool(np.isnan(values).all())
        axes.plot(np.arange(1, len(values) + 1), values, **END_DOT, label=run)
    axes.set(xlabel="epoch", ylabel=label)
    axes.xaxis.set_major_locator(MaxNLocator(**WHOLE))
    figure.legend(loc="outside lower left")
    return figure


@styled
def schedule(rates, steps_per_epoch: int | None = None, title: str = "", log=False, marks=None) -> Figure:
    """The learning rate at each step, `rates` (steps,); over epochs, if `steps_per_epoch` is given.

    A rate holds until the next step. `marks` is `{label: x}`: a vertical line at each.
    """
    figure, axes = plt.subplots(figsize=(WIDTH, 3.5), layout="constrained")
    set_title(figure, title)
    edges = np.arange(len(rates) + 1) / (steps_per_epoch or 1)
    axes.stairs(rates, edges, baseline=None, color=BLUE, linewidth=1.5)
    axes.set(xlabel="epochs completed" if steps_per_epoch else "step", ylabel="learning rate")
    axes.xaxis.set_major_locator(MaxNLocator(**WHOLE))
    axes.set(yscale="log") if log else axes.set(ylim=(0, None))
    mark(axes, marks)
    return figure


@styled
def range_test(rates, losses, marks: Mapping[str, float] | None = None) -> Figure:
    """Loss against learning rate (both (steps,)) as the rate grows; `marks` is `{label: rate}`, a line at each.

    Losses are faint, the mean of each and its neighbours strong. The y axis keeps to where the network learns.
    """
    smoothed = RangeTest(np.asarray(rates), np.asarray(losses)).smoothed
    figure, axes = plt.subplots(figsize=(WIDTH, 3.5), layout="constrained")
    axes.plot(rates, losses, color=BLUE, alpha=0.35, linewidth=1)
    axes.plot(rates, smoothed, color=BLUE, linewidth=2)
    limits = 0.9 * np.min(losses), 1.2 * np.median(losses[: 1 + len(losses) // 10])
    axes.set(xscale="log", ylim=limits, xlabel="learning rate", ylabel=LOSS)
    mark(axes, {f"{label}: {rate:.1e}": rate for label, rate in (marks or {}).items()})
    return figure


def confusion_matrix(labels: np.ndarray, predictions: np.ndarray, n_classes: int) -> np.ndarray:
    """Counts, int64 (n_classes, n_classes): row = true class, column = predicted class."""
    cells = np.ravel_multi_index((labels, predictions), (n_classes, n_classes))
    return np.bincount(cells, minlength=n_classes**2).reshape(n_classes, n_classes)


@styled
def confusion(matrix: np.ndarray, classes: Sequence[str], title: str = "") -> Figure:
    """A confusion matrix with each row in per cent of its sum: numbers up to 12 classes, colours alone above.

    Colours follow the square root, so that mistakes of a few per cent can be seen beside a diagonal of ninety.
    """
    shares = row_percents(matrix, classes)
    n, names = len(classes), [no_math(name) for name in classes]
    figure, axes = plt.subplots(figsize=(WIDTH, 5.5), layout="compressed")
    set_title(figure, title)
    image = axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, 0, 100))
    step = 1 if n <= 25 else 10  # the names that there is room for
    axes.set_xticks(range(0, n, step), names[::step], rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(0, n, step), names[::step])
    axes.set(xlabel="predicted class", ylabel="true class")
    axes.grid(False)
    if n > 12:
        figure.colorbar(image, label=SHARE, location="bottom", ticks=[0, 5, 20, 50, 100])
        return figure
    for row, column in np.argwhere(shares > 0.5):  # a nought in every empty cell would hide the others
        colour = "white" if shares[row, column] > 35 else "black"
        axes.text(column, row, f"{shares[row, column]:.0f}", ha="center", va="center", color=colour)
    return figure


@styled
def most_confused(matrix: np.ndarray, classes: Sequence[str], n: int = 10) -> Figure:
    """The `n` largest shares off the diagonal of a confusion matrix, as bars: true class → predicted class."""
    shares = row_percents(matrix, classes)
    np.fill_diagonal(shares, 0)
    if not (worst := [k for k in np.argsort(-shares, axis=None, kind="stable")[:n] if shares.flat[k] > 0]):
        return say("no mistakes in this matrix")
    pairs = [divmod(k, len(classes)) for k in worst]
    figure, axes = plt.subplots(figsize=(WIDTH, 1 + 0.32 * len(pairs)), layout="constrained")
    bars(axes, [f"{classes[true]} → {classes[said]}" for true, said in pairs], shares.flat[worst])
    axes.set_xlabel(SHARE)
    return figure


def row_percents(matrix: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    counts = np.array(matrix, dtype=float)
    if counts.shape != (len(classes), len(classes)):
        raise ValueError(f"expected a row and a column for {len(classes)} classes, found {counts.shape}")
    sums = counts.sum(axis=1, keepdims=True)
    return 100 * counts / np.where(sums > 0, sums, 1)


def grid(images: np.ndarray, captions: list[str], columns: int, title: str = "") -> Figure:
    """Images row by row, each under its caption, wrapped to about the width of the picture."""
    images = np.asarray(images)
    if images.dtype != np.uint8 or images.ndim != 4 or not 0 < len(images) == len(captions):
        found = f"{images.dtype} {images.shape}, {len(captions)} labels"
        raise ValueError(f"expected images uint8 (N, height, width, 3), N labels; found {found}")
    columns = min(columns, len(images))
    rows, cell = -(-len(images) // columns), WIDTH / max(columns, 4)
    captions = [wrap(caption.replace("_", " "), int(12 * cell)) for caption in captions]
    lines = max(len(caption.splitlines()) for caption in captions)
    size = (cell * columns, rows * (cell + 0.19 * lines) + (0.4 if title else 0))
    figure, axes = plt.subplots(rows, columns, figsize=size, layout="compressed", squeeze=False)
    set_title(figure, title)
    for place in axes.flat:
        place.set_axis_off()
    for place, image, caption in zip(axes.flat, images, captions, strict=False):
        place.imshow(image)
        place.set_title(caption, pad=3)
    return figure


def bars(axes: Axes, names: list[str], percents: np.ndarray) -> None:
    """Horizontal bars, the first on top, each with its number."""
    axes.bar_label(axes.barh([no_math(name) for name in names], percents), fmt="%.1f", padding=3)
    axes.invert_yaxis()
    axes.grid(False, axis="y")
    axes.margins(x=0.12)


def mark(axes: Axes, marks: Mapping[str, float] | None) -> None:
    """A dashed vertical at each mark, and its label in a legend below the axes."""
    for k, (label, x) in enumerate((marks or {}).items()):
        axes.axvline(x, color=COLOURS[1 + k % (len(COLOURS) - 1)], linestyle="--", label=no_math(label))
    if marks:
        axes.figure.legend(loc="outside lower left")


def set_title(figure: Figure, title: str) -> None:
    if title:
        figure.suptitle(wrap(title, int(8.5 * figure.get_figwidth())))


def wrap(text: str, width: int) -> str:
    """Break each line between words, or at a hyphen; a dollar is a dollar, and begins no formula."""
    lines = (textwrap.fill(line, width, break_long_words=False) for line in text.splitlines())
    return no_math("\n".join(lines))


def no_math(text: object) -> str:
    return str(text).replace("$", r"\$")


def say(text: str) -> Figure:
    figure = plt.figure(figsize=(WIDTH, 1))
    figure.text(0.5, 0.5, text, ha="center", va="center")
    return figure


def check_probabilities(values: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    values = np.asarray(values, dtype=float)
    if values.shape[-1] != len(classes):
        raise ValueError(f"expected names for {values.shape[-1]} classes, found {len(classes)}")
    if values.min() < 0 or not np.allclose(values.sum(-1), 1, atol=0.02):  # bfloat16's rounding
        raise ValueError("expected probabilities that sum to 1; for logits, take the softmax first")
    return values
