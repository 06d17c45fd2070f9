"""The two networks drawn to scale, by the networks themselves: shapes after each stage, and where the weights are."""

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Rectangle
from torch import nn

from course_utils import plots
from course_utils.lab.figures import closed
from course_utils.models import CustomResNet, SmallNet, count_parameters


def smallnet() -> Figure:
    """Session 1's network: three stages and two dense layers."""
    model = SmallNet()
    each = len(model.features) // 3
    parts = {f"stage {k + 1}": model.features[each * k : each * (k + 1)] for k in range(3)}
    return flow(parts | {"dense 1": model.head[:4], "dense 2": model.head[4:]})


def resnet() -> Figure:
    """Session 2's network: five stages, two of them followed by a residual branch."""
    model = CustomResNet()
    names = ("prep", "layer1", "residual1", "layer2", "layer3", "residual3", "pool", "head")
    return flow({name: getattr(model, name) for name in names})


@torch.inference_mode()
def shapes(parts: dict[str, nn.Module]) -> list[tuple[int, int]]:
    """(channels, side) of a picture and after each of `parts`; a "residual" is added to its input, a vector has side 1."""
    x = torch.zeros(1, 3, 32, 32)
    found = [(3, 32)]
    for name, part in parts.items():
        x = x + part.eval()(x) if name.startswith("residual") else part.eval()(x)
        found.append((x.shape[1], x.shape[2] if x.ndim == 4 else 1))
    return found


@closed
def flow(parts: dict[str, nn.Module]) -> Figure:
    """A row a stage: a box as high as the picture and as wide as its channels, and a bar of weights."""
    names, weights = ["picture", *parts], [0, *map(count_parameters, parts.values())]
    size = (plots.WIDTH, 0.8 + 0.68 * len(names))
    figure, (boxes, bars) = plt.subplots(
        1, 2, sharey=True, figsize=size, width_ratios=(3, 2), layout="constrained"
    )
    found = shapes(parts)
    for row, (name, (channels, side)) in enumerate(zip(names, found, strict=True)):
        height = 0.55 * side / 32
        boxes.add_patch(Rectangle((0, row - height / 2), channels, height, color=plots.BLUE, alpha=0.75))
        shape = f"{channels} × {side} × {side}" if side > 1 else f"{channels}"
        boxes.text(0, row - height / 2 - 0.05, shape, va="bottom", size=plots.SMALL_LETTERS)
        if name.startswith("residual"):
            bend = {"arrowstyle": "-|>", "mutation_scale": 12, "connectionstyle": "arc3,rad=0.6"}
            boxes.add_patch(FancyArrowPatch((-8, row - 1), (-8, row), color=plots.VERMILION, **bend))
            boxes.text(8, row + 0.36, "X + R(X)", color="#9a4400", size=plots.SMALL_LETTERS, va="center")
    widest = max(channels for channels, _ in found)
    boxes.set_yticks(range(len(names)), names)
    boxes.set(xlim=(-0.14 * widest, 1.05 * widest), ylim=(len(names) - 0.4, -0.75))
    boxes.set(xticks=[], xlabel="width: channels, height: side")
    drawn = bars.barh(range(len(names)), weights, height=0.4, color=plots.BLUE)
    bars.bar_label(drawn, [f"{n:,}" for n in weights], padding=3)
    bars.set(xticks=[], xlabel="weights", xlim=(0, 2 * max(weights)))
    for axes in (boxes, bars):
        axes.grid(False)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
    return figure


def layer_costs() -> list[tuple[str, int, int]]:
    """(layer, weights, products a picture) of SmallNet's convolutions and dense layers.

    A convolution uses each of its weights once a pixel, a dense layer once.
    """
    side, costs = 32, []
    for layer in SmallNet().modules():
        if isinstance(layer, nn.Conv2d):
            costs.append((f"conv {len(costs) + 1}", count_parameters(layer), layer.weight.numel() * side**2))
            side //= 2  # each stage ends in a pooling
        elif isinstance(layer, nn.Linear):
            costs.append((f"dense {len(costs) - 2}", count_parameters(layer), layer.weight.numel()))
    return costs


@closed
def receptive_fields() -> Figure:
    """What one value behind each of SmallNet's stages sees of the picture, as nested squares to scale."""
    figure, axes = plt.subplots(figsize=(plots.WIDTH, 3.2), layout="constrained")
    axes.add_patch(Rectangle((0, 0), 32, 32, facecolor="0.95", edgecolor="0.5"))
    axes.text(16, 33, "the picture: 32 × 32", ha="center", size=plots.LETTERS)
    for stage, side in reversed([*enumerate(field_sides(3), start=1)]):
        colour, corner = plots.COLOURS[stage - 1], 16 - side / 2
        axes.add_patch(Rectangle((corner, corner), side, side, fc="white", ec=colour, linewidth=3))
        label, across = f"stage {stage}: {side} × {side}", 30 - 9 * stage  # labels beside each other's height
        line = {"arrowstyle": "-", "color": colour}
        axes.annotate(label, (16 + side / 2, across), (36, across), va="center", arrowprops=line)
    axes.set(xlim=(-1, 58), ylim=(-1, 36), aspect="equal")
    axes.set_axis_off()
    return figure


def field_sides(n_stages: int) -> list[int]:
    """The side in pixels of the receptive field behind each stage of Conv 3×3 and MaxPool 2.

    Each adds its kernel's side less one, times the distance between its inputs; pooling doubles that distance.
    """
    side, distance, found = 1, 1, []
    for _ in range(n_stages):
        side += (3 - 1) * distance + (2 - 1) * distance
        distance *= 2
        found.append(side)
    return found
