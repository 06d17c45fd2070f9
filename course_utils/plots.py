"""Every figure that the lessons draw, from plain arrays (or a `History`) to a matplotlib `Figure`.

Read what you need: each function stands alone, and the few pieces that they share come last. A figure looks the same
whoever draws it: it starts from matplotlib's defaults plus `STYLE`, and leaves your own settings as they were. In a
notebook, end the cell with `plt.show()`.
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
    "legend.frameon": False,
}
LOSS = "loss (nats)"
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
        # Loads the backend. In a notebook that turns interactive mode on, which is a setting too:
        # done inside the context, leaving it would turn the mode off again.
        plt.draw_if_interactive()
        with plt.style.context(["default", STYLE]):
            return draw(*args, **kwargs)

    return in_style


# --- Images: uint8 (N, height, width, 3).


@styled
def show_images(images, labels=None, classes=None, columns: int | None = None, title: str = "") -> Figure:
    """A grid of `images`, each under its class: the name from `classes`, or else the number from `labels` (N,).

    A row has 8 images by default, and fewer where names need the room.
    """
    captions = [""] * len(images)
    if labels is not None:
        captions = [str(k if classes is None else classes[k]) for k in labels]
    roomy = 8 if labels is None else 4 if len(images) <= 8 else 6
    return grid(images, captions, columns or roomy, title)


@styled
def show_augmented(originals: np.ndarray, augmented: np.ndarray, title: str = "") -> Figure:
    """Beside each of `originals` (N, H, W, 3) its K in `augmented` (N, K, H, W, 3)."""
    rows = np.concatenate([np.asarray(originals)[:, None], augmented], axis=1)
    captions = ["original", *(f"version {k}" for k in range(1, rows.shape[1]))]
    captions += [""] * (rows.shape[1] * (len(rows) - 1))
    return grid(rows.reshape(-1, *rows.shape[2:]), captions, rows.shape[1], title)


@styled
def worst_mistakes(images, labels, probabilities, classes: Sequence[str], n: int = 8) -> Figure:
    """The `n` images of which a wrong class was most probable, with both classes.

    `labels` (N,); `probabilities` (N, n_classes), as `training.predict` gives them.
    """
    said, at = (best := check_probabilities(probabilities)).argmax(1), 100 * best.max(1)
    wrong = np.flatnonzero(said != labels)
    worst = wrong[np.argsort(-at[wrong], kind="stable")][:n]
    if len(worst) == 0:
        return say("no mistakes among these images")
    text = "true: {}\nsaid: {}\nat {:.1f} %"
    captions = [text.format(classes[labels[i]], classes[said[i]], at[i]) for i in worst]
    return grid(images[worst], captions, columns=4)


@styled
def filters(weights: np.ndarray, title: str = "") -> Figure:
    """The filters of a first convolution, `weights` (out, 3, k, k), as pictures: grey is zero.

    All share one scale, the 99th percentile of |weight|, so that one outlier cannot grey the rest.
    """
    weights = np.asarray(weights, dtype=float)
    scale = np.percentile(np.abs(weights), 99) or 1
    pictures = np.clip(0.5 + 0.5 * weights / scale, 0, 1).transpose(0, 2, 3, 1)
    return grid(pictures, [""] * len(pictures), 8, title)


@styled
def prediction_bars(image, probabilities, classes: Sequence[str], top: int = 5) -> Figure:
    """One `image` (H, W, 3) beside its `top` classes by `probabilities` (n_classes,)."""
    probabilities = check_probabilities(probabilities)
    best = np.argsort(-probabilities, kind="stable")[:top]
    figure, (picture, axes) = plt.subplots(
        1, 2, figsize=(WIDTH, 2.3), layout="constrained", width_ratios=(1, 1.6)
    )
    picture.imshow(check_images(image))
    picture.set_axis_off()
    bars(axes, [classes[k] for k in best], 100 * probabilities[best])
    axes.set(xlabel="probability (%)", xlim=(0, 115), xticks=(0, 50, 100))
    return figure


# --- Curves.


@styled
def learning_curves(history, reference=None, title: str = "", measured_on: str = "validation") -> Figure:
    """Loss, accuracy and learning rate of one `History` over its epochs, one panel each.

    `reference` is a curve to measure against: `(label, epochs, accuracy in %)`. `measured_on` names the images that
    the history calls validation: "test" where the test set was used for them.
    """
    epochs = np.arange(1, len(history.train_loss) + 1)
    figure, (loss, accuracy, rate) = plt.subplots(
        3, 1, sharex=True, figsize=(WIDTH, 6.6), layout="constrained", height_ratios=(3, 3, 2)
    )
    set_title(figure, title)
    loss.plot(epochs, history.train_loss, label="training")
    loss.plot(epochs, history.validation_loss, label=measured_on)
    accuracy.plot(epochs, 100 * np.array(history.validation_accuracy), color=VERMILION, label=measured_on)
    if reference is not None:
        label, at, percent = reference
        accuracy.plot(at, percent, "--", color="0.35", label=label)
    rate.plot(epochs, history.learning_rate, color=GREEN, drawstyle="steps-post", marker="o", markevery=[-1])
    loss.set_ylabel(LOSS)
    accuracy.set_ylabel("top-1 accuracy (%)")
    rate.set(ylabel="learning rate", xlabel="epoch", ylim=(0, None))
    rate.xaxis.set_major_locator(whole_numbers())
    loss.legend()
    accuracy.legend()
    figure.align_ylabels()
    return figure


@styled
def recorded_runs(runs: Sequence[Mapping], reference=None) -> Figure:
    """`learning_curves` of one recipe's recorded runs (`records.of_recipe`), as the mean over their seeds."""
    if not runs or runs[0]["history"]["validation_accuracy"][-1] is None:
        return say("There is no recorded curve of this recipe.")
    curves = {
        name: np.mean([np.array(run["history"][name], dtype=float) for run in runs], axis=0)
        for name in runs[0]["history"]
    }
    recipe, latest = runs[0]["recipe"], max(runs, key=lambda run: run["date"])
    seeds = ", ".join(str(run["seed"]) for run in runs)
    title = (
        f"Recorded: {recipe['name']} on {recipe['data']}, seeds {seeds}; "
        f"{latest['machine']['name']}, {latest['precision']}, {latest['date']}"
    )
    measured_on = "test" if recipe["curve_on_test"] else "validation"
    return learning_curves(SimpleNamespace(**curves), reference, title, measured_on)


@styled
def compare_histories(histories: Mapping, quantity: str = "validation_accuracy", title: str = "") -> Figure:
    """One line a run: `histories` is `{label: History}`, `quantity` one of `QUANTITIES`."""
    label, factor = QUANTITIES[quantity]
    figure, axes = plt.subplots(figsize=(WIDTH, 4 + 0.12 * len(histories)), layout="constrained")
    set_title(figure, title)
    for run, history in histories.items():
        values = factor * np.array(getattr(history, quantity))
        axes.plot(np.arange(1, len(values) + 1), values, label=run, marker="o", markersize=4, markevery=[-1])
    axes.set(xlabel="epoch", ylabel=label)
    axes.xaxis.set_major_locator(whole_numbers())
    axes.legend()
    return figure


@styled
def schedule(rates, steps_per_epoch: int | None = None, title: str = "", log=False, marks=None) -> Figure:
    """The learning rate at each step, `rates` (steps,); over epochs, if `steps_per_epoch` is given.

    A rate holds until the next step. `marks` is `{label: x}`, a vertical each.
    """
    figure, axes = plt.subplots(figsize=(WIDTH, 3.5), layout="constrained")
    set_title(figure, title)
    edges = np.arange(len(rates) + 1) / (steps_per_epoch or 1)
    axes.stairs(rates, edges, baseline=None, color=BLUE, linewidth=1.5)
    axes.set(xlabel="epochs completed" if steps_per_epoch else "step", ylabel="learning rate")
    axes.xaxis.set_major_locator(whole_numbers())
    axes.set(yscale="log") if log else axes.set(ylim=(0, None))
    mark(axes, marks or {})
    return figure


@styled
def range_test(rates, losses, marks: Mapping[str, float] | None = None) -> Figure:
    """Loss against learning rate (both (steps,)) as the rate grows; `marks` is `{label: rate}`.

    Faint are the losses, strong their running mean. The y axis keeps to where the network learns, though the loss
    explode afterwards.
    """
    smoothed = RangeTest(np.asarray(rates), np.asarray(losses)).smoothed
    start, low = np.median(losses[: max(1, len(losses) // 10)]), smoothed.min()
    drop = max(start - low, 0.1 * abs(start))
    figure, axes = plt.subplots(figsize=(WIDTH, 3.5), layout="constrained")
    axes.plot(rates, losses, color=BLUE, alpha=0.35, linewidth=1)
    axes.plot(rates, smoothed, color=BLUE, linewidth=2)
    axes.set(xscale="log", ylim=(low - 0.2 * drop, start + 0.5 * drop), xlabel="learning rate", ylabel=LOSS)
    mark(axes, {f"{label}: {rate:.1e}": rate for label, rate in (marks or {}).items()})
    return figure


# --- Confusion.


def confusion_matrix(labels: np.ndarray, predictions: np.ndarray, n_classes: int) -> np.ndarray:
    """Counts, int64 (n_classes, n_classes): row = true class, column = predicted class."""
    cells = np.bincount(labels * n_classes + predictions, minlength=n_classes**2)
    return cells.reshape(n_classes, n_classes)


@styled
def confusion(matrix: np.ndarray, classes: Sequence[str], title: str = "") -> Figure:
    """A confusion matrix with each row in per cent of its sum: the numbers up to 12 classes, then colours alone.

    Colours follow the square root, so that mistakes of a few per cent can be seen beside a diagonal of ninety.
    """
    shares, n = row_percent(matrix), len(classes)
    figure, axes = plt.subplots(figsize=(WIDTH, 5 if n <= 12 else 6.4), layout="compressed")
    set_title(figure, title)
    image = axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, 0, 100))
    axes.set(xlabel="predicted class", ylabel="true class")
    axes.grid(False)
    if n > 12:
        ticks = np.arange(0, n, 1 if n <= 25 else 10)
        axes.set_xticks(ticks[::4], ticks[::4])
        axes.set_yticks(ticks, [dollars(f"{classes[k]} {k}") for k in ticks], size=SMALL_LETTERS)
        figure.colorbar(
            image, label="share of the true class (%)", location="bottom", ticks=[0, 5, 20, 50, 100]
        )
        return figure
    classes = list(map(dollars, classes))
    axes.set_xticks(range(n), classes, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(n), classes)
    for (row, column), share in np.ndenumerate(shares):
        if share >= 0.5:  # a nought in every empty cell would hide the others
            colour = "white" if share > 35 else "black"
            axes.text(column, row, f"{share:.0f}", ha="center", va="center", color=colour)
    return figure


@styled
def most_confused(matrix: np.ndarray, classes: Sequence[str], n: int = 10) -> Figure:
    """The `n` largest shares off the diagonal of a confusion matrix, as bars: true class → predicted class."""
    shares = row_percent(matrix)
    np.fill_diagonal(shares, 0)
    worst = [k for k in np.argsort(-shares, axis=None, kind="stable")[:n] if shares.flat[k] > 0]
    if not worst:
        return say("no mistakes in this matrix")
    pairs = [divmod(k, len(classes)) for k in worst]
    names = [f"{classes[true]} → {classes[predicted]}" for true, predicted in pairs]
    figure, axes = plt.subplots(figsize=(WIDTH, 1 + 0.32 * len(pairs)), layout="constrained")
    bars(axes, names, shares.flat[worst])
    axes.set_xlabel("share of the true class (%)")
    return figure


# --- The pieces.


def grid(images: np.ndarray, captions: list[str], columns: int, title: str = "") -> Figure:
    """Images row by row, each under its caption, wrapped to about the width of the picture."""
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    cell = WIDTH / max(columns, 4)
    captions = [wrap(caption.replace("_", " "), int(12 * cell)) for caption in captions]
    lines = [len(caption.splitlines()) for caption in captions]
    tall = sum(max(lines[row * columns : (row + 1) * columns]) for row in range(rows))
    size = (cell * columns, cell * rows + 0.19 * tall + (0.4 if title else 0))
    figure, axes = plt.subplots(rows, columns, figsize=size, layout="compressed", squeeze=False)
    set_title(figure, title)
    for place in axes.flat:
        place.set_axis_off()
    for place, image, caption in zip(axes.flat, images, captions, strict=False):
        place.imshow(check_images(image))
        place.set_title(caption, pad=3)
    return figure


def bars(axes: Axes, names: list[str], percents: np.ndarray) -> None:
    """Horizontal bars, the first on top, each with its number."""
    axes.bar_label(axes.barh(range(len(names)), percents), [f"{value:.1f}" for value in percents], padding=3)
    axes.set_yticks(range(len(names)), map(dollars, names))
    axes.invert_yaxis()
    axes.grid(False, axis="y")
    axes.margins(x=0.12)


def mark(axes: Axes, marks: Mapping[str, float]) -> None:
    """A dashed vertical at each mark, and its label in a legend above the axes."""
    for (label, x), colour in zip(marks.items(), COLOURS[1:], strict=False):
        axes.axvline(x, color=colour, linestyle="--", linewidth=1.5, label=label)
    if marks:
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1))


def whole_numbers() -> MaxNLocator:
    return MaxNLocator(integer=True, steps=[1, 2, 5, 10])


def set_title(figure: Figure, title: str) -> None:
    if title:
        figure.suptitle(wrap(title, int(8.5 * figure.get_figwidth())))


def wrap(text: str, width: int) -> str:
    """Break each line between words, never inside one; a dollar is a dollar, and begins no formula."""
    lines = (textwrap.fill(line, width, break_long_words=False) for line in text.splitlines())
    return dollars("\n".join(lines))


def dollars(text: str) -> str:
    return text.replace("$", r"\$")


def say(text: str) -> Figure:
    figure = plt.figure(figsize=(WIDTH, 1))
    figure.text(0.5, 0.5, text, ha="center", va="center")
    return figure


def row_percent(matrix: np.ndarray) -> np.ndarray:
    """Each row of counts in per cent of its sum; a class that never came stays at 0."""
    return 100 * np.asarray(matrix, dtype=float) / np.maximum(np.sum(matrix, axis=1, keepdims=True), 1)


def check_images(image: np.ndarray) -> np.ndarray:
    """`image`, unless it is one that a network has been given: that one is normalised, with the channels first."""
    image = np.asarray(image)
    if image.shape[-1] != 3 or (image.dtype != np.uint8 and not 0 <= image.min() <= image.max() <= 1):
        found = f"{image.dtype} {image.shape} from {image.min():.3g} to {image.max():.3g}"
        raise ValueError(
            f"expected pictures uint8 (height, width, 3), found {found}: show the data set's own"
        )
    return image


def check_probabilities(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, dtype=float)
    if values.min() < 0 or not np.allclose(values.sum(-1), 1, atol=0.02):  # bfloat16's rounding
        raise ValueError(
            "expected probabilities that sum to 1: are these logits? `training.predict` does the softmax"
        )
    return values
