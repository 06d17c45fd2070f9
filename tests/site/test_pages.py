"""The site as its readers meet it: every page opened from disk in Chromium, at the width of a phone, and printed.

Costs about 50 s, most of it axe's. `pytest tests/site --site=_build/html` looks at a site that has been built already,
with every figure in it.
"""

import gzip
import re
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import pytest
from PIL import Image

PHONE = 390  # pixels across
PAPER = 670  # A4 between print.css's margins
PAGE_BYTES, FIRST_VIEW_BYTES, NETWORK_BYTES = 1_500_000, 500_000, 2_500_000


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
    assert {name: found["width"] for name, found in visits.items() if found["width"] > PHONE} == {}


def test_figures_are_described_and_visible_in_dark_mode(visits):
    images = [(name, image) for name, found in visits.items() for image in found["images"]]
    assert len(images) > 10
    assert [
        (name, image["address"]) for name, image in images if len(alt := image["alt"]) < 20 or ".png" in alt
    ] == []
    assert [(name, image["address"]) for name, image in images if not image["shown"]] == []
    assert [(name, image["address"]) for name, image in images if not is_opaque(image)] == []


@pytest.mark.parametrize("name", ["claims", "session1/convolutions"])
def test_every_verdict_is_seen_on_a_phone(site, browser, name):
    with browser.new_context(viewport={"width": PHONE, "height": 844}) as context:
        page = context.new_page()
        page.goto(f"{site.as_uri()}/book/{name}.html")
        ends = "[...document.querySelectorAll('.verdict')].map(one => one.getBoundingClientRect().right)"
        assert 0 < max(page.evaluate(ends)) <= PHONE


def test_a_figure_is_as_wide_as_the_text(site, browser):
    with browser.new_context(viewport={"width": 1400, "height": 900}) as context:
        page = context.new_page()
        page.goto(f"{site.as_uri()}/book/leaderboard.html")
        text, figure = (page.locator(f".bd-article {one}").first for one in ("p", ".cell_output img"))
        assert figure.bounding_box()["width"] >= 0.98 * text.bounding_box()["width"]


def test_everyone_can_read_every_page(visits):
    assert {name: found["violations"] for name, found in visits.items() if found["violations"]} == {}


def test_pages_are_light(visits):
    weights = {name: sum(map(weight, set(found["requests"]))) for name, found in visits.items()}
    assert weights.pop("book/see_it_think.html") < NETWORK_BYTES  # it brings a million weights
    assert {name: total for name, total in weights.items() if total > PAGE_BYTES} == {}
    assert weights["book/intro.html"] < FIRST_VIEW_BYTES


def test_the_front_door_leads_to_the_welcome_and_the_search_to_pages(site, browser):
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(f"{site.as_uri()}/index.html")
        page.wait_for_url("**/book/intro.html")
        page.wait_for_selector(".bd-article h1")
        page.goto(f"{site.as_uri()}/search.html?q=one+cycle")
        page.wait_for_selector("#search-results a[href*='book/session2/one_cycle.html']")


def test_github_serves_the_folders_that_begin_with_an_underscore(site):
    assert (site / ".nojekyll").exists()


# ---- on paper ----


@pytest.fixture(scope="module")
def printed(visits) -> dict[str, dict]:
    """Every page as print shows it while the site is dark, by its address within the site."""
    return {name: found["printed"] for name, found in visits.items() if "printed" in found}


def test_nothing_but_the_text_is_printed(printed):
    assert len(printed) > 20
    assert {name: one["around"] for name, one in printed.items() if one["around"]} == {}
    assert [name for name, one in printed.items() if not one["title"]] == []


def test_nothing_is_cut_off_at_the_right(printed):
    assert {name: one["cut"] for name, one in printed.items() if one["cut"]} == {}
    assert {name: one["width"] for name, one in printed.items() if one["width"] > PAPER} == {}


def test_what_was_folded_can_be_read(printed):
    assert {name: one["folded"] for name, one in printed.items() if one["folded"]} == {}
    solutions = printed["notebooks/01_smallnet_solutions.html"]["text"]
    assert "dead = int((rates < smallest_change).sum())" in solutions
    assert "Show the solution" not in solutions
    assert "Activate.ps1" in printed["book/how_to_run.html"]["text"]
    assert "from course_utils.lab import figures" not in printed["book/session1/convolutions.html"]["text"]


def test_print_is_dark_on_light(printed):
    for name, one in printed.items():
        assert one["ground"] in ("rgb(255, 255, 255)", "rgba(0, 0, 0, 0)"), name
        bright = [colour for colour in one["colours"] if min(map(int, re.findall(r"\d+", colour)[:3])) > 120]
        assert bright == [], name


def test_no_figure_is_cut_in_two(printed):
    assert {name: one["breakable"] for name, one in printed.items() if one["breakable"]} == {}


def test_the_pdf_has_pages(site, browser):
    with browser.new_context() as context:
        page = context.new_page()
        page.goto((site / "book" / "how_to_run.html").as_uri())
        pdf = page.pdf(prefer_css_page_size=True)
    assert pdf.startswith(b"%PDF")
    assert 1 <= len(re.findall(rb"/Type\s*/Page\b", pdf)) <= 5
