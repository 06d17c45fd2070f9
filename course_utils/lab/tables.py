"""Tables and verdict boxes of the book's pages, as HTML, from the records: for the last line of a cell.

Everything here works with no records, some or all of them: what was not run says so. `tag` escapes what it is given
unless it is `Html` already, so that nothing that stands in a record becomes markup.
"""

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from html import escape
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np

from course_utils.lab import machine, published, recipes, records, verdicts
from course_utils.lab.claims import CLAIMS, Claim
from course_utils.lab.verdicts import FAILS, HOLDS, NOT_RUN, UNDECIDED, Accuracy, Part, runs_of

NBSP = "\u00a0"  # a space at which no line breaks
MINUS = "\u2212"  # as wide as a plus, and not taken for a hyphen
DASH = "–"  # for what is not known


# ---- HTML ----


class Html(str):
    """Text that a notebook shows as HTML."""

    def _repr_html_(self) -> str:
        return str(self)


def text(content: object) -> Html:
    """`content` as HTML, escaped unless it is that; no line breaks between a number and its per cent sign."""
    return content if isinstance(content, Html) else Html(escape(str(content)).replace(" %", f"{NBSP}%"))


def tag(name: str, *contents: object, **attributes: object) -> Html:
    """The `contents`, a line each, in an element; a key `aria_label` gives "aria-label", and `class_` "class"."""
    keys = {key: key.rstrip("_").replace("_", "-") for key in attributes}
    given = "".join(f' {keys[key]}="{escape(str(value))}"' for key, value in attributes.items())
    return Html(f"<{name}{given}>{'<br/>'.join(text(one) for one in contents if one != '')}</{name}>")


def row(*cells: object) -> Html:
    """A table's row; a cell that is a tuple has a line for each of its entries."""
    return tag("tr", Html("".join(tag("td", *(one if isinstance(one, tuple) else (one,))) for one in cells)))


def table(head: Iterable[str], rows: Iterable[Html], name: str) -> Html:
    """A table that scrolls in its own frame where the page is narrow."""
    headings = Html("".join(tag("th", one, scope="col") for one in head))
    parts = tag("thead", tag("tr", headings)) + tag("tbody", Html("".join(rows)))
    frame = {"class_": "pst-scrollable-table-container", "tabindex": 0, "role": "region", "aria_label": name}
    return tag("div", tag("table", Html(parts), class_="table"), **frame)


# ---- numbers ----


def accuracy(name: str) -> str:
    """Test accuracy of a recipe: "51.00 ± 0.30 % (3 seeds)", or "not run yet"; with six views beside it where measured.

    Where runs died a mean would be like none of them: "1.00, 1.00, 5.17 % (3 seeds, 2 at chance)".
    """
    n = len(runs_of(name))
    seeds = f"{n} seeds" if n > 1 else "1 seed"
    if not (percents := verdicts.percents(name)):
        return seeds if n else NOT_RUN  # a range test has no accuracy
    if dead := Accuracy(name).dead():
        return f"{', '.join(f'{one:.2f}' for one in sorted(percents))} % ({seeds}, {dead} at chance)"
    spread = f" ± {stdev(percents):.2f}" if len(percents) > 1 else ""
    six = [100 * run["six_views"] for run in runs_of(name) if "six_views" in run]
    beside = f"; in six views {fmean(six):.2f} %" if len(six) == len(percents) else ""
    return f"{fmean(percents):.2f}{spread} % ({seeds}){beside}"


def minutes(name: str) -> str:
    """Minutes that a run takes, as a mean over the recipe's runs; for each machine, if there are several."""
    trained = filter(records.tested, runs_of(name))  # no range test
    paces = [fmean(map(records.minutes, runs)) for runs in records.by_machine([*trained]).values()]
    return " and ".join(f"{pace:.1f}" for pace in paces) + " min" if paces else ""


def number(value: float, unit: str = "") -> str:
    shown = f"{value:+.1f}" if unit == "points" else f"{value:.3g}"
    return shown.replace("-", MINUS).replace("inf", "never")


def percent(share: float, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f} %"


# ---- runs ----

BUDGET = 1_000_000  # weights, Session 1's
PFLOP = tag("abbr", "PFLOP", title="operations of the training, in units of 10¹⁵")
RUN_HEAD = ("Run", "Test accuracy", "Weights", "Time", PFLOP)


def runs(names: Mapping[str, str], time: bool = True) -> Html:
    """A row for each of `{label: recipe}`: test accuracy over seeds, weights, time on each machine, operations.

    Leave the `time` out where it would mislead. What was not run is named below in one line.
    """
    rows = [run_row(name, label, time=time) for label, name in names.items() if runs_of(name)]
    head = [title for title in RUN_HEAD if time or title != "Time"]
    found = table(head, rows, "Runs") if rows else ""
    if time and any(len(records.by_machine(runs_of(name))) > 1 for name in names.values()):
        several = "Where a row has several times, the runs differ: two computers, one or two threads, or two precisions"
        found += tag("p", f"{several}; the leaderboard says which.")
    if waiting := ", ".join(label for label, name in names.items() if not runs_of(name)):
        found += tag("p", f"{waiting}: {NOT_RUN}.")
    return Html(found)


def run_row(name: str, label: str = "", made_on: Html | str = "", time: bool = True) -> Html:
    recorded = runs_of(name)
    weights = f"{recorded[0]['parameters']:,}" if recorded else NOT_RUN
    took = [", ".join(filter(None, [f"{recipes.get(name).epochs} epochs", minutes(name)]))] if time else []
    operations = f"{work:.3g}" if (work := records.petaflop(name)) else DASH
    return row((label, tag("code", name), made_on), accuracy(name), weights, *took, operations)


def leaderboard(data: str) -> Html:
    """The headlines on `data` ("cifar10" or "cifar100") by accuracy, others' results, and the rest folded away."""
    ours = sorted(competing(data), key=lambda name: -fmean(verdicts.percents(name) or [math.inf]))
    machines = list(dict.fromkeys(where for name in ours for where in records.by_machine(runs_of(name))))
    rows = {name: run_row(name, made_on=made_on(name, machines)) for name in ours}
    board = [rows.pop(name) for name in ours if recipes.get(name) in recipes.HEADLINES]
    others = [one for one in published.SOURCES + published.REFERENCES if one.data == data]
    for one in sorted(others, key=lambda one: -one.percent):
        weights = f"{one.weights:,}" if one.weights else "not stated"
        who = (one.name, tag("small", "published"))
        board.append(row(who, f"{one.percent:.2f} %", weights, one.cost, one.PFLOP or DASH))
    rest = table(RUN_HEAD, rows.values(), f"All other runs on {data}")
    summary = tag("summary", f"The {len(rows)} other recipes, most of them with one thing changed")
    folded = tag("details", Html(summary + rest))
    notes = [tag("p", f"Machine {k}: {where}") for k, where in enumerate(machines, 1)]
    return Html(table(RUN_HEAD, board, f"Leaderboard on {data}") + folded + "".join(notes))


def competing(data: str) -> list[str]:
    """The recipes on `data` that belong on its board: those recorded, and the headlines even if they are not.

    Session 1's budget holds on CIFAR-100, and nobody starts from weights that were trained elsewhere.
    """
    here = [one for one in recipes.RECIPES.values() if one.data == data and one.epochs]
    here = [one for one in here if verdicts.percents(one.name) or one in recipes.HEADLINES]
    trained_here = [one.name for one in here if one.network != "TransferNet"]
    limit = BUDGET if data == "cifar100" else math.inf
    return [name for name in trained_here if all(run["parameters"] <= limit for run in runs_of(name))]


def made_on(name: str, machines: list[str]) -> Html:
    """The machines that a recipe ran on, by their numbers, with the date of the last run on each."""
    found = records.by_machine(runs_of(name)).items()
    dates = [f"machine {machines.index(at) + 1}, {max(run['date'] for run in runs)}" for at, runs in found]
    return tag("small", *dates)


def bench() -> Html:
    """The recorded speed table with its machine, or the word that there is none."""
    recorded = verdicts.bench_table()
    if not recorded:
        return tag("p", f"Speed table: {NOT_RUN}.")
    rows = [row(one["what"], one["bound"], f"{one['value']:#.4g}") for one in recorded["rows"]]
    where = machine.in_words(recorded["machine"], recorded["precision"])
    note = tag("p", f"{where}, torch {recorded['machine']['torch']}")
    return Html(table(("What", "Bound", "Measured"), rows, "Speed table") + note)


# ---- verdicts ----

# A verdict is a word, a shape and a colour, so that nobody needs the colour. `course.css` has the classes.
MARKS = {HOLDS: "✓ holds", FAILS: "✗ fails", UNDECIDED: "? undecided", NOT_RUN: "– waiting"}
MIXED = "parts differ"
KEY = (
    "Dot: a run, a pair or a round. Horizontal line: the 95 % interval of their mean. Band: what was claimed. Vertical "
    "line: no effect. A part holds where the whole interval lies in the band, does not hold where all of it lies "
    "outside, and is undecided otherwise."
)
PART_HEAD = ("What is compared", "Claimed", "Measured", "Verdict")


def claim(*ids: str) -> Html:
    """A box for each claim: what the source says, its parts, and the verdict; on its own page."""
    return Html("".join(box(CLAIMS[one]) for one in ids))


def box(one: Claim) -> Html:
    title = tag("p", Html(f"Claim {one.id}: {verdict(one.verdict())}"), class_="admonition-title")
    parts = table(PART_HEAD, map(part_row, one.parts), f"Claim {one.id}")
    untested = tag("p", f"Not tested: {one.untested}") if one.untested else ""
    runs = table(("Part", "95 % interval", "Runs"), map(runs_row, one.parts), f"Runs of {one.id}")
    ledger = "../" * one.page.count("/") + "claims.html"
    link = tag("a", "All claims, and the rule behind the verdicts", href=f"{ledger}#{one.id.lower()}")
    summary = tag("summary", "How to read this box, and its runs")
    details = tag("details", Html(summary + tag("p", KEY) + runs + tag("p", link)))
    return tag("div", Html(title + tag("p", one.says) + parts + untested + details), class_="admonition note")


def ledger() -> Html:
    """Every claim with its verdict, and below it a row for each of its parts. For a page in book/ itself."""
    rows = []
    for one in CLAIMS.values():
        untested = f"Not tested: {one.untested}" if one.untested else ""
        link = tag("a", f"Discussion of {one.id}", href=f"{one.page}.html")
        words = tag("span", one.says, untested, link, style="font-weight: normal")
        title = Html(f"{one.id}: {verdict(one.verdict())}")
        rows.append(tag("tr", tag("th", title, words, colspan=4, scope="rowgroup", id=one.id.lower())))
        rows += map(part_row, one.parts)
    return table(PART_HEAD, rows, "All claims")


def tally() -> Html:
    """How many claims, and how many of their parts, there are of each verdict."""
    claims = Counter(one.verdict() if one.verdict() in MARKS else MIXED for one in CLAIMS.values())
    parts = Counter(part.word for one in CLAIMS.values() for part in one.parts)
    rows = [row(verdict(word), claims[word], parts.get(word, 0)) for word in MARKS]
    rows.append(row(verdict(MIXED), claims[MIXED], DASH))
    return table(("Verdict", "Claims", "Their parts"), rows, "Claims by verdict")


def verdict(word: str) -> Html:
    shape, kind = MARKS.get(word, "◐ mixed").split()
    return tag("span", Html(f"{tag('span', shape, aria_hidden='true')} {word}"), class_=f"verdict {kind}")


def part_row(part: Part) -> Html:
    """What is compared, the source's figure and the range, the runs as dots beside it, and the verdict."""
    measured = (dots(part), value(part)) if part.word != NOT_RUN else ()
    return row(part.says, (part.figure, tag("small", span(part))), measured, verdict(part.word))


def value(part: Part) -> str:
    """What was measured on average; where runs died, or never come to a bar, each run for itself."""
    unit, each = part.quantity.unit, part.quantity.values()
    counts = {name: Accuracy(name).dead() for name in part.quantity.recipes if unit in ("%", "points")}
    dead = [f"{n} of {name} at chance" for name, n in counts.items() if n]
    if not dead and all(map(math.isfinite, each)):
        each = [part.quantity.estimate().value]
    values = ", ".join(number(one, unit) for one in each)
    return "; ".join([f"{values} {unit}".strip(), *dead])


def span(part: Part) -> str:
    """The range in which a part holds, in words."""
    unit = part.quantity.unit
    low, high = number(part.low, unit), number(part.high, unit)
    if math.isinf(part.high):
        return f"{low} {unit} or more"
    if math.isinf(part.low) or (part.low <= 0 and unit == "×"):
        return f"{high} {unit} or less"
    return f"{low} to {high} {unit}".strip()


def dots(part: Part) -> Html:
    """The runs as dots on their interval, the claimed range as a band behind them, and a vertical line at no effect."""
    unit, values, found, width = part.quantity.unit, part.quantity.values(), part.quantity.estimate(), 140
    no_effect = {"points": [0.0], "×": [1.0]}.get(unit, [])
    shown = [one for one in (*values, *no_effect, part.low, part.high) if math.isfinite(one)]
    margin = 0.1 * (max(shown) - min(shown)) or 1
    left, right = min(shown) - margin, max(shown) + margin

    def x(value: float) -> float:
        return round(width * (min(max(value, left), right) - left) / (right - left), 1)

    band = f'<path d="M{x(part.low)} 2V22H{x(part.high)}V2z" fill-opacity=".2"/>'
    lines = "".join(f"M{x(one)} 0v24" for one in no_effect)
    lines += f"M{x(found.low)} 12H{x(found.high)}" if len(values) > 1 else ""
    circles = "".join(f'<circle cx="{x(one)}" cy="12" r="4" fill-opacity=".7"/>' for one in values)
    said = f"measured: {', '.join(number(one, unit) for one in values)}; claimed: {span(part)}"
    look = {"viewBox": f"0 0 {width} 24", "width": width, "height": 24, "fill": "currentColor"}
    drawn = Html(f'{band}<path d="{lines}" stroke="currentColor"/>{circles}')
    return tag("svg", drawn, role="img", aria_label=said, **look)


def runs_row(part: Part) -> Html:
    """The interval of what was measured, and the recipes that it was measured on."""
    found, unit = part.quantity.estimate(), part.quantity.unit
    known = found and math.isfinite(found.high - found.low)
    interval = f"{number(found.low, unit)} to {number(found.high, unit)} {unit}".strip() if known else DASH
    interval = "exact" if known and found.low == found.high else interval
    made_by = (Html(f"{tag('code', name)} {text(accuracy(name))}") for name in part.quantity.recipes)
    return row(part.says, interval, tuple(made_by))


# ---- what `examine` found ----

EXAMINED_SCHEMA = 2


def examined_path(recipe: str, seed: int = 0) -> Path:
    return records.path_of(recipe, seed).with_name(f"examined-seed{seed}.json")


def examined(recipe: str, seed: int = 0) -> dict[str, Any] | None:
    """What `diagnostics.examine` found of a saved network, its matrices as arrays; None where there is no file.

    Raises ValueError, saying what to do, where the file is of other weights than the record's.
    """
    path, recorded = examined_path(recipe, seed), {run["seed"]: run for run in runs_of(recipe)}
    if seed not in recorded or not path.exists():
        return None
    found = json.loads(path.read_text(encoding="utf-8"))
    expected = {"schema": EXAMINED_SCHEMA, "weights": recorded[seed]["weights"]}
    if (identity := {key: found.get(key) for key in expected}) != expected:
        again = f"make it again: python -m course_utils examine {recipe}"
        raise ValueError(f"{path}: expected {expected}, found {identity}: {again}")
    for name, kind in {"confusion": int, "superclasses": int, "filters": float}.items():
        found[name] = np.array([line.split() for line in found.get(name, [])], dtype=kind)
    return found | {"parameters": recorded[seed]["parameters"]}


# What a column of `networks` shows of an examined file, the record's number of "parameters" among its entries.
COLUMNS: dict[str, Callable[[dict[str, Any]], object]] = {
    "Dead units": lambda found: tag(
        "span", *(f"{layer}: {found['dead'][layer]} of {n}" for layer, n in found["units"].items())
    ),
    "Dead neurons": lambda found: f"{found['dead']['dense layer']} of {found['units']['dense layer']}",
    "Weights to and from them": lambda found: f"{found['dead_weights']:,}",
    "Of all weights": lambda found: percent(found["dead_weights"] / found["parameters"]),
    "Mistakes": lambda found: f"{found['mistakes']:,}",
    "Inside the superclass": lambda found: percent(
        (found["right_superclass"] - found["top1"]) / (1 - found["top1"])
    ),
    "Right superclass": lambda found: percent(found["right_superclass"]),
    "Right": lambda found: percent(found["top1"], 2),
    "Top 5": lambda found: percent(found["top5"], 2),
    "Confidence": lambda found: percent(found["confidence"], 2),
    "ECE": lambda found: f"{100 * found['ece']:.1f} points",
}


def networks(names: Mapping[str, str], *columns: str) -> Html:
    """A row for each of `{label: recipe}`: what `examine` found of its saved network, in some of `COLUMNS`."""
    rows = []
    for label, name in names.items():
        found = examined(name)
        cells = [COLUMNS[column](found) if found else NOT_RUN for column in columns]
        rows.append(row((label, tag("code", name)), *cells))
    return table(("Run", *columns), rows, ", ".join(columns))


def why_dead(name: str) -> Html:
    """SmallNet's dead channels beside the median of their stage: filter, batch norm, and what would wake them."""
    head = ("Channel", "Length of its filter", "Scale", "Shift", "Active from")
    why = (examined(name) or {"why": {f"{name}: {NOT_RUN}": []}})["why"].items()
    rows = [row(channel, *(f"{one:.3f}" for one in values)) for channel, values in why]
    return table(head, rows, "Dead channels")
