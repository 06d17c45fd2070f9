"""The two networks drawn to scale, by the networks themselves: shapes, weights and work of each stage."""

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Rectangle
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

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


@closed
@torch.inference_mode()
def flow(parts: dict[str, nn.Module]) -> Figure:
    """A row a stage: a box as high as the picture and as wide as its channels, bars of weights and of multiplications.

    A black picture is sent through `parts`; a "residual" one is added to its input.
    """
    size = {"figsize": (plots.WIDTH, 1.5 + 0.68 * len(parts)), "width_ratios": (3, 2, 2)}
    figure, (boxes, bars, work) = plt.subplots(1, 3, sharey=True, layout="constrained", **size)
    x, widest, products = torch.zeros(1, 3, 32, 32), 0, []
    for row, (name, part) in enumerate({"picture": nn.Identity(), **parts}.items()):
        with FlopCounterMode(display=False) as counter:
            x = x + part.eval()(x) if name.startswith("residual") else part.eval()(x)
        products.append(counter.get_total_flops() / 2e6)  # torch counts additions as well
        channels, side = x.shape[1], x.shape[2] if x.ndim == 4 else 1
        height, widest = 0.55 * side / 32, max(widest, channels)
        boxes.add_patch(Rectangle((0, row - height / 2), channels, height, color=plots.BLUE, alpha=0.75))
        shape = f"{channels} × {side} × {side}" if side > 1 else f"{channels}"
        boxes.text(0, row - height / 2 - 0.05, shape, va="bottom", size=plots.SMALL_LETTERS)
        if name.startswith("residual"):
            bend = {"arrowstyle": "-|>", "mutation_scale": 12, "connectionstyle": "arc3,rad=0.6"}
            arrow = FancyArrowPatch((-8, row - 1), (-8, row), color=plots.VERMILION, clip_on=False, **bend)
            boxes.add_patch(arrow)
            boxes.text(8, row + 0.36, "X + R(X)", color="#9a4400", size=plots.SMALL_LETTERS, va="center")
    names, weights = ["picture", *parts], [0, *map(count_parameters, parts.values())]
    boxes.set_yticks(range(len(names)), names)
    boxes.set(xlim=(-0.14 * widest, 1.05 * widest), ylim=(len(names) - 0.4, -0.75), xticks=[], xlabel="shape")
    columns = (bars, weights, "weights", 0), (work, products, "products\n(millions)", 1)
    for axes, numbers, label, digits in columns:
        drawn = axes.barh(range(len(names)), numbers, height=0.4, color=plots.BLUE)
        axes.bar_label(drawn, [f"{n:,.{digits}f}" if n else "" for n in numbers], padding=3)
        axes.set(xticks=[], xlabel=label, xlim=(0, 2 * max(numbers)))
    for axes in (boxes, bars, work):
        axes.grid(False)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
    return figure


@closed
def receptive_fields() -> Figure:
    """What one value behind each of SmallNet's stages sees of the picture, as nested squares to scale.

    A 3×3 convolution and a 2×2 pooling together add three times the distance of their inputs, which pooling doubles.
    """
    figure, axes = plt.subplots(figsize=(plots.WIDTH, 3.2), layout="constrained")
    axes.add_patch(Rectangle((0, 0), 32, 32, facecolor="0.95", edgecolor="0.5"))
    axes.text(16, 33, "the picture: 32 × 32", ha="center", size=plots.LETTERS)
    for stage in (3, 2, 1):
        side, colour = 1 + sum(3 * 2**k for k in range(stage)), plots.COLOURS[stage - 1]
        corner, across = 16 - side / 2, 30 - 9 * stage  # labels one below the other, each at its own square
        axes.add_patch(Rectangle((corner, corner), side, side, fc="white", ec=colour, linewidth=3))
        line = {"arrowstyle": "-", "color": colour}
        at = max(corner, min(across, corner + side))
        ends = {"xy": (corner + side, at), "xytext": (36, across), "va": "center"}
        axes.annotate(f"stage {stage}: {side} × {side}", arrowprops=line, **ends)
    axes.set(xlim=(-1, 58), ylim=(-1, 36), aspect="equal")
    axes.set_axis_off()
    return figure
