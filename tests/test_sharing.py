"""A fork's notebooks: the cell that installs the course where it is not at hand, as in Colab."""

import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml

from course_utils.authoring import repository, standalone, sync

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


@pytest.fixture
def configure(tmp_path, monkeypatch):
    """Set the address and tag in the configuration of a fork."""
    monkeypatch.setattr(repository.configured, "__defaults__", (tmp_path / "_config.yml",))

    def write(url: str, tag: str) -> None:
        config = yaml.safe_dump({"repository": {"url": url, "branch": tag}})
        (tmp_path / "_config.yml").write_text(config, encoding="utf-8")

    return write


def stored(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.ipynb")}


def test_each_notebook_has_the_cell_as_long_as_an_address_is_set(configure, tmp_path):
    folder = Path(shutil.copytree(sync.NOTEBOOKS, tmp_path / "notebooks"))
    configure(URL, TAG)
    sync.sync(folder)
    for path in folder.glob("*.ipynb"):
        code = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
        assert f'course = "git+{URL}@{TAG}"' in code[0].source
        assert [repository.is_setup(cell) for cell in code] == [True] + [False] * (len(code) - 1)
    for path in standalone.write(tmp_path / "out", folder):
        assert "git+" not in path.read_text(encoding="utf-8")
    configure(URL, "v2")
    sync.sync(folder)
    assert all(
        f"{URL}@v2".encode() in text for name, text in stored(folder).items() if name.endswith("ipynb")
    )
    configure("", "")
    sync.sync(folder)
    if not repository.configured(repository.CONFIG):
        assert stored(folder) == stored(sync.NOTEBOOKS)


@pytest.fixture
def cell() -> str:
    return repository.SETUP.format(url=URL, tag=TAG)


def test_the_cell_does_nothing_where_the_course_is(cell):
    assert subprocess.run([sys.executable, "-c", cell]).returncode == 0


def test_the_cell_installs_where_the_course_is_not(cell, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    asked = []
    monkeypatch.setattr(subprocess, "run", lambda command, check: asked.append(command))
    exec(cell, {})
    assert asked == [[sys.executable, "-m", "pip", "install", f"git+{URL}@{TAG}"]]
