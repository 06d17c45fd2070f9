"""What all tests share: the quick profile, figures without a window, and the built site."""

import os
import subprocess
import sys
from pathlib import Path

import matplotlib
import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
BOOK = ROOT / "book"

# The kernels in which nbval runs the notebooks inherit this, whatever the shell had set.
os.environ["COURSE_PROFILE"] = "quick"

# Not by MPLBACKEND: the kernels would inherit that too, and their figures would be lost.
matplotlib.use("Agg")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--site", type=Path, help="test this built site, instead of building one without execution"
    )


def build(out: Path) -> subprocess.CompletedProcess:
    """Build the book strictly into `out`/_build/html, with the notebooks' stored outputs and no page's code run."""
    config = yaml.safe_load((BOOK / "_config.yml").read_text(encoding="utf-8"))
    config["execute"]["execute_notebooks"] = "off"
    config["sphinx"]["config"]["suppress_warnings"] = ["myst-nb.lexer"]  # a kernel would have named it
    folders = config["sphinx"]["local_extensions"]  # relative to the configuration, which moves
    config["sphinx"]["local_extensions"] = {name: str(BOOK / folders[name]) for name in folders}
    (out / "_config.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
    program = "from jupyter_book.cli.main import main; main()"  # it has no `python -m`
    command = [sys.executable, "-c", program, "build", str(ROOT), "--path-output", str(out)]
    command += ["--config", str(out / "_config.yml"), "--toc", str(BOOK / "_toc.yml")]
    command += ["-W", "--keep-going", "-n"]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8")


@pytest.fixture(scope="session")
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the built site."""
    if given := request.config.getoption("--site"):
        return given.resolve()
    out = tmp_path_factory.mktemp("book")
    result = build(out)
    assert result.returncode == 0, result.stdout + result.stderr
    return out / "_build" / "html"
