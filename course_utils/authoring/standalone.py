"""Standalone notebooks: a lesson with the package inside, to open in Colab, in Kaggle or in any other Jupyter.

The package travels as readable cells, one a module, that write it into the folder the notebook runs in. So there
is nothing to install and no address to trust. Stored outputs are left out: in a notebook that is about to be run
they would be those of somebody else's run, and most of the file. What a copy itself has printed stays.
"""

import ast
import functools
import re
import tomllib
from contextlib import suppress
from copy import deepcopy
from pathlib import Path

from IPython.core.inputtransformer2 import TransformerManager
from nbformat import NotebookNode, v4

from course_utils.authoring import exercises, repository, sync
from course_utils.lab import records
from course_utils.lessons import EXPECTATIONS

PACKAGE = Path(__file__).resolve().parents[1]
IMPORT_NAMES = {"pillow": "PIL"}  # where it differs from the name to install

# What folds a cell's source away in JupyterLab, in Colab and in Kaggle.
FOLDED = {"jupyter": {"source_hidden": True}, "cellView": "form", "_kg_hide-input": True}

TIMES = [EXPECTATIONS[name][0] for name in ("smallnet-source", "resnet-lesson")]
ABOUT = f"""\
**This notebook stands alone**: it runs in Colab, in Kaggle and in any other Jupyter that has PyTorch. Choose a
profile in the next cell, then run all cells. *Quick* draws its own pictures; *full* fetches CIFAR and takes
{TIMES[0]} (Session 1) or {TIMES[1]} (Session 2) on two CPU cores that compute in bfloat16, about twice
(Session 1) or five times (Session 2) as long on two that do not, and far less on a GPU.

The folded cells write the course's package, `course_utils`, into the folder that this notebook runs in. Unfold
them to read it. If you change one, restart the session and run all cells again."""

SETUP = """\
# @title Choose a profile
PROFILE = "quick"  # @param ["quick", "full"]

import os
from importlib import metadata

from packaging.requirements import Requirement

os.environ["COURSE_PROFILE"] = PROFILE


def lacks(line):
    needed = Requirement(line)
    bounds = [one for one in needed.specifier if one.operator != "<"]  # newer ones may do
    try:
        found = metadata.version(needed.name)
    except metadata.PackageNotFoundError:
        return True
    return not all(one.contains(found, prereleases=True) for one in bounds)


needs = [
{needs}]
missing = [f'"{{line}}"' for line in needs if lacks(line)]
if missing:
    raise ModuleNotFoundError(
        "Missing or too old. Run this in a cell of its own, then restart the session and run all "
        "cells:\\n"
        f"%pip install {{' '.join(missing)}}"
    )

if os.path.exists("course_utils/__main__.py"):
    raise FileExistsError(
        "The course is in this folder already: open its notebooks/ instead."
    )
for folder in {folders}:
    os.makedirs(folder, exist_ok=True)"""


def write(out: Path, notebooks: Path = sync.NOTEBOOKS) -> list[Path]:
    """Write into `out` a standalone copy of every `.ipynb` in `notebooks` that imports the package; returns the copies.

    A notebook that no `.py` there makes, such as somebody's own copy, is left out: its answers are not for a site.
    Raises RuntimeError where there is no such notebook, and where a copy in `out` has edits that would be lost.
    """
    if out.resolve() == notebooks.resolve():
        raise RuntimeError(f"expected another --out than the notebooks' own folder, found {out}")
    made = sorted(sync.lessons(notebooks) | exercises.made(notebooks))
    read = {path.name: sync.read(path) for path in made if path.exists()}
    copies = {out / name: standalone(lesson) for name, lesson in read.items() if own_files(code_of(lesson))}
    if not copies:
        advice = "run this in the course's folder"
        raise RuntimeError(f"no notebook in {notebooks} imports course_utils and has a source: {advice}")
    out.mkdir(parents=True, exist_ok=True)
    sync.update(copies, setup=False)
    return list(copies)


def standalone(lesson: NotebookNode) -> NotebookNode:
    """A copy of the notebook `lesson` that carries the modules it needs, and no outputs."""
    code = code_of(lesson)
    modules = files_for(code)
    files = modules + recorded(code)
    cells = [v4.new_markdown_cell(ABOUT), v4.new_code_cell(setup(code, modules, files))]
    cells += [v4.new_code_cell(writing(file), metadata=FOLDED) for file in files]
    for number, cell in enumerate(cells):
        cell.id = f"standalone-{number}"  # not random, so that the same lesson gives the same file
    cells += [fresh(cell) for cell in lesson.cells if not repository.is_setup(cell)]
    return v4.new_notebook(cells=cells, metadata=deepcopy(lesson.metadata))


def code_of(notebook: NotebookNode) -> str:
    """The code of `notebook` as plain Python: magics as calls, and without cells that are not finished."""
    magics, finished = TransformerManager(), []
    for cell in (cell for cell in notebook.cells if cell.cell_type == "code"):
        code = magics.transform_cell(cell.source)
        with suppress(SyntaxError):
            ast.parse(code)
            finished.append(code)
    return "\n".join(finished)


def fresh(cell: NotebookNode) -> NotebookNode:
    """A copy of `cell` as if never run, that keeps its files in the folder it runs in."""
    cell = deepcopy(cell)
    if cell.cell_type == "code":
        cell.outputs, cell.execution_count = [], None
        # The course keeps weights beside its notebooks/; what lies above Colab's folder is not ours to write in.
        cell.source = cell.source.replace('"../weights/', '"weights/')
    return cell


# --- What a lesson needs.


@functools.cache
def imports(code: str) -> set[str]:
    """What `code` imports, anywhere in it, with dots and the imported name: {"torch.nn", "course_utils.data.load"}."""
    nodes = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Import | ast.ImportFrom)]
    inside = {node: f"{node.module}." if isinstance(node, ast.ImportFrom) else "" for node in nodes}
    return {inside[node] + alias.name for node in nodes for alias in node.names}


def own_files(code: str) -> set[Path]:
    """The files of the package that run when `code` is imported: modules, and each folder's `__init__.py`."""
    parts = [name.split(".") for name in imports(code) if name.split(".")[0] == PACKAGE.name]
    paths = {PACKAGE.parent.joinpath(*part[:n]) for part in parts for n in range(1, len(part) + 1)}
    files = {file for path in paths for file in (path.with_suffix(".py"), path / "__init__.py")}
    return {file for file in files if file.is_file()}


def files_for(code: str) -> list[Path]:
    """All files of the package that `code` needs, those that its imports import included, sorted."""
    found, new = set(), own_files(code)
    while new:
        found |= new
        new = set().union(*(own_files(file.read_text(encoding="utf-8")) for file in new)) - found
    return sorted(found)


def requirements(codes: list[str]) -> dict[str, str]:
    """What `pyproject.toml` requires of what `codes` import, by import name: {"torch": "torch>=2.11,<2.15"}."""
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    imported = {name.split(".")[0] for code in codes for name in imports(code)}
    names = [re.match(r"[\w-]+", line)[0] for line in project["dependencies"]]
    lines = zip([IMPORT_NAMES.get(name, name) for name in names], project["dependencies"], strict=True)
    return {name: line for name, line in lines if name in imported}


def recorded(code: str) -> list[Path]:
    """The records of the recipes that `code` names."""
    return [path for path in sorted(records.RECORDED.glob("*/seed*.json")) if f'"{path.parent.name}"' in code]


# --- The cells.


def setup(code: str, modules: list[Path], files: list[Path]) -> str:
    """The form: sets the profile, says what is not installed, makes the folders that `files` go into."""
    codes = [code, *(module.read_text(encoding="utf-8") for module in modules)]
    needs = [f'    "{line}",\n' for line in requirements(codes).values()]
    folders = sorted({in_package(file.parent) for file in files})
    return SETUP.format(needs="".join(needs), folders=folders)


def writing(file: Path) -> str:
    """The cell that writes one file. IPython wants the magic in the first line; Colab finds the title in the next."""
    name, text = in_package(file), file.read_text(encoding="utf-8")
    title = f"# @title {name}\n" if file.suffix == ".py" else ""
    return f"%%writefile {name}\n{title}{text}".rstrip("\n")


def in_package(path: Path) -> str:
    """`path` as it is written in every system: course_utils/…"""
    return path.relative_to(PACKAGE.parent).as_posix()
