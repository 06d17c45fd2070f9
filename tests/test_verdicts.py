"""The rule behind the verdicts on made-up records, and the table of claims that it is applied to."""

import json
from math import inf

import pytest
from made_up import record, write

from course_utils.lab import records, verdicts
from course_utils.lab.claims import CLAIMS, Claim
from course_utils.lab.verdicts import FAILS, HOLDS, NOT_RUN, UNDECIDED, Difference, Estimate, Part
from course_utils.schedules import RangeTest

WITH, WITHOUT = "smallnet-source", "smallnet-no-dropout"
GAIN = Difference(WITH, WITHOUT)


pytestmark = pytest.mark.usefixtures("empty")


# ---- the rule ----


def test_a_verdict_is_where_the_interval_lies():
    for word, ranges in {
        HOLDS: [(1, 3), (2, 2.5), (-inf, 3)],  # an edge belongs to the range
        UNDECIDED: [(2.1, 5), (-1, 2.4), (2.2, 2.3)],
        FAILS: [(2.6, inf), (-1, 1.9)],
    }.items():
        for low, high in ranges:
            assert verdicts.judge(Estimate(2.25, 2.0, 2.5, 3), low, high) == word, (low, high)


def test_intervals_are_those_of_student_and_welch():
    """Against the tables: 4.303 is Student's 97.5 % quantile for two degrees of freedom, and 2.776 for four."""
    one = verdicts.interval([50.0, 51.0, 52.0])
    assert (one.value, one.n) == (51, 3)
    assert one.high - one.value == pytest.approx(4.303 / 3**0.5, rel=1e-3)
    two = verdicts.interval([50.0, 51.0, 52.0], [40.0, 41.0, 42.0])
    assert two.value - two.low == pytest.approx(2.776 * (2 / 3) ** 0.5, rel=1e-3)
    uneven = verdicts.interval([50.0, 51.0, 52.0], [40.0] * 3)  # two degrees: all spread is on one side
    assert uneven.high - uneven.value == pytest.approx(4.303 / 3**0.5, rel=1e-3)


def test_seeds_that_agree_to_the_last_digit_are_undecided_as_one_seed_is():
    assert verdicts.interval([22.0, 22.0]) == Estimate(22, -inf, inf, 2)
    assert verdicts.interval([22.0, 22.0], [20.0]) == Estimate(2, -inf, inf, 1)
    write(WITH, 50.0, 50.13)
    write(WITHOUT, 48.3, 48.43)
    assert len(set(GAIN.values())) == 2, "1.7 twice, but for the rounding of floats"
    assert Part("", GAIN, 1, 3).word == UNDECIDED
    assert verdicts.interval([inf, inf]) == Estimate(inf, inf, inf, 2), (
        "an epoch that no run comes to is certain"
    )
    assert verdicts.interval([22.0, inf]) == Estimate(inf, -inf, inf, 2)


def test_one_seed_is_undecided_whatever_it_says():
    write(WITH, 99.0)
    write(WITHOUT, 1.0, 1.1, 1.2)
    found = GAIN.estimate()
    assert (found.low, found.high, found.n) == (-inf, inf, 1)
    assert Part("", GAIN, 1, inf).word == UNDECIDED
    assert GAIN.values() == [pytest.approx(97.9)], "the dot is there all the same"


def test_seeds_that_both_have_are_compared_with_each_other():
    write(WITH, 50.0, 52.0, 54.0)
    write(WITHOUT, 49.0, 51.0, 52.9, 10.0)
    assert GAIN.values() == pytest.approx([1, 1, 1.1])
    assert Part("", GAIN, 0.8, 1.3).word == HOLDS, "seeds differ by more than the recipes do"
    write("smallnet-gelu", 50.0, 52.0, 54.0, first_seed=3)
    other = Difference("smallnet-gelu", WITH)
    assert other.values() == [-2, 0, 2]
    assert other.estimate() == verdicts.interval([50.0, 52.0, 54.0], [50.0, 52.0, 54.0])
    assert Part("", other, -1.3, 1.3).word == UNDECIDED


def test_what_was_not_run_is_not_judged():
    assert Part("", GAIN, 1, 3).word == NOT_RUN
    write(WITH, 52.0, 52.1)
    assert Part("", GAIN, 1, 3).word == NOT_RUN
    write(WITHOUT, 50.0, 50.1, epochs=3)
    assert Part("", GAIN, 1, 3).word == NOT_RUN, "another recipe made these"
    assert GAIN.values() == []


def test_a_claim_says_how_many_parts_have_which_verdict():
    assert [verdicts.tally([word] * 2) for word in (HOLDS, FAILS, NOT_RUN)] == [HOLDS, FAILS, NOT_RUN]
    found = verdicts.tally([FAILS, HOLDS, UNDECIDED, HOLDS, NOT_RUN])
    assert found == "2 hold, 1 does not hold, 1 undecided, 1 not run yet"
    assert verdicts.tally([FAILS, FAILS, HOLDS]) == "1 holds, 2 do not hold"


# ---- quantities ----


def test_runs_at_chance_are_counted():
    write("smallnet-start", 5.16, 1.0, 1.5, 1.51)
    assert verdicts.Accuracy("smallnet-start").dead() == 2
    write("resnet-8", 10.0, 16.0)
    assert verdicts.Accuracy("resnet-8").dead() == 1


def test_times_are_compared_on_one_machine_and_without_pauses():
    ratio = verdicts.SecondsRatio("smallnet-wide", "smallnet-deep")
    faster = {"device": "cpu", "name": "another", "threads": 2}
    write("smallnet-wide", 48.0, 48.0, seconds=12.0)
    write("smallnet-deep", 42.0, 42.0, seconds=5.0, machine=faster)
    assert ratio.estimate() is None
    write("smallnet-deep", 42.0, 42.0, seconds=10.0)
    assert ratio.values() == [1.2, 1.2], "the median epoch: the first took a thousand seconds"
    record_of = record("smallnet-deep", 1, 42.0, seconds=10.0)
    records.write(record_of | {"resumed_from": [faster]}, records.path_of("smallnet-deep", 1))
    assert ratio.values() == [1.2], "partly run on another machine"
    write("smallnet-wide", 48.0, parameters=3)
    write("smallnet-deep", 42.0, parameters=2)
    part = Part("", verdicts.WeightsRatio("smallnet-wide", "smallnet-deep"), 1.5, 2)
    assert part.word == HOLDS, "a number of weights is exact"


def test_an_epoch_that_is_never_reached_is_beyond_all():
    first = verdicts.FirstEpoch("resnet-assignment")
    write("resnet-assignment", 91.0, 91.0, curve=[0.5, 0.89, 0.9, 0.91])
    assert first.values() == [3, 3]
    assert Part("", first, 1, 3).word == UNDECIDED, "two that agree show no spread"
    write("resnet-assignment", 91.0, first_seed=2, curve=[0.5, 0.95])
    assert Part("", first, 0, 5).word == HOLDS
    write("resnet-assignment", 91.0, curve=[0.5, 0.6])
    assert first.values() == [inf, 3, 2]
    assert Part("", first, 1, 3).word == UNDECIDED
    write("resnet-assignment", 91.0, 91.0, 91.0, curve=[0.5, 0.6])
    assert Part("", first, 1, 3).word == FAILS
    write("resnet-assignment", 91.0, 91.0, 91.0, curve=[None] * 4)
    assert first.values() == [] and Part("", first, 1, 3).word == NOT_RUN, "nothing was validated"


def test_suggested_rates_are_averaged_as_powers_of_ten():
    losses = [9.0] * 12 + [8.0, 4.0, 1.0, 4.0, 50.0, 99.0, 99.0, 99.0]
    rates = [10.0 ** (k - 16) for k in range(20)]
    for seed, shift in enumerate((1, 100)):
        history = {"learning_rate": [shift * rate for rate in rates], "train_loss": losses}
        write("resnet-lr-range", 0.0, first_seed=seed, history=history, test_accuracy=None)
    found = verdicts.SuggestedRate("resnet-lr-range")
    assert found.values() == pytest.approx([1e-3, 1e-1])
    assert found.estimate().value == pytest.approx(1e-2)
    assert found.estimate().low < 1e-3 < 1e-1 < found.estimate().high
    steepest = verdicts.SuggestedRate("resnet-lr-range", rule="steepest").values()[0]
    assert steepest == RangeTest(rates, losses).steepest != found.values()[0]


def test_a_row_of_the_speed_table_is_one_measurement_unless_it_kept_its_rounds(empty):
    row = CLAIMS["S16"].parts[0].quantity
    assert row.estimate() is None
    entry = {"what": row.recipe, "bound": "", "value": 1.0}
    (empty / "bench.json").write_text(json.dumps({"rows": [entry]}))
    assert CLAIMS["S16"].verdict() == UNDECIDED
    (empty / "bench.json").write_text(json.dumps({"rows": [entry | {"rounds": [1.0, 1.01, 0.99]}]}))
    assert CLAIMS["S16"].verdict() == FAILS


# ---- the claims ----


def test_every_claim_is_there():
    assert {*(f"S{k}" for k in range(1, 19)), "R1", "R2", "R3"} <= CLAIMS.keys()
    assert sum(len(claim.parts) for claim in CLAIMS.values()) >= 55


def test_a_claim_has_parts_and_each_a_range():
    with pytest.raises(ValueError, match="S99: a claim has at least one part"):
        Claim("S99", "intro", "Nothing.")
    with pytest.raises(ValueError, match="S99: expected a range from low to high, found 8 to 4"):
        Claim("S99", "intro", "Upside down.", Part("it", verdicts.Accuracy("smallnet-source"), 8, 4))


@pytest.mark.parametrize("claim", CLAIMS.values(), ids=CLAIMS)
def test_claims_name_recipes_and_ranges(claim):
    assert all(part.low < part.high for part in claim.parts)
    assert claim.verdict() == NOT_RUN
