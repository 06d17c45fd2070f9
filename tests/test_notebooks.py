"""The notebooks as files: twins agree, Jupyter opens both, stored outputs are clean, syncs lose nothing. Takes 10 s."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import nbformat
import pytest

from course_utils.authoring import sync as authoring

NOTEBOOKS = sorted(authoring.NOTEBOOKS.glob("*.ipynb"))
TEXTS = sorted(authoring.NOTEBOOKS.glob("*.py"))
EXERCISES = [path for path in NOTEBOOKS if authoring.is_exercise(path)]
EXECUTED = [path for path in NOTEBOOKS if path not in EXERCISES]
LESSONS = [path for path in EXECUTED if not path.stem.endswith("_solutions")]


def each(paths):
    return pytest.mark.parametrize("path", paths, ids=lambda path: path.stem)


@pytest.fixture
def server(tmp_path):
    """The address of Jupyter's server, started as `jupyter lab` starts it, from the course's folder."""
    pytest.importorskip("jupyter_server")
    token = "for-this-test"
    command = [sys.executable, "-m", "jupyter_server", "--no-browser", "--allow-root", "--port=0"]
    process = subprocess.Popen(
        [*command, f"--IdentityProvider.token={token}"],
        cwd=authoring.NOTEBOOKS.parent,
        env={**os.environ, "JUPYTER_RUNTIME_DIR": str(tmp_path)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while not (said := "".join(path.read_text() for path in tmp_path.glob("jpserver-*.json"))):
            assert process.poll() is None, "the server stopped"
            time.sleep(0.1)
        port = json.loads(said)["port"]

        def get(path):
            return json.load(urlopen(f"http://127.0.0.1:{port}/api/{path}?token={token}", timeout=60))

        for attempt in range(100):  # the file is written a moment before anybody listens at the port
            with suppress(URLError):
                get("status")
                break
            assert process.poll() is None and attempt < 99, "the server does not answer"
            time.sleep(0.1)
        yield get
    finally:
        process.terminate()
        process.wait()


TEXT = """\
# %% [markdown]
# # A title

# %% tags=["nbval-ignore-output"]
width = 32
print(width)

# %%
height = 16
print(height)
"""


def outputs(path: Path) -> list:
    cells = nbformat.read(path, as_version=4).cells
    return [output for cell in cells for output in cell.get("outputs", [])]


def output_text(output) -> str:
    """What a reader sees of an output, without the pictures' bytes."""
    data = output.get("data", {})
    return "".join([output.get("text", ""), data.get("text/plain", ""), data.get("text/html", "")])


def test_every_notebook_has_a_twin():
    assert [path.stem for path in NOTEBOOKS] == [path.stem for path in TEXTS]
    assert {"01_smallnet", "02_resnet"} <= {path.stem for path in NOTEBOOKS}


@each(NOTEBOOKS)
def test_twins_agree(path):
    assert authoring.differences(path, path.with_suffix(".py")) == []


@each(EXECUTED)
def test_stored_outputs_are_clean(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata["kernelspec"]["name"] == "python3"
    for output in outputs(path):
        assert output.output_type != "error"
        assert output.get("name") != "stderr", output.text
        machine_paths = r"/(home|tmp|root|Users)/|[A-Z]:\\|<[\w.]+ at 0x[0-9a-f]+>"
        assert not re.search(machine_paths, output_text(output)), output_text(output)


@each(EXECUTED)
def test_every_code_cell_was_run_in_order(path):
    cells = nbformat.read(path, as_version=4).cells
    counts = [cell.execution_count for cell in cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))


def test_jupyter_opens_every_text_as_a_notebook(server):
    kernels = server("kernelspecs")["kernelspecs"]
    for path in TEXTS:
        found = server(f"contents/notebooks/{path.name}")
        assert found["type"] == "notebook", path
        cells = [cell["source"] for cell in found["content"]["cells"]]
        assert cells == [
            cell.source for cell in nbformat.read(path.with_suffix(".ipynb"), as_version=4).cells
        ]
        assert found["content"]["metadata"]["kernelspec"]["name"] in kernels


@each(EXERCISES)
def test_exercises_were_not_run(path):
    nbformat.validate(nbformat.read(path, as_version=4))
    assert outputs(path) == []


@each(LESSONS)
def test_a_cell_that_trains_starts_anew(path):
    """Run twice, it would otherwise train on from the weights, or the schedule, that the first time left behind."""
    cells = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    training_cells = [cell for cell in cells if "training.fit(" in cell]
    assert training_cells
    for cell in training_cells:
        nodes = list(ast.walk(ast.parse(cell)))
        made_here = {node.arg for node in nodes if isinstance(node, ast.arg)}
        made_here |= {
            node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
        }
        [call] = [
            node for node in nodes if isinstance(node, ast.Call) and ast.unparse(node.func) == "training.fit"
        ]
        model, _, _, _, *optimizer_and_scheduler = call.args
        for argument in (model, *optimizer_and_scheduler):
            names = {node.id for node in ast.walk(argument) if isinstance(node, ast.Name)}
            assert names & made_here, ast.unparse(argument)


@each(LESSONS)
def test_first_output_says_the_profile(path):
    assert re.search(r"\bquick\b", output_text(outputs(path)[0]))


@pytest.fixture
def pair(tmp_path) -> tuple[Path, Path]:
    """A small notebook and its text, in agreement."""
    text = tmp_path / "lesson.py"
    text.write_text(TEXT, encoding="utf-8")
    authoring.sync(tmp_path)
    return tmp_path / "lesson.ipynb", text


def edit(text: Path, old: str, new: str) -> None:
    """Change `text` and make it the later file, whatever the clock's resolution."""
    assert old in text.read_text(encoding="utf-8")
    text.write_text(text.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    later = text.with_suffix(".ipynb").stat().st_mtime + 5
    os.utime(text, (later, later))


def test_a_new_twin_agrees(pair):
    assert authoring.differences(*pair) == []


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ("width = 32", "width = 64", ["cell 2: line 'width = 32' in .*, 'width = 64' in .*"]),
        ("print(height)\n", "", ["cell 3: line 'print\\(height\\)' in .*, None in .*"]),
        ("ignore-output", "skip", [r"cell 2: tags \['nbval-ignore-output'\] in .*"]),
        (' tags=["nbval-ignore-output"]', "", [r"cell 2: tags \[.*\] in .*, \[\] in .*"]),
        ("# %%\nheight = 16\nprint(height)\n", "", ["cell 3: only in lesson.ipynb"]),
        ("print(height)\n", "print(height)\n\n# %%\n1\n", ["cell 4: only in lesson.py"]),
        ("# %% [markdown]", "# %%", ["cell 1: type 'markdown' in .*, 'code' in .*", "cell 1: line"]),
    ],
    ids=["line", "lines", "tag", "no tag", "missing cell", "new cell", "type"],
)
def test_differences_names_the_change(pair, old, new, found):
    edit(pair[1], old, new)
    changes = authoring.differences(*pair)
    assert len(changes) == len(found)
    assert all(re.match(pattern, change) for pattern, change in zip(found, changes, strict=True))


def test_differences_sees_swapped_cells(pair):
    title, first, second = TEXT.split("# %%")[1:]
    pair[1].write_text("# %%" + "# %%".join([title, second + "\n", first]))
    cells = {change.split(":")[0] for change in authoring.differences(*pair)}
    assert cells == {"cell 2", "cell 3"}


def test_sync_takes_the_text_and_keeps_the_outputs(pair):
    notebook, text = pair
    authoring.execute(notebook.parent)
    edit(text, "# # A title", "# # Another title")
    authoring.sync(notebook.parent)
    assert authoring.differences(notebook, text) == []
    assert [output.text for output in outputs(notebook)] == ["32\n", "16\n"]


def test_sync_twice_changes_nothing(pair):
    before = pair[0].read_bytes(), pair[1].read_bytes()
    authoring.sync(pair[0].parent)
    assert (pair[0].read_bytes(), pair[1].read_bytes()) == before


def test_sync_refuses_to_undo_a_later_edit_of_the_notebook(pair):
    notebook, text = pair
    notebook.write_text(
        notebook.read_text(encoding="utf-8").replace("width = 32", "width = 48"), encoding="utf-8"
    )
    later = text.stat().st_mtime + 5
    os.utime(notebook, (later, later))
    edited = notebook.read_bytes()
    with pytest.raises(RuntimeError, match=r"lesson\.ipynb was saved after lesson\.py.*width = 48"):
        authoring.sync(notebook.parent)
    assert notebook.read_bytes() == edited


def test_execute_stores_fresh_outputs_in_the_profile_asked_for(tmp_path):
    text = tmp_path / "lesson.py"
    text.write_text("import os\n\nprint(os.environ['COURSE_PROFILE'], os.getcwd())\n")
    authoring.execute(tmp_path, profile="full")
    [output] = outputs(tmp_path / "lesson.ipynb")
    assert output.text == f"full {tmp_path}\n"
    metadata = nbformat.read(tmp_path / "lesson.ipynb", as_version=4)
    assert "execution" not in metadata.cells[0].metadata
    assert metadata.metadata["language_info"] == {"name": "python"}


def test_a_failing_cell_leaves_the_stored_notebook(pair):
    notebook, text = pair
    authoring.execute(notebook.parent)
    edit(text, "height = 16", "height = 1 / 0")
    authoring.sync(notebook.parent)
    stored = shutil.copy(notebook, notebook.with_suffix(".before"))
    with pytest.raises(Exception, match="ZeroDivisionError") as failure:
        authoring.execute(notebook.parent)
    assert f"while executing {notebook}" in failure.value.__notes__
    assert notebook.read_bytes() == Path(stored).read_bytes()
