"""The rule behind the verdicts on made-up records, the table of claims, and the pages that discuss them."""

import json
import re
from math import inf, isclose
from pathlib import Path

import pytest
import yaml
from matplotlib.figure import Figure

from course_utils.lab import claims, evidence, records, verdicts
from course_utils.lab.claims import CLAIMS
from course_utils.lab.recipes import RECIPES
from course_utils.lab.verdicts import CONFIRMED, NOT_RUN, QUALIFIED, REFUTED, Difference, Part, t_interval

BOOK = Path(__file__).resolve().parent.parent / "book"
WITH, WITHOUT = "smallnet-source", "smallnet-no-dropout"


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write made-up records of a recipe, one for each accuracy (in %), into an empty folder."""
    monkeypatch.setattr(records, "RECORDED", tmp_path)

    def write(name: str, *percents: float, curve=(), seconds=10.0, first_seed=0, machine=None, **changes):
        length = len(curve) or 3
        for seed, percent in enumerate(percents, first_seed):
            record = {
                "schema": records.SCHEMA,
                "recipe": RECIPES[name].plain() | changes,
                "seed": seed,
                "data": {},
                "date": "2026-01-01",
                "machine": machine or {"device": "cpu", "name": "a <processor>", "threads": 2},
                "precision": "bfloat16",
                "parameters": 996_376,
                "history": {
                    "validation_accuracy": list(curve) or [0.1, 0.2, percent / 100],
                    "train_loss": [3.0] * length,
                    "learning_rate": [0.1] * length,
                    "seconds": [1000.0] + [seconds] * (length - 1),  # a pause in the first epoch
                },
                "seconds": 1.0,
                "validation_accuracy": None,
                "test_accuracy": percent / 100,
                "weights": None,
            }
            records.write(record, records.path_of(name, seed))

    return write


def difference(low: float, high: float) -> Part:
    return Part("with against without", Difference(WITH, WITHOUT), low, high)


def test_intervals_are_those_of_student_and_welch():
    # Checked against scipy.stats.ttest_1samp and ttest_ind(equal_var=False), 95 % intervals.
    one = t_interval([50.0, 51.0, 52.0])
    assert isclose(one.low, 48.516, abs_tol=0.02)
    assert isclose(one.high, 53.484, abs_tol=0.02)
    two = t_interval([50.0, 51.0, 52.0], [40.0, 41.0, 42.0])
    assert isclose(two.low, 10 - 2.776 * (2 / 3) ** 0.5, abs_tol=0.01)


def test_equal_values_are_given_an_allowance():
    """Two runs that first pass a bar in the same epoch do not show that all runs do."""
    same_epoch = t_interval([22.0, 22.0])
    assert (same_epoch.low, same_epoch.high, same_epoch.provisional) == (21.5, 22.5, False)
    assert t_interval([22.0, 22.0], [20.0, 20.0], allowances=[0.5, 1.0]).low == 0.5


def test_freedom_is_rounded_down():
    """Three seeds that scatter against three that do not: two degrees of freedom, not four."""
    wide = t_interval([50.0, 51.0, 52.0], [40.0, 40.0, 40.0])
    assert isclose(wide.high - wide.value, 4.30 / 3**0.5, abs_tol=0.01)


def test_confirmed_where_the_whole_interval_is_in_the_range(write):
    write(WITH, 52.0, 52.1, 52.2)
    write(WITHOUT, 50.0, 50.1, 50.2)
    assert difference(1, 3).judge().word == CONFIRMED
    assert difference(1, inf).judge().word == CONFIRMED


def test_qualified_where_the_interval_crosses_an_edge(write):
    write(WITH, 52.0, 52.1, 52.2)
    write(WITHOUT, 50.0, 50.1, 50.2)
    assert difference(2, 5).judge().word == QUALIFIED
    assert difference(-1, 2).judge().word == QUALIFIED


def test_qualified_where_the_direction_is_right_and_the_size_is_not(write):
    write(WITH, 52.0, 52.1, 52.2)
    write(WITHOUT, 50.0, 50.1, 50.2)
    assert difference(3, 9).judge().word == QUALIFIED
    assert difference(0.1, 1).judge().word == QUALIFIED  # more than was claimed
    assert "direction" in difference(3, 9).judge().reason


def test_less_than_half_of_what_was_claimed_does_not_count(write):
    write(WITH, 52.0, 52.1, 52.2)
    write(WITHOUT, 50.0, 50.1, 50.2)
    assert difference(3.9, 9).judge().word == QUALIFIED  # two points, where four are claimed
    assert difference(4.1, 9).judge().word == REFUTED


def test_negative_effects_are_judged_alike(write):
    write(WITH, 50.0, 50.1, 50.2)
    write(WITHOUT, 52.0, 52.1, 52.2)
    assert difference(-3, -1).judge().word == CONFIRMED
    assert difference(-9, -3.9).judge().word == QUALIFIED
    assert difference(-9, -4.1).judge().word == REFUTED


def test_refuted_where_the_whole_interval_is_elsewhere(write):
    write(WITH, 50.0, 50.1, 50.2)
    write(WITHOUT, 52.0, 52.1, 52.2)
    assert difference(1, inf).judge().word == REFUTED
    assert difference(-1, 1).judge().word == REFUTED  # "makes no difference"


def test_an_effect_that_may_be_none_shows_no_direction(write):
    write(WITH, 50.1, 50.2, 50.3)
    write(WITHOUT, 50.0, 50.2, 50.4)
    assert difference(1, inf).judge().word == REFUTED


def test_accuracies_have_no_direction(write):
    write("smallnet-start", 30.0, 30.1, 30.2)
    assert CLAIMS["S1"].verdict() == REFUTED


def test_one_run_has_no_interval(write):
    write(WITH, 52.0)
    write(WITHOUT, 50.2, 50.25, 50.3)
    found = difference(1, 3).quantity.estimate()
    assert "one run: no interval" in found.basis
    assert (found.low, found.high) == (found.value - 1, found.value + 1)
    assert "no interval" in evidence.measured(difference(1, 3))
    assert " to " not in evidence.measured(difference(1, 3))


def test_a_single_run_is_given_the_spread_of_the_seeds_beside_it(write):
    write(WITH, 52.0)
    write(WITHOUT, 49.5, 50.0, 50.5)
    found = difference(1, 3).quantity.estimate()
    assert isclose(found.high - found.value, 4.30 * (0.25 * (1 + 1 / 3)) ** 0.5)  # two degrees of freedom
    assert found.provisional
    assert "4.5" in evidence.measured(difference(1, 3))
    assert difference(1, 3).judge().word == QUALIFIED, "without the spread, two points are confirmed"


def test_a_single_run_that_jumps_is_given_more(write):
    write(WITH, 52.0, curve=[0.1, 0.9, 0.50, 0.47, 0.52, 0.51, 0.52])
    write(WITHOUT, 50.0)
    found = difference(1, 3).quantity.estimate()
    # its largest fall among the last five epochs, three points; the earlier, larger one does not count
    assert isclose(found.high - found.value, 3 + 0.5)
    write(WITH, 52.0, 52.1)
    write(WITHOUT, 50.0, 50.1)
    found = difference(1, 3).quantity.estimate()
    assert found.high - found.value < 1, "several seeds speak for themselves"


def test_not_run_until_both_sides_are(write):
    assert difference(1, 3).judge().word == NOT_RUN
    write(WITH, 52.0, 52.1)
    assert difference(1, 3).judge().word == NOT_RUN


def test_a_record_of_a_recipe_that_has_changed_does_not_count(write):
    write(WITH, 52.0, 52.1, epochs=3)
    assert verdicts.percents(WITH) == []
    assert evidence.accuracy(WITH) == NOT_RUN


@pytest.mark.parametrize(
    ("parts", "claim"),
    [
        ([CONFIRMED, CONFIRMED], CONFIRMED),
        ([REFUTED, REFUTED], REFUTED),
        ([CONFIRMED, REFUTED], QUALIFIED),
        ([CONFIRMED, QUALIFIED], QUALIFIED),
        ([CONFIRMED, NOT_RUN], NOT_RUN),
    ],
)
def test_a_claim_takes_its_verdict_from_its_parts(parts, claim):
    assert verdicts.together(parts) == claim


def test_a_pause_does_not_count_as_training_time(write):
    write("smallnet-wide", 48.0, curve=[0.1] * 10, seconds=12.0)
    write("smallnet-deep", 42.0, seconds=10.0)
    part = CLAIMS["S4"].parts[-1]
    assert isclose(part.quantity.estimate().value, 1.2)
    assert evidence.minutes("smallnet-wide") == "2.0 min"  # 10 epochs of 12 seconds


def test_times_are_compared_on_one_machine(write):
    faster = {"device": "cpu", "name": "another <processor>", "threads": 2}
    write("smallnet-wide", 48.0, seconds=12.0)
    write("smallnet-deep", 42.0, seconds=5.0, machine=faster)
    assert CLAIMS["S4"].parts[-1].quantity.estimate() is None
    write("smallnet-deep", 42.0, seconds=10.0, first_seed=1)
    assert isclose(CLAIMS["S4"].parts[-1].quantity.estimate().value, 1.2)


def test_first_epoch_at_the_bar(write):
    write("resnet-assignment", 91.0, curve=[0.5, 0.89, 0.9, 0.91])
    assert CLAIMS["R1"].parts[1].quantity.estimate().value == 3
    write("resnet-assignment", 91.0, curve=[0.5, 0.6])
    assert evidence.measured(CLAIMS["R1"].parts[1]) == f"never ({verdicts.SINGLE_RUN})"
    assert CLAIMS["R1"].parts[1].judge().word == REFUTED
    write("resnet-assignment", 91.0, curve=[0.5, 0.9], first_seed=1)
    assert evidence.value(CLAIMS["R1"].parts[1]) == "not in every run, first at 2"


def test_ratios_come_from_the_speed_table(write, tmp_path):
    assert CLAIMS["S16"].verdict() == NOT_RUN
    table = {
        "machine": {"device": "cpu", "name": "x", "threads": 2, "torch": "2"},
        "precision": "bfloat16",
        "rows": [{"what": "loss passed in over hard-coded", "bound": "", "value": 1.0}],
    }
    (tmp_path / "bench.json").write_text(json.dumps(table))
    assert CLAIMS["S16"].verdict() == REFUTED
    assert "1.00" in evidence.bench()


def test_bench_rows_are_rows_of_the_speed_table():
    source = (Path(claims.__file__).parent / "bench.py").read_text(encoding="utf-8")
    rows = [
        p.quantity.row for c in CLAIMS.values() for p in c.parts if isinstance(p.quantity, verdicts.Bench)
    ]
    assert len(rows) == 2
    assert all(f'"{row}"' in source for row in rows)


# ---- the table ----


def test_every_claim_is_there():
    assert list(CLAIMS) == [f"S{k}" for k in range(1, 19)] + ["R1", "R2", "R3"]


@pytest.mark.parametrize("claim", CLAIMS.values(), ids=CLAIMS)
def test_claims_name_recipes_and_a_page_that_shows_them(claim):
    assert set(claim.recipes) <= set(RECIPES)
    assert all(part.low < part.high for part in claim.parts)
    assert not claim.untested or claim.untested[0].islower() or claim.untested.startswith("SGD")
    page = (BOOK / f"{claim.page}.md").read_text(encoding="utf-8")
    shown = re.findall(r'"([SR]\d+)"', "".join(re.findall(r"evidence\.claim\((.*?)\)", page)))
    assert claim.id in shown


def test_every_recipe_is_shown_somewhere():
    pages = "".join(path.read_text(encoding="utf-8") for path in BOOK.rglob("*.md"))
    judged = {name for claim in CLAIMS.values() for name in claim.recipes}
    assert [name for name in RECIPES if name not in judged and f'"{name}"' not in pages] == [], (
        "no page says what came of it: name it there in a call of `evidence`"
    )


# ---- what pages show ----


@pytest.fixture
def all_recorded(write):
    for name, recipe in RECIPES.items():
        if recipe.epochs:
            write(name, 50.0, 51.0, 52.0)


def test_everything_is_shown_without_records(write):
    assert evidence.ledger().count("not run yet") >= len(CLAIMS)
    assert evidence.accuracy(WITH) == NOT_RUN
    assert isinstance(evidence.accuracies({"a": WITH}), Figure)
    assert NOT_RUN in evidence.curves({"a": WITH})
    for data in ("cifar10", "cifar100"):
        assert NOT_RUN in evidence.leaderboard(data)
    assert isinstance(evidence.landscape("cifar100"), Figure)
    assert isinstance(evidence.pace("cifar10"), Figure)
    assert isinstance(evidence.against_published({"here": "resnet-assignment"}), Figure)
    assert isinstance(evidence.headlines(), Figure)
    assert NOT_RUN in evidence.range_test("resnet-lr-range")
    assert NOT_RUN in evidence.bench()


def test_everything_is_shown_with_records(all_recorded):
    assert evidence.accuracy(WITH) == "51.00 ± 1.00\u00a0% (3 seeds)"
    assert isinstance(evidence.curves({"a": WITH, "b": "smallnet-wide"}), Figure)
    assert isinstance(evidence.accuracies({"a": WITH}, mark=("the source", 50.48)), Figure)
    assert isinstance(evidence.landscape("cifar100"), Figure)
    assert isinstance(evidence.pace("cifar10"), Figure)
    assert isinstance(evidence.against_published({"here": "resnet-assignment"}), Figure)
    assert isinstance(evidence.headlines(), Figure)
    board = evidence.leaderboard("cifar100")
    assert "51.00 ± 1.00\u00a0%" in board
    assert board.count("Machine 1: a &lt;processor&gt;, 2 threads, bfloat16") == 1
    assert "machine 1, 2026-01-01" in board
    assert "smallnet-augmented" in board  # every recorded run is on the board, not headlines alone


def test_beside_the_published_curve_each_run_is_drawn_behind_its_mean(write):
    write("resnet-assignment", 89.0, curve=[0.5, 0.6])
    write("resnet-assignment", 90.0, first_seed=1, curve=[0.7, 0.8])
    lines = evidence.against_published({"here": "resnet-assignment"}).axes[0].lines
    drawn = {tuple(round(float(y), 6) for y in line.get_ydata()): line.get_linewidth() for line in lines}
    assert drawn[50, 60] == drawn[70, 80] < drawn[60, 70]


def test_a_strangers_run_shows_its_own_hardware_and_time(write):
    write(WITH, 50.0, seconds=60.0, curve=[0.1] * 10)
    gpu = {"device": "cuda", "name": "Somebody's <card>", "threads": 8}
    write(WITH, 52.0, seconds=6.0, curve=[0.1] * 10, first_seed=1, machine=gpu)
    board = evidence.leaderboard("cifar100")
    assert "51.00 ± 1.41\u00a0% (2 seeds)" in board
    assert "25 epochs, 10.0 and 1.0 min" in board
    assert "those of two computers" in evidence.runs({"with": WITH})
    assert "computers" not in evidence.runs({"none": "smallnet-gelu"})
    assert "machine 1, 2026-01-01<br>machine 2, 2026-01-01" in board
    assert "Machine 2: Somebody&#x27;s &lt;card&gt;, cuda, bfloat16" in board


def test_a_single_seed_is_marked_on_the_board(write):
    write(WITH, 50.0)
    assert "50.00\u00a0% (1 seed)" in evidence.leaderboard("cifar100")


def test_the_board_keeps_the_budget(write):
    write("transfer-resnet", 70.0)
    write(WITHOUT, 50.0)
    assert "transfer-resnet" not in evidence.leaderboard("cifar100"), "trained on other pictures before"
    assert f"<code>{WITHOUT}</code>" in evidence.leaderboard("cifar100")
    path = records.path_of(WITHOUT, 0)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"parameters": 1_000_001}))
    assert f"<code>{WITHOUT}</code>" not in evidence.leaderboard("cifar100")


def test_a_verdict_from_single_runs_is_provisional(write):
    write("smallnet-start", 30.0)
    assert CLAIMS["S1"].headline() == "refuted, provisionally: not all runs have a second seed"
    assert "S1: refuted, provisionally" in evidence.ledger()
    assert "Claim S1: refuted, provisionally" in evidence.claim("S1")
    write("smallnet-start", 30.0, 30.1)
    assert CLAIMS["S1"].headline() == "refuted"


def test_the_tally_says_for_how_many_parts_the_runs_cannot_tell(write):
    write("smallnet-start", 4.0, 6.0)
    assert (
        "<tr><td>qualified</td><td>1</td><td>1 (1 because the runs cannot tell)</td></tr>" in evidence.tally()
    )
    write("smallnet-start", 30.0, 30.1)
    assert "<tr><td>refuted</td><td>1</td><td>1</td></tr>" in evidence.tally()


def test_some_recorded(write):
    write(WITH, 50.0)
    assert evidence.accuracy(WITH) == "50.00\u00a0% (1 seed)"
    figure = evidence.curves({"a": WITH, "the other": WITHOUT})
    assert "not run yet: the other" in figure.get_suptitle()


def test_seeds_are_thin_lines_behind_their_mean(write):
    write(WITH, 50.0, 52.0)
    write(WITHOUT, 40.0)
    lines = evidence.curves({"a": WITH, "b": WITHOUT}).axes[0].lines
    last = {(line.get_ydata()[-1], line.get_linewidth() < 1) for line in lines if len(line.get_ydata()) == 3}
    assert last == {(51.0, False), (50.0, True), (52.0, True), (40.0, False)}


def test_runs_that_hold_nothing_out_have_no_validation_curve(write):
    write(WITH, 50.0)
    write("resnet-fast", 90.0, curve=[None, None])
    (line,) = evidence.curves({"with": WITH, "all images": "resnet-fast"}).axes[0].lines
    assert line.get_label() == "with"
    assert NOT_RUN in evidence.curves({"all images": "resnet-fast"})


def test_a_range_test_is_read_as_the_course_reads_it(write):
    rates = [10.0**k for k in range(-7, 1)]
    write("resnet-lr-range", 0.0, curve=[0.1] * 8)
    path = records.path_of("resnet-lr-range", 0)
    record = json.loads(path.read_text())
    record["test_accuracy"] = None
    record["history"] = {"learning_rate": rates, "train_loss": [9, 8, 7, 4, 1, 4, 50, 99]}
    path.write_text(json.dumps(record))
    assert isclose(CLAIMS["R2"].parts[0].quantity.estimate().value, 1e-4)
    assert CLAIMS["R2"].verdict() == CONFIRMED
    assert isinstance(evidence.range_test("resnet-lr-range"), Figure)


def test_a_small_difference_is_not_drawn_large(write):
    write("smallnet-start", 50.0)
    write("smallnet-wide", 50.5)
    shown = {"one": "smallnet-start", "other": "smallnet-wide"}
    low, high = evidence.accuracies(shown).axes[0].get_xlim()
    assert high - low == pytest.approx(evidence.LEAST_SPAN)
    assert (low + high) / 2 == pytest.approx(50.25)
    low, high = evidence.accuracies(shown, mark=("far", 90.0)).axes[0].get_xlim()
    assert 40 < high - low < 60


def test_a_loss_has_a_minus_and_no_hyphen():
    assert evidence.number(-1.74, "points") == "\u22121.7"
    assert evidence.number(1.74, "points") == "+1.7"
    assert evidence.number(3.2e-4, "") == "0.00032"


def test_a_box_is_short_and_folds_its_reasons_away(write):
    write("smallnet-start", 4.0, 4.2)
    shown, folded = evidence.claim("S1").split("<details>")
    assert "(source: 4\u00a0%; here: 4.1\u00a0%" in shown and "<strong>confirmed</strong>" in shown
    assert "<table" not in shown and "holds at 2 to 6 %" in folded


def test_links_of_boxes_and_ledger_lead_somewhere():
    ledger = evidence.ledger()
    for one in CLAIMS.values():
        assert f'id="{one.id.lower()}"' in ledger
        assert f'href="../claims.html#{one.id.lower()}"' in evidence.claim(one.id)
    for address in re.findall(r'href="([^"]+)\.html"', ledger):
        assert (BOOK / f"{address}.md").exists(), address


# ---- prose ----


def prose(path: Path) -> str:
    """A page without its front matter and its code."""
    text = re.sub(r"\A---\n.*?\n---\n", "", path.read_text(encoding="utf-8"), flags=re.S)
    return re.sub(r"^(`{3,}).*?^\1", "", text, flags=re.S | re.M)


PAGES = sorted(BOOK.rglob("*.md"))


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_pages_leave_verdicts_to_the_rule(path):
    text = prose(path)
    assert "TODO" not in text
    if path.name != "claims.md":  # which explains the rule, and so names its verdicts
        assert not re.findall(r"\b(?:confirm|refut|qualif)\w*", text, flags=re.I)


@pytest.mark.parametrize(
    "path", [p for p in PAGES if p.parent.name.startswith("session")], ids=lambda p: p.stem
)
def test_discussion_pages_ask_show_and_close(path):
    text = path.read_text(encoding="utf-8")
    if "file_format: mystnb" not in text:
        return
    assert re.search(r"^# .+\n\n\*[^*]+\?\*$", text, flags=re.M), "opens with what it answers"
    assert "```{code-cell}" in text
    assert "## To take away" in text


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_figures_have_alt_text_and_code_is_hidden(path):
    for options, code in re.findall(
        r"```\{code-cell\} ipython3\n---\n(.*?)---\n(.*?)```", path.read_text(encoding="utf-8"), flags=re.S
    ):
        settings = yaml.safe_load(options)
        assert settings["tags"] == ["hide-input"]
        assert all(len(line) <= 80 for line in code.splitlines()), code
        drawn = "accuracies|curves|landscape|pace|headlines|against_published|range_test"
        figures = rf"evidence\.(?:{drawn})\(|diagrams\.\w+\(\)|plots\."
        if re.search(figures, code):
            assert len(settings["mystnb"]["image"]["alt"]) > 40
