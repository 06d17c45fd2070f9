"""Figures and tables of what the kept networks learned and where they are wrong, for the last line of a page's cell.

Filters and feature maps come from the kept weights. Confusion and calibration come from what `examine` found on the
test set, so no data set is needed here. What was not run, or not examined, says so.
"""

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from torch import Tensor, nn

from course_utils import plots
from course_utils.lab import examine, pictures, recipes
from course_utils.lab.evidence import NBSP, Html, row, styled, table
from course_utils.models import count_parameters
from course_utils.lab.verdicts import NOT_RUN, runs_of

N_MAPS = 8
FEW = 30  # images: the accuracy of a bin with fewer says little
SHORT = {
    "large omnivores and herbivores": "omni-, herbivores",
    "medium-sized mammals": "medium mammals",
    "non-insect invertebrates": "other invertebrates",
    "fruit and vegetables": "fruit, vegetables",
    "household electrical devices": "electrical devices",
    "household furniture": "furniture",
    "large man-made outdoor things": "buildings, roads",
    "large natural outdoor scenes": "landscapes",
}


def kept(name: str) -> pictures.Viewer | None:
    """The network of recipe `name` with its recorded weights, or None where they are not kept."""
    return pictures.kept_viewer(name) if any(run["weights"] for run in runs_of(name)) else None


def found(name: str) -> dict[str, Any] | None:
    """What `examine` found of the kept network of recipe `name`, or None where it was not examined."""
    examined = runs_of(name) and examine.path_of(name).exists()
    return examine.read(name) if examined else None


def missing(what: str, name: str) -> Html:
    return Html(f"<p>{what}: <strong>{NOT_RUN}</strong> (<code>{name}</code>).</p>")


def percent(share: float, digits: int) -> str:
    return f"{100 * share:.{digits}f}{NBSP}%"


def class_names(name: str) -> list[str]:
    return [one.replace("_", " ") for one in pictures.CLASSES[recipes.get(name).data]]


# ---- inside the network ----


def filters(name: str) -> Figure | Html:
    """The filters of the first convolution, the strongest (by norm) first."""
    viewer = kept(name)
    if not viewer:
        return missing("Filters", name)
    weights = examine.first_filters(viewer.network)
    strongest_first = weights.flatten(1).norm(dim=1).argsort(descending=True)
    figure = plots.filters(weights[strongest_first].numpy())
    plt.close(figure)
    return figure


LIKENESS_HEAD = ("Run", "Filters", "Likeness to their random start")


def likeness(names: Mapping[str, str]) -> Html:
    """For each of `{label: recipe}`: how much its first filters still point where they pointed before training."""
    rows = []
    for label, name in names.items():
        examined, viewer = found(name), kept(name)
        cells = [NOT_RUN, ""]
        if examined and viewer:
            cells = [len(examine.first_filters(viewer.network)), f"{examined['likeness']:.2f}"]
        rows.append(row(f"{label}<br><code>{name}</code>", *cells))
    return Html(table(LIKENESS_HEAD, rows, "Likeness of the first filters to their start"))


@styled
def feature_maps(name: str) -> Figure | Html:
    """The course's drawn picture, and behind each stage eight channels, from the one that varies most to the least.

    Each channel goes from black for zero to white for its own largest value; one without any is black.
    """
    viewer = kept(name)
    if not viewer:
        return missing("Feature maps", name)
    picture = pictures.drawn(viewer.data)
    stages = outputs(viewer, picture, examine.stages(viewer.network))
    figure, axes = plt.subplots(
        1 + len(stages), 1 + N_MAPS, figsize=(plots.WIDTH, 0.74 * (1 + len(stages))), layout="compressed"
    )
    for place in axes.flat:
        place.set_axis_off()
    for place, image in zip(axes[0, 1:], (picture, *picture.transpose(2, 0, 1)), strict=False):
        place.imshow(image, cmap="gray", vmin=0, vmax=255)
    name_row(axes[0, 0], "picture", (32, 32), "and R, G, B")
    for places, (stage, channels) in zip(axes[1:], stages.items(), strict=True):
        shown = spread_out(channels)
        name_row(places[0], stage, channels.shape[1:], f"{len(shown)} of {len(channels)}")
        for place, channel in zip(places[1:], shown, strict=False):
            place.imshow(channel.numpy(), cmap="gray", vmin=0, vmax=float(channel.max()) or 1)
    return figure


def name_row(place: Axes, name: str, sides: tuple[int, int], note: str) -> None:
    text = f"{name}\n{sides[0]} × {sides[1]}\n{note}"
    place.text(1, 0.5, text, transform=place.transAxes, ha="right", va="center", size=plots.SMALL_LETTERS)


@torch.inference_mode()
def outputs(viewer: pictures.Viewer, picture: np.ndarray, behind: dict[str, nn.Module]) -> dict[str, Tensor]:
    """What leaves each stage when `viewer` looks at a `picture` uint8 (32, 32, 3): float (channels, side, side).

    `behind` names the stages, as `examine.watching` takes them.
    """
    seen: dict[str, Tensor] = {}
    with examine.watching(behind, lambda stage, maps: seen.update({stage: maps[0].float()})):
        viewer.probabilities(picture)
    return seen


def spread_out(channels: Tensor) -> Tensor:
    """`N_MAPS` of the channels (or all, if fewer), evenly from the one with the largest deviation to the smallest."""
    order = channels.flatten(1).std(dim=1).argsort(descending=True)
    places = np.linspace(0, len(order) - 1, min(N_MAPS, len(order))).round()
    return channels[order[places]]


def silent(names: Mapping[str, str]) -> Html:
    """For each layer of `{label: recipe}`: how many channels or neurons no test image brings above zero."""
    rows = []
    for label, name in names.items():
        examined, viewer = found(name), kept(name)
        if not (examined and viewer):
            rows.append(row(f"{label}<br><code>{name}</code>", NOT_RUN, ""))
            continue
        behind = examine.stages(viewer.network) | examine.dense_layer(viewer.network)
        seen = outputs(viewer, pictures.drawn(viewer.data), behind)
        for stage, channels in examined["silent"].items():
            rows.append(row(f"{label}, {stage}", len(seen[stage]), len(channels)))
    return Html(table(("Layer", "Channels or neurons", "Silent on all test images"), rows, "Silent channels"))


UNUSED_HEAD = ("Run", "Silent neurons", "Weights to and from them", "Of all weights")


def unused(names: Mapping[str, str]) -> Html:
    """For each of `{label: recipe}`, all SmallNets: how many weights belong to silent neurons of the dense layer."""
    rows = []
    for label, name in names.items():
        examined, viewer = found(name), kept(name)
        cells = [NOT_RUN, "", ""]
        if examined and viewer:
            silent, head = len(examined["silent"]["dense layer"]), viewer.network.head
            weights = silent * (head[1].in_features + 1 + head[-1].out_features)
            share = percent(weights / count_parameters(viewer.network), 1)
            cells = [f"{silent} of {head[1].out_features}", f"{weights:,}", share]
        rows.append(row(f"{label}<br><code>{name}</code>", *cells))
    return Html(table(UNUSED_HEAD, rows, "Weights of silent neurons"))


WHY_HEAD = ("Channel", "Length of its filter", "Scale", "Shift", "Speaks from")


def why_silent(name: str) -> Html:
    """SmallNet's silent channels beside the median of their stage: filter, batch norm, and what wakes them.

    Behind batch norm a channel is `scale * z + shift`, with z in deviations from its mean: it is above 0 from
    z = -shift / scale on.
    """
    examined, viewer = found(name), kept(name)
    if not (examined and viewer):
        return missing("Silent channels", name)
    layers = list(viewer.network.features)
    convolutions = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
    norms = [layer for layer in layers if isinstance(layer, nn.BatchNorm2d)]
    rows = []
    for stage, convolution, norm in zip(examine.stages(viewer.network), convolutions, norms, strict=True):
        channels = examined["silent"][stage]
        rows += why_rows(
            stage, channels, convolution.weight.detach(), norm.weight.detach(), norm.bias.detach()
        )
    return (
        Html(table(WHY_HEAD, rows, "Why a channel is silent"))
        if rows
        else Html("<p>No channel is silent.</p>")
    )


def why_rows(stage: str, channels: list[int], filters: Tensor, scale: Tensor, shift: Tensor) -> list[str]:
    values = torch.stack([filters.flatten(1).norm(dim=1), scale, shift, -shift / scale], dim=1)
    shown = {f"{stage}, number {channel}": values[channel] for channel in channels}
    if shown:
        shown[f"{stage}, median"] = values.median(dim=0).values
    return [row(label, *(f"{value:.2f}" for value in these)) for label, these in shown.items()]


# ---- confusion ----


@styled
def superclasses(name: str) -> Figure | Html:
    """CIFAR-100's superclasses: what share (%) of each one's images is said to be of each; 2 % and more in figures."""
    examined = found(name)
    if not examined:
        return missing("Confusion by superclass", name)
    counts = examine.by_superclass(examined["confusion"])
    shares = 100 * counts / counts.sum(1, keepdims=True)
    labels = [SHORT.get(one, one) for one in examine.SUPERCLASSES]
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


def confusion(name: str) -> Figure | Html:
    """The confusion matrix of all classes, in per cent of each true class; for ten classes or so."""
    examined = found(name)
    if not examined:
        return missing("Confusion matrix", name)
    figure = plots.confusion(examined["confusion"], class_names(name))
    plt.close(figure)
    return figure


def most_confused(name: str, n: int = 12) -> Figure | Html:
    """The `n` commonest mistakes, as bars: true class → what was said."""
    examined = found(name)
    if not examined:
        return missing("Most confused pairs", name)
    figure = plots.most_confused(examined["confusion"], class_names(name), n)
    plt.close(figure)
    return figure


WITHIN_HEAD = ("Run", "Mistakes", "Inside the superclass", "Right superclass")


def within(names: Mapping[str, str]) -> Html:
    """For each of `{label: recipe}` on CIFAR-100: how many mistakes stay inside the superclass."""
    rows = []
    for label, name in names.items():
        examined = found(name)
        cells = [NOT_RUN, "", ""]
        if examined:
            counts = examined["confusion"]
            right = examine.by_superclass(counts).trace() / counts.sum()
            mistakes = counts.sum() - counts.trace()
            cells = [
                f"{mistakes:,}",
                percent(examine.share_within(counts), 1),
                f"{100 * right:.1f} %",
            ]
        rows.append(row(f"{label}<br><code>{name}</code>", *cells))
    chance = percent((5 - 1) / (100 - 1), 1)  # four classes of the other 99
    return Html(table(WITHIN_HEAD, rows, f"Mistakes inside the superclass; {chance} would be by chance"))


# ---- calibration ----


@styled
def reliability(names: Mapping[str, str]) -> Figure | Html:
    """For each of `{label: recipe}`: accuracy against confidence, and how often it is how sure.

    On the dashed line confidence is accuracy. The bars are two standard errors.
    Bins of fewer than `FEW` images are left out above.
    Source: C. Guo and others, "On calibration of modern neural networks", ICML 2017.
    """
    if not any(map(found, names.values())):
        return missing("Reliability", ", ".join(names.values()))
    figure, (curves, shares) = plt.subplots(
        2, 1, sharex=True, figsize=(plots.WIDTH, 6.6), height_ratios=(5, 2), layout="constrained"
    )
    curves.plot([0, 100], [0, 100], "--", color="0.35", linewidth=1)
    for x, y, side in ((14, 62, "too careful"), (84, 34, "too sure")):
        curves.text(x, y, side, color="0.35", ha="center", style="italic")
    looks = zip(names.items(), plots.COLOURS, "os^Dv", strict=False)
    for (label, name), colour, marker in looks:
        examined = found(name)
        if examined:
            label += f": ECE {100 * examined['ece']:.1f} points"
            draw_reliability(curves, shares, examined["calibration"], label, colour, marker)
        else:
            curves.errorbar([], [], color=colour, marker=marker, label=f"{label}: {NOT_RUN}")
    curves.set(ylabel="right (%)", ylim=(0, 102), xlim=(0, 100))
    curves.legend(loc="upper left", frameon=False)
    shares.set(xlabel="confidence: the highest probability (%)", ylabel="images (%)", ylim=(0, None))
    return figure


def draw_reliability(curves: Axes, shares: Axes, bins: dict, label: str, colour: str, marker: str) -> None:
    count = np.array(bins["count"])
    enough = count >= FEW
    sure, right = (np.array(bins[key], dtype=float)[enough] for key in ("confidence", "accuracy"))
    error = 2 * np.sqrt(right * (1 - right) / count[enough])
    curves.errorbar(
        100 * sure, 100 * right, 100 * error, color=colour, marker=marker, markersize=5, label=label
    )
    edges = np.linspace(0, 100, len(count) + 1)
    shares.stairs(100 * count / count.sum(), edges, color=colour, linewidth=1.5)


CALIBRATION_HEAD = ("Run", "Right", "Top 5", "Confidence", "ECE")


def calibration(names: Mapping[str, str]) -> Html:
    """For each of `{label: recipe}`: top-1 and top-5 accuracy, mean confidence, expected calibration error."""
    rows = []
    for label, name in names.items():
        examined = found(name)
        cells = [NOT_RUN, "", "", ""]
        if examined:
            sure = mean_confidence(examined["calibration"])
            cells = [percent(share, 2) for share in (examined["top1"], examined["top5"], sure)]
            cells.append(f"{100 * examined['ece']:.1f} points")
        rows.append(row(f"{label}<br><code>{name}</code>", *cells))
    return Html(table(CALIBRATION_HEAD, rows, "Calibration"))


def mean_confidence(bins: dict[str, list]) -> float:
    pairs = zip(bins["count"], bins["confidence"], strict=True)
    return sum(n * sure for n, sure in pairs if n) / sum(bins["count"])
