"""What is written: nothing left to do, no misspelling, addresses on one list, and pages that follow their pattern."""

import csv
import re
import subprocess
import sys
import tomllib
from datetime import date
from pathlib import Path

import pytest
import yaml

from course_utils.lab.claims import CLAIMS
from course_utils.lab.recipes import RECIPES

ROOT = Path(__file__).resolve().parent.parent
LINKS = ROOT / "book" / "links.csv"

PAGES = sorted((ROOT / "book").rglob("*.md"))
NOTEBOOKS = [*(ROOT / "notebooks").glob("*.py")]  # their .ipynb twins hold the same cells
FRONT = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
TEXTS = sorted([*PAGES, ROOT / "book" / "references.bib", *NOTEBOOKS, *FRONT])


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def code_cells(path: Path) -> list[tuple[dict, str]]:
    """(settings, code) of each cell of a page; the settings are those above its code, if any."""
    found = re.findall(r"```\{code-cell\} ipython3\n(?:---\n(.*?)---\n)?(.*?)```", read(path), flags=re.S)
    return [(yaml.safe_load(settings) or {}, code) for settings, code in found]


def prose(path: Path) -> str:
    """A page without its front matter and its code."""
    text = re.sub(r"\A---\n.*?\n---\n", "", read(path), flags=re.S)
    return re.sub(r"^(`{3,}).*?^\1", "", text, flags=re.S | re.M)


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.stem)
def test_nothing_is_left_to_do(path):
    assert re.findall(r"\b(?:TODO|FIXME|XXX)\b.*", read(path)) == []


def test_spelling():
    pytest.importorskip("codespell_lib", reason="pip install -r tests/requirements.txt")
    command = [sys.executable, "-m", "codespell_lib", "--toml", str(ROOT / "pyproject.toml")]
    paths = [*TEXTS, *sorted((ROOT / "course_utils").rglob("*.py"))]
    result = subprocess.run([*command, *map(str, paths)], capture_output=True, text=True, encoding="utf-8")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_the_pages_name_the_versions_that_the_package_takes():
    lines = tomllib.loads(read(ROOT / "pyproject.toml"))["project"]["dependencies"]
    below = {line.partition(">")[0]: line.partition(",")[2] for line in lines}
    if not below.get("torch"):
        pytest.skip("pyproject.toml has other bounds this week: see the job `bounds`")
    command = f'pip install "torch{below["torch"]}" "torchvision{below["torchvision"]}" --index-url'
    assert all(command in read(page) for page in (ROOT / "README.md", ROOT / "book" / "how_to_run.md"))


def test_the_command_that_says_what_this_computer_trains_in(capsys):
    text = read(ROOT / "book" / "how_to_run.md")
    [command] = re.findall(r'python -c "(from course_utils\.training [^"]+)"', text)
    exec(command, {})
    assert re.fullmatch(r"(cpu|cuda|mps) torch\.(float32|bfloat16|float16)\n", capsys.readouterr().out)


def test_every_address_is_on_the_list():
    with LINKS.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    listed = [row["address"] for row in rows]
    found = re.findall(r"https?://[^\s<>()\[\]{}\"'`|]+", "\n".join(map(read, TEXTS)))
    used = {address.rstrip(".,;:") for address in found}
    assert sorted(used - set(listed)) == [], "written somewhere and not in book/links.csv"
    assert sorted(set(listed) - used) == [], "in book/links.csv and written nowhere"
    assert listed == sorted(set(listed)), "sorted, and each once"
    seen = [row["last_seen"] for row in rows if row["last_seen"] != "not checked"]
    assert all(date.fromisoformat(one) <= date.today() for one in seen)


def test_pages_leave_verdicts_to_the_rule():
    for path in (path for path in PAGES if path.name != "claims.md"):  # which says what the words were before
        assert not re.findall(r"\b(?:confirm|refut|qualif|provisional)\w*", prose(path), flags=re.I), path


def test_discussion_pages_ask_show_and_close():
    for path in (path for path in PAGES if "session" in path.parent.name and code_cells(path)):
        asked = re.search(r"^# .+\n\n\*[^*]+\?\*\s\S", read(path), flags=re.M)  # a question and its answer
        assert asked and "## To take away" in read(path), path


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_figures_have_alt_text_and_calls_that_draw_are_left_out(path):
    for settings, code in code_cells(path):
        only_draws = re.search(r"\b(?:figures|tables|diagrams)\.\w+\(", code)
        assert settings.get("tags") in ([["remove-input"]] if only_draws else [["remove-input"], None]), code
        assert all(len(line) <= 80 for line in code.splitlines()), code
        if re.search(r"figures\.\w+\(|diagrams\.\w+\(\)|plots\.", code):
            assert len(settings["mystnb"]["image"]["alt"]) > 40, code


def test_no_line_begins_with_a_per_cent_sign():
    """It would be a comment, and the book would leave it out."""
    lost = {page.name: found for page in PAGES if (found := re.findall(r"^%.*", prose(page), flags=re.M))}
    assert lost == {}


@pytest.mark.parametrize("claim", CLAIMS.values(), ids=CLAIMS)
def test_a_claims_page_shows_it(claim):
    shown = re.findall(r"tables\.claim\((.*?)\)", read(ROOT / "book" / f"{claim.page}.md"))
    assert f'"{claim.id}"' in "".join(shown)


def test_every_recipe_is_shown_somewhere():
    judged = {name for claim in CLAIMS.values() for part in claim.parts for name in part.quantity.recipes}
    shown = "".join(code for path in PAGES for _, code in code_cells(path))
    assert [name for name in RECIPES if name not in judged and f'"{name}"' not in shown] == [], (
        "no page says what came of it: name it there in a call of `tables` or `figures`"
    )
