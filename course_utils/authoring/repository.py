"""The repository that a fork is hosted in, if it is: its address and tag, and the notebooks' cell that needs them.

Both are empty until a fork sets them in `book/_config.yml`. So no notebook installs from an address that nobody owns.
"""

import re
from pathlib import Path

import yaml
from nbformat import NotebookNode, v4

CONFIG = Path(__file__).resolve().parents[2] / "book" / "_config.yml"

SETUP_TAG = "setup"
SETUP = """\
# Opened without the course around it, as in Colab: install the course first.
import importlib.util
import subprocess
import sys

if not importlib.util.find_spec("course_utils"):
    course = "git+{url}@{tag}"
    command = [sys.executable, "-m", "pip", "install", course]
    subprocess.run(command, check=True)"""


def configured(config: Path = CONFIG) -> tuple[str, str] | None:
    """The repository that the book's configuration names, as `checked` returns it."""
    block = yaml.safe_load(config.read_text(encoding="utf-8")).get("repository") or {}
    return checked(block.get("url"), block.get("branch"))


def checked(url: str | None, tag: str | None) -> tuple[str, str] | None:
    """A repository's address and tag, or None if both are empty.

    Raises ValueError unless the address is one on GitHub, from where alone Colab opens notebooks, and the tag
    looks like a version: a branch moves on, and a notebook opened next year would install another course.
    """
    if not url and not tag:
        return None
    advice = "Set both in `repository:` in book/_config.yml, or leave both empty."
    if not re.fullmatch(r"https://github\.com/[\w-]+/[\w.-]+(?<!\.git)", str(url)):
        raise ValueError(f"url: expected https://github.com/<owner>/<name>, found {url!r}. {advice}")
    if tag is not None and not isinstance(tag, str):  # 1.10 would be 1.1
        found = f"YAML takes {tag} for a number or a date: write it in quotes"
        raise ValueError(f'branch: {found}, "…". {advice}')
    if not re.fullmatch(r"v?\d[\w.-]*", str(tag)):
        raise ValueError(f'branch: expected a tag such as "v1.0", not a branch, found {tag!r}. {advice}')
    return url, tag


def with_setup(cells: list[NotebookNode], found: tuple[str, str] | None) -> list[NotebookNode]:
    """A notebook's cells, with a set-up cell for the repository `found` before the first code cell.

    There is none without a repository, nor in a notebook that does not import the package.
    """
    code = [cell for cell in cells if cell.cell_type == "code"]
    if not found or not any(re.search(r"^(from|import) course_utils", cell.source, re.M) for cell in code):
        return cells
    setup = v4.new_code_cell(SETUP.format(url=found[0], tag=found[1]), id=SETUP_TAG)
    setup.metadata["tags"] = ["remove-cell", SETUP_TAG]
    place = cells.index(code[0])
    return [*cells[:place], setup, *cells[place:]]


def is_setup(cell: NotebookNode) -> bool:
    """Whether a notebook's cell is its set-up cell, which follows the configuration and not the source."""
    return {"remove-cell", SETUP_TAG} <= set(cell.metadata.get("tags", []))
