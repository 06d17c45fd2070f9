"""What the page *Turn the knobs* runs on: the recorded curves as JavaScript, and stills for who reads without it."""

import json
import re
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from torch.optim.lr_scheduler import StepLR

from course_utils import plots, schedules
from course_utils.lab import figures, recipes, verdicts

EPOCHS, BATCHES = 24, 98  # of the cycle on the page


def write(out: Path) -> None:
    """Write `knobs_data.js` and the stills into `out`; needs the records alone."""
    (out / "knobs_data.js").write_text(script(), encoding="utf-8")
    for name, figure in stills().items():
        figure.savefig(out / f"knobs_{name}.webp", dpi=150)
        plt.close(figure)


def script() -> str:
    """A line for each recipe that has been trained, in the order of `recipes.RECIPES`."""
    found = [(one, verdicts.runs_of(one.name)) for one in recipes.RECIPES.values() if one.epochs]
    lines = [
        f" {json.dumps(one.name)}: {json.dumps(entry(one, of), ensure_ascii=False)}"
        for one, of in found
        if of
    ]
    return "window.RUNS = {\n" + ",\n".join(lines) + "\n};\n"


def entry(recipe: recipes.Recipe, recorded: list[dict[str, Any]]) -> dict[str, Any]:
    """What a recipe is about, and its curves of accuracy in per cent, one for each seed."""
    curves = {
        name: [[round(100 * one, 1) for one in run["history"][key] if one is not None] for run in recorded]
        for name, key in {"training": "train_accuracy", "other": "validation_accuracy"}.items()
    }
    return {
        "about": re.sub(r"^[RS]\d+: ", "", recipe.about),  # without the claim's number
        "data": recipe.data,
        "held": "test" if recipe.curve_on_test else "validation",
        "training": curves["training"],
        "other": [curve for curve in curves["other"] if curve],  # none where nothing was held out
    }


def stills() -> dict[str, Figure]:
    """The page's three figures as they are before anyone turns a knob."""
    planned = schedules.rates_of(lambda optimizer: StepLR(optimizer, 5, gamma=0.2), 330, lr=0.1)
    cycle = schedules.rates_of(
        lambda optimizer: schedules.one_cycle(optimizer, EPOCHS, BATCHES, 0.001, 0.1, 5), EPOCHS * BATCHES
    )
    return {
        "steps": plots.schedule(
            planned, 1, "330 epochs: a rate of 0.1, times 0.2 after every five", log=True
        ),
        "cycle": plots.schedule(
            cycle, BATCHES, "24 epochs: up to 0.1 at epoch 5, and down to a hundredth of it"
        ),
        "runs": figures.curves({"smallnet-source": "smallnet-source", "smallnet-best": "smallnet-best"}),
    }
