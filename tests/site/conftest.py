"""The built site, and browsers that look at it: without one, or `tests/requirements.txt`, those tests are skipped."""

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import resources
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
PHONE = {"width": 390, "height": 844}
PAPER = {"width": 670, "height": 1000}  # A4 between print.css's margins

IMAGES = """[...document.querySelectorAll('.bd-content img')].map(image => ({
    address: image.currentSrc,
    alt: image.alt,
    shown: image.naturalWidth > 0 && image.checkVisibility({opacityProperty: true, visibilityProperty: true}),
    background: getComputedStyle(image).backgroundColor,
}))"""
PRINTED = """() => {
    const shown = element => element.checkVisibility({opacityProperty: true})
                             && element.getBoundingClientRect().height > 0;
    const all = [...document.body.querySelectorAll('*')];
    const around = '.bd-sidebar, .bd-header-article, .bd-footer-content, dialog, button, input, .prev-next-footer';
    const article = document.querySelector('.bd-article');
    const inner = element => !element.closest('math, svg, .visually-hidden') && element.clientWidth > 0;
    const cut = element => element.scrollWidth > element.clientWidth + 1
                           && getComputedStyle(element).overflowX != 'visible';
    const texts = elements => elements.map(one => one.outerHTML.slice(0, 80));
    const printed = all.filter(one => article.contains(one) && shown(one));
    const folded = [...article.querySelectorAll('details > :not(summary)')];
    return {
        text: article.innerText,
        title: shown(article.querySelector('h1')),
        around: texts(all.filter(one => one.matches(around) && shown(one))),
        cut: texts(printed.filter(one => inner(one) && cut(one))),
        width: document.scrollingElement.scrollWidth,
        folded: texts(folded.filter(one => !one.closest('.tag_hide-input') && !shown(one))),
        colours: [...new Set(printed.filter(one => one.childNodes.length).map(one => getComputedStyle(one).color))],
        ground: getComputedStyle(document.body).backgroundColor,
        breakable: [...article.querySelectorAll('img')].filter(
            one => getComputedStyle(one).breakInside != 'avoid').length,
    };
}"""
# Of the thousands of words that colour a notebook's code, one of each look stays; the others become plain text.
ONE_OF_EACH = """() => {
    const seen = new Set();
    for (const word of document.querySelectorAll('.highlight span')) {
        const look = [word.className, getComputedStyle(word).color, word.closest('.highlight').parentElement.className];
        seen.has(look.join()) && !word.firstElementChild ? word.replaceWith(word.textContent) : seen.add(look.join());
    }
    document.body.normalize();
}"""
RUN_AXE = """async options => {
    const found = await axe.run(document, {preload: false, resultTypes: ['violations'], ...options});
    const grave = found.violations.filter(rule => ['serious', 'critical'].includes(rule.impact));
    return grave.flatMap(rule => rule.nodes.map(node => `${rule.id}: ${node.html}`));
}"""
CONTRAST = {"runOnly": ["color-contrast"]}  # all that dark mode can change


@pytest.fixture(scope="session")
def build() -> Callable[..., subprocess.CompletedProcess]:
    """Builds the book strictly into `out`/_build/html, with the notebooks' stored outputs and no page's code run."""

    def build_book(out: Path, few: list[str] | None = None, **changes: dict) -> subprocess.CompletedProcess:
        """`changes` go into the blocks of the configuration that they name; `few` are the only pages to build."""
        config = yaml.safe_load((BOOK / "_config.yml").read_text(encoding="utf-8"))
        for block, values in changes.items():
            config[block].update(values)
        config["execute"]["execute_notebooks"] = "off"
        muted = ["myst-nb.lexer"]  # a kernel would have named it
        toc = yaml.safe_load((BOOK / "_toc.yml").read_text(encoding="utf-8"))
        if few:
            toc = {"format": "jb-book", "root": few[0], "chapters": [{"file": name} for name in few[1:]]}
            muted += ["myst.xref_missing", "ref"]  # the pages that are left out
        config["sphinx"]["config"]["suppress_warnings"] = muted
        folders = config["sphinx"]["local_extensions"]  # relative to the configuration, which moves
        config["sphinx"]["local_extensions"] = {name: str(BOOK / folders[name]) for name in folders}
        (out / "_config.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
        (out / "_toc.yml").write_text(yaml.safe_dump(toc, sort_keys=False), encoding="utf-8")
        program = "from jupyter_book.cli.main import main; main()"  # it has no `python -m`
        command = [sys.executable, "-c", program, "build", str(ROOT), "--path-output", str(out)]
        command += ["--config", str(out / "_config.yml"), "--toc", str(out / "_toc.yml")]
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
        pytest.skip(f"needs a browser: none of {', '.join(BROWSERS)} is on the PATH")

    @contextmanager
    def opened():
        with playwright.sync_playwright() as driver:
            yield driver.chromium.launch(executable_path=path, args=FLAGS)

    return opened


@pytest.fixture(scope="session")
def browser(chromium) -> Iterator:
    with chromium() as browser:
        yield browser


@pytest.fixture
def watched(browser) -> Iterator:
    """A page of a phone's width on which nothing goes wrong and that asks for nothing but the site's files."""
    with browser.new_context(viewport=PHONE, has_touch=True) as context:
        page, wrong = context.new_page(), []
        page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda request: wrong.append(request.url) if is_outside(request.url) else None)
        yield page
        assert wrong == []


def is_outside(address: str) -> bool:
    return not address.startswith(("file:", "data:", "blob:"))


@pytest.fixture(scope="session")
def visits(site: Path, pages: list[Path], chromium) -> dict[str, dict]:
    """What each page did and held, by its address within the site; two browsers share the work.

    A page is opened from disk on a phone in the dark, `printed`, and looked at by axe in the dark and in the light:
    `violations` are its serious ones.
    """
    pytest.importorskip("axe_playwright_python", reason="pip install -r tests/requirements.txt")
    axe = resources.files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8")

    def visit(page, path: Path) -> dict:
        page.emulate_media(media="screen", color_scheme="dark")
        page.goto(path.as_uri())
        page.wait_for_selector("html[data-theme=dark]")
        page.add_style_tag(content="* { transition: none !important }")  # or colours would be met half way
        found = {
            "width": page.evaluate("document.scrollingElement.scrollWidth"),
            "images": page.evaluate(IMAGES),
        }
        if path.parent != site:  # the search is not printed
            page.set_viewport_size(PAPER)
            page.emulate_media(media="print")
            found["printed"] = page.evaluate(PRINTED)
            page.set_viewport_size(PHONE)
            page.emulate_media(media="screen")
        page.evaluate(ONE_OF_EACH)
        page.evaluate(axe)
        found["violations"] = page.evaluate(RUN_AXE, CONTRAST)
        page.emulate_media(color_scheme="light")
        page.wait_for_selector("html[data-theme=light]")
        found["violations"] += page.evaluate(RUN_AXE, {})
        return found

    def visit_all(paths: list[Path]) -> dict[str, dict]:
        visits, errors, requests = {}, [], []
        with chromium() as browser, browser.new_context(viewport=PHONE) as context:
            page = context.new_page()
            page.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
            page.on("pageerror", lambda error: errors.append(str(error)))
            page.on("request", lambda request: requests.append(request.url))
            for path in paths:
                found = visit(page, path)
                visits[path.relative_to(site).as_posix()] = found | {
                    "errors": errors[:],
                    "requests": requests[:],
                }
                errors.clear()
                requests.clear()
        return visits

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(visit_all, [pages[::2], pages[1::2]])
    return first | second
