"""The lessons as they ran in full: each run on CIFAR from top to bottom, and kept with what it printed.

The book shows them without running them: an hour is too long for a build. `sync` keeps their cells those of the lesson,
and an output stays with its code. Where the code has changed the output goes, and a test asks for another run.
"""

from datetime import date
from pathlib import Path

import jupytext
from nbformat import NotebookNode, v4

from course_utils import training
from course_utils.authoring import sync
from course_utils.lab import machine

BOOK = sync.NOTEBOOKS.parent / "book"
LESSONS = {
    "01_smallnet": BOOK / "session1" / "lesson_in_full.ipynb",
    "02_resnet": BOOK / "session2" / "lesson_in_full.ipynb",
}


def update() -> None:
    """Bring what is stored up to the lessons, but for the title and the note of the run on top."""
    notes = {name: sync.read(path).cells[1].source for name, path in LESSONS.items() if path.exists()}
    sync.update({LESSONS[name]: from_lesson(name, about) for name, about in notes.items()})


def from_lesson(name: str, about: str) -> NotebookNode:
    """The lesson of this name as a page of its own: another title, and `about` below it."""
    notebook = jupytext.read(sync.NOTEBOOKS / f"{name}.py")
    first = notebook.cells[0]
    title, _, rest = first.source.partition("\n")
    session = title.partition(":")[0]  # "# Session 1"
    top = v4.new_markdown_cell(f"{session}: the lesson as it ran on CIFAR", id="title")
    top.metadata = first.metadata
    first.source, first.metadata = rest.strip(), {"tags": ["slide-more"]}
    notebook.cells = [top, v4.new_markdown_cell(about, id="run"), *notebook.cells]
    return notebook


def run(name: str) -> None:
    """Run the lesson `name` in the full profile, and store it for the book. `EXPECTATIONS` says how long it takes."""
    if name not in LESSONS:
        raise ValueError(f"expected {' or '.join(LESSONS)}, found {name!r}")
    notebook, today = from_lesson(name, ""), date.today()
    seconds = sync.run_cells(notebook, sync.NOTEBOOKS, "full", timeout=None)
    for cell in (cell for cell in notebook.cells if cell.cell_type == "code"):
        for out in (out for out in cell.outputs if out.output_type == "stream"):
            out.text = out.text.replace(f"{Path.home()}/", "~/")
    here, precision = machine.describe(), training.pick_precision(training.pick_device())
    about = f"{here['name']}, {str(precision).removeprefix('torch.')}, PyTorch {here['torch']}"
    where = f"a computer with {here['threads']} threads ({about})"
    notebook.cells[1].source = (
        f"This is the lesson, run from its first cell to its last in the full profile: "
        f"on {today.day} {today:%B %Y}, in {seconds / 60:.0f} minutes, on {where}. "
        f"The numbers and figures are what it printed then. "
        f"The notebook itself is [the lesson](../../notebooks/{name}.ipynb)."
    )
    sync.write(LESSONS[name], notebook)
