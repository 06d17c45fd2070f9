"""The rule that turns recorded runs into verdicts on claims:

A part of a claim names a quantity, and the range in which it lies if the claim is right. The runs give its mean over
seeds, with its 95 % interval by Student's t. The part *holds* where the whole interval lies in the range, *does not
hold* where all of it lies outside, and is *undecided* otherwise, as always on one seed, or on seeds that agree to the
last digit. Recipes that share two seeds, and so split and order, are compared seed by seed; others, by Welch's t.
"""

import json
import math
import warnings
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any, ClassVar

from course_utils.lab import recipes, records
from course_utils.schedules import RangeTest

HOLDS, FAILS, UNDECIDED, NOT_RUN = "holds", "does not hold", "undecided", "not run yet"
PLURALS = {HOLDS: "hold", FAILS: "do not hold"}


@dataclass(frozen=True)
class Estimate:
    """A mean over `n` seeds with its 95 % interval, which is infinite for one seed."""

    value: float
    low: float
    high: float
    n: int


def interval(ours: list[float], theirs: list[float] | None = None) -> Estimate | None:
    """The mean of `ours`, or what it is above that of `theirs` (Welch), with its interval; None without values.

    Seeds that agree to the last digit show no spread: they have one seed's interval, and not one without any width.
    """
    samples = [ours] if theirs is None else [ours, theirs]
    if not all(samples):
        return None
    n, value = min(map(len, samples)), fmean(ours) - fmean(theirs or [0])
    agree = all(len({round(one, 9) for one in sample}) == 1 for sample in samples)
    if n < 2 or agree or math.isinf(value):
        never = n > 1 and agree and math.isinf(value)  # all of them miss the epoch that was claimed
        return Estimate(value, value if never else -math.inf, math.inf, n)
    from scipy import stats  # slow to import, and many pages show no verdict

    with warnings.catch_warnings(action="ignore"):  # of one side that agrees to the last digit
        test = stats.ttest_ind(*samples, equal_var=False) if theirs else stats.ttest_1samp(ours, 0)
    return Estimate(value, *map(float, test.confidence_interval(0.95)), n)


def judge(found: Estimate | None, low: float, high: float) -> str:
    """The verdict on a quantity that is claimed to lie between `low` and `high`."""
    if found is None:
        return NOT_RUN
    if low <= found.low and found.high <= high:
        return HOLDS
    return FAILS if found.high < low or high < found.low else UNDECIDED


def tally(words: list[str]) -> str:
    """The word that all parts have in common, or how many have which: "2 hold, 1 does not hold, 1 undecided"."""
    counts = {word: words.count(word) for word in (HOLDS, FAILS, UNDECIDED, NOT_RUN) if word in words}
    each = (f"{n} {PLURALS.get(word, word) if n > 1 else word}" for word, n in counts.items())
    return words[0] if len(counts) == 1 else ", ".join(each)


def runs_of(name: str) -> list[dict[str, Any]]:
    """The records of the recipe `name` that count, by seed; a ValueError where there is no such recipe."""
    return records.of_recipe(recipes.get(name).name)


def by_seed(name: str) -> dict[int, float]:
    """Test accuracy in per cent of each seed of the recipe; empty if it was not run, or tests nothing."""
    return {run["seed"]: 100 * run["test_accuracy"] for run in runs_of(name) if records.tested(run)}


def percents(name: str) -> list[float]:
    return list(by_seed(name).values())


def bench_table() -> dict[str, Any]:
    """The recorded speed table with its machine and precision; empty if there is none."""
    path = records.RECORDED / "bench.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


@dataclass(frozen=True)
class Quantity:
    """What can be measured from the runs of a recipe, and of a `baseline` where it compares.

    `values` has a number for each seed, which pages show as dots; `estimate` is their mean with its interval.
    """

    recipe: str
    baseline: str = ""
    unit: ClassVar[str] = ""

    @property
    def recipes(self) -> tuple[str, ...]:
        return tuple(filter(None, (self.recipe, self.baseline)))

    def estimate(self) -> Estimate | None:
        return interval(self.values())


class Accuracy(Quantity):
    """Test accuracy, in per cent."""

    unit = "%"

    def values(self) -> list[float]:
        return percents(self.recipe)

    def dead(self) -> int:
        """How many of the runs end at chance."""
        return sum(map(records.at_chance, filter(records.tested, runs_of(self.recipe))))


class Difference(Quantity):
    """Test accuracy minus the baseline's, in points: seed by seed, or each run's minus the baseline's mean."""

    unit = "points"

    def values(self) -> list[float]:
        ours, theirs = by_seed(self.recipe), by_seed(self.baseline)
        shared = sorted(ours.keys() & theirs.keys())
        if len(shared) > 1:
            return [ours[seed] - theirs[seed] for seed in shared]
        return [one - fmean(theirs.values()) for one in ours.values()] if theirs else []

    def estimate(self) -> Estimate | None:
        ours, theirs = by_seed(self.recipe), by_seed(self.baseline)
        paired = len(ours.keys() & theirs.keys()) > 1
        return interval(self.values()) if paired else interval([*ours.values()], [*theirs.values()])


class SecondsRatio(Quantity):
    """Seconds of the median epoch over the baseline's, for each seed that one machine ran of both."""

    unit = "×"

    def values(self) -> list[float]:
        ours, theirs = (
            {(run["seed"], records.where(run)): median(run["history"]["seconds"]) for run in runs_of(name)}
            for name in self.recipes
        )
        return [ours[run] / theirs[run] for run in ours if run in theirs]


class WeightsRatio(Quantity):
    """Number of weights over the baseline's: exact, whatever the seeds."""

    unit = "×"

    def values(self) -> list[float]:
        ours, theirs = map(runs_of, self.recipes)
        return [ours[0]["parameters"] / theirs[0]["parameters"]] if ours and theirs else []

    def estimate(self) -> Estimate | None:
        return next((Estimate(ratio, ratio, ratio, 1) for ratio in self.values()), None)


class FirstEpoch(Quantity):
    """The first epoch, counted from 1, whose accuracy reaches 90 %; infinite if a run has none."""

    def values(self) -> list[float]:
        curves = [run["history"]["validation_accuracy"] for run in runs_of(self.recipe)]
        measured = [curve for curve in curves if None not in curve]
        reached = ([k for k, x in enumerate(curve, 1) if 100 * x >= 90] for curve in measured)
        return [float(min(epochs, default=math.inf)) for epochs in reached]


def suggestion(record: dict[str, Any], rule: str = "suggestion") -> float:
    """The learning rate that a recorded range test suggests by a rule of `RangeTest`, "suggestion" or "steepest"."""
    return getattr(RangeTest(record["history"]["learning_rate"], record["history"]["train_loss"]), rule)


@dataclass(frozen=True)
class SuggestedRate(Quantity):
    """The learning rate that a range test suggests; averaged as a power of ten."""

    rule: str = "suggestion"

    def values(self) -> list[float]:
        return [suggestion(run, self.rule) for run in runs_of(self.recipe)]

    def estimate(self) -> Estimate | None:
        if found := interval([math.log10(rate) for rate in self.values()]):
            return Estimate(*(10.0**power for power in (found.value, found.low, found.high)), found.n)
        return None


class Bench(Quantity):
    """A row of the speed table, by its first column; several values where the table has kept its "rounds"."""

    unit = "×"
    recipes = ()

    def values(self) -> list[float]:
        rows = {row["what"]: row.get("rounds", [row["value"]]) for row in bench_table().get("rows", [])}
        return rows.get(self.recipe, [])


@dataclass(frozen=True)
class Part:
    """One thing that a claim says: in words, the source's figure, and the range in which `quantity` then lies."""

    says: str
    quantity: Quantity
    low: float
    high: float
    figure: str = "no figure"

    @property
    def word(self) -> str:
        return judge(self.quantity.estimate(), self.low, self.high)
