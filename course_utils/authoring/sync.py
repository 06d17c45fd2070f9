"""Keep each notebook like the source it is made from, and its stored outputs fresh.

A lesson's `.py` (percent format) is what authors edit and review; the `.ipynb` beside it has the same cells with their
outputs: the book shows it, and students open it. Exercises are made from the solutions. Nothing is paired in Jupytext's
way: a paired notebook is read from whichever file is later, and copying a folder changes that. Instead, each `.ipynb`
carries a digest of the cells that it was made with, so that an edit of it is recognised without a clock.
"""

import hashlib
import json
import os
import time
from itertools import zip_longest
from pathlib import Path

import jupytext
import nbformat
from jupytext.combine import combine_inputs_with_outputs
from nbclient import NotebookClient
from nbformat import NotebookNode

from course_utils.authoring import exercises, repository
from course_utils.lab import records

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"


def sync(folder: Path = NOTEBOOKS) -> None:
    """Bring every `.ipynb` in `folder` up to its source, keeping its outputs; write missing ones.

    Raises RuntimeError, and writes nothing, where an `.ipynb` has edits that would be lost.
    """
    update(lessons(folder) | exercises.made(folder))


def lessons(folder: Path) -> dict[Path, NotebookNode]:
    """{path of the `.ipynb`: notebook as its `.py` makes it}"""
    return {text.with_suffix(".ipynb"): jupytext.read(text) for text in sorted(folder.glob("*.py"))}


def update(made: dict[Path, NotebookNode], setup: bool = True) -> None:
    """Write each of `made` to its path with the outputs it had and, if `setup`, the configured repository's cell."""
    found = repository.configured() if setup else None
    for path, notebook in made.items():
        refuse_lost_edits(path, notebook)
    for path, notebook in made.items():
        notebook.cells = repository.with_setup(notebook.cells, found)
        write(path, with_outputs(notebook, path) if path.exists() else notebook)


def read(path: Path) -> NotebookNode:
    """The notebook at `path`; ValueError, with its name, where it is none, as after a merge with conflicts."""
    try:
        return nbformat.read(path, as_version=4)
    except (AttributeError, ValueError, nbformat.ValidationError) as error:  # the first: of a list
        raise ValueError(f"{path} is no notebook: restore it, or delete it and repeat") from error


def with_outputs(notebook: NotebookNode, path: Path) -> NotebookNode:
    """`notebook` with the outputs that are stored in `path`; those of code that has changed since are left out."""
    stored = read(path)
    ran = {cell.source for cell in stored.cells}
    combined = combine_inputs_with_outputs(notebook, stored)  # which takes similar code to be the same
    for cell in combined.cells:
        if cell.cell_type == "code" and cell.source not in ran:
            cell.outputs, cell.execution_count = [], None
    return combined


def write(path: Path, notebook: NotebookNode) -> None:
    """Write `notebook` with the digest of its cells: whole or, if interrupted, not at all."""
    kept = {key: notebook.metadata[key] for key in ("kernelspec", "mystnb") if key in notebook.metadata}
    course = {"course": {"made_with": digest(notebook)}}
    notebook.metadata = nbformat.from_dict(kept | {"language_info": {"name": "python"}} | course)
    records.write_text(nbformat.writes(notebook) + "\n", path)


# --- Whose edits are whose.


def cells_of(notebook: NotebookNode) -> list[list[str]]:
    """What two notebooks must agree in: each cell's type, tags and options, then its lines; no set-up cell."""
    return [[about(one), *one.source.split("\n")] for one in notebook.cells if not repository.is_setup(one)]


def about(cell: NotebookNode) -> str:
    options = cell.metadata.get("mystnb", {})  # such as an image's alternative text
    said = [json.dumps(options, sort_keys=True, ensure_ascii=False)] if options else []
    return " ".join([cell.cell_type, *cell.metadata.get("tags", []), *said])


def digest(notebook: NotebookNode) -> str:
    return hashlib.sha256(json.dumps(cells_of(notebook)).encode()).hexdigest()[:16]


def made_with(notebook: NotebookNode) -> str | None:
    return notebook.metadata.get("course", {}).get("made_with")


def refuse_lost_edits(path: Path, new: NotebookNode) -> None:
    """Raise RuntimeError if writing `new` to `path` would undo edits made there; it says where they begin."""
    if not path.exists():
        return
    stored = read(path)
    if digest(stored) in (digest(new), made_with(stored)):
        return
    if not path.with_suffix(".py").exists():
        advice = "to keep this, move or rename the file; otherwise delete it"
    elif digest(new) == made_with(stored):
        taken = f"python -m course_utils sync --from-notebook {path}"
        advice = f"to take it over, run `{taken}`; otherwise delete it"
    else:
        advice = "the source was edited, too: copy what you want to keep into it, then delete the .ipynb"
    found = f"{path} was edited since it was made: {difference(stored, new)}"
    raise RuntimeError(f"{found}; {advice}, and repeat")


def difference(notebook: NotebookNode, source: NotebookNode) -> str:
    """The first line in which a notebook differs from its source; empty if they agree."""
    for number, (ours, theirs) in enumerate(zip_longest(cells_of(notebook), cells_of(source)), start=1):
        for a, b in zip_longest(ours or [], theirs or []):
            if a != b:
                return f"cell {number} has {a!r} where its source has {b!r}"
    return ""


def take_over(notebook: Path) -> None:
    """Write the cells of an edited `.ipynb` into its `.py`.

    Raises RuntimeError where the `.py` was edited, too, and where a cell could not be read back from it.
    """
    text = notebook.with_suffix(".py")
    if notebook.suffix != ".ipynb" or not text.exists():
        expected = "expected an .ipynb beside a .py that it is made from; edit its own source"
        raise RuntimeError(f"{notebook}: {expected}")
    stored = read(notebook)
    source = jupytext.read(text)
    if digest(source) not in (digest(stored), made_with(stored)):
        found = f"{text} was edited since {notebook.name} was made: {difference(stored, source)}"
        raise RuntimeError(f"{found}; copy what you want to keep into it by hand")
    source.cells = [cell for cell in stored.cells if not repository.is_setup(cell)]
    source.metadata.setdefault("jupytext", {})["cell_metadata_filter"] = "tags,mystnb,-all"
    written = jupytext.writes(source, fmt="py:percent")
    if found := difference(source, jupytext.reads(written, fmt="py:percent")):
        where = "would not be the same out of a .py, where # %% begins a cell"
        raise RuntimeError(f"{notebook} {where}: {found}")
    records.write_text(written, text)
    write(notebook, combine_inputs_with_outputs(jupytext.read(text), stored))


# --- Running them.


def execute(folder: Path = NOTEBOOKS, profile: str = "quick") -> None:
    """Run each lesson in `folder` from top to bottom and store its outputs; a cell has ten minutes. `sync` comes first.

    Exercises are not run: they fail until they are solved. A cell that fails raises nbclient's CellExecutionError, and
    the file stays as it was.
    """
    for path in lessons(folder):
        notebook = read(path)
        try:
            run_cells(notebook, folder, profile, timeout=600)
        except Exception as error:
            error.add_note(f"while executing {path}")
            raise
        refuse_lost_edits(path, notebook)  # it may have been edited meanwhile
        write(path, notebook)


def run_cells(notebook: NotebookNode, folder: Path, profile: str, timeout: int | None) -> float:
    """Run `notebook` in `folder`, keep its outputs in it, and return the seconds that it took."""
    options = {"record_timing": False, "coalesce_streams": True}  # times would change in every diff
    where = {"metadata": {"path": str(folder)}}
    client = NotebookClient(notebook, timeout=timeout, kernel_name="python3", resources=where, **options)
    started = time.perf_counter()
    quick = {"COURSE_DEVICE": "cpu"} if profile == "quick" else {}  # as the tests run them
    client.execute(env={**os.environ, "COURSE_PROFILE": profile, "TQDM_DISABLE": "1", **quick})
    return time.perf_counter() - started
