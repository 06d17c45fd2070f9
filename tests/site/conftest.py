"""The built site, and browsers that look at it: without one, or `tests/requirements.txt`, those tests are skipped."""

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
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


@pytest.fixture(scope="session")
def build() -> Callable[..., subprocess.CompletedProcess]:
    """Builds the book strictly into `out`/_build/html, with the notebooks' stored outputs and no page's code run."""

    def build_book(out: Path, **changes: dict) -> subprocess.CompletedProcess:
        """`changes` go into the blocks of the configuration that they name."""
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

    return build_book


@pytest.fixture(scope="session")
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, build) -> Path:
    """The folder of the built site."""
    if given := request.config.getoption("--site"):
        return given.resolve()
    out = tmp_path_factory.mktemp("book")
    result = build(out)
    assert result.returncode == 0, result.stdout + result.stderr
    return out / "_build" / "html"


@pytest.fixture(scope="session")
def pages(site: Path) -> list[Path]:
    """Every page of the site; the theme's own templates are none, and index.html only leads to the first."""
    found = [path for path in sorted(site.rglob("*.html")) if "_static" not in path.parts]
    return [path for path in found if path != site / "index.html"]


@pytest.fixture(scope="session")
def chromium() -> Callable:
    """Opens an installed Chromium; its own, Playwright is not asked to fetch."""
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install -r tests/requirements.txt")
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip(f"needs a browser: none of {', '.join(BROWSERS)} is installed")

    @contextmanager
    def opened():
        with playwright.sync_playwright() as driver:
            yield driver.chromium.launch(executable_path=path, args=FLAGS)

    return opened


@pytest.fixture(scope="session")
def browser(chromium) -> Iterator:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="session")
def look_at_all(site: Path, chromium) -> Callable[..., dict[str, dict]]:
    """What `look(page, path)` finds on each of `paths`, by its address within the site; two browsers share the work."""

    def look_at_all(look: Callable, paths: list[Path], **options) -> dict[str, dict]:
        def look_at(paths: list[Path]) -> dict[str, dict]:
            found = {}
            with chromium() as browser, browser.new_context(**options) as context:
                for path in paths:
                    with context.new_page() as page:
                        found[path.relative_to(site).as_posix()] = look(page, path)
            return found

        with ThreadPoolExecutor(2) as pool:
            first, second = pool.map(look_at, [paths[::2], paths[1::2]])
        return first | second

    return look_at_all
