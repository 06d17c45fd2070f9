"""Standalone notebooks: they carry what they need, say what is missing, and run in an empty folder.

That the lessons also run to their end is checked by hand, with benchmarks/standalone_notebooks.py: it takes minutes.
"""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat import v4

from course_utils.authoring import standalone, sync
from course_utils.authoring.sync import read
from course_utils.lab import records

ROOT = sync.NOTEBOOKS.parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("standalone")
    standalone.write(out)
    return out


def lesson_with(code: str):
    """A notebook of one cell."""
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    return v4.new_notebook(cells=[v4.new_code_cell(code)], metadata=kernel)


def files_for(code: str) -> set[str]:
    return {file.relative_to(standalone.PACKAGE).as_posix() for file in standalone.files_for(code)}


# --- What is in them.


@pytest.mark.parametrize("name", ["01_smallnet", "02_resnet_exercises"])
def test_the_lesson_follows_the_package_without_outputs(folder, name):
    copy, lesson = read(folder / f"{name}.ipynb").cells, read(sync.NOTEBOOKS / f"{name}.ipynb").cells
    nbformat.validate(read(folder / f"{name}.ipynb"))
    own = len(copy) - len(lesson)
    assert [cell.cell_type for cell in copy[:2]] == ["markdown", "code"]
    assert all(cell.source.startswith("%%writefile course_utils/") for cell in copy[2:own])
    assert all(cell.metadata.jupyter.source_hidden for cell in copy[2:own])
    assert [cell.id for cell in copy[own:]] == [cell.id for cell in lesson]
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in copy)
    assert not any("../" in cell.source for cell in copy[own:] if cell.cell_type == "code")


def test_a_copy_keeps_what_it_printed_and_its_answers(folder, tmp_path):
    """Over an untouched copy the same bytes are written. A full run of a lesson takes two hours."""
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    for path in standalone.write(tmp_path):
        assert path.read_bytes() == (folder / path.name).read_bytes()
    ran = read(path := tmp_path / "01_smallnet.ipynb")
    cell = next(cell for cell in reversed(ran.cells) if cell.cell_type == "code")
    cell.outputs = [v4.new_output("stream", text="two hours later")]
    nbformat.write(ran, path)
    standalone.write(tmp_path)
    text = path.read_text("utf-8")
    assert "two hours later" in text
    path.write_text(text.replace("# Session 1", "# My session 1"), encoding="utf-8")
    before = path.read_bytes()
    with pytest.raises(RuntimeError, match=r"was edited.*My session 1.*move or rename"):
        standalone.write(tmp_path)
    assert path.read_bytes() == before


def test_files_are_those_that_imports_lead_to():
    inside = "def later():\n    from course_utils.data import BatchLoader"
    for code in (inside, "from course_utils import data, shapes", "import torch, course_utils.data"):
        found = files_for(code)
        assert {"__init__.py", "data.py", "datasets/__init__.py", "datasets/shapes.py"} <= found
        assert not {file for file in found if file.startswith(("authoring", "lab", "plots"))}


def test_magics_and_half_written_cells_break_no_copy():
    cells = (
        "%timeit 1 + 1",
        "!nvidia-smi",
        "%%time\nimport math",
        "answer = ",
        "from course_utils import data",
    )
    code = standalone.code_of(v4.new_notebook(cells=[v4.new_code_cell(cell) for cell in cells]))
    assert standalone.imports(code) == {"course_utils.data"}


def test_only_what_is_imported_is_required():
    found = standalone.requirements(["from torch import nn", "import PIL.Image as image"])
    assert set(found) == {"torch", "PIL"}
    assert re.match("pillow[>=]=", found["PIL"])


def test_records_of_the_recipes_named_come_along(tmp_path, monkeypatch):
    package = Path(shutil.copytree(standalone.PACKAGE, tmp_path / "course_utils"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    monkeypatch.setattr(standalone, "PACKAGE", package)
    monkeypatch.setattr(records, "RECORDED", package / "lab" / "recorded")
    for name in ("this", "other"):
        (package / "lab" / "recorded" / name).mkdir()
        (package / "lab" / "recorded" / name / "seed0.json").write_text("{}")
    code = 'from course_utils.lab import records\nrecords.of_recipe("this")'
    cells = standalone.standalone(lesson_with(code)).cells
    written = [cell.source for cell in cells if "recorded/" in cell.source.split("\n")[0]]
    assert written == ["%%writefile course_utils/lab/recorded/this/seed0.json\n{}"]
    assert "'course_utils/lab/recorded/this'" in cells[1].source


def test_a_notebook_of_ones_own_beside_the_lessons_is_left_out(tmp_path):
    for name in ("01_x", "01_x-Copy1", "01_x_exercises", "anna_exercises"):
        nbformat.write(lesson_with("from course_utils import data"), tmp_path / f"{name}.ipynb")
    for name in ("01_x", "01_x_solutions"):
        (tmp_path / f"{name}.py").write_text("")
    assert [path.stem for path in standalone.write(tmp_path / "out", tmp_path)] == ["01_x", "01_x_exercises"]


def test_a_folder_without_lessons_is_refused(tmp_path):
    nbformat.write(lesson_with("print(1)"), tmp_path / "other.ipynb")
    (tmp_path / "other.py").write_text("print(1)")
    with pytest.raises(RuntimeError, match="no notebook in .* imports course_utils"):
        standalone.write(tmp_path / "out", tmp_path)
    with pytest.raises(RuntimeError, match="expected another --out"):
        standalone.write(sync.NOTEBOOKS)


# --- The set-up cell.


@pytest.fixture
def setup(folder, tmp_path, monkeypatch) -> str:
    """The source of a set-up cell, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COURSE_PROFILE", "quick")
    return read(folder / "02_resnet.ipynb").cells[1].source


def test_the_form_chooses_the_profile(setup):
    chosen = setup.replace('PROFILE = "quick"  # @param', 'PROFILE = "full"  # @param')
    exec(chosen, {})
    assert os.environ["COURSE_PROFILE"] == "full"
    assert Path("course_utils", "lab").is_dir()
    exec(chosen, {})  # a second time is no mistake


def test_a_missing_package_is_named_with_the_way_to_get_it(setup, monkeypatch):
    there = importlib.metadata.version

    def version(name):
        if name == "torchsummary":
            raise importlib.metadata.PackageNotFoundError(name)
        return "2.0.7" if name == "albumentations" else there(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    with pytest.raises(ModuleNotFoundError, match='%pip install "albumentations==2.0.8" "torchsummary==.*"$'):
        exec(setup, {})


def test_the_course_itself_is_not_overwritten(setup):
    Path("course_utils").mkdir()
    Path("course_utils", "__main__.py").touch()
    with pytest.raises(FileExistsError, match="open its notebooks/"):
        exec(setup, {})


# --- Running them.


def test_a_lesson_starts_in_an_empty_folder(folder, tmp_path):
    """Session 2, to the end of its first cell: it carries whatever Session 1 does."""
    assert {*files_carried(folder / "01_smallnet.ipynb")} <= {*files_carried(folder / "02_resnet.ipynb")}
    notebook = read(folder / "02_resnet.ipynb")
    modules = files_carried(folder / "02_resnet.ipynb")
    names = [name[:-3].replace("/", ".") for name in modules if "__init__" not in name]
    everything = "\n".join(f"import {name}" for name in names)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    own = [cell for cell in code if "%%" not in cell.source]
    first = code.index(next(cell for cell in own if "lessons.for_lesson" in cell.source))
    notebook.cells = [*code[: first + 1], v4.new_code_cell(f"{everything}\nprint(course_utils.__file__)")]
    elsewhere = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    client = NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}})
    client.execute(env=elsewhere)
    assert "profile  quick" in notebook.cells[-2].outputs[0].text
    imported_from = Path(notebook.cells[-1].outputs[-1].text.strip())
    assert imported_from == (tmp_path / "course_utils" / "__init__.py").resolve()
    for module in modules:
        title, _, text = (tmp_path / module).read_text(encoding="utf-8").partition("\n")
        assert title == f"# @title {module}"
        assert text == (ROOT / module).read_text(encoding="utf-8")


def files_carried(path: Path) -> list[str]:
    """The modules that a standalone notebook writes."""
    lines = [cell.source.split("\n")[0] for cell in read(path).cells]
    return [line.split()[1] for line in lines if line.startswith("%%writefile") and line.endswith(".py")]


def test_the_site_hands_out_standalone_notebooks(folder, tmp_path):
    extensions = ROOT / "book" / "_ext"
    (tmp_path / "conf.py").write_text(
        f"import sys\nsys.path.append({str(extensions)!r})\nextensions = ['standalone_downloads']\n"
    )
    (tmp_path / "index.rst").write_text("Title\n=====\n")
    sources = tmp_path / "out" / "_sources" / "notebooks"
    sources.mkdir(parents=True)
    shutil.copy(sync.NOTEBOOKS / "01_smallnet.ipynb", sources)  # as Sphinx does
    command = [sys.executable, "-m", "sphinx", "-W", "-q", str(tmp_path), str(tmp_path / "out")]
    result = subprocess.run(command, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
    given, expected = ({path.name: path.read_bytes() for path in at.iterdir()} for at in (sources, folder))
    assert given == expected
    with zipfile.ZipFile(sources.with_suffix(".zip")) as archive:
        assert {name: archive.read(name) for name in archive.namelist() if name != "./"} == expected
