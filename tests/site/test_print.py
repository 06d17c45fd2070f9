"""The site on paper: every page as it is printed."""

import re

import pytest

PAPER = 670  # pixels across: A4 between print.css's margins


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
