"""A fork's notebooks: the cell that installs the course where it is not at hand, as in Colab."""

import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml

from course_utils.authoring import exercises, repository, standalone
from course_utils.authoring import sync as authoring

ROOT = Path(__file__).resolve().parent.parent
URL, TAG = "https://github.com/a-school/its-course", "v1.2"


@pytest.mark.parametrize(
    ("url", "tag", "complaint"),
    [
        ("http://github.com/a/b", TAG, "url: expected"),
        ("https://gitlab.com/a/b", TAG, "url: expected"),
        ("https://github.com/<owner>/<name>", TAG, "url: expected"),
        ("https://github.com/a/b.git", TAG, "url: expected"),
        ("https://github.com/a/b/", TAG, "url: expected"),
        ("", TAG, "url: expected"),
        (URL, "main", "branch: expected a tag"),
        (URL, "", "branch: expected a tag"),
        (URL, 'v1"; rm', "branch: expected a tag"),
    ],
)
def test_what_is_no_address_or_no_tag_is_refused(url, tag, complaint):
    with pytest.raises(ValueError, match=f"{complaint}.*or leave both empty"):
        repository.checked(url, tag)


# ---- the set-up cell ----


@pytest.fixture
def fork(tmp_path, monkeypatch) -> Path:
    """The notebooks of a fork that has set its address and synced."""
    config = yaml.safe_dump({"repository": {"url": URL, "branch": TAG}})
    (tmp_path / "_config.yml").write_text(config, encoding="utf-8")
    monkeypatch.setattr(repository.configured, "__defaults__", (tmp_path / "_config.yml",))
    folder = Path(shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks"))
    authoring.sync(folder)
    return folder


def cells(path: Path) -> list:
    return nbformat.read(path, as_version=4).cells


def test_every_notebook_installs_the_tag_before_it_imports_anything(fork):
    for path in fork.glob("*.ipynb"):
        code = [cell for cell in cells(path) if cell.cell_type == "code"]
        assert f'course = "git+{URL}@{TAG}"' in code[0].source
        assert repository.is_setup(code[0])
        assert not any(repository.is_setup(cell) for cell in code[1:])
        assert authoring.differences(path, path.with_suffix(".py")) == []


def test_sync_and_exercises_leave_a_synced_fork_alone(fork):
    before = {path.name: path.read_bytes() for path in fork.glob("*.py")}
    authoring.sync(fork)
    exercises.write(fork)
    assert {path.name: path.read_bytes() for path in fork.glob("*.py")} == before


@pytest.mark.parametrize("path", sorted(authoring.NOTEBOOKS.glob("*.py")), ids=lambda path: path.stem)
def test_the_notebooks_have_the_cell_of_what_is_configured(path):
    text = path.read_text(encoding="utf-8")
    assert repository.with_setup(text, repository.configured()) == text


def test_the_cell_follows_the_tag_and_goes_with_the_address(fork):
    for path in (ROOT / "notebooks").glob("*.py"):
        original, text = path.read_text("utf-8"), (fork / path.name).read_text("utf-8")
        assert repository.with_setup(text, (URL, "v2")) == text.replace(TAG, "v2")
        assert repository.with_setup(text, None) == repository.with_setup(original, None)
        assert "git+" not in repository.with_setup(text, None)


def test_the_cell_does_nothing_where_the_course_is(fork):
    cell = next(cell for cell in cells(fork / "01_smallnet.ipynb") if cell.cell_type == "code")
    assert subprocess.run([sys.executable, "-c", cell.source]).returncode == 0


def test_the_cell_installs_where_the_course_is_not(fork, monkeypatch):
    cell = next(cell for cell in cells(fork / "01_smallnet.ipynb") if cell.cell_type == "code")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    asked = []
    monkeypatch.setattr(subprocess, "run", lambda command, check: asked.append(command))
    exec(cell.source, {})
    assert asked == [[sys.executable, "-m", "pip", "install", f"git+{URL}@{TAG}"]]


def test_a_standalone_notebook_needs_no_address(fork, tmp_path):
    for path in standalone.write(tmp_path / "out", fork):
        assert "git+" not in "".join(cell.source for cell in cells(path))
