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


def test_what_is_no_address_or_no_tag_is_refused():
    github = "https://github.com"
    for url in ("http://github.com/a/b", "https://gitlab.com/a/b", f"{github}/<owner>/<name>", ""):
        with pytest.raises(ValueError, match="url: expected.*or leave both empty"):
            repository.checked(url, TAG)
    for url in (f"{github}/a/b.git", f"{github}/a/b/"):
        with pytest.raises(ValueError, match="url: expected"):
            repository.checked(url, TAG)
    for tag in ("main", "", 'v1"; rm'):
        with pytest.raises(ValueError, match="branch: expected a tag.*or leave both empty"):
            repository.checked(URL, tag)


@pytest.mark.parametrize("branch", ["1.10", "2024_01", "0x10", "2026-11-27"])
def test_a_tag_that_yaml_takes_for_something_else_is_refused(branch, tmp_path):
    """`branch: 1.10` is the number 1.1, which may well be a tag, too."""
    (tmp_path / "_config.yml").write_text(f"repository: {{url: {URL}, branch: {branch}}}")
    with pytest.raises(ValueError, match="branch: YAML takes .* write it in quotes"):
        repository.configured(tmp_path / "_config.yml")
    (tmp_path / "_config.yml").write_text(f'repository: {{url: {URL}, branch: "{branch}"}}')
    assert repository.configured(tmp_path / "_config.yml") == (URL, branch)


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
    assert all(f"{URL}@v2".encode() in text for text in stored(folder).values())
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
