"""A run as it was recorded: one JSON file for each recipe and seed, and how to write, read and tabulate them."""

import hashlib
import json
import math
import os
import re
from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

from course_utils.lab import machine, recipes
from course_utils.lessons import Recipe

SCHEMA = 1
RECORDED = Path(__file__).parent / "recorded"
SEEDS = 1_000_000  # seeds are below this: process k of a run draws with seed + k * SEEDS

# Every record has these entries, of these types; "weights" is the SHA-256 of the file beside the record …
FIELDS = {"schema": int, "recipe": dict, "seed": int, "data": dict, "date": str, "machine": dict}
FIELDS |= {"precision": str, "parameters": int, "history": dict, "seconds": float, "weights": str | None}
FIELDS |= {"validation_accuracy": float | None, "test_accuracy": float | None}
# … and may have these: operations of its training, see `runs.training_flops`, the machines that it was cut off on, and
# the test accuracy with six views of each image.
OPTIONAL = {"flops": int, "resumed_from": list, "six_views": float}
CURVES = {
    "train_loss",
    "train_accuracy",
    "validation_loss",
    "validation_accuracy",
    "learning_rate",
    "seconds",
}


def path_of(name: str, seed: int, recipe: Recipe | None = None) -> Path:
    """Where the run's record is or belongs. Beside a record that the recipe no longer makes, it gets a name of its own,
    and keeps it when the other is gone. `recipe` is the one of that name in the table, unless another is given.

    Raises ValueError for a seed that is none.
    """
    if not isinstance(seed, int) or not 0 <= seed < SEEDS:
        raise ValueError(f"{name}: expected a seed from 0 to {SEEDS - 1}, found {seed!r}")
    path, recipe = RECORDED / name / f"seed{seed}.json", recipe or recipes.RECIPES.get(name)
    made = [one for one in (path, *sorted(path.parent.glob(f"{path.stem}-*.json"))) if one.exists()]
    if recipe and (own := [one for one in made if not changes(read(one), recipe)]):
        return own[0]
    if recipe is None or not path.exists():
        return path
    default = Recipe(name="", about=recipe.about).plain()  # a setting that is added later moves no record
    changed = {entry: value for entry, value in recipe.plain().items() if value != default[entry]}
    settings = [changed, backbone_weights(recipe)]
    return path.with_stem(f"{path.stem}-{hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:8]}")


def weights_of(name: str, seed: int) -> Path:
    return path_of(name, seed).with_suffix(".pt")


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write(record: dict[str, Any], path: Path) -> None:
    """Write a record whole or not at all."""
    check(record, path)
    write_text(json.dumps(record, indent=1) + "\n", path)


def write_text(text: str, path: Path) -> None:
    """Write a file whole or not at all, or leave it alone if it says the same. Lines end in `\\n` everywhere."""
    if not path.exists() or path.read_bytes() != text.encode():
        write_bytes(text.encode(), path)


def write_bytes(content: bytes, path: Path) -> None:
    """Write a file so that a crash leaves the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with open(partial, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def read(path: Path) -> dict[str, Any]:
    """The record at `path`; a ValueError that says what is wrong with it if it is not the one that belongs there."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not JSON in UTF-8: {error}") from error
    check(record, path)
    name, seed = record["recipe"]["name"], record["seed"]
    if path.parent.name != name or not re.fullmatch(rf"seed{seed}(-[0-9a-f]{{8}})?", path.stem):
        raise ValueError(f"{path} is a copy: the record in it is of {name} seed {seed}")
    return record


def check(record: dict[str, Any], path: Path) -> None:
    """Raise a ValueError that names the first entry that no run could have left."""
    if not isinstance(record, dict):
        raise ValueError(f"{path}: expected an object, found {type(record).__name__}")
    if record.get("schema") != SCHEMA:
        raise ValueError(f"{path}: expected schema {SCHEMA}, found {record.get('schema')}")
    if wrong := (set(record) ^ set(FIELDS)) - set(OPTIONAL):
        raise ValueError(f"{path}: missing or unknown entries {sorted(wrong)}")
    for name, value in record.items():
        kind = (FIELDS | OPTIONAL)[name]
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ValueError(f"{path}: {name} should be {kind}, found {value!r}")
    if not isinstance(record["recipe"].get("name"), str):
        raise ValueError(f"{path}: its recipe has no name")
    kinds = {"device": str, "name": str, "threads": int, "processes": int}
    for one in [record["machine"], *record.get("resumed_from", [])]:
        has = {"processes": 1} | one if isinstance(one, dict) else {}
        if not all(isinstance(has.get(name), kind) for name, kind in kinds.items()):
            expected = "texts as device and name, numbers as threads and processes"
            raise ValueError(f"{path}: a machine should have {expected}, found {one!r}")
    for name, curve in record["history"].items():
        numbers = curve if isinstance(curve, list) else ["no list"]
        if not all(v is None or (type(v) in (int, float) and math.isfinite(v)) for v in numbers):
            raise ValueError(f"{path}: the curve {name} should be a list of numbers")
    lengths = {name: len(curve) for name, curve in record["history"].items()}
    if len(set(lengths.values())) != 1:
        raise ValueError(f"{path}: the curves differ in length: {lengths}")
    # What was measured: no loss and no rate, which may be anything.
    measured = [(name, value) for name, value in record.items() if isinstance(value, (int, float))]
    for name in ("train_accuracy", "validation_accuracy", "seconds"):
        measured += [(name, value) for value in record["history"].get(name, []) if value is not None]
    for name, value in measured:
        most = 1 if "accuracy" in name or name == "six_views" else math.inf
        if not 0 <= value <= most:  # nor is NaN
            raise ValueError(f"{path}: {name} should be in [0, {most}], found {value}")
    trained = record["recipe"].get("schedule") != "range_test"
    if tested(record) != trained:
        raise ValueError(f"{path}: a trained run has a test accuracy, and a range test has none")
    if trained and not (lengths.get("seconds") and None not in record["history"]["seconds"]):
        raise ValueError(f"{path}: a trained run should say how many seconds each epoch took")
    if trained and (missing := CURVES - lengths.keys()):
        raise ValueError(f"{path}: a trained run has more curves: {', '.join(sorted(missing))}")


def doubts(record: dict[str, Any]) -> list[str]:
    """What is in a record that no run writes. It can be read and shown, with texts escaped; `verify` refuses it."""
    try:
        dated = date.fromisoformat(record["date"]) <= datetime.now(UTC).date()  # runs are dated in UTC
    except ValueError:
        dated = False
    commit = record["machine"].get("commit")
    found = {
        "date": dated,
        "precision": record["precision"] in ("float32", "bfloat16", "float16"),
        "commit": commit is None or re.fullmatch(r"[0-9a-f]{12}\+?", str(commit)),
        "weights": record["weights"] is None or re.fullmatch("[0-9a-f]{64}", record["weights"]),
    }
    planned, made = record["recipe"].get("epochs", 0), len(record["history"].get("seconds", []))
    end, curve = record["validation_accuracy"], record["history"].get("validation_accuracy", [])
    other = ["its validation accuracy is not the last of its curve"] if end not in (None, *curve[-1:]) else []
    short = [f"its recipe has {planned} epochs, its curves have {made}"] if planned != made else []
    return [f"its {name} is none" for name, sound in found.items() if not sound] + other + short


def changes(record: dict[str, Any], recipe: Recipe) -> list[str]:
    """What `recipe` has changed in since it made `record`: "epochs: was 40, is 120"; empty if nothing.

    Its description may be reworded. A setting that is younger than the record counts as its default, which trains as
    before; one that is gone, or has another name now, is a change.
    """
    made_by = Recipe(name="", about="").plain() | record["recipe"] | {"about": recipe.about}
    made_by["backbone's weights"] = record.get("data", {}).get("backbone")
    now = recipe.plain() | {"backbone's weights": backbone_weights(recipe)}
    both = [(entry, was, now.get(entry, "gone")) for entry, was in made_by.items()]
    return [f"{entry}: was {was!r}, is {found!r}" for entry, was, found in both if was != found]


def backbone_weights(recipe: Recipe) -> str | None:
    """SHA-256 of the recorded weights that a transfer begins with; None where it begins with no recipe's."""
    backbone = recipe.network_args.get("backbone")
    if backbone not in recipes.RECIPES:
        return None
    path = weights_of(backbone, 0)
    return sha256(path) if path.exists() else "not there"


def of_recipe(name: str, stale: bool = False) -> list[dict[str, Any]]:
    """The records of the recipe `name` that count, by seed; with `stale` also those that it would no longer make.

    Raises ValueError where two that count have one seed, as after a merge: they would count as two runs.
    """
    found = sorted(map(read, (RECORDED / name).glob("seed*.json")), key=lambda record: record["seed"])
    counting = [record for record in found if not problems(record)]
    seeds = [record["seed"] for record in counting]
    if twice := [seed for seed in seeds if seeds.count(seed) > 1]:
        raise ValueError(f"{RECORDED / name}: seed {twice[0]} is recorded in two files, delete one of them")
    return found if stale else counting


def where(record: dict[str, Any]) -> str:
    """What a run was made on: processor, threads and precision; where it was resumed elsewhere, each in turn."""
    machines = [*record.get("resumed_from", []), record["machine"]]
    return ", then ".join(dict.fromkeys(machine.in_words(one, record["precision"]) for one in machines))


def by_machine(recorded: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Records by what they ran on: times are compared on one machine only."""
    found = {}
    for record in recorded:
        found.setdefault(where(record), []).append(record)
    return found


def minutes(record: dict[str, Any]) -> float:
    """How long the run takes: its epochs at the median epoch's pace, so that a pause does not count.

    Epochs on small images have a pace of their own.
    """
    seconds, small = record["history"]["seconds"], record["recipe"].get("small_epochs", 0)
    return sum(len(part) * median(part) for part in (seconds[:small], seconds[small:]) if part) / 60


def petaflop(name: str) -> float | None:
    """Operations of one run's training in units of 10¹⁵; None where they were not counted.

    Records from before this entry get it from `flops.json`, which was computed from their recipes.
    """
    path = RECORDED / "flops.json"
    computed = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    flops = [record.get("flops", computed.get(name)) for record in of_recipe(name)]
    return flops[-1] / 1e15 if flops and flops[-1] else None


def table(pattern: str = "*") -> str:
    """The recorded runs of the recipes that match `pattern`, a line each, as Markdown.

    A record that no longer counts, because its recipe has changed, is named below with what has changed.
    """
    paths = sorted(RECORDED.glob(f"{pattern}/seed*.json"))
    stale = [f"{path} does not count: {'; '.join(why)}" for path in paths if (why := problems(read(path)))]
    names = dict.fromkeys(path.parent.name for path in paths)
    rows = [table_row(name, counting) for name in names if (counting := of_recipe(name))]
    if not rows:
        return "\n".join([f"no run of a recipe that matches {pattern!r} is recorded", *stale])
    head = ["| recipe | seeds | test accuracy % | weights | minutes | PFLOP |", "|---|--:|--:|--:|--:|--:|"]
    return "\n".join([*head, *rows, *stale])


def problems(record: dict[str, Any]) -> list[str]:
    """Why a record does not count: what its recipe has changed in, or that there is no such recipe any more."""
    name = record["recipe"]["name"]
    return changes(record, recipes.RECIPES[name]) if name in recipes.RECIPES else [f"no recipe {name!r} now"]


def tested(record: dict[str, Any]) -> bool:
    return record["test_accuracy"] is not None


def at_chance(record: dict[str, Any]) -> bool:
    """Whether a run ends at chance: at most 1.5 times as good as a guess."""
    classes = re.search(r"\d+$", record["recipe"]["data"])  # "cifar100" has 100
    return bool(classes) and record["test_accuracy"] <= 1.5 / int(classes[0])


def table_row(name: str, recorded: list[dict[str, Any]]) -> str:
    percents = [100 * record["test_accuracy"] for record in recorded if tested(record)]
    accuracy, paces = "–", "–"  # of a range test
    if percents:
        accuracy = f"{mean(percents):.2f}" + (f" ± {stdev(percents):.2f}" if len(percents) > 1 else "")
        dead = sum(map(at_chance, filter(tested, recorded)))
        accuracy += f" ({dead} at chance)" if dead else ""
        paces = " and ".join(f"{mean(map(minutes, runs)):.1f}" for runs in by_machine(recorded).values())
    work = f"{found:.3g}" if (found := petaflop(name)) else "–"
    return f"| {name} | {len(recorded)} | {accuracy} | {recorded[0]['parameters']:,} | {paces} | {work} |"
