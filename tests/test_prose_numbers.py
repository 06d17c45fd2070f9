"""Every number in the prose that looks like a measurement has something behind it, or a reason on a list.

Behind it stands a figure that others have published, a claim that the page shows, a record of a recipe that
the page names, the speed table, a network's number of weights, what a notebook prints where its output is
compared, or a time that a lesson announces. What else is written (arithmetic, a setting, a choice of the
course) is a line of prose_numbers.csv with its reason; `*` stands there for every page.
"""

import csv
import json
import re
from functools import cache
from pathlib import Path
from statistics import fmean, median

import pytest
import torch

from course_utils import lessons
from course_utils.lab import figures, published, recipes, records, runs, verdicts
from course_utils.lab.claims import CLAIMS
from course_utils.models import count_parameters

ROOT = Path(__file__).resolve().parent.parent
LIST = Path(__file__).with_name("prose_numbers.csv")
NOTEBOOKS = [path for path in ROOT.glob("notebooks/*.py") if not path.stem.endswith("_exercises")]
PAGES = sorted([ROOT / "README.md", *ROOT.glob("book/**/*.md"), *NOTEBOOKS])

NAMES = "two three four five six seven eight nine ten fifteen twenty thirty forty fifty hundred thousand"
VALUES = [*range(2, 11), 15, *range(20, 60, 10), 100, 1000]
WORDS = dict(zip(NAMES.split(), VALUES, strict=True))
COUNT = r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?!\d)"
NUMBER = rf"(?<![\w.,])(\d+(?:\.\d+)?|{'|'.join(WORDS)})"
UNIT = r"""(?P<percent>%|per\ ?cent\b|points?\b) | (?P<million>million\b) | (?P<ratio>times\b|×(?!\s*\d))
    | (?P<time>(?:milli|micro)?seconds?\b|minutes?\b|hours?\b|s\b|min\b|ms\b)"""
MEASURE = re.compile(
    rf"{NUMBER} (?: \s*(?:to|and|or|–|±)\s* {NUMBER} )? (?:\s+|-)? (?: {UNIT} )", flags=re.I | re.X
)


def prose(path: Path) -> str:
    """A page's sentences, its texts for pictures, and the marks in its figures; no code and no formulas."""
    text = path.read_text(encoding="utf-8")
    drawn = re.findall(r'^\s+alt: "(.*)"$', text, flags=re.M)
    drawn += [f"{value} %" for value in re.findall(r'mark=\("[^"]*", ([\d.]+)\)', text)]
    if path.suffix == ".py":
        cells = [cell for cell in re.split(r"^# %%", text, flags=re.M) if cell.startswith(" [markdown]")]
        text = "\n".join(re.sub(r"^# ?", "", cell, flags=re.M) for cell in cells)
    text = re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.S)
    text = re.sub(r"^(`{3,}).*?^\1", "", text, flags=re.S | re.M)
    text = re.sub(r"`[^`]*`|\$[^$]*\$|\]\([^)]*\)", " _ ", text)
    return "\n\n".join([text, *drawn])


def measurements(text: str) -> set[tuple[str, str]]:
    """(phrase, kind) of all that looks measured: ("3 to 5 points", "percent"), ("6,575,370", "count")."""
    found = {(" ".join(m.group().split()), m.lastgroup) for m in MEASURE.finditer(text)}
    return found | {(count, "count") for count in re.findall(COUNT, text)}


def numbers(phrase: str) -> list[str]:
    return re.findall(rf"{COUNT}|\d+(?:\.\d+)?|\b(?:{'|'.join(WORDS)})\b", phrase, flags=re.I)


def value(number: str) -> float:
    return WORDS.get(number.lower()) or float(number.replace(",", ""))


# ---- what may stand behind a number ----


@cache
def weights() -> set[int]:
    """The number of weights of every network that is trained here, and of each of its parts."""
    needs_weights = (None, *recipes.RECIPES)  # which a transfer begins with
    trained = [
        one
        for one in recipes.RECIPES.values()
        if one.network != "TransferNet" or one.network_args.get("backbone") not in needs_weights
    ]
    with torch.device("meta"):  # shapes without values
        networks = [runs.build_network(one, 10 if one.data == "cifar10" else 100) for one in trained]
    return {count_parameters(part) for network in networks for part in network.modules()}


@cache
def published_percents() -> set[str]:
    """Others' accuracies as they may be written: with all their digits."""
    results = [one.percent for one in (*published.SOURCES, *published.REFERENCES)]
    return {form for x in results for form in (f"{x:g}", f"{x:.2f}")}


@cache
def given(page: Path) -> dict[str, list[float]]:
    """The values, by kind, that records, claims, speed table and printed output give for `page`."""
    text, output = page.read_text(encoding="utf-8"), printed(page)
    named = [name for name in recipes.RECIPES if re.search(rf"\b{re.escape(name)}(?![\w-]|\.\d)", text)]
    trained = [run for name in named for run in verdicts.runs_of(name) if run["test_accuracy"] is not None]
    six = [[100 * run["six_views"] for run in verdicts.runs_of(name) if "six_views" in run] for name in named]
    percents = [one for one in (*map(verdicts.percents, named), *six) if one]
    ids = re.findall(r'"(\w+)"', " ".join(re.findall(r"tables\.claim\((.*?)\)", text)))
    parts = [part for one in ids for part in CLAIMS[one].parts]
    said = measurements(" ".join([*(CLAIMS[one].says for one in ids), *(part.figure for part in parts)]))
    found = [abs(one.value) for one in (part.quantity.estimate() for part in parts) if one]
    claimed = {
        kind: [value(x) for phrase, of in said if of == kind for x in numbers(phrase)] for _, kind in said
    }
    speed = verdicts.bench_table().get("rows", []) if "tables.bench" in text else []
    announced = " ".join(time for time, _ in lessons.EXPECTATIONS.values())
    return {
        "percent": [
            *claimed.get("percent", []),
            *found,
            *(x for one in percents for x in (fmean(one), *one)),
            *map(float, re.findall(r"(\d+(?:\.\d+)?)\s?%", output)),
        ],
        "ratio": [*claimed.get("ratio", []), *found, *(row["value"] for row in speed)],
        "time": [x for run in trained for x in (records.minutes(run), median(run["history"]["seconds"]))]
        + [value(x) for x in numbers(announced)],
        "count": [*weights(), *map(value, re.findall(COUNT, output))],
        "million": [],
    }


def printed(page: Path) -> str:
    """What a notebook prints in the cells whose output is compared; nothing for other pages."""
    if page.suffix != ".py":
        return ""
    cells = json.loads(page.with_suffix(".ipynb").read_text(encoding="utf-8"))["cells"]
    compared = [cell for cell in cells if "nbval-ignore-output" not in cell["metadata"].get("tags", [])]
    return " ".join("".join(out.get("text", [])) for cell in compared for out in cell.get("outputs", []))


def has_source(number: str, kind: str, page: Path) -> bool:
    """Whether something gives this number, rounded as it is written."""
    if kind == "percent" and number in published_percents():
        return True
    decimals = len(number.partition(".")[2])
    written = f"{value(number):.{decimals}f}"
    return any(f"{one:.{decimals}f}" == written for one in given(page)[kind])


def unexplained(page: Path) -> set[str]:
    """The phrases of a page with a number that nothing gives, whatever the list says."""
    found = measurements(prose(page))
    return {phrase for phrase, kind in found if not all(has_source(x, kind, page) for x in numbers(phrase))}


@cache
def listed() -> list[tuple[str, str]]:
    with LIST.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row for row in rows if len(row["why"].split()) < 2] == [], "every line has its reason"
    return [(row["page"], row["phrase"]) for row in rows]


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_number_comes_from_somewhere(page):
    allowed = {phrase for where, phrase in listed() if where in ("*", name(page))}
    assert sorted(unexplained(page) - allowed) == [], (
        "nothing gives this: show it from a record, or write its reason into tests/prose_numbers.csv"
    )


def test_every_line_of_the_list_is_needed():
    used = {(where, phrase) for page in PAGES for phrase in unexplained(page) for where in ("*", name(page))}
    assert sorted(set(listed()) - used) == []
    assert listed() == sorted(set(listed())), "sorted, and each once"


def test_the_readme_says_how_many_runs_are_behind_a_number():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    said = {name: int(runs) for name, runs in re.findall(r"`([\w.-]+)`, (\d+) runs?\)", text)}
    assert said == {name: len(records.of_recipe(name)) for name in said}
    assert len(said) == 12


def test_invented_numbers_are_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "The source reached 50.48 %, and we 63.21 % with 996,376 weights. That is 12.7\npoints more, at 17.3 seconds"
        " an epoch:\n2.4 times as fast, for 996,377 weights and\ntwice the trouble, three times at most.\n"
        '```python\nx = "1.11 %"\n    alt: "It reaches 64.32 %."\n    mark=("the source", 50.49),\n```\n',
        encoding="utf-8",
    )
    invented = {"63.21 %", "12.7 points", "17.3 seconds", "2.4 times", "three times", "64.32 %", "50.49 %"}
    assert unexplained(page) == {*invented, "996,377"}


def test_ranges_are_read_whole_and_sizes_are_none():
    found = measurements("3 to 5 points, 32×32 pixels, 1.5× and 71.2 ± 0.3 %, ten-second epochs, 3.14 rad")
    assert {phrase for phrase, _ in found} == {"3 to 5 points", "1.5×", "71.2 ± 0.3 %", "ten-second"}


def test_the_readmes_picture_is_described_by_its_own_runs():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    alt = re.search(r'headline\.png"[^>]* alt="([^"]*)"', text)[1]
    means = [fmean(verdicts.percents(name)) for name in figures.HEADLINE.values()]
    assert re.findall(r"(\d+) %", alt) == [f"{mean:.0f}" for mean in means]
