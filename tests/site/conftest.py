"""The built site, and a browser for it: without one, or without `tests/requirements.txt`, its tests are skipped."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
BOOK = ROOT / "book"

BROWSERS = ["chromium", "chromium-browser", "google-chrome"]
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
]


def build_book(out: Path, **changes: dict) -> subprocess.CompletedProcess:
    """Build the book strictly into `out`/_build/html, with the notebooks' stored outputs and no page's code run.

    `changes` go into the blocks of the configuration that they name.
    """
    config = yaml.safe_load((BOOK / "_config.yml").read_text(encoding="utf-8"))
    for block, values in changes.items():
        config[block].update(values)
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
def build():
    return build_book


@pytest.fixture(scope="session")
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the built site."""
    if given := request.config.getoption("--site"):
        return given.resolve()
    out = tmp_path_factory.mktemp("book")
    result = build_book(out)
    assert result.returncode == 0, result.stdout + result.stderr
    return out / "_build" / "html"


@pytest.fixture(scope="session")
def browser() -> Iterator:
    """An installed Chromium; its own, Playwright is not asked to fetch."""
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install -r tests/requirements.txt")
    paths = [path for name in BROWSERS if (path := shutil.which(name))]
    if not paths:
        pytest.skip(f"needs a browser: none of {', '.join(BROWSERS)} is installed")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=paths[0], args=FLAGS)
        yield browser
        browser.close()
