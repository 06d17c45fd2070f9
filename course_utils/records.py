"""A run as it was recorded: one JSON file for each recipe and seed, and how to write, read and tabulate them."""

import json
import math
import os
import platform
import subprocess
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch

from course_utils import devices, parallel, recipes
from course_utils.models import count_parameters
from course_utils.recipes import Outcome, Recipe

SCHEMA = 1
RECORDED = Path(__file__).parent / "recorded"
RUNS = Path("runs")  # checkpoints of runs that are under way; not part of the course

# Every record has exactly these entries, of these types.
FIELDS = {
    "schema": int,
    "recipe": dict,
    "seed": int,
    "date": str,
    "machine": dict,
    "precision": str,
    "parameters": int,
    "history": dict,
    "seconds": float,
    "validation_accuracy": (float, type(None)),
    "test_accuracy": float,
}


def path_of(recipe: str, seed: int) -> Path:
    return RECORDED / recipe / f"seed{seed}.json"


def run(recipe: Recipe, seed: int, root: Path | None = None) -> dict[str, Any]:
    """Train `recipe` with `seed`, write its record, and return it; resumes a run that was cut off."""
    checkpoint = RUNS / f"{recipe.name}-seed{seed}.pt"
    outcome = recipes.train(recipe, seed, root, checkpoint)
    record = describe(recipe, seed, outcome)
    if parallel.rank() > 0:
        return record
    write(record, path_of(recipe.name, seed))
    for leftover in checkpoint.parent.glob(checkpoint.name + "*"):
        leftover.unlink()
    print(f"{recipe.name} seed {seed}: {outcome.test_accuracy:.2%} on the test set", flush=True)
    return record


def describe(recipe: Recipe, seed: int, outcome: Outcome) -> dict[str, Any]:
    curves = {
        name: [none_for_nan(value) for value in curve] for name, curve in asdict(outcome.history).items()
    }
    return {
        "schema": SCHEMA,
        "recipe": recipe.plain(),
        "seed": seed,
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "precision": str(devices.pick_precision(devices.pick_device(), recipe.precision)).removeprefix(
            "torch."
        ),
        "parameters": count_parameters(outcome.model),
        "history": curves,
        "seconds": sum(outcome.history.seconds),
        "validation_accuracy": None if recipe.curve_on_test else curves["validation_accuracy"][-1],
        "test_accuracy": outcome.test_accuracy,
    }


def none_for_nan(value: float) -> float | None:
    """JSON has no NaN."""
    return None if math.isnan(value) else value


def machine() -> dict[str, Any]:
    """What a run's seconds depend on, and which code it ran."""
    device = devices.pick_device()
    name = torch.cuda.get_device_name() if device.type == "cuda" else processor()
    return {
        "device": device.type,
        "name": name,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": version("torch"),
        "torchvision": version("torchvision"),
        "commit": commit(),
    }


def processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    names = (
        [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        if cpuinfo.exists()
        else []
    )
    return names[0].split(":")[1].strip() if names else platform.processor() or platform.machine()


def commit() -> str | None:
    """The commit of the checkout that the package runs from, or None outside a checkout."""
    command = ["git", "-C", str(RECORDED.parent), "rev-parse", "--short=12", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def write(record: dict[str, Any], path: Path) -> None:
    """Write a record whole or not at all."""
    check(record, path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(record, indent=1) + "\n")
    os.replace(partial, path)


def read(path: Path) -> dict[str, Any]:
    """The record at `path`; a ValueError that says what is wrong with it if it is not one."""
    try:
        record = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    check(record, path)
    return record


def check(record: dict[str, Any], path: Path) -> None:
    if record.get("schema") != SCHEMA:
        raise ValueError(f"{path}: expected schema {SCHEMA}, found {record.get('schema')}")
    if set(record) != set(FIELDS):
        raise ValueError(f"{path}: missing or unknown entries {sorted(set(record) ^ set(FIELDS))}")
    for name, kind in FIELDS.items():
        if not isinstance(record[name], kind):
            raise ValueError(f"{path}: {name} should be {kind}, found {record[name]!r}")
    lengths = {name: len(curve) for name, curve in record["history"].items()}
    if len(set(lengths.values())) != 1:
        raise ValueError(f"{path}: the curves differ in length: {lengths}")
    if not 0 <= record["test_accuracy"] <= 1:
        raise ValueError(f"{path}: test_accuracy should be in [0, 1], found {record['test_accuracy']}")


def of_recipe(name: str) -> list[dict[str, Any]]:
    """All records of the recipe `name`, by seed."""
    return [read(path) for path in sorted((RECORDED / name).glob("seed*.json"))]


def summary(name: str) -> tuple[float, float, int]:
    """Mean and standard deviation of test accuracy (in [0, 1]) over the recorded seeds, and their number."""
    accuracies = [record["test_accuracy"] for record in of_recipe(name)]
    if not accuracies:
        raise ValueError(f"no run of {name!r} is recorded")
    return mean(accuracies), stdev(accuracies) if len(accuracies) > 1 else math.nan, len(accuracies)


def table(pattern: str = "*") -> str:
    """The recorded runs of the recipes that match `pattern`, a line each, as Markdown."""
    lines = ["| recipe | seeds | test accuracy % | weights | minutes |", "|---|--:|--:|--:|--:|"]
    for folder in sorted(RECORDED.glob(pattern)):
        runs = of_recipe(folder.name)
        centre, spread, seeds = summary(folder.name)
        minutes = mean(run["seconds"] for run in runs) / 60
        accuracy = f"{100 * centre:.2f}" + (f" ± {100 * spread:.2f}" if seeds > 1 else "")
        lines.append(f"| {folder.name} | {seeds} | {accuracy} | {runs[0]['parameters']:,} | {minutes:.1f} |")
    return "\n".join(lines) if len(lines) > 2 else f"no run of a recipe that matches {pattern!r} is recorded"
