"""Recorded runs: make them, make many of them, and check that saved weights still do what their records say.

All that belongs to a run lies in its recipe's folder in `records.RECORDED`, wherever it was started from: its record,
its weights, and while it is under way its lock and its checkpoint.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from torch import nn

from course_utils import data, training
from course_utils.datasets import cifar
from course_utils.lab import files, machine, processes, recipes, records, runs
from course_utils.lessons import Recipe
from course_utils.models import count_parameters

TOLERANCE = 0.001  # a tenth of a point, for the half precision of the saved weights
RUNS = Path("runs")  # where a recorded run that is made again leaves its result


def sweep(pattern: str, seeds: list[int], root: Path | None = None) -> None:
    """Run every recipe that matches `pattern` with each of `seeds`, one run after another.

    What is recorded is skipped and what was cut off is resumed, so a sweep can be stopped at any time and called again.
    A run that fails does not keep the others from their turn: a RuntimeError at the end names it.

    Raises ValueError in several processes: one that fails alone would go on to another run than the rest.
    """
    processes.start()
    if processes.world() > 1:
        raise ValueError(
            "a sweep is for one process: to train with several, start each run on its own, "
            "`torchrun --nproc-per-node=2 -m course_utils run RECIPE --seed 0`"
        )
    failures = []
    for seed in seeds:
        for recipe in recipes.matching(pattern):
            try:
                if recorded(recipe, seed):
                    print(f"{recipe.name} seed {seed}: recorded already", flush=True)
                    continue
                print(f"{recipe.name} seed {seed}: {recipe.about}", flush=True)
                run(recipe, seed, root)
            except Exception as error:
                # It diverged, needs a download or another run's weights, is under way elsewhere, or is misspelt.
                failures.append(f"{recipe.name} seed {seed}: {type(error).__name__}: {error}")
                print(failures[-1], flush=True)  # now, too: the end may be a night away, or never come
    if failures:
        raise RuntimeError("\n".join(failures))


def recorded(recipe: Recipe, seed: int) -> dict[str, Any] | None:
    """The record of this run, if there is one that the recipe made as it stands."""
    path = records.path_of(recipe.name, seed, recipe)
    record = records.read(path) if path.exists() else None
    return record if record and not records.changes(record, recipe) else None


def run(recipe: Recipe, seed: int, root: Path | None = None) -> dict[str, Any]:
    """Train `recipe` with `seed`, write its record, and return it; resumes a run that was cut off.

    A record is never replaced. Where there is one already, the run is made again from the start and compared with it,
    and the new one is left in `RUNS`. The run of an edited recipe is recorded beside that of the recipe as it was.

    Raises RuntimeError where another process is at the same run.
    """
    processes.start()
    machine.cap_threads()
    # Now, because the checkout may have moved on by the run's end.
    here = machine.describe(processes=processes.world())
    with only_one(recipe, seed):
        # In here, because another process may have just written it.
        before = processes.of_first(recorded(recipe, seed))
        path = records.path_of(recipe.name, seed, recipe)
        checkpoint = runs.RunCheckpoint(path.with_suffix(".checkpoint"), recipe, seed, here)
        again = RUNS / f"{recipe.name}-seed{seed}.json"
        if before:
            files.try_to_write(again, "the result")
        record, model = finish(recipe, seed, root, None if before else checkpoint)
        record["machine"] = here
        if checkpoint.machines[:-1]:
            record["resumed_from"] = checkpoint.machines[:-1]
        if processes.rank() == 0:
            before = before or recorded(recipe, seed)  # it may have come while this ran, as by a git pull
            path = again if before else records.path_of(recipe.name, seed, recipe)
            if recipe.name in recipes.KEPT and seed == 0 and not before:
                record["weights"] = runs.save_half(model, path.with_suffix(".pt"))
            records.write(record, path)
            for leftover in checkpoint.path.parent.glob(checkpoint.path.name + "*"):
                leftover.unlink()
            print(summary(record, before, path), flush=True)
    return record


def summary(record: dict[str, Any], before: dict[str, Any] | None, path: Path) -> str:
    """What a run came to, and where it is recorded; compared with the record from `before`, if there is one."""
    result = f"{record['recipe']['name']} seed {record['seed']}: "
    if records.tested(record):  # a range test trains nothing that could be
        result += f"{record['test_accuracy']:.2%} on the test set, "
        if "six_views" in record:
            result += f"{record['six_views']:.2%} in six views of each, "
        result += f"{records.minutes(record):.1f} minutes, "
        result += f"recorded before: {before['test_accuracy']:.2%}, " if before else ""
    return result + f"saved as {path}"


@contextmanager
def only_one(recipe: Recipe, seed: int) -> Iterator[None]:
    """Hold the lock of a run, in the folder of its record; the first process holds it for all of the run."""
    lock = records.RECORDED / recipe.name / f"seed{seed}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(lock, timeout=0) if processes.rank() == 0 else nullcontext():
            yield
    except Timeout:
        raise RuntimeError(f"{recipe.name} seed {seed} is being run by another process") from None


def finish(
    recipe: Recipe, seed: int, root: Path | None, checkpoint
) -> tuple[dict[str, Any], nn.Module | None]:
    """Train the run, or what is left of it, and return its record and its network, which a range test has not."""
    if recipe.schedule != "range_test":
        outcome = runs.train(recipe, seed, root, checkpoint)
        return describe(recipe, seed, outcome, root), outcome.model
    found = runs.range_test(recipe, seed, root)
    _ = found.steepest  # raises ValueError for a test that ended too early: pages could not show it
    record = about(recipe, seed, root) | {
        "parameters": count_parameters(runs.build_network(recipe, data.N_CLASSES[recipe.data])),
        # It may have ended early.
        "flops": runs.training_flops(recipe) * len(found.rates) // recipe.schedule_args.get("steps", 100),
        "history": {"learning_rate": found.rates.tolist(), "train_loss": found.losses.tolist()},
        "seconds": 0.0,
        "validation_accuracy": None,
        "test_accuracy": None,  # nothing was trained that could be tested
    }
    return record, None


def describe(recipe: Recipe, seed: int, outcome: runs.Outcome, root: Path | None = None) -> dict[str, Any]:
    # JSON has no NaN.
    curves = {k: [None if math.isnan(x) else x for x in curve] for k, curve in vars(outcome.history).items()}
    return about(recipe, seed, root) | {
        "parameters": count_parameters(outcome.model),
        "history": curves,
        "seconds": sum(outcome.history.seconds),
        "validation_accuracy": None if recipe.curve_on_test else curves["validation_accuracy"][-1],
        "test_accuracy": outcome.test_accuracy,
        **({"six_views": outcome.six_views} if outcome.six_views is not None else {}),
    }


def about(recipe: Recipe, seed: int, root: Path | None) -> dict[str, Any]:
    """What a record says of a run whatever came of it, but for the machine."""
    precision = training.pick_precision(training.pick_device(), recipe.precision)
    return {
        "schema": records.SCHEMA,
        "recipe": recipe.plain(),
        "seed": seed,
        "data": fingerprints(recipe, root),
        "date": datetime.now(UTC).date().isoformat(),
        "precision": str(precision).removeprefix("torch."),
        "flops": runs.training_flops(recipe),
        "weights": None,
    }


def fingerprints(recipe: Recipe, root: Path | None = None) -> dict[str, str]:
    """A fingerprint of the recipe's training and of its test images and labels, in whatever order they come, and of the
    weights that a transfer begins with.
    """
    parts = zip(("train", "test"), data.load(recipe.data, root), strict=True)
    found = {name: cifar.fingerprint(part.images, part.labels) for name, part in parts}
    backbone = records.backbone_weights(recipe)
    return found | ({"backbone": backbone} if backbone else {})


# ---- what was saved, checked ----


def verify(pattern: str, root: Path | None = None) -> None:
    """Evaluate all saved weights of the recipes that match `pattern`, compare with their records, and say what could
    not be checked: records without weights.

    Raises RuntimeError where nothing is recorded, where weights or their hash are missing, where the file is not the
    recorded one, where the accuracy differs by more than `TOLERANCE` and three images, where the recipe is gone or has
    changed since weights were saved, where its data cannot be had, and where a record says what no run writes.
    """
    failures, unchecked, count = [], {}, 0
    for recipe in recipes.matching(pattern):
        try:
            made = records.of_recipe(recipe.name, stale=True)
        except ValueError as error:
            failures.append(str(error))
            continue
        count += len(made)
        for record in made:
            try:
                problem = difference(recipe, record, root)
            except (cifar.FetchError, FileNotFoundError, ValueError) as error:  # its data or its weights
                problem = str(error)
            if problem:
                failures.append(f"{recipe.name} seed {record['seed']}: {problem}")
            elif record["weights"] is None:
                unchecked.setdefault(recipe.name, []).append(str(record["seed"]))
        for path in sorted((records.RECORDED / recipe.name).glob("seed*.pt")):
            if not path.with_suffix(".json").exists():
                failures.append(f"{path} lies there without a record")
    for folder in sorted(records.RECORDED.glob(pattern)):
        if folder.name not in recipes.RECIPES and any(folder.glob("seed*")):
            failures.append(f"{folder} belongs to no recipe: restore that, or delete the folder")
    if unchecked:
        named = ", ".join(f"{name} ({' '.join(seeds)})" for name, seeds in unchecked.items())
        print(f"not checked, as their weights are not saved: {named}", flush=True)
    if not (count or failures):
        failures = [f"nothing to check: no run of a recipe that matches {pattern!r} is recorded"]
    if failures:
        raise RuntimeError("\n".join(failures))


def difference(recipe: Recipe, record: dict[str, Any], root: Path | None) -> str:
    """How a record differs from what lies beside it; an empty string if it does not, or has no weights to compare.

    Raises FileNotFoundError where the weights are gone, and ValueError where they are others or do not fit.
    """
    seed, path = record["seed"], records.weights_of(recipe.name, record["seed"])
    if doubts := records.doubts(record):
        return "; ".join(doubts)
    changed = records.changes(record, recipe)
    if changed and record["weights"]:
        return f"the recipe has changed since this run ({'; '.join(changed)})"
    if record["weights"] is None:
        expected = not changed and (path.exists() or (recipe.name in recipes.KEPT and seed == 0))
        advice = "it cannot be believed; to save weights, delete the record and run it again"
        return f"the record has no hash of its weights, {path}: {advice}" if expected else ""
    model = runs.trained_network(recipe, seed).to(training.pick_device())
    facts = {"parameters": count_parameters(model), "data": fingerprints(recipe, root)}
    if wrong := [name for name, found in facts.items() if record[name] != found]:
        return f"its {wrong[0]} should be {facts[wrong[0]]}, the record says {record[wrong[0]]}"
    loaders = runs.prepare(recipe, seed, root)
    for entry, views in (("test_accuracy", ""), ("six_views", " in six views")):
        if entry not in record:
            continue
        said, found = record[entry], runs.test_accuracy(model, loaders, six_views=entry == "six_views")
        print(f"{recipe.name} seed {seed}: recorded {said:.2%}, found {found:.2%}{views}", flush=True)
        if abs(found - said) > max(TOLERANCE, 3.5 / len(loaders.test.image_set)):  # three of few images
            return f"the weights reach {found:.2%}{views}, the record says {said:.2%}"
    return ""
