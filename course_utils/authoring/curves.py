"""What the page *Turn the knobs* runs on: the recorded curves as JavaScript, and stills for who reads without it."""

import json
import re
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from torch.optim.lr_scheduler import StepLR

from course_utils import plots, schedules
from course_utils.lab import figures, recipes, records, verdicts

STATIC = Path(__file__).resolve().parents[2] / "book" / "_static"
EPOCHS, BATCHES = 24, 98  # of the cycle on the page


def write(out: Path = STATIC) -> None:
    """Write `knobs_data.js` and the stills into `out`; needs the records alone."""
    drawn = stills()  # which fails, if anything does, before anything is written
    records.write_text(script(), out / "knobs_data.js")
    for name, figure in drawn.items():
        figure.savefig(out / f"knobs_{name}.webp", dpi=150)
        plt.close(figure)


def script() -> str:
    """A line for each recipe that has been trained, in the order of `recipes.RECIPES`."""
    recorded = {name: verdicts.runs_of(name) for name, one in recipes.RECIPES.items() if one.epochs}
    found = {name: entry(recipes.RECIPES[name], runs) for name, runs in recorded.items() if runs}
    lines = [f" {json.dumps(name)}: {json.dumps(it, ensure_ascii=False)}" for name, it in found.items()]
    return "window.RUNS = {\n" + ",\n".join(lines) + "\n};\n"


def entry(recipe: recipes.Recipe, recorded: list[dict[str, Any]]) -> dict[str, Any]:
    """What a recipe is about, and its curves of accuracy in per cent, one for each seed."""
    about = re.sub(r"^[RS]\d+: ", "", recipe.about)  # without the claim's number
    found = {"about": about, "data": recipe.data, "held": "test" if recipe.curve_on_test else "validation"}
    for name, key in (("training", "train_accuracy"), ("other", "validation_accuracy")):
        curves = [[round(100 * x, 3) for x in run["history"][key] if x is not None] for run in recorded]
        found[name] = [curve for curve in curves if curve]  # none where nothing was held out
    return found


def stills() -> dict[str, Figure]:
    """The page's three figures as they are before anyone turns a knob."""
    planned = schedules.rates_of(lambda optimizer: StepLR(optimizer, 5, gamma=0.2), 330, lr=0.1)
    plan = EPOCHS, BATCHES, 0.001, 0.1, 5
    cycle = schedules.rates_of(lambda optimizer: schedules.one_cycle(optimizer, *plan), EPOCHS * BATCHES)
    steps = plots.schedule(planned, 1, "330 epochs: a rate of 0.1, times 0.2 after every five", log=True)
    title = "24 epochs: up to 0.1 at epoch 5, and down to a hundredth of it"
    runs = figures.curves({name: name for name in ("smallnet-source", "smallnet-best")})
    if not isinstance(runs, Figure):
        raise ValueError("the page shows smallnet-source and smallnet-best: run one of them first")
    return {"steps": steps, "cycle": plots.schedule(cycle, BATCHES, title), "runs": runs}
