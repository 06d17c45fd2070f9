"""Tables and verdict boxes: what they say with records, with some and with none, and that no record becomes markup."""

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from made_up import write

from course_utils.lab import records, tables
from course_utils.lab.claims import CLAIMS
from course_utils.lab.verdicts import FAILS, HOLDS, NOT_RUN, UNDECIDED

BOOK = Path(__file__).resolve().parent.parent / "book"
SOURCE, BEST = "smallnet-source", "smallnet-best"
NBSP = "\u00a0"


SHOWN = {
    "ledger": tables.ledger,
    "tally": tables.tally,
    "claim": lambda: tables.claim(*CLAIMS),
    "runs": lambda: tables.runs({"with": SOURCE}),
    "leaderboard": lambda: tables.leaderboard("cifar100") + tables.leaderboard("cifar10"),
    "bench": tables.bench,
    "networks": lambda: tables.networks({"a run": SOURCE}, *tables.COLUMNS),
    "why dead": lambda: tables.why_dead(SOURCE),
}


@pytest.mark.parametrize("show", [show for show in SHOWN.values() if show != tables.tally])  # has such a row
def test_what_was_not_run_says_so(show, empty):
    assert NOT_RUN in show()


@pytest.mark.parametrize("show", SHOWN.values(), ids=SHOWN)
def test_what_was_run_is_shown_and_every_tag_is_closed(show):
    shown = show()
    ElementTree.fromstring(f"<div>{shown}</div>")
    # Claim S18 has a part that nobody ran.
    assert NOT_RUN not in shown or show in map(SHOWN.get, ("ledger", "tally", "claim"))


MARKUP = "<img src=x onerror=alert(1)> \" '"


def poisoned(value: object) -> object:
    """`value` with markup in every text of it, but for what a file is checked by."""
    if isinstance(value, dict):
        kept = ("recipe", "device", "data", "weights", "confusion", "superclasses", "filters", "maps", "what")
        return {key: one if key in kept else poisoned(one) for key, one in value.items()}
    if isinstance(value, list):
        return [poisoned(one) for one in value]
    return MARKUP if isinstance(value, str) else value


@pytest.mark.parametrize("show", SHOWN.values(), ids=SHOWN)
def test_markup_in_a_file_is_shown_as_text(show, tmp_path, monkeypatch):
    names = [f"{name}/{kind}seed0.json" for name in (SOURCE, "resnet-fast") for kind in ("", "examined-")]
    for name in (*names, "bench.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        spoiled = poisoned(json.loads((records.RECORDED / name).read_text(encoding="utf-8")))
        for entry in {"why", "units", "dead"} & spoiled.keys():  # whose keys are shown as well
            named = spoiled[entry].items()
            spoiled[entry] = {key if key == "dense layer" else MARKUP + key: one for key, one in named}
        (tmp_path / name).write_text(json.dumps(spoiled), encoding="utf-8")
    monkeypatch.setattr(records, "RECORDED", tmp_path)
    assert "<img" not in show()
    assert "&lt;img" in show() or show in map(SHOWN.get, ("ledger", "tally", "claim", "runs"))


def test_a_cell_is_escaped_unless_it_is_html():
    cells = ("<b>", tables.tag("b", "a & b", class_='"'), ("one", "two"))
    expected = '<tr><td>&lt;b&gt;</td><td><b class="&quot;">a &amp; b</b></td><td>one<br/>two</td></tr>'
    assert tables.row(*cells) == expected


# ---- verdicts ----


def test_a_part_shows_its_runs_beside_the_claimed_range(empty):
    write("smallnet-start", 4.0, 4.1, 4.2)
    shown, folded = tables.claim("S1").split("<details>")
    assert f"4{NBSP}%<br/><small>2 to 6{NBSP}%</small>" in shown
    assert 'role="img" aria-label="measured: 4, 4.1, 4.2; claimed: 2 to 6 %"' in shown
    assert shown.count("<circle") == 3
    assert '<span class="verdict holds"><span aria-hidden="true">✓</span> holds</span>' in shown
    assert "4.10 ± 0.10" not in shown and "4.10 ± 0.10" in folded


def test_the_dots_lie_where_they_were_measured(empty):
    write("smallnet-start", 1.5, 4.0, 6.5)
    shown = tables.claim("S1")
    left, right = map(float, re.search(r'<path d="M([\d.]+) 2V22H([\d.]+)V2z"', shown).groups())
    low, middle, high = (float(x) for x in re.findall(r'<circle cx="([\d.]+)"', shown))
    assert low < left < middle < right < high
    assert middle == pytest.approx((left + right) / 2, abs=0.2)


def test_runs_that_died_are_shown_one_by_one(empty):
    write("smallnet-start", 1.0, 1.0, 5.16)
    assert tables.accuracy("smallnet-start") == "1.00, 1.00, 5.16 % (3 seeds, 2 at chance)"
    assert "| 3 | 2.39 ± 2.40 (2 at chance) |" in records.table("smallnet-start")
    assert f"1, 1, 5.16{NBSP}%; 2 of smallnet-start at chance" in tables.claim("S1")
    write("smallnet-start", 30.0, 31.0, 32.0)
    assert f"31{NBSP}%</td>" in tables.claim("S1")


def test_runs_that_never_reach_the_bar_are_so_called(empty):
    write("resnet-source", 50.0, 50.0, curve=[0.5] * 24)
    assert 'aria-label="measured: never, never; claimed: 1 to 22"' in tables.claim("R1")


def test_a_table_of_runs_can_leave_out_the_time(empty):
    write("smallnet-start", 4.0)
    names = {"a": "smallnet-start"}
    with_time, without = (re.findall(r"<t[hd]\b", tables.runs(names, time=time)) for time in (True, False))
    assert (len(with_time), len(without)) == (10, 8)
    assert "min" in tables.runs(names) and "min" not in tables.runs(names, time=False)


def test_the_tally_counts_claims_and_parts(empty):
    write("smallnet-start", 4.0, 4.1, 4.2)
    word = {word: str(tables.verdict(word)) for word in (HOLDS, FAILS, UNDECIDED, NOT_RUN)}
    waiting = sum(len(one.parts) for one in CLAIMS.values()) - 1
    tally = tables.tally()
    assert f"<td>{word[HOLDS]}</td><td>1</td><td>1</td>" in tally
    assert f"<td>{word[UNDECIDED]}</td><td>0</td><td>0</td>" in tally
    assert f"<td>{word[NOT_RUN]}</td><td>{len(CLAIMS) - 1}</td><td>{waiting}</td>" in tally


def test_links_of_boxes_and_ledger_lead_somewhere():
    ledger = tables.ledger()
    for one in CLAIMS.values():
        assert f'id="{one.id.lower()}"' in ledger
        up = "../" if "/" in one.page else ""
        assert f'href="{up}claims.html#{one.id.lower()}"' in tables.claim(one.id)
    for address in re.findall(r'href="([^"]+)\.html"', ledger):
        assert (BOOK / f"{address}.md").exists(), address


def test_a_loss_has_a_minus_and_no_hyphen():
    assert [tables.number(-1.74, "points"), tables.number(29.0, "points")] == ["\u22121.7", "+29.0"]
    assert tables.number(3.2e-4) == "0.00032"


# ---- runs ----


def test_accuracy_has_a_spread_from_two_seeds_on(empty):
    write(SOURCE, 50.0)
    assert tables.accuracy(SOURCE) == "50.00 % (1 seed)"
    write(SOURCE, 50.0, 51.0, 52.0)
    assert tables.accuracy(SOURCE) == "51.00 ± 1.00 % (3 seeds)"
    write(SOURCE, 50.0, 51.0, 52.0, epochs=3)  # by a recipe that has changed since
    assert tables.accuracy(SOURCE) == NOT_RUN


def test_a_strangers_run_shows_its_own_hardware_and_time(empty):
    write(SOURCE, 50.0, seconds=60.0, curve=[0.1] * 10)
    gpu = {"device": "cuda", "name": "Somebody's <card>", "threads": 8}
    write(SOURCE, 52.0, seconds=6.0, curve=[0.1] * 10, first_seed=1, machine=gpu)
    board = tables.leaderboard("cifar100")
    assert f"51.00 ± 1.41{NBSP}% (2 seeds)" in board
    assert "25 epochs, 10.0 and 1.0 min" in board  # a pause does not count
    assert "machine 1, 2026-01-01<br/>machine 2, 2026-01-01" in board
    assert "Machine 2: Somebody&#x27;s &lt;card&gt;, cuda, bfloat16" in board
    assert "two computers" in tables.runs({"with": SOURCE})
    waiting = tables.runs({"with": SOURCE, "no dropout": "smallnet-no-dropout"})
    assert waiting.count("<tr>") == 2 and f"<p>no dropout: {NOT_RUN}.</p>" in waiting
    assert "two computers" not in tables.runs({"none": "smallnet-gelu"})


def test_a_range_test_was_run_though_it_has_no_accuracy():
    box = tables.claim("R2")
    assert NOT_RUN not in box and "3 seeds" in box and "9 seeds" in box
    assert "resnet-lr-range" in tables.runs({"the test": "resnet-lr-range"})


def test_the_board_keeps_the_budget_and_its_order(empty):
    write("transfer-resnet", 70.0)
    write(SOURCE, 50.0)
    write("smallnet-augmented", 60.0)
    shown = re.findall(r"<code>(.*?)</code>", tables.leaderboard("cifar100"))
    headlines = [BEST, "smallnet-muon", "budgetnet", "budgetnet-muon", "sprint100"]  # also those not run
    assert shown == [*headlines, SOURCE, "smallnet-augmented"]
    write("smallnet-augmented", 60.0, parameters=1_000_001)
    assert "smallnet-augmented" not in tables.leaderboard("cifar100")


def test_operations_stand_beside_minutes(empty):
    write(SOURCE, 50.0)
    assert tables.runs({"a": SOURCE}).endswith(f"<td>{tables.DASH}</td></tr></tbody></table></div>")
    (empty / "flops.json").write_text(json.dumps({SOURCE: 12.345e15}))
    assert "<td>12.3</td></tr>" in tables.runs({"a": SOURCE})
