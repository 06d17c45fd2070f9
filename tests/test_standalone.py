"""Standalone notebooks: they carry what they need, say what is missing, and run in an empty folder.

Costs about 15 s, for a kernel that imports torch for each lesson. That the lessons also run to their end is checked
by hand, with benchmarks/standalone_notebooks.py, because it takes two minutes.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from course_utils.authoring import standalone
from course_utils.lab import records
from course_utils.authoring.sync import NOTEBOOKS

ROOT = NOTEBOOKS.parent
LESSONS = ("01_smallnet", "02_resnet")
each_lesson = pytest.mark.parametrize("name", LESSONS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("standalone")
    standalone.write(out)
    return out


def cells_of(path: Path) -> list:
    return nbformat.read(path, as_version=4).cells


def lesson_with(code: str):
    """A notebook of one cell."""
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)], metadata=kernel)


# ---- what is in them ----


@each_lesson
def test_the_lesson_follows_the_package_without_outputs(folder, name):
    copy, lesson = cells_of(folder / f"{name}.ipynb"), cells_of(NOTEBOOKS / f"{name}.ipynb")
    nbformat.validate(nbformat.read(folder / f"{name}.ipynb", as_version=4))
    own = len(copy) - len(lesson)
    assert [cell.cell_type for cell in copy[:2]] == ["markdown", "code"]
    assert all(cell.source.startswith("%%writefile course_utils/") for cell in copy[2:own])
    assert all(cell.metadata.jupyter.source_hidden for cell in copy[2:own])
    assert [cell.id for cell in copy[own:]] == [cell.id for cell in lesson]
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in copy)
    assert not any("../" in cell.source for cell in copy[own:] if cell.cell_type == "code")


def test_the_same_lesson_gives_the_same_file(folder, tmp_path):
    for path in standalone.write(tmp_path):
        assert path.read_bytes() == (folder / path.name).read_bytes()


def test_modules_are_those_that_imports_lead_to():
    found = standalone.modules_for("def later():\n    from course_utils.data import BatchLoader")
    assert {"__init__", "loaders", "data", "fetch", "shapes"} <= set(found)
    assert not {"authoring", "bench", "plots", "standalone"} & set(found)


@pytest.mark.parametrize(
    "code",
    ["from course_utils import shapes, devices", "import course_utils.shapes, course_utils.devices"],
)
def test_imports_are_found_however_they_are_written(code):
    assert standalone.own_imports(code) == {"shapes", "devices"}


def test_only_what_is_imported_is_required():
    found = standalone.requirements(["from torch import nn", "import PIL.Image as image"])
    assert set(found) == {"torch", "PIL"}
    assert found["PIL"].startswith("pillow>=")


def test_records_of_the_recipes_named_come_along(tmp_path, monkeypatch):
    package = Path(shutil.copytree(standalone.PACKAGE, tmp_path / "course_utils"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    monkeypatch.setattr(standalone, "PACKAGE", package)
    monkeypatch.setattr(records, "RECORDED", package / "recorded")
    for name in ("this", "other"):
        (package / "recorded" / name).mkdir(parents=True, exist_ok=True)
        (package / "recorded" / name / "seed0.json").write_text("{}")
    cells = standalone.standalone(
        lesson_with('from course_utils import records\nrecords.of_recipe("this")')
    ).cells
    written = [cell.source for cell in cells if "recorded/" in cell.source.split("\n")[0]]
    assert written == ["%%writefile course_utils/recorded/this/seed0.json\n{}"]
    assert "'course_utils/recorded/this'" in cells[1].source


def test_a_folder_without_lessons_is_refused(tmp_path):
    nbformat.write(lesson_with("print(1)"), tmp_path / "other.ipynb")
    with pytest.raises(RuntimeError, match="no notebook in .* imports course_utils"):
        standalone.write(tmp_path / "out", tmp_path)


# ---- the set-up cell ----


@pytest.fixture
def setup(folder, tmp_path, monkeypatch) -> str:
    """The source of a set-up cell, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COURSE_PROFILE", "quick")
    return cells_of(folder / "02_resnet.ipynb")[1].source


def test_the_form_chooses_the_profile(setup):
    chosen = setup.replace('PROFILE = "quick"  # @param', 'PROFILE = "full"  # @param')
    exec(chosen, {})
    assert os.environ["COURSE_PROFILE"] == "full"
    assert Path("course_utils").is_dir()
    exec(chosen, {})  # a second time is no mistake


def test_a_missing_package_is_named_with_the_way_to_get_it(setup, monkeypatch):
    find_spec = importlib.util.find_spec
    missing = ("torchsummary", "albumentations")
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name in missing else find_spec(name)
    )
    with pytest.raises(ModuleNotFoundError, match='%pip install "albumentations==.*" "torchsummary==.*"$'):
        exec(setup, {})


def test_the_course_itself_is_not_overwritten(setup):
    Path("course_utils").mkdir()
    Path("course_utils", "__main__.py").touch()
    with pytest.raises(FileExistsError, match="open its notebooks/"):
        exec(setup, {})


# ---- running them ----


@each_lesson
def test_a_lesson_starts_in_an_empty_folder(folder, tmp_path, name):
    notebook = nbformat.read(folder / f"{name}.ipynb", as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    package = [cell for cell in code if cell.source.startswith("%%writefile")]
    files = [cell.source.split()[1] for cell in package]
    modules = [name for name in files if name.endswith(".py")]
    everything = "\n".join(
        f"import {name.removesuffix('.py').replace('/', '.')}" for name in modules if "__init__" not in name
    )
    asking = nbformat.v4.new_code_cell(f"{everything}\nprint(course_utils.__file__)")
    notebook.cells = [*code[: len(package) + 2], asking]  # the set-up, and the lesson's first cell
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
    for record in set(files) - set(modules):
        assert (tmp_path / record).read_bytes() == (ROOT / record).read_bytes()


def test_the_site_hands_out_standalone_notebooks(folder, tmp_path):
    extensions = ROOT / "book" / "_ext"
    (tmp_path / "conf.py").write_text(
        f"import sys\nsys.path.append({str(extensions)!r})\nextensions = ['standalone_downloads']\n"
    )
    (tmp_path / "index.rst").write_text("Title\n=====\n")
    command = [sys.executable, "-m", "sphinx", "-W", "-q", str(tmp_path), str(tmp_path / "out")]
    result = subprocess.run(command, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
    for path in folder.glob("*.ipynb"):
        handed_out = tmp_path / "out" / "_sources" / "notebooks" / path.name
        assert handed_out.read_bytes() == path.read_bytes()
