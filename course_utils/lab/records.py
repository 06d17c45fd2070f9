"""A run as it was recorded: one JSON file for each recipe and seed, and how to write, read and tabulate them."""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, median, stdev
from types import SimpleNamespace
from typing import Any

import numpy as np

from course_utils.lab import machine, recipes
from course_utils.lessons import Recipe

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
    if not isinstance(record, dict):
        raise ValueError(f"{path}: expected an object, found {type(record).__name__}")
    if record.get("schema") != SCHEMA:
        raise ValueError(f"{path}: expected schema {SCHEMA}, found {record.get('schema')}")
    if set(record) != set(FIELDS):
        raise ValueError(f"{path}: missing or unknown entries {sorted(set(record) ^ set(FIELDS))}")
    for name, kind in FIELDS.items():
        if not isinstance(record[name], kind):
            raise ValueError(f"{path}: {name} should be {kind}, found {record[name]!r}")
    if "name" not in record["recipe"]:
        raise ValueError(f"{path}: its recipe has no name")
    if missing := {"device", "name", "threads"} - set(record["machine"]):
        raise ValueError(f"{path}: its machine lacks {sorted(missing)}")
    lengths = {name: len(curve) for name, curve in record["history"].items()}
    if len(set(lengths.values())) != 1:
        raise ValueError(f"{path}: the curves differ in length: {lengths}")
    if tested(record) and not 0 <= record["test_accuracy"] <= 1:
        raise ValueError(f"{path}: test_accuracy should be in [0, 1], found {record['test_accuracy']}")
    if tested(record) and not lengths.get("seconds"):
        raise ValueError(f"{path}: a trained run should say how many seconds each epoch took")


def changes(record: dict[str, Any], recipe: Recipe) -> list[str]:
    """What `recipe` has changed in since it made `record`: "epochs: was 40, is 120"; empty if nothing.

    Its description may be reworded. A setting that is younger than the record counts as its default: whoever
    adds one chooses a default that trains as before, so that old runs stay what they were. A setting that is
    gone, or has another name now, is a change.
    """
    made_by = Recipe(name="", about="").plain() | record["recipe"] | {"about": recipe.about}
    made_by["backbone's weights"] = record.get("data", {}).get("backbone")
    now = recipe.plain() | {"backbone's weights": backbone_weights(recipe)}
    return [
        f"{entry}: was {made_by.get(entry, 'not there')!r}, is {now.get(entry, 'gone')!r}"
        for entry in made_by | now
        if entry not in made_by or entry not in now or made_by[entry] != now[entry]
    ]


def backbone_weights(recipe: Recipe) -> str | None:
    """SHA-256 of the recorded weights that a transfer begins with; None where it begins with no recipe's."""
    backbone = recipe.network_args.get("backbone")
    if backbone not in recipes.RECIPES:
        return None
    path = weights_of(backbone, 0)
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else "not there"


def same_recipe(record: dict[str, Any], recipe: Recipe) -> bool:
    """Whether `record` was made by `recipe` as it stands: only then does it count for anything."""
    return not changes(record, recipe)


def of_recipe(name: str) -> list[dict[str, Any]]:
    """All records of the recipe `name`, by seed."""
    return sorted(map(read, (RECORDED / name).glob("seed*.json")), key=lambda record: record["seed"])


def mean_history(recorded: Sequence[dict[str, Any]]) -> SimpleNamespace:
    """The curves of one recipe's records, averaged over its seeds: float arrays, NaN where nothing was held out."""
    histories = [record["history"] for record in recorded]
    return SimpleNamespace(
        **{
            curve: np.mean([np.array(history[curve], dtype=float) for history in histories], axis=0)
            for curve in histories[0]
        }
    )


def where(record: dict[str, Any]) -> str:
    """What a record's run was made on, in words."""
    return machine.in_words(record["machine"], record["precision"])


def by_machine(recorded: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Records by what they ran on, {processor, threads and precision: records}: times are compared on one only."""
    found = {}
    for record in recorded:
        found.setdefault(where(record), []).append(record)
    return found


def minutes(record: dict[str, Any]) -> float:
    """How long the run takes: its epochs at the median epoch's pace, so that a pause does not count."""
    seconds = record["history"]["seconds"]
    return len(seconds) * median(seconds) / 60


def table(pattern: str = "*") -> str:
    """The recorded runs of the recipes that match `pattern`, a line each, as Markdown.

    A record that no longer counts, because its recipe has changed, is named below with what has changed.
    """
    lines = ["| recipe | seeds | test accuracy % | weights | minutes |", "|---|--:|--:|--:|--:|"]
    stale = []
    for folder in sorted(RECORDED.glob(pattern)):
        counting = []
        for path in sorted(folder.glob("seed*.json")):
            record = read(path)
            if why := problems(record):
                stale.append(f"{path} does not count: {'; '.join(why)}")
            elif tested(record):
                counting.append(record)
        if counting:
            lines.append(table_row(folder.name, counting))
    if len(lines) == 2:
        lines = [f"no run of a recipe that matches {pattern!r} is recorded"]
    return "\n".join(lines + stale)


def problems(record: dict[str, Any]) -> list[str]:
    """Why a record does not count: what its recipe has changed in, or that there is no such recipe any more."""
    name = record["recipe"]["name"]
    return changes(record, recipes.RECIPES[name]) if name in recipes.RECIPES else [f"no recipe {name!r} now"]


def tested(record: dict[str, Any]) -> bool:
    return record["test_accuracy"] is not None


def table_row(name: str, recorded: list[dict[str, Any]]) -> str:
    percents = [100 * record["test_accuracy"] for record in recorded]
    accuracy = f"{mean(percents):.2f}" + (f" ± {stdev(percents):.2f}" if len(percents) > 1 else "")
    paces = [mean(map(minutes, runs)) for runs in by_machine(recorded).values()]
    weights = recorded[0]["parameters"]
    return (
        f"| {name} | {len(recorded)} | {accuracy} | {weights:,} | {' and '.join(f'{m:.1f}' for m in paces)} |"
    )
