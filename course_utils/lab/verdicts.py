"""The rule that confirms, qualifies or refutes a claim from recorded runs.

A claim has parts. Each part names a quantity (an accuracy, the difference between two recipes'
accuracies, a ratio of times, …) and the range in which that quantity lies if the claim holds. In words:

* **confirmed**: the whole 95 % interval of the quantity lies in the range;
* **refuted**: the whole interval lies outside the range, with no effect in the claimed direction, or
  with one less than half the way from none to the range;
* **qualified**: anything between: either the interval lies across an edge of the range, or it lies outside
  with an effect in the claimed direction, at least half the way to the range or beyond it;
* **not run yet**: a recipe that the part needs has no record.

Intervals are over seeds: Student's t for one recipe, Welch's for a difference, which lets the two
spread differently (B. L. Welch, Biometrika 34, 1947). One run has no interval. It is given an allowance
of half a point (or epoch) either side; or, if that is more, of the largest fall of its validation
accuracy from one of its last five epochs to the next, which shows by how much chance moves it. A
difference of two recipes gets both allowances. Where the other recipe has several seeds, the single run
is given their spread (Student's t with one spread for both), if that makes a wider interval. A verdict
that rests on a single run is provisional and says so. Times and other ratios are given a tenth. The
interval of range tests goes from the lowest rate that one suggests to the highest. A claim is confirmed
if all its parts are, refuted if all are, qualified otherwise, and not run yet while any part is.

Only records made by the recipe as it stands count: a recipe that was changed has to run again.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, geometric_mean, median, variance
from typing import Any, ClassVar, Protocol

from course_utils.lab import recipes, records
from course_utils.schedules import RangeTest

CONFIRMED, QUALIFIED, REFUTED, NOT_RUN = "confirmed", "qualified", "refuted", "not run yet"
CANNOT_TELL = "the interval is partly in the range"

# Two-sided 95 % quantiles of Student's t for 1 to 10 degrees of freedom. The normal's 1.96 would make
# the interval of three seeds half as wide as it is, and SciPy is much to install for ten numbers.
T_95 = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23)
SINGLE_RUN = "one run: no interval"  # what an estimate without seeds to compare says of itself
BORROWED = "one run, given the other recipe's spread"
ALLOWANCE = 0.5  # points either side at least, for each recipe, where there is but a single run
LAST_EPOCHS = 5  # whose unrest can make it more
RATIO_ALLOWANCE = 0.1  # of a ratio's value, either side


@dataclass(frozen=True)
class Estimate:
    """A measured value with its interval, and what it was measured on."""

    value: float
    low: float
    high: float
    basis: str
    provisional: bool = False  # whether a recipe in it has but a single run


class Quantity(Protocol):
    """Something that can be measured from records; `neutral` is its value where there is no effect, if any."""

    unit: ClassVar[str]
    neutral: ClassVar[float | None]

    @property
    def recipes(self) -> tuple[str, ...]: ...

    def estimate(self) -> Estimate | None: ...


def runs_of(name: str) -> list[dict[str, Any]]:
    """The records of the recipe `name` that it would still make, by seed."""
    recipe = recipes.get(name)
    return [record for record in records.of_recipe(name) if records.same_recipe(record, recipe)]


def percents(name: str) -> list[float]:
    """Test accuracies of the recipe's runs in per cent; empty if it was not run, or tests nothing."""
    accuracies = [record["test_accuracy"] for record in runs_of(name)]
    return [100 * accuracy for accuracy in accuracies if accuracy is not None]


def epoch_seconds(name: str) -> dict[str, float]:
    """For each machine the seconds of its runs' median epoch, in the mean: a pause in one epoch does not count."""
    return {
        where: fmean(median(record["history"]["seconds"]) for record in runs)
        for where, runs in records.by_machine(runs_of(name)).items()
    }


def unrest(name: str) -> float:
    """The largest fall of validation accuracy between two of a run's last epochs, in points, among all runs."""
    curves = [record["history"]["validation_accuracy"][-LAST_EPOCHS:] for record in runs_of(name)]
    falls = [100 * (a - b) for curve in curves for a, b in pairwise(curve) if a is not None and b is not None]
    return max(falls, default=0.0)


def accuracy_interval(*names: str) -> Estimate | None:
    """The test accuracy of a recipe in per cent, or the first's minus the second's in points."""
    return t_interval(*map(percents, names), allowances=[max(ALLOWANCE, unrest(name)) for name in names])


def t_interval(*samples: list[float], allowances: Sequence[float] = ()) -> Estimate | None:
    """The mean of one sample, or the first's mean minus the second's, with its 95 % interval.

    Where a sample has but one value, the interval goes as far either side as all `allowances` together
    (they are `ALLOWANCE` for each sample if not given), or as the other sample's spread asks for. Where all values
    of each sample are equal, as epochs are counted whole, the allowances take the place of a spread.
    """
    if not all(samples):
        return None
    value = fmean(samples[0]) - (fmean(samples[1]) if len(samples) > 1 else 0)
    allowed = sum(allowances or [ALLOWANCE] * len(samples))
    if min(map(len, samples)) == 1:
        borrowed = pooled_half(samples)
        half, basis = (borrowed, BORROWED) if borrowed > allowed else (allowed, SINGLE_RUN)
        return Estimate(value, value - half, value + half, basis, provisional=True)
    squares = [variance(sample) / len(sample) for sample in samples]
    half = allowed
    if any(squares):
        freedom = sum(squares) ** 2 / sum(
            s**2 / (len(sample) - 1) for s, sample in zip(squares, samples, strict=True)
        )
        # Rounded down, which widens the interval; the sum of squares may end in 1.9999.
        half = T_95[min(int(freedom + 1e-9), len(T_95)) - 1] * math.sqrt(sum(squares))
    return Estimate(value, value - half, value + half, " and ".join(f"{len(s)}" for s in samples) + " seeds")


def pooled_half(samples: Sequence[list[float]]) -> float:
    """Half the 95 % interval if all samples have the same spread; 0 where none has two values to show it."""
    freedom = sum(len(sample) - 1 for sample in samples)
    if not freedom:
        return 0.0
    pooled = sum((len(s) - 1) * variance(s) for s in samples if len(s) > 1) / freedom
    return T_95[min(freedom, len(T_95)) - 1] * math.sqrt(pooled * sum(1 / len(s) for s in samples))


@dataclass(frozen=True)
class Accuracy:
    """Test accuracy of a recipe, in per cent."""

    recipe: str
    unit: ClassVar[str] = "%"
    neutral: ClassVar[float | None] = None

    @property
    def recipes(self) -> tuple[str, ...]:
        return (self.recipe,)

    def estimate(self) -> Estimate | None:
        return accuracy_interval(self.recipe)


@dataclass(frozen=True)
class Comparison:
    """What the quantities that set a recipe against its baseline have in common."""

    recipe: str
    baseline: str

    @property
    def recipes(self) -> tuple[str, ...]:
        return (self.recipe, self.baseline)


@dataclass(frozen=True)
class Difference(Comparison):
    """Test accuracy of a recipe minus that of its baseline, in points."""

    unit: ClassVar[str] = "points"
    neutral: ClassVar[float | None] = 0.0

    def estimate(self) -> Estimate | None:
        return accuracy_interval(self.recipe, self.baseline)


@dataclass(frozen=True)
class SecondsRatio(Comparison):
    """Seconds an epoch of a recipe over those of its baseline, in the mean over the machines that ran both."""

    unit: ClassVar[str] = "×"
    neutral: ClassVar[float | None] = 1.0

    def estimate(self) -> Estimate | None:
        ours, theirs = epoch_seconds(self.recipe), epoch_seconds(self.baseline)
        ratios = [ours[where] / theirs[where] for where in ours if where in theirs]
        return ratio(fmean(ratios), "median epochs") if ratios else None


@dataclass(frozen=True)
class WeightsRatio(Comparison):
    """Number of weights of a recipe's network over that of its baseline's; exact."""

    unit: ClassVar[str] = "×"
    neutral: ClassVar[float | None] = 1.0

    def estimate(self) -> Estimate | None:
        ours, theirs = runs_of(self.recipe), runs_of(self.baseline)
        if not (ours and theirs):
            return None
        a, b = ours[0]["parameters"], theirs[0]["parameters"]
        return Estimate(a / b, a / b, a / b, f"{a:,} over {b:,} weights")


@dataclass(frozen=True)
class FirstEpoch:
    """The first epoch, counted from 1, whose accuracy reaches `percent`; infinite if a run has none."""

    recipe: str
    percent: float
    unit: ClassVar[str] = ""
    neutral: ClassVar[float | None] = None

    @property
    def recipes(self) -> tuple[str, ...]:
        return (self.recipe,)

    def estimate(self) -> Estimate | None:
        curves = [record["history"]["validation_accuracy"] for record in runs_of(self.recipe)]
        reached = [
            next((float(k) for k, value in enumerate(curve, 1) if 100 * value >= self.percent), math.inf)
            for curve in curves
        ]
        if math.inf in reached:
            single = len(reached) == 1
            basis = SINGLE_RUN if single else f"{len(reached)} seeds"
            return Estimate(math.inf, min(reached), math.inf, basis, provisional=single)
        return t_interval(reached)


def suggestion(record: dict[str, Any]) -> float:
    """The learning rate that the recorded range test suggests."""
    return RangeTest(record["history"]["learning_rate"], record["history"]["train_loss"]).suggestion


@dataclass(frozen=True)
class SuggestedRate:
    """The learning rate that a recorded range test suggests."""

    recipe: str
    unit: ClassVar[str] = ""
    neutral: ClassVar[float | None] = None

    @property
    def recipes(self) -> tuple[str, ...]:
        return (self.recipe,)

    def estimate(self) -> Estimate | None:
        rates = [suggestion(record) for record in runs_of(self.recipe)]
        single = len(rates) == 1
        basis = "1 run" if single else f"{len(rates)} runs"
        return Estimate(geometric_mean(rates), min(rates), max(rates), basis, single) if rates else None


@dataclass(frozen=True)
class Bench:
    """A row of the speed table, by its first column."""

    row: str
    unit: ClassVar[str] = "×"
    neutral: ClassVar[float | None] = 1.0

    @property
    def recipes(self) -> tuple[str, ...]:
        return ()

    def estimate(self) -> Estimate | None:
        rows = {row["what"]: row["value"] for row in bench_table().get("rows", [])}
        return ratio(rows[self.row], "speed table") if self.row in rows else None


def ratio(value: float, basis: str) -> Estimate:
    return Estimate(value, value * (1 - RATIO_ALLOWANCE), value * (1 + RATIO_ALLOWANCE), basis)


def bench_table() -> dict[str, Any]:
    """The recorded speed table with its machine and precision; empty if there is none."""
    path = records.RECORDED / "bench.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


@dataclass(frozen=True)
class Verdict:
    word: str
    reason: str


@dataclass(frozen=True)
class Part:
    """One thing that a claim says: in words, the source's figure, and the range in which `quantity` then lies."""

    says: str
    quantity: Quantity
    low: float
    high: float
    figure: str = "no figure"

    def judge(self) -> Verdict:
        return judge(self.quantity.estimate(), self.low, self.high, self.quantity.neutral)


def judge(found: Estimate | None, low: float, high: float, neutral: float | None) -> Verdict:
    """The verdict on one part: see the rule at the top of this module."""
    if found is None:
        return Verdict(NOT_RUN, "no record of what it needs")
    if low <= found.low and found.high <= high:
        return Verdict(CONFIRMED, "the whole interval is in the range")
    if low <= found.high and found.low <= high:
        return Verdict(QUALIFIED, CANNOT_TELL)
    if neutral is not None and half_as_large(found, low, high, neutral):
        return Verdict(QUALIFIED, "the direction is right, the size is not")
    return Verdict(REFUTED, "the whole interval is outside the range")


def half_as_large(found: Estimate, low: float, high: float, neutral: float) -> bool:
    """Whether the effect has the range's direction, and at least half the way from `neutral` to the range."""
    if low >= neutral:
        return found.low > neutral and found.value >= (neutral + low) / 2
    return high <= neutral and found.high < neutral and found.value <= (neutral + high) / 2


def together(words: list[str]) -> str:
    """The verdict on a claim from those on its parts."""
    if NOT_RUN in words:
        return NOT_RUN
    return words[0] if len(set(words)) == 1 else QUALIFIED
