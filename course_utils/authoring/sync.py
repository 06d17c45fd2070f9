"""For those who write the course: keep each notebook's two files alike, its stored outputs fresh.

A notebook is a pair: the `.py` (percent format) is what people edit and review, the `.ipynb` holds
the same cells with their outputs and is what the book shows. Jupytext and nbclient are imported
where they are used, because the rest of the package does without them.
"""

import os
import time
from itertools import zip_longest
from pathlib import Path

from course_utils.authoring import repository

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"


def sync(folder: Path = NOTEBOOKS) -> None:
    """Bring every `.ipynb` in `folder` up to its `.py`, keeping its outputs; write missing ones.

    First, each `.py` gets its set-up cell for the configured repository, or loses it if there is none.

    Raises RuntimeError, and writes nothing, when an `.ipynb` was edited after its `.py`; ValueError, likewise, when
    the repository is not configured as `repository.checked` wants it.
    """
    from jupytext.cli import jupytext

    found = repository.configured()
    texts = sorted(folder.glob("*.py"))
    for text in texts:
        refuse_lost_edits(text.with_suffix(".ipynb"), text)
    for text in texts:
        before = text.read_text(encoding="utf-8")
        if (after := repository.with_setup(before, found)) != before:
            text.write_text(after, encoding="utf-8", newline="\n")
    if texts:
        jupytext(["--quiet", "--update", "--to", "ipynb", *map(str, texts)])


def refuse_lost_edits(notebook: Path, text: Path) -> None:
    """Raise RuntimeError if `notebook` holds edits, later than `text`, that a sync would undo."""
    if not notebook.exists() or notebook.stat().st_mtime <= text.stat().st_mtime:
        return
    changes = differences(notebook, text)
    if changes:
        raise RuntimeError(
            f"{notebook} was saved after {text.name} and differs from it: {changes[0]}. "
            f"To keep the notebook's cells, run `jupytext --sync {notebook}`; "
            f"to keep the text's, save {text.name} again. Then repeat the command."
        )


def differences(notebook: Path, text: Path) -> list[str]:
    """What differs between the cells of an `.ipynb` and its `.py`; empty if they agree.

    Cells are compared in order, by type, source and tags; the `.py` has no outputs to compare.
    """
    import jupytext
    import nbformat

    left = nbformat.read(notebook, as_version=4).cells
    right = jupytext.read(text).cells
    found = []
    for number, (ours, theirs) in enumerate(zip_longest(left, right), start=1):
        if ours is None or theirs is None:
            name = text.name if ours is None else notebook.name
            found.append(f"cell {number}: only in {name}")
            continue
        for field, a, b in compared(ours, theirs):
            if a != b:
                found.append(f"cell {number}: {field} {a!r} in {notebook.name}, {b!r} in {text.name}")
    return found


def compared(ours, theirs) -> list[tuple]:
    """The fields in which two notebook cells must agree, as (name, ours, theirs)."""
    lines = zip_longest(ours.source.split("\n"), theirs.source.split("\n"))
    changed_lines = [("line", a, b) for a, b in lines if a != b]
    return [
        ("type", ours.cell_type, theirs.cell_type),
        ("tags", ours.metadata.get("tags", []), theirs.metadata.get("tags", [])),
        *changed_lines[:1],
    ]


def is_exercise(path: Path) -> bool:
    """Whether a notebook is one that students fill in: it is never run as it is, and has no outputs."""
    return path.stem.endswith("_exercises")


def execute(folder: Path = NOTEBOOKS, profile: str = "quick", timeout: int = 600) -> None:
    """Sync, then run every notebook in `folder` from top to bottom and store its fresh outputs.

    Exercises are passed over: they fail until somebody has solved them. How long the course's own notebooks took is
    kept, for the teachers' table.

    `timeout` is in seconds a cell. A cell that fails raises nbclient's CellExecutionError, which
    shows the cell; the stored file is then left as it was.
    """
    import nbformat
    from nbclient import NotebookClient

    sync(folder)
    seconds = {}
    for path in sorted(folder.glob("*.ipynb")):
        if is_exercise(path):
            continue
        notebook = nbformat.read(path, as_version=4)
        client = NotebookClient(
            notebook,
            timeout=timeout,
            kernel_name="python3",
            record_timing=False,  # times would change in every diff
            coalesce_streams=True,
            resources={"metadata": {"path": str(folder)}},
        )
        started = time.perf_counter()
        try:
            client.execute(env={**os.environ, "COURSE_PROFILE": profile})
        except Exception as error:
            error.add_note(f"while executing {path}")
            raise
        notebook.metadata["language_info"] = {"name": "python"}  # not the author's Python version
        nbformat.write(notebook, path)
        seconds[path.stem] = time.perf_counter() - started
    if folder == NOTEBOOKS and profile == "quick":
        from course_utils.lab import tables

        tables.keep_times(seconds)
