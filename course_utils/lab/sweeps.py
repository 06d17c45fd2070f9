"""Recorded runs: make them, make many of them, and check that kept weights still do what their records say."""

import math
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from course_utils import data, training
from course_utils.lab import checkpoints, machine, parallel, recipes, records, runs
from course_utils.models import count_parameters
from course_utils.lessons import Recipe
from course_utils.lab.runs import Outcome
from course_utils.schedules import RangeTest

TOLERANCE = 0.001  # a tenth of a point, for the half precision of the kept weights
RUNS = Path("runs")  # checkpoints of runs that are under way; not part of the course


def sweep(pattern: str, seeds: list[int], root: Path | None = None) -> None:
    """Run every recipe that matches `pattern` with each of `seeds`, one run after another.

    What is recorded is skipped and what was cut off is resumed, so a sweep can be stopped at any
    time and called again. A record of a recipe that has changed since is made anew. A run that fails
    does not keep the others from their turn: a RuntimeError at the end names it.

    Raises ValueError in several processes: one that fails alone would go on to another run than the rest.
    """
    parallel.start()
    if parallel.world() > 1:
        raise ValueError(
            "a sweep is for one process: to train with several, start each run on its own, "
            "`torchrun --nproc-per-node=2 -m course_utils run RECIPE --seed 0`"
        )
    failures = []
    for seed in seeds:
        for recipe in recipes.matching(pattern):
            try:
                if recorded(recipe, seed):
                    continue
                print(f"{recipe.name} seed {seed}: {recipe.about}", flush=True)
                run(recipe, seed, root)
            except (RuntimeError, ValueError, OSError) as error:
                # It diverged, needs a download or another run's weights, is under way elsewhere, or has a bad record.
                failures.append(f"{recipe.name} seed {seed}: {error}")
    if failures:
        raise RuntimeError("\n".join(failures))


def recorded(recipe: Recipe, seed: int) -> dict[str, Any] | None:
    """The record of this run, if there is one that the recipe made as it stands."""
    path = records.path_of(recipe.name, seed)
    record = records.read(path) if path.exists() else None
    return record if record and records.same_recipe(record, recipe) else None


def run(recipe: Recipe, seed: int, root: Path | None = None) -> dict[str, Any]:
    """Train `recipe` with `seed`, write its record, and return it; resumes a run that was cut off.

    Where there is a record already, the run is measured again and compared with it. The record stays (and so do its
    weights, which the book's figures are made from); the new one is kept in `RUNS`.

    Raises RuntimeError where another process is at the same run.
    """
    parallel.start()
    where = machine.describe()  # before the run: the checkout may have moved on by its end
    checkpoint = RUNS / f"{recipe.name}-seed{seed}.pt"
    before = recorded(recipe, seed)
    path = checkpoint.with_suffix(".json") if before else records.path_of(recipe.name, seed)
    with only_one(checkpoint):
        keep = recipe.name in recipes.KEPT and seed == 0 and not before
        record = finish(recipe, seed, root, checkpoint, keep) | {"machine": where}
        if parallel.rank() == 0:
            records.write(record, path)
            for leftover in checkpoint.parent.glob(checkpoint.name + "*"):
                leftover.unlink()
    if parallel.rank() == 0:
        print(summary(record, before, path), flush=True)
    return record


def summary(record: dict[str, Any], before: dict[str, Any] | None, path: Path) -> str:
    """What a run came to, and where it is recorded; compared with the record from `before`, if there is one."""
    name = f"{record['recipe']['name']} seed {record['seed']}"
    tested = record["test_accuracy"] is not None  # a range test trains nothing that could be
    result = f"{name}: " + (f"{record['test_accuracy']:.2%} on the test set, " if tested else "")
    if before and tested:
        result += f"recorded before: {before['test_accuracy']:.2%}, "
    return result + f"kept as {path}"


@contextmanager
def only_one(checkpoint: Path):
    """Hold the lock of the run that keeps this `checkpoint`; rank 0 holds it for all processes of the run."""
    if parallel.rank() > 0:
        yield
        return
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(checkpoint.with_suffix(".lock"), timeout=0):
            yield
    except Timeout:
        raise RuntimeError(f"{checkpoint.stem} is being run by another process") from None


def finish(recipe: Recipe, seed: int, root: Path | None, checkpoint: Path, keep: bool) -> dict[str, Any]:
    """The record of the finished run; with `keep`, its weights are stored beside it."""
    if recipe.schedule == "range_test":
        return describe_range_test(recipe, seed, runs.range_test(recipe, seed, root), root)
    outcome = runs.train(recipe, seed, root, checkpoint)
    record = describe(recipe, seed, outcome, root)
    if keep and parallel.rank() == 0:
        record["weights"] = checkpoints.save_half(outcome.model, records.weights_of(recipe.name, seed))
    return record


def describe(recipe: Recipe, seed: int, outcome: Outcome, root: Path | None = None) -> dict[str, Any]:
    curves = {
        name: [none_for_nan(value) for value in curve] for name, curve in asdict(outcome.history).items()
    }
    return about(recipe, seed, root) | {
        "parameters": count_parameters(outcome.model),
        "history": curves,
        "seconds": sum(outcome.history.seconds),
        "validation_accuracy": None if recipe.curve_on_test else curves["validation_accuracy"][-1],
        "test_accuracy": outcome.test_accuracy,
    }


def describe_range_test(recipe: Recipe, seed: int, found: RangeTest, root: Path | None) -> dict[str, Any]:
    """A range test trains nothing that could be tested: its record has a curve over rates, and no accuracy."""
    return about(recipe, seed, root) | {
        "parameters": count_parameters(runs.build_network(recipe, data.N_CLASSES[recipe.data])),
        "history": {"learning_rate": found.rates.tolist(), "train_loss": found.losses.tolist()},
        "seconds": 0.0,
        "validation_accuracy": None,
        "test_accuracy": None,
    }


def about(recipe: Recipe, seed: int, root: Path | None) -> dict[str, Any]:
    """What a record says of a run whatever came of it."""
    precision = training.pick_precision(training.pick_device(), recipe.precision)
    return {
        "schema": records.SCHEMA,
        "recipe": recipe.plain(),
        "seed": seed,
        "data": fingerprints(recipe, root),
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine.describe(),
        "precision": str(precision).removeprefix("torch."),
        "weights": None,
    }


def fingerprints(recipe: Recipe, root: Path | None = None) -> dict[str, str]:
    """A fingerprint of the recipe's training and of its test images and labels, in whatever order they come, and of the
    weights that a transfer begins with.
    """
    train, test = data.load(recipe.data, root)
    found = {"train": data.fingerprint(train), "test": data.fingerprint(test)}
    backbone = records.backbone_weights(recipe)
    return found | ({"backbone": backbone} if backbone else {})


def none_for_nan(value: float) -> float | None:
    """JSON has no NaN."""
    return None if math.isnan(value) else value


def verify(pattern: str, root: Path | None = None) -> None:
    """Evaluate all kept weights of the recipes that match `pattern`, and compare with their records.

    Raises RuntimeError where a file is missing or not the recorded one, where the accuracy differs by more
    than `TOLERANCE`, or where the recipe has changed since; ValueError where there is nothing to compare.
    """
    kept = [
        (recipe, record)
        for recipe in recipes.matching(pattern)
        for record in records.of_recipe(recipe.name)
        if record["weights"]
    ]
    if not kept:
        raise ValueError(f"no recorded run that matches {pattern!r} has kept its weights")
    failures = [problem for recipe, record in kept if (problem := difference(recipe, record, root))]
    if failures:
        raise RuntimeError("\n".join(failures))


def difference(recipe: Recipe, record: dict[str, Any], root: Path | None) -> str:
    """How the kept weights differ from what `record` says of them; an empty string if they do not."""
    seed = record["seed"]
    name, path = f"{recipe.name} seed {seed}", records.weights_of(recipe.name, seed)
    if changed := records.changes(record, recipe):
        return f"{name}: the recipe has changed since this run ({'; '.join(changed)})"
    if not path.exists():
        return f"{name}: {path} is not there: restore it, or delete the record and run the recipe again"
    if checkpoints.sha256(path) != record["weights"]:
        return f"{name}: {path} is not the file that was recorded"
    model = runs.trained_network(recipe, seed).to(training.pick_device())
    found = runs.test_accuracy(model, runs.prepare(recipe, seed, root))
    print(f"{name}: recorded {record['test_accuracy']:.2%}, found {found:.2%}", flush=True)
    if abs(found - record["test_accuracy"]) > TOLERANCE:
        return f"{name}: the weights reach {found:.2%}, the record says {record['test_accuracy']:.2%}"
    return ""
