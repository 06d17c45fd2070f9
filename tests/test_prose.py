"""What is written: nothing left to do, no misspelling that codespell knows, and every address on one list."""

import csv
import re
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LINKS = ROOT / "book" / "links.csv"

BOOK = [*(ROOT / "book").rglob("*.md"), ROOT / "book" / "references.bib"]
NOTEBOOKS = [*(ROOT / "notebooks").glob("*.py")]  # their .ipynb twins hold the same cells
FRONT = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
TEXTS = sorted([*BOOK, *NOTEBOOKS, *FRONT])


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.stem)
def test_nothing_is_left_to_do(path):
    assert re.findall(r"\b(?:TODO|FIXME|XXX)\b.*", path.read_text(encoding="utf-8")) == []


def test_spelling():
    command = [sys.executable, "-m", "codespell_lib", "--toml", str(ROOT / "pyproject.toml")]
    paths = [*TEXTS, *sorted((ROOT / "course_utils").glob("*.py"))]
    result = subprocess.run([*command, *map(str, paths)], capture_output=True, text=True, encoding="utf-8")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def addresses(text: str) -> set[str]:
    """Every http address in a text, without the punctuation that closes a sentence."""
    return {address.rstrip(".,;:") for address in re.findall(r"https?://[^\s<>()\[\]{}\"'`|]+", text)}


def test_every_address_is_on_the_list():
    with LINKS.open(encoding="utf-8", newline="") as file:
        listed = [row["address"] for row in csv.DictReader(file)]
    used = set().union(*(addresses(path.read_text(encoding="utf-8")) for path in TEXTS))
    assert sorted(used - set(listed)) == [], "written somewhere and not in book/links.csv"
    assert sorted(set(listed) - used) == [], "in book/links.csv and written nowhere"
    assert listed == sorted(set(listed)), "sorted, and each once"


def test_the_list_says_when_an_address_was_last_seen():
    with LINKS.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["last_seen"] != "not checked":
                assert date.fromisoformat(row["last_seen"]) <= date.today(), row["address"]
