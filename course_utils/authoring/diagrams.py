"""The two networks drawn to scale, by the networks themselves: shapes after each stage, and where the weights are."""

from dataclasses import dataclass

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Rectangle
from torch import nn

from course_utils import plots
from course_utils.lab.figures import styled
from course_utils.models import CustomResNet, SmallNet, count_parameters


@dataclass(frozen=True)
class Stage:
    """What leaves a stage: channels × side × side values (a vector has side 1); and its number of weights."""

    name: str
    channels: int
    side: int
    weights: int
    skip: bool = False


def smallnet() -> Figure:
    """Session 1's network: three stages and two dense layers."""
    model = SmallNet()
    layers, head = list(model.features), list(model.head)
    each = len(layers) // 3
    parts = {f"stage {k + 1}": nn.Sequential(*layers[each * k : each * (k + 1)]) for k in range(3)}
    parts |= {"dense 1": nn.Sequential(*head[:4]), "dense 2": head[4]}
    return flow(stages(parts))


def resnet() -> Figure:
    """Session 2's network: five stages, two of them followed by a residual branch."""
    model = CustomResNet()
    names = ("prep", "layer1", "residual1", "layer2", "layer3", "residual3", "pool", "head")
    return flow(stages({name: getattr(model, name) for name in names}))


@torch.inference_mode()
def stages(parts: dict[str, nn.Module]) -> list[Stage]:
    """Send one black picture through `parts` and note the shape behind each; a "residual" is added to its input."""
    x = torch.zeros(1, 3, 32, 32)
    found = [Stage("picture", 3, 32, 0)]
    for name, part in parts.items():
        skip = name.startswith("residual")
        x = x + part.eval()(x) if skip else part.eval()(x)
        side = x.shape[2] if x.ndim == 4 else 1
        found.append(Stage(name, x.shape[1], side, count_parameters(part), skip))
    return found


@styled
def flow(found: list[Stage]) -> Figure:
    """A row a stage: a box as high as the picture and as wide as its channels, and a bar of weights."""
    figure, (shapes, weights) = plt.subplots(
        1,
        2,
        sharey=True,
        figsize=(plots.WIDTH, 0.8 + 0.68 * len(found)),
        width_ratios=(3, 2),
        layout="constrained",
    )
    rows = range(len(found))
    for row, stage in zip(rows, found, strict=True):
        draw_box(shapes, row, stage)
    shapes.set_yticks(rows, [stage.name for stage in found])
    widest = max(stage.channels for stage in found)
    shapes.set(xlim=(-0.14 * widest, 1.05 * widest), ylim=(len(found) - 0.4, -0.75))
    shapes.set(xticks=[], xlabel="width: channels, height: side")
    bars = weights.barh(rows, [stage.weights for stage in found], height=0.4, color=plots.BLUE)
    weights.bar_label(bars, [f"{stage.weights:,}" for stage in found], padding=3)
    weights.set(xticks=[], xlabel="weights", xlim=(0, 2 * max(stage.weights for stage in found)))
    for axes in (shapes, weights):
        axes.grid(False)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
    return figure


def draw_box(axes, row: int, stage: Stage) -> None:
    height = 0.55 * stage.side / 32
    axes.add_patch(Rectangle((0, row - height / 2), stage.channels, height, color=plots.BLUE, alpha=0.75))
    shape = f"{stage.channels} × {stage.side} × {stage.side}" if stage.side > 1 else f"{stage.channels}"
    axes.text(0, row - height / 2 - 0.05, shape, va="bottom", size=plots.SMALL_LETTERS)
    if stage.skip:
        around = FancyArrowPatch(
            (-8, row - 1), (-8, row), arrowstyle="-|>", mutation_scale=12, color=plots.VERMILION,
            connectionstyle="arc3,rad=0.6",
        )  # fmt: skip
        axes.add_patch(around)
        axes.text(8, row + 0.36, "X + R(X)", color="#9a4400", size=plots.SMALL_LETTERS, va="center")


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


@styled
def receptive_fields() -> Figure:
    """What one value behind each of SmallNet's stages sees of the picture, as nested squares to scale."""
    figure, axes = plt.subplots(figsize=(plots.WIDTH, 3.2), layout="constrained")
    axes.add_patch(Rectangle((0, 0), 32, 32, facecolor="0.95", edgecolor="0.5"))
    axes.text(16, 33, "the picture: 32 × 32", ha="center", size=plots.LETTERS)
    for (stage, side), colour in reversed([*zip(field_sides(3), plots.COLOURS, strict=False)]):
        corner = 16 - side / 2
        axes.add_patch(
            Rectangle((corner, corner), side, side, facecolor="white", edgecolor=colour, linewidth=3)
        )
        across = 30 - 9 * stage  # labels beside each other's height, each at its own square
        axes.annotate(
            f"stage {stage}: {side} × {side}", (16 + side / 2, across), (36, across),
            va="center", arrowprops={"arrowstyle": "-", "color": colour},
        )  # fmt: skip
    axes.set(xlim=(-1, 58), ylim=(-1, 36), aspect="equal")
    axes.set_axis_off()
    return figure


def field_sides(n_stages: int) -> list[tuple[int, int]]:
    """(stage, side in pixels) of the receptive field behind each stage: Conv 3×3, then MaxPool 2."""
    side, distance, found = 1, 1, []
    for stage in range(1, n_stages + 1):
        side += (3 - 1) * distance  # the convolution
        side += (2 - 1) * distance  # the pooling, which then doubles the distance between positions
        distance *= 2
        found.append((stage, side))
    return found
