"""Figures of the book's pages, from the records and what `examine` found: for the last line of a cell.

Everything here works with no records, some or all of them: what was not run is left out, or said where nothing else is
left. Figures come closed, so that a notebook draws them once.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from statistics import fmean
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from course_utils import plots
from course_utils.datasets import pictures
from course_utils.datasets.cifar import CLASSES
from course_utils.lab import published, recipes, records, verdicts
from course_utils.lab.tables import Html, examined, tag
from course_utils.lab.verdicts import NOT_RUN, runs_of
from course_utils.lessons import Recipe


def closed(draw: Callable[..., Figure | Html]) -> Callable[..., Figure | Html]:
    """Draw in the course's style, and close the figure: what a cell ends with, a notebook draws anyway."""

    @functools.wraps(draw)
    def shown(*args, **kwargs) -> Figure | Html:
        figure = plots.styled(draw)(*args, **kwargs)
        if isinstance(figure, Figure):
            plt.close(figure)
        return figure

    return shown


def of_examined(draw: Callable[..., Figure]) -> Callable[..., Figure | Html]:
    """Give `draw` what `examine` found of a recipe in place of its name; say so where there is nothing."""

    @closed
    @functools.wraps(draw)
    def shown(name: str, *args, **kwargs) -> Figure | Html:
        found = examined(name)
        return draw(found | {"data": recipes.get(name).data}, *args, **kwargs) if found else missing(name)

    return shown


def missing(*names: str) -> Html:
    return tag("p", f"{', '.join(names)}: {NOT_RUN}.")


# ---- accuracies ----

HEADLINE = {  # the welcome page's figure and README's picture, which CONTRIBUTING says how to make
    "the project's recipe": "smallnet-source",
    "same network, augmentation and a full schedule": "smallnet-best",
    "the weights spent on convolutions": "budgetnet",
}


@closed
def bars(names: Mapping[str, str]) -> Figure:
    """A bar from zero for each of `{label: recipe}`, as long as its mean test accuracy; a dot for each run."""
    figure, axes = plt.subplots(figsize=(plots.WIDTH, 0.9 + 0.62 * len(names)), layout="constrained")
    means = [fmean(verdicts.percents(name) or [0]) for name in names.values()]
    axes.barh(range(len(names)), means, height=0.62, color=["0.72", *[plots.BLUE] * (len(names) - 1)])
    for height, (name, mean) in enumerate(zip(names.values(), means, strict=True)):
        percents = verdicts.percents(name)
        axes.plot(percents, [height] * len(percents), "o", color="black", alpha=0.6, markersize=4)
        right = max(percents, default=0) + 2
        axes.text(right, height, f"{mean:.0f} %" if percents else NOT_RUN, va="center", weight="bold")
    axes.set_yticks(range(len(names)), [plots.wrap(label, 20) for label in names])
    axes.set(ylim=(len(names) - 0.5, -0.5), xlabel="test accuracy (%)")
    axes.set_xlim(0, max(85, *(mean + 13 for mean in means)))
    axes.grid(False, axis="y")
    return figure


LEAST_SPAN = 4  # points across a figure of accuracies: on a narrower one chance looks like an effect


@closed
def accuracies(
    names: Mapping[str, str], mark: tuple[str, float] | None = None, title: str = ""
) -> Figure | Html:
    """A row for each of `{label: recipe}` that has an accuracy: a dot for each run, a bar at their mean, which is said.

    `mark` is (label, %), a vertical line. With a single row there is nothing to compare: this says what is missing.
    """
    waiting = [name for name in names.values() if not verdicts.percents(name)]
    names = {label: name for label, name in names.items() if name not in waiting}
    if waiting and len(names) + bool(mark) < 2:
        return missing(*waiting)
    figure, axes = plt.subplots(figsize=(plots.WIDTH, 1.3 + 0.46 * len(names)), layout="constrained")
    clear = {"facecolor": "white", "edgecolor": "none", "pad": 1}  # of the marked vertical
    for height, name in enumerate(names.values()):
        percents = verdicts.percents(name)
        axes.plot(percents, [height] * len(percents), "o", color=plots.BLUE, alpha=0.6, markersize=6)
        if dead := verdicts.Accuracy(name).dead():  # a mean would be like none of them
            note = f"{dead} of {len(percents)} at chance"
        else:
            note = f"{fmean(percents):.1f}"
            axes.plot(fmean(percents), height, "|", color="black", markersize=18, markeredgewidth=2)
        beside = {"xytext": (8, 0), "textcoords": "offset points", "va": "center", "bbox": clear}
        axes.annotate(note, (max(percents), height), **beside)
    if mark:
        axes.axvline(mark[1], color=plots.VERMILION, linestyle="--", label=f"{mark[0]}: {mark[1]:g} %")
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1))
    axes.set_yticks(range(len(names)), [plots.wrap(label, 16) for label in names])
    axes.set(ylim=(len(names) - 0.5, -0.5), xlabel="test accuracy (%)")
    axes.locator_params(axis="x", nbins=5)
    axes.margins(x=0.15)
    low, high = axes.get_xlim()
    more = max(0, LEAST_SPAN - (high - low)) / 2
    axes.set_xlim(low - more, high + more)
    plots.set_title(figure, title)
    return figure


@closed
def worth(baseline: str, without: Mapping[str, str], title: str = "") -> Figure | Html:
    """How many points `baseline` ends above each of `{label: recipe}`, which lacks one thing, with a 95 % interval.

    It takes the seeds that every one of these recipes has; each gives a dot. Chance is assumed to be equally large in
    all recipes: its variance is that of what is left of the accuracies without the means of recipe and seed (a
    randomised block design). Each interval is for its own difference, not for all of them at once.
    """
    from scipy.stats import t as student  # slow to import

    names = [baseline, *without.values()]
    found = {name: verdicts.by_seed(name) for name in names}
    seeds = sorted(set.intersection(*map(set, found.values())))
    if len(seeds) < 2:
        return missing(*([name for name in names if len(found[name]) < 2] or names))
    percents = np.array([[found[name][seed] for seed in seeds] for name in names])
    points = percents[0] - percents[1:]
    rest = percents - percents.mean(1, keepdims=True) - percents.mean(0) + percents.mean()
    free = len(without) * (len(seeds) - 1)
    half = student.ppf(0.975, free) * (2 * (rest**2).sum() / free / len(seeds)) ** 0.5
    figure, axes = plt.subplots(figsize=(plots.WIDTH, 1 + 0.46 * len(without)), layout="constrained")
    axes.axvline(0, color="0.5", linewidth=1)
    for height, (mean, each) in enumerate(zip(points.mean(1), points, strict=True)):
        axes.errorbar(mean, height, xerr=half, fmt="|", color="black", markersize=18, capsize=4)
        axes.plot(each, [height] * len(seeds), "o", color=plots.BLUE, alpha=0.6, markersize=6)
        beside = {"xytext": (10, 0), "textcoords": "offset points", "va": "center"}
        axes.annotate(
            f"{mean:.1f} ± {half:.1f}".replace("-", "−"), (max(mean + half, *each), height), **beside
        )
    axes.set_yticks(range(len(without)), [plots.wrap(label, 16) for label in without])
    axes.set(ylim=(len(without) - 0.5, -0.5), xlabel="what it is worth (points)")
    axes.margins(x=0.3)
    plots.set_title(figure, title)
    return figure


# ---- curves ----


@closed
def curves(names: Mapping[str, str], quantity="validation_accuracy", title="", beside=None) -> Figure | Html:
    """A line for each of `{label: recipe}`, the mean over its seeds, which are thin lines behind it.

    `beside`, `{label: curve}`, adds others' test accuracy in per cent. A recipe that was not run is left out, and so is
    the validation curve of one that holds nothing out.
    """
    _, factor = plots.QUANTITIES[quantity]
    recorded = {label: runs for label, name in names.items() if (runs := runs_of(name))}
    means = {label: np.array(curve) / 100 for label, curve in (beside or {}).items()}
    means |= {label: mean_curve(runs, quantity) for label, runs in recorded.items()}
    kept = {label: curve for label, curve in means.items() if not np.isnan(curve).any()}
    found = {label: SimpleNamespace(**{quantity: curve}) for label, curve in kept.items()}
    if not found:
        return missing(*names.values())
    figure = plots.compare_histories(found, quantity, title)
    (axes,) = figure.axes
    if quantity.startswith("validation"):
        measured = {measured_on(recorded[label]) if label in recorded else "test" for label in kept}
        if measured != {"validation"}:
            what = "accuracy (%)" if factor == 100 else plots.LOSS
            axes.set_ylabel(f"{' or '.join(sorted(measured))} {what}")
    several = {plots.no_math(label): runs for label, runs in recorded.items() if len(runs) > 1}
    for mean in [line for line in axes.lines if line.get_label() in several]:
        thin = {"color": mean.get_color(), "linestyle": "-", "linewidth": 0.8, "alpha": 0.5, "zorder": 1}
        for run in several[mean.get_label()]:
            values = factor * np.array(run["history"][quantity])
            axes.plot(np.arange(1, len(values) + 1), values, **thin)
    return figure


def measured_on(runs: Sequence[Mapping]) -> str:
    """The images that a recipe's runs call validation: "test" where its source drew its curves on the test set."""
    return "test" if runs[0]["recipe"].get("curve_on_test") else "validation"


def mean_curve(runs: Sequence[Mapping], quantity: str) -> np.ndarray:
    """The mean over runs, epoch by epoch; NaN where one of them measured nothing. ValueError if some are longer."""
    if len(lengths := {len(run["history"][quantity]) for run in runs}) > 1:
        epochs = " and ".join(map(str, sorted(lengths)))
        raise ValueError(
            f"{runs[0]['recipe']['name']}: its recorded runs have {epochs} epochs: delete those cut off"
        )
    return np.mean(np.array([run["history"][quantity] for run in runs], float), axis=0)


@closed
def losses(names: Mapping[str, str]) -> Figure | Html:
    """A panel for each of `{label: recipe}` that was run: training and validation loss, means over its seeds."""
    recorded = {label: runs for label, name in names.items() if (runs := runs_of(name))}
    if not recorded:
        return missing(*names.values())
    layout = {"sharey": True, "squeeze": False, "layout": "constrained"}
    figure, panels = plt.subplots(1, len(recorded), figsize=(plots.WIDTH, 2.9), **layout)
    for panel, (label, runs) in zip(panels[0], recorded.items(), strict=True):
        for curve, which in {"train_loss": "training", "validation_loss": measured_on(runs)}.items():
            values = mean_curve(runs, curve)
            panel.plot(np.arange(1, len(values) + 1), values, label=which)
        panel.set(title=plots.wrap(label, 12), xlabel="epoch")
    panels[0, 0].set_ylabel(plots.LOSS)
    lines = {line.get_label(): line for panel in panels[0] for line in panel.lines}
    figure.legend(lines.values(), lines, loc="outside upper center", ncols=len(lines))
    return figure


@closed
def range_test(name: str) -> Figure | Html:
    """The first recorded range test of a recipe, marked where each of two rules would start."""
    if not (recorded := runs_of(name)):
        return missing(name)
    history = recorded[0]["history"]
    rules = {"a tenth of the lowest": "suggestion", "steepest": "steepest"}
    marks = {label: verdicts.suggestion(recorded[0], rule) for label, rule in rules.items()}
    return plots.range_test(history["learning_rate"], history["train_loss"], marks)


COSTS = {"weights": "weights (millions)", "minutes": "minutes of training"}
COSTS["PFLOP"] = "operations of training (PFLOP)"

# Names that would cover others: how far to the right of their points and above them, in points.
PLACES = {
    "budgetnet-muon": (8, 1),
    "budgetnet": (8, -7),
    "sprint100, six views": (8, -6),
    "sprint, six views": (0, -15),
    "resnet-best": (8, -4),
    "Page: this ResNet's layout": (8, 7),
}


@closed
def against(cost: str, data: str, title: str = "") -> Figure:
    """Accuracy on `data` against one of `COSTS`: our recorded headlines, the sources, others' results by name.

    A hollow circle is an accuracy in six views, which is not to be compared with a filled one's.
    """
    figure, axes = plt.subplots(figsize=(plots.WIDTH, 4.6), layout="constrained")
    others = sorted(published.REFERENCES, key=lambda one: one.percent)
    looks = {"marker": "^", "color": "0.35"}, {"marker": "s", "color": plots.VERMILION, "fillstyle": "none"}
    points = [(one, looks[0], (6, -15) if k % 2 else (0, 7)) for k, one in enumerate(others)]
    # A run again lies in the square.
    points += [(one, looks[1] | {"markersize": 11}, (0, -15)) for one in published.SOURCES]
    run = [one for one in recipes.HEADLINES if one.data == data and verdicts.percents(one.name)]
    ours = sorted(map(headline, run), key=lambda one: one.percent)
    circle = {"marker": "o", "color": plots.BLUE}
    points += [(one, circle, (-8, -4) if k % 2 else (8, -4)) for k, one in enumerate(ours)]
    six = [headline(one, six_views=True) for one in run if one.six_views]
    points += [(one, circle | {"fillstyle": "none"}, (8, -4)) for one in six]
    for one, look, place in points:
        x, place = getattr(one, cost), PLACES.get(one.name, place)
        if one.data == data and x:
            side = {0: "center", 6: "right", -8: "right", 8: "left"}[place[0]]
            x = x / 1e6 if cost == "weights" else x
            axes.plot(x, one.percent, **look)
            letters = {"textcoords": "offset points", "ha": side, "size": plots.SMALL_LETTERS}
            axes.annotate(one.name, (x, one.percent), place, **letters)
    if not any(getattr(one, cost) for one in ours):
        title += f"\nour own: {NOT_RUN}"
    axes.set(xscale="linear" if cost == "weights" else "log", xlabel=COSTS[cost])
    axes.set(ylabel="test accuracy (%)", title=title)
    if cost == "PFLOP":  # little more than a decade
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.minorticks_off()
    axes.xaxis.set_major_formatter("{x:g}")
    axes.margins(x=0.5, y=0.15)
    return figure


def headline(recipe: Recipe, six_views: bool = False) -> published.Result:
    """A recorded recipe with what `against` asks of it; its minutes are those on the machine of its first seed."""
    recorded, which = runs_of(recipe.name), "six_views" if six_views else "test_accuracy"
    here = next(iter(records.by_machine(recorded).values()))
    name, percent = recipe.name + six_views * ", six views", 100 * fmean(run[which] for run in recorded)
    costs = {"minutes": fmean(map(records.minutes, here)), "PFLOP": records.petaflop(recipe.name)}
    return published.Result(name, recipe.data, percent, here[0]["parameters"], **costs)


# ---- what `examine` found ----


@of_examined
def filters(found: dict) -> Figure:
    """The filters of the first convolution as pictures, the longest first: grey is zero.

    All share one scale, the 99th percentile of |weight|, so that one outlier cannot grey the rest.
    """
    weights = found["filters"].reshape(-1, 3, 3, 3)
    scale = np.percentile(np.abs(weights), 99) or 1
    shown = np.uint8(255 * np.clip(0.5 + 0.5 * weights / scale, 0, 1)).transpose(0, 2, 3, 1)
    return plots.grid(shown, [""] * len(shown), columns=8)


@of_examined
def feature_maps(found: dict) -> Figure:
    """The course's drawn picture, and behind each stage eight channels, from the one that varies most to the least.

    Each channel goes from black for zero to white for its own largest value; one without any is black.
    """
    picture, stages = pictures.drawn(found["data"]), found["maps"]
    size = (plots.WIDTH, 0.74 * (1 + len(stages)))
    rows = {"picture": [picture, *picture.transpose(2, 0, 1)]}
    for stage, channels in stages.items():
        maps = [np.frombuffer(bytes.fromhex(one), np.uint8) for one in channels]
        rows[stage] = [one.reshape((int(len(one) ** 0.5),) * 2) for one in maps]
    columns = 1 + max(map(len, rows.values()))
    figure, axes = plt.subplots(len(rows), columns, figsize=size, layout="compressed")
    for places, (stage, shown) in zip(axes, rows.items(), strict=True):
        note = f"{len(shown)} of {found['units'][stage]}" if stage in stages else "and R, G, B"
        words = f"{stage}\n{len(shown[0])} × {len(shown[0])}\n{note}"
        right = {"transform": places[0].transAxes, "ha": "right", "va": "center"}
        places[0].text(1, 0.5, words, size=plots.SMALL_LETTERS, **right)
        for place in places:
            place.set_axis_off()
        for place, image in zip(places[1:], shown, strict=False):
            place.imshow(image, cmap="gray", vmin=0, vmax=255)
    return figure


@of_examined
def superclasses(found: dict) -> Figure:
    """CIFAR-100's superclasses: what share (%) of each one's images is said to be of each; 2 % and more in figures."""
    labels = found["superclass_names"]
    shares = plots.row_percents(found["superclasses"], labels)
    figure, axes = plt.subplots(figsize=(plots.WIDTH, 6.6), layout="compressed")
    axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, 0, 100))
    for (true, said), share in np.ndenumerate(shares):
        if share >= 2:
            colour = "white" if share > 35 else "black"
            axes.text(said, true, f"{share:.0f}", ha="center", va="center", color=colour, size=9)
    axes.set_xticks(range(len(labels)), labels, rotation=90)
    axes.set_yticks(range(len(labels)), labels)
    axes.tick_params(length=0, labelsize=plots.SMALL_LETTERS, labeltop=True, labelbottom=False)
    axes.set(xlabel="said", ylabel="true superclass")
    axes.xaxis.set_label_position("top")
    axes.grid(False)
    return figure


def class_names(found: dict) -> list[str]:
    return [one.replace("_", " ") for one in CLASSES[found["data"]]]


@of_examined
def confusion(found: dict) -> Figure:
    """The confusion matrix of all classes, in per cent of each true class; for ten classes or so."""
    return plots.confusion(found["confusion"], class_names(found))


@of_examined
def most_confused(found: dict, n: int = 12) -> Figure:
    """The `n` commonest mistakes, as bars: true class → what was said."""
    return plots.most_confused(found["confusion"], class_names(found), n)


FEW = 30  # images: the accuracy of a bin with fewer says little


@closed
def reliability(names: Mapping[str, str]) -> Figure:
    """For each of `{label: recipe}`: accuracy against confidence ± two standard errors, and how often it is how sure.

    On the dashed line confidence is accuracy. Bins of fewer than `FEW` images are left out above.
    Source: C. Guo and others, "On calibration of modern neural networks", ICML 2017.
    """
    size = {"figsize": (plots.WIDTH, 6.6), "height_ratios": (5, 2)}
    figure, (above, below) = plt.subplots(2, 1, sharex=True, layout="constrained", **size)
    above.plot([0, 100], [0, 100], "--", color="0.35", linewidth=1)
    for x, y, side in ((14, 62, "too careful"), (84, 34, "too sure")):
        above.text(x, y, side, color="0.35", ha="center", style="italic")
    looks = zip(names.items(), cycle(plots.COLOURS), cycle("os^Dv"), strict=False)
    for (label, name), colour, marker in looks:
        found = examined(name)
        note = f"ECE {100 * found['ece']:.1f} points" if found else NOT_RUN
        look = {"color": colour, "marker": marker, "markersize": 5, "label": f"{label}: {note}"}
        bins = np.array(list(found["calibration"].values()) if found else np.empty((3, 0)), dtype=float)
        count, sure, right = bins[:, bins[0] >= FEW]
        above.errorbar(100 * sure, 100 * right, 200 * np.sqrt(right * (1 - right) / count), **look)
        if found:
            edges = np.linspace(0, 100, bins.shape[1] + 1)
            below.stairs(100 * bins[0] / bins[0].sum(), edges, color=colour, linewidth=1.5)
    above.set(ylabel="right (%)", ylim=(0, 102), xlim=(0, 100))
    figure.legend(loc="outside lower left")
    below.set(xlabel="confidence: the highest probability (%)", ylabel="images (%)", ylim=(0, None))
    return figure
