"""The site as its readers meet it: every page opened from disk in Chromium, at the width of a phone.

Costs about half a minute, nearly all of it axe's. `pytest tests/site --site=_build/html` looks at a site that has been
built already, with every figure in it.
"""

import gzip
from functools import cache
from importlib import resources
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import pytest
from PIL import Image

PHONE = {"width": 390, "height": 844}
PAGE_BYTES, FIRST_VIEW_BYTES, NETWORK_BYTES = 1_500_000, 500_000, 2_500_000

RUN_AXE = """async options => {
    const found = await axe.run(document, {preload: false, resultTypes: ['violations'], ...options});
    const grave = found.violations.filter(rule => ['serious', 'critical'].includes(rule.impact));
    return grave.flatMap(rule => rule.nodes.map(node => `${rule.id}: ${node.html}`));
}"""
CONTRAST = {"runOnly": ["color-contrast"]}  # all that dark mode can change

IMAGES = """[...document.querySelectorAll('.bd-content img')].map(image => ({
    address: image.currentSrc,
    alt: image.alt,
    shown: image.naturalWidth > 0 && image.checkVisibility({opacityProperty: true, visibilityProperty: true}),
    background: getComputedStyle(image).backgroundColor,
}))"""


@pytest.fixture(scope="module")
def visits(pages, look_at_all) -> dict[str, dict]:
    """What each page did and held; `violations` are axe's serious ones, in the light and in the dark."""
    pytest.importorskip("axe_playwright_python", reason="pip install -r tests/requirements.txt")
    axe = resources.files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8")

    def look(page, path: Path) -> dict:
        errors, requests = [], []
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.add_init_script(axe)
        page.goto(path.as_uri())
        width = page.evaluate("document.scrollingElement.scrollWidth")
        violations = page.evaluate(RUN_AXE, {})
        page.add_style_tag(content="* { transition: none !important }")  # or colours would be met half way
        page.emulate_media(color_scheme="dark")
        page.wait_for_selector("html[data-theme=dark]")
        violations += page.evaluate(RUN_AXE, CONTRAST)
        images = page.evaluate(IMAGES)
        return {
            "errors": errors,
            "requests": requests,
            "width": width,
            "violations": violations,
            "images": images,
        }

    return look_at_all(look, pages, viewport=PHONE, color_scheme="light")


def file_of(address: str) -> Path:
    """The file behind a file: address."""
    return Path(url2pathname(urlsplit(address).path))


@cache
def weight(address: str) -> int:
    """The bytes that a web server sends for an address: it compresses text."""
    return len(gzip.compress(file_of(address).read_bytes())) if address.startswith("file:") else len(address)


def is_opaque(image: dict) -> bool:
    """Whether nothing of the page shows through an image of a content page."""
    with Image.open(file_of(image["address"])) as picture:
        lowest, _ = picture.convert("RGBA").getchannel("A").getextrema()
    return lowest == 255 or not image["background"].startswith("rgba")


def test_pages_open_without_errors(visits):
    assert {name: found["errors"] for name, found in visits.items() if found["errors"]} == {}


def test_pages_ask_for_nothing_but_files(visits):
    asked = {address for found in visits.values() for address in found["requests"]}
    assert len(asked) > len(visits)
    assert [address for address in asked if urlsplit(address).scheme not in ("file", "data")] == []


def test_nothing_is_wider_than_a_phone(visits):
    assert {name: found["width"] for name, found in visits.items() if found["width"] > PHONE["width"]} == {}


def test_figures_are_described_and_visible_in_dark_mode(visits):
    images = [(name, image) for name, found in visits.items() for image in found["images"]]
    assert len(images) > 10
    assert [(name, image["address"]) for name, image in images if len(image["alt"]) < 20] == []
    assert [(name, image["address"]) for name, image in images if not image["shown"]] == []
    assert [(name, image["address"]) for name, image in images if not is_opaque(image)] == []


def test_everyone_can_read_every_page(visits):
    assert {name: found["violations"] for name, found in visits.items() if found["violations"]} == {}


def test_pages_are_light(visits):
    weights = {name: sum(map(weight, set(found["requests"]))) for name, found in visits.items()}
    assert weights.pop("book/see_it_think.html") < NETWORK_BYTES  # it brings a million weights
    assert {name: total for name, total in weights.items() if total > PAGE_BYTES} == {}
    assert weights["book/intro.html"] < FIRST_VIEW_BYTES


@pytest.mark.parametrize(
    ("address", "selector"),
    [
        (
            "index.html",
            ".bd-article h1:has-text('Training on a Budget')",
        ),  # the front door leads to the welcome
        ("search.html?q=one+cycle", "#search-results a[href*='book/session2/one_cycle.html']"),
    ],
)
def test_a_way_into_the_book_is_open(site, browser, address, selector):
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(f"{site.as_uri()}/{address}")
        page.wait_for_selector(selector)
