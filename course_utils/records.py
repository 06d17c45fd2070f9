"""A run as it was recorded: one JSON file for each recipe and seed, and how to write, read and tabulate them."""

import json
import math
import os
from dataclasses import replace
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

from course_utils.recipes import Recipe

SCHEMA = 1
RECORDED = Path(__file__).parent / "recorded"

# Every record has exactly these entries, of these types.
FIELDS = {
    "schema": int,
    "recipe": dict,
    "seed": int,
    "data": dict,
    "date": str,
    "machine": dict,
    "precision": str,
    "parameters": int,
    "history": dict,
    "seconds": float,
    "validation_accuracy": (float, type(None)),
    "test_accuracy": (float, type(None)),
    "weights": (str, type(None)),  # SHA-256 of the file beside the record
}


def path_of(recipe: str, seed: int) -> Path:
    return RECORDED / recipe / f"seed{seed}.json"


def weights_of(recipe: str, seed: int) -> Path:
    return path_of(recipe, seed).with_suffix(".pt")


def write(record: dict[str, Any], path: Path) -> None:
    """Write a record whole or not at all."""
    check(record, path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    os.replace(partial, path)


def read(path: Path) -> dict[str, Any]:
    """The record at `path`; a ValueError that says what is wrong with it if it is not one."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
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
    if record["test_accuracy"] is not None and not 0 <= record["test_accuracy"] <= 1:
        raise ValueError(f"{path}: test_accuracy should be in [0, 1], found {record['test_accuracy']}")


def same_recipe(record: dict[str, Any], recipe: Recipe) -> bool:
    """Whether `record` was made by `recipe` as it stands; its description may have been reworded since."""
    return replace(Recipe(**record["recipe"]), about=recipe.about).plain() == recipe.plain()


def of_recipe(name: str) -> list[dict[str, Any]]:
    """All records of the recipe `name`, by seed."""
    return [read(path) for path in sorted((RECORDED / name).glob("seed*.json"))]


def summary(name: str) -> tuple[float, float, int]:
    """Mean and standard deviation of test accuracy (in [0, 1]) over the recorded seeds, and their number.

    The deviation of a single run is NaN. A ValueError where no run of `name` is recorded.
    """
    accuracies = [record["test_accuracy"] for record in of_recipe(name)]
    if not accuracies:
        raise ValueError(f"no run of {name!r} is recorded")
    return mean(accuracies), stdev(accuracies) if len(accuracies) > 1 else math.nan, len(accuracies)


def minutes(record: dict[str, Any]) -> float:
    """How long the run takes: its epochs at the median epoch's pace, so that a pause does not count."""
    seconds = record["history"]["seconds"]
    return len(seconds) * median(seconds) / 60


def table(pattern: str = "*") -> str:
    """The recorded runs of the recipes that match `pattern`, a line each, as Markdown."""
    lines = ["| recipe | seeds | test accuracy % | weights | minutes |", "|---|--:|--:|--:|--:|"]
    for folder in sorted(RECORDED.glob(pattern)):
        trained = [record for record in of_recipe(folder.name) if record["test_accuracy"] is not None]
        if trained:
            centre, spread, seeds = summary(folder.name)
            accuracy = f"{100 * centre:.2f}" + (f" ± {100 * spread:.2f}" if seeds > 1 else "")
            pace = mean(map(minutes, trained))
            weights = trained[0]["parameters"]
            lines.append(f"| {folder.name} | {seeds} | {accuracy} | {weights:,} | {pace:.1f} |")
    return "\n".join(lines) if len(lines) > 2 else f"no run of a recipe that matches {pattern!r} is recorded"
