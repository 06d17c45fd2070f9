"""The notebooks as files: like their sources, clean, safe in Jupyter; and what syncing them writes and refuses."""

import ast
import os
import re
import shutil
from pathlib import Path

import jupytext
import nbformat
import pytest
from jupytext import TextFileContentsManager

from course_utils.authoring import exercises, in_full, repository, sync
from course_utils.authoring.sync import read

MADE = sync.lessons(sync.NOTEBOOKS) | exercises.made(sync.NOTEBOOKS)
EXECUTED = list(sync.lessons(sync.NOTEBOOKS))
LESSONS = [path for path in EXECUTED if not path.stem.endswith("_solutions")]

MACHINE_PATHS = r"/(home|tmp|root|Users)/|[A-Z]:\\|<[\w.]+ at 0x[0-9a-f]+>"

TEXT = """\
# %% [markdown]
# # A title

# %% tags=["nbval-ignore-output"]
width = 32
print(width)

# %%
import os
print(os.environ["COURSE_PROFILE"], os.getcwd())
"""


def each(paths):
    return pytest.mark.parametrize("path", paths, ids=lambda path: path.stem)


def outputs(path: Path) -> list:
    return [output for cell in read(path).cells for output in cell.get("outputs", [])]


def output_text(output) -> str:
    """What a reader sees of an output, without the pictures' bytes."""
    data = output.get("data", {})
    return "".join([output.get("text", ""), data.get("text/plain", ""), data.get("text/html", "")])


# --- The course's own notebooks.


def test_every_notebook_has_a_source():
    found = {path for path in sync.NOTEBOOKS.glob("*.ipynb") if "-Copy" not in path.stem}
    assert found == set(MADE), "move a notebook of your own out of this folder"
    assert {"01_smallnet", "02_resnet"} <= {path.stem for path in LESSONS}


@each(MADE)
def test_a_notebook_is_like_its_source(path):
    assert sync.difference(read(path), MADE[path]) == "", "run `python -m course_utils sync`"
    assert sync.made_with(read(path)) == sync.digest(MADE[path])
    setup = repository.with_setup(MADE[path].cells, repository.configured())
    assert [cell.source for cell in read(path).cells if repository.is_setup(cell)] == [
        cell.source for cell in setup if repository.is_setup(cell)
    ], "it installs the course as _config.yml says"


@each(EXECUTED)
def test_stored_outputs_are_clean_and_in_order(path):
    notebook = read(path)
    nbformat.validate(notebook)
    assert notebook.metadata["kernelspec"]["name"] == "python3"
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))
    assert re.search(r"\bquick\b", output_text(outputs(path)[0])) or path not in LESSONS
    for output in outputs(path):
        assert output.output_type != "error"
        assert output.get("name") != "stderr", output.text
        assert not re.search(MACHINE_PATHS, output_text(output)), output_text(output)


@each([path for path in in_full.LESSONS.values() if path.exists()])
def test_a_lesson_is_shown_as_it_ran_in_full(path):
    notebook = read(path)
    [name] = [name for name, stored in in_full.LESSONS.items() if stored == path]
    about = notebook.cells[1].source
    assert re.search(r"on \d+ \w+ 20\d\d, in \d+ minutes, on an? [^,]+ with \d+ threads", about), about
    lesson = in_full.from_lesson(name, about)
    assert sync.difference(notebook, lesson) == "", "run `python -m course_utils sync`"
    code = [cell for cell in notebook.cells if cell.cell_type == "code" and not repository.is_setup(cell)]
    ran = [cell.execution_count for cell in code]
    assert ran == list(range(1, len(code) + 1)), f"run `python -m course_utils execute-full {name}`"
    assert "profile  full" in output_text(code[0].outputs[0])
    for output in outputs(path):
        assert output.output_type != "error" and output.get("name") != "stderr", output
        assert not re.search(MACHINE_PATHS, output_text(output)), output_text(output)


@each(EXECUTED)
def test_a_figure_has_its_alternative_text_and_nothing_else_has(path):
    for cell in read(path).cells:
        drawn = any("image/png" in output.get("data", {}) for output in cell.get("outputs", []))
        assert drawn == (len(cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")) > 40), (
            cell.source
        )


@each(EXECUTED)
def test_what_a_page_hides_only_shows_records(path):
    """Code that teaches stays open; a folded solution is the reader's to open."""
    for cell in read(path).cells:
        tags = cell.metadata.get("tags", [])
        assert "hide-input" not in tags
        assert "remove-input" not in tags or re.search(r"\brecord(s|ed)\b", cell.source), cell.source


@each(LESSONS)
def test_a_cell_that_trains_starts_anew(path):
    """Run twice, it would otherwise train on from the weights, or the schedule, that the first time left behind."""
    cells = [cell.source for cell in read(path).cells if cell.cell_type == "code"]
    training_cells = [ast.parse(cell) for cell in cells if "training.fit(" in cell]
    assert training_cells
    for cell in training_cells:
        nodes = list(ast.walk(cell))
        made_here = {node.arg for node in nodes if isinstance(node, ast.arg)}
        named = [node for node in nodes if isinstance(node, ast.Name)]
        made_here |= {node.id for node in named if isinstance(node.ctx, ast.Store)}
        calls = [node for node in nodes if isinstance(node, ast.Call)]
        [call] = [node for node in calls if ast.unparse(node.func) == "training.fit"]
        model, _, _, _, *optimizer_and_scheduler = call.args
        for argument in (model, *optimizer_and_scheduler):
            names = {node.id for node in ast.walk(argument) if isinstance(node, ast.Name)}
            assert names & made_here, ast.unparse(argument)
        text, loader = ast.unparse(cell), ast.unparse(call.args[1])
        stored = {node.id for node in named if isinstance(node.ctx, ast.Store)}
        again = "seed_everything(0)" in text and (loader in stored or f"{loader}.epoch = 0" in text)
        assert again or path.stem == "03_failures", text  # where functions of its own do both


# --- In Jupyter, with Jupytext's extension.


@pytest.fixture(scope="module")
def edited(tmp_path_factory) -> Path:
    """The course's folder with each `.ipynb` edited where Jupytext is not, then copied: all files get a new time."""
    root = tmp_path_factory.mktemp("course")
    shutil.copy(sync.NOTEBOOKS.parent / "pyproject.toml", root)
    shutil.copytree(sync.NOTEBOOKS, root / "notebooks")
    for path in (root / "notebooks").glob("*.ipynb"):
        notebook = read(path)
        notebook.cells[-1].source = "my edit"
        nbformat.write(notebook, path)
    for path in sorted((root / "notebooks").iterdir()):
        os.utime(path)  # in the order of names, the .py last
    return root


def opened(root: Path, path: str):
    """What JupyterLab shows when somebody opens a file."""
    manager = TextFileContentsManager(root_dir=str(root))
    return manager.get(path)["content"]["cells"]


@each(MADE)
def test_an_edit_made_elsewhere_is_there_in_jupyter(edited, path):
    assert opened(edited, f"notebooks/{path.name}")[-1]["source"] == "my edit"


@each(EXECUTED)
def test_jupyter_opens_a_source_as_a_notebook_and_saves_it_alone(edited, path):
    name = f"notebooks/{path.stem}.py"
    manager = TextFileContentsManager(root_dir=str(edited))
    model, before = manager.get(name), (edited / name).with_suffix(".ipynb").read_bytes()
    cells = [(cell["cell_type"], cell["source"]) for cell in model["content"]["cells"]]
    assert cells == [(cell.cell_type, cell.source) for cell in MADE[path].cells]
    manager.save(model, name)
    assert (edited / name).with_suffix(".ipynb").read_bytes() == before
    assert sync.difference(jupytext.read(edited / name), MADE[path]) == ""


# --- Syncing.


@pytest.fixture
def pair(tmp_path) -> tuple[Path, Path]:
    """A small notebook and its text, in agreement, in a folder with a name that a pattern would misread."""
    folder = tmp_path / "course [2026]"
    folder.mkdir()
    (folder / "lesson.py").write_text(TEXT, encoding="utf-8")
    sync.sync(folder)
    return folder / "lesson.ipynb", folder / "lesson.py"


def edit(path: Path, old: str, new: str) -> None:
    """Change a file and leave it with the time that it had: no clock is to be asked."""
    before, text = path.stat(), path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ("", "", ""),
        ("width = 32", "width = 64", "cell 2 has 'width = 32' where its source has 'width = 64'"),
        ("print(width)\n", "", "cell 2 has 'print(width)' where its source has None"),
        ("ignore-output", "skip", "cell 2 has 'code nbval-ignore-output' where its source has 'code nbval-skip'"),
        ("print(width)\n", "print(width)\n\n# %%\n1\n", "cell 3 has 'import os' where its source has '1'"),
        ("# %% [markdown]", "# %%", "cell 1 has 'markdown' where its source has 'code'"),
    ],
)  # fmt: skip
def test_the_first_difference_is_named(pair, old, new, found):
    edit(pair[1], old, new)
    assert sync.difference(read(pair[0]), jupytext.read(pair[1])) == found


def test_execute_stores_outputs_and_sync_keeps_them(pair):
    notebook, text = pair
    sync.execute(notebook.parent, profile="full")
    printed = ["32\n", f"full {notebook.parent}\n"]
    assert [output.text for output in outputs(notebook)] == printed
    assert "execution" not in read(notebook).cells[1].metadata
    assert read(notebook).metadata["language_info"] == {"name": "python"}
    edit(text, "# # A title", "# # Another title")
    sync.sync(notebook.parent)
    assert sync.difference(read(notebook), jupytext.read(text)) == ""
    assert [output.text for output in outputs(notebook)] == printed
    stored = notebook.read_bytes()
    sync.sync(notebook.parent)
    assert notebook.read_bytes() == stored
    edit(text, "width = 32", "width = 1 / 0")
    sync.sync(notebook.parent)
    stored = notebook.read_bytes()
    with pytest.raises(Exception, match="ZeroDivisionError") as failure:
        sync.execute(notebook.parent)
    assert f"while executing {notebook}" in failure.value.__notes__
    assert notebook.read_bytes() == stored


def test_a_lesson_in_full_keeps_its_output_while_only_its_text_changes(pair, monkeypatch):
    stored = pair[0].with_name("in_full.ipynb")
    monkeypatch.setattr(sync, "NOTEBOOKS", pair[0].parent)
    monkeypatch.setattr(in_full, "LESSONS", {"lesson": stored})
    edit(pair[1], "# # A title", "# # Session 1: a title\n#\n# About it.")
    in_full.run("lesson")
    printed = ["32\n", f"full {pair[0].parent}\n"]
    assert [output.text for output in outputs(stored)] == printed
    title, about, rest = (cell.source for cell in read(stored).cells[:3])
    assert (title, rest) == ("# Session 1: the lesson as it ran on CIFAR", "About it.")
    edit(pair[1], "About it.", "More about it.")
    in_full.update()
    assert [cell.source for cell in read(stored).cells[1:3]] == [about, "More about it."]
    assert [output.text for output in outputs(stored)] == printed
    edit(pair[1], "width = 32", "width = 64")
    in_full.update()
    assert [output.text for output in outputs(stored)] == printed[1:]
    edit(stored, "More about it.", "Less about it.")
    with pytest.raises(RuntimeError, match="was edited"):
        in_full.update()
    with pytest.raises(ValueError, match="expected lesson, found 'other'"):
        in_full.run("other")


def test_an_edited_notebook_is_not_overwritten_but_taken_over_on_demand(pair):
    notebook, text = pair
    edit(notebook, "width = 32", "width = 48")
    stored = notebook.read_bytes()
    with pytest.raises(RuntimeError, match=r"cell 2 has 'width = 48'.*sync --from-notebook .*lesson\.ipynb"):
        sync.sync(notebook.parent)
    assert notebook.read_bytes() == stored
    sync.take_over(notebook)
    assert "width = 48" in text.read_text(encoding="utf-8")
    sync.sync(notebook.parent)
    assert sync.difference(read(notebook), jupytext.read(text)) == ""


def add_cell(path: Path, source: str, **metadata) -> None:
    notebook = read(path)
    notebook.cells.insert(1, nbformat.v4.new_code_cell(source, metadata=metadata))
    nbformat.write(notebook, path)


@pytest.mark.parametrize(
    "metadata",
    [{"tags": ["setup"]}, {"tags": ["mine"]}, {"mystnb": {"figure": {"caption": "mine"}}}],
)
def test_a_cell_of_ones_own_is_neither_lost_nor_changed(pair, metadata):
    notebook, text = pair
    add_cell(notebook, "mine = 1", **metadata)
    with pytest.raises(RuntimeError, match="was edited since it was made: cell 2 has"):
        sync.sync(notebook.parent)
    sync.take_over(notebook)
    sync.sync(notebook.parent)
    for one in (read(notebook), jupytext.read(text)):
        assert one.cells[1].source == "mine = 1"
        assert {key: one.cells[1].metadata[key] for key in metadata} == metadata


def test_where_both_were_edited_nothing_is_overwritten(pair):
    edit(pair[0], "width = 32", "width = 48")
    edit(pair[1], "A title", "Another title")
    stored = [path.read_bytes() for path in pair]
    with pytest.raises(RuntimeError, match=r"cell 1 has '# A title'.*the source was edited, too"):
        sync.sync(pair[0].parent)
    with pytest.raises(RuntimeError, match=r"lesson\.py was edited since lesson\.ipynb was made: cell 1"):
        sync.take_over(pair[0])
    assert [path.read_bytes() for path in pair] == stored
    edit(pair[0], "width = 48", "width = 32")
    edit(pair[0], "made_with", "made")
    with pytest.raises(RuntimeError, match="cell 1 has '# A title'"):
        sync.sync(pair[0].parent)  # the digest is lost, and with it who edited what
    edit(pair[1], "Another title", "A title")
    sync.sync(pair[0].parent)  # nothing differs: the digest comes back
    assert sync.made_with(read(pair[0]))


def test_what_could_not_be_read_back_is_not_taken_over(pair):
    notebook = pair[0]
    edit(notebook, "width = 32", "# %%")
    stored = [path.read_bytes() for path in pair]
    with pytest.raises(
        RuntimeError, match=r"lesson\.ipynb would not be the same out of a \.py, where # %% begins"
    ):
        sync.take_over(notebook)
    assert [path.read_bytes() for path in pair] == stored


def test_what_has_no_source_or_is_no_notebook_is_named(pair):
    notebook, text = pair
    for other in (text, notebook.with_name("exercises.ipynb")):
        with pytest.raises(RuntimeError, match=rf"{other.name}: expected an \.ipynb beside a \.py"):
            sync.take_over(other)
    for content in (b"<<<<<<< HEAD\n", b"[]", b"null", "{}".encode("utf-16")):
        notebook.write_bytes(content)
        with pytest.raises(ValueError, match=r"lesson\.ipynb is no notebook: restore it, or delete it"):
            sync.sync(notebook.parent)


def test_answers_are_not_overwritten(tmp_path):
    (tmp_path / "sums_solutions.py").write_text(
        '# %% tags=["solution"]\n# <solution>\n# stub: x = ...\nx = 1\n# </solution>\n'
    )
    sync.update(exercises.made(tmp_path))
    path = tmp_path / "sums_exercises.ipynb"
    edit(path, "x = ...", "x = 123")
    answered = path.read_bytes()
    with pytest.raises(RuntimeError, match=r"sums_exercises\.ipynb was edited.*'x = 123'.*move or rename"):
        sync.update(exercises.made(tmp_path))
    assert path.read_bytes() == answered


def test_a_notebook_is_written_whole_or_not_at_all(pair, monkeypatch):
    def full_disk(*args):
        raise OSError("no space left")

    stored = pair[0].read_bytes()
    edit(pair[1], "width = 32", "width = 48")
    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(OSError, match="no space left"):
        sync.sync(pair[0].parent)
    assert pair[0].read_bytes() == stored
