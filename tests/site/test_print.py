"""The site on paper: every page as it is printed, about 5 s."""

import re
from pathlib import Path

import pytest

PAPER = {"width": 670, "height": 1000}  # A4 between print.css's margins
PRINTED = """() => {
    const shown = element => element.checkVisibility({opacityProperty: true})
                             && element.getBoundingClientRect().height > 0;
    const all = [...document.body.querySelectorAll('*')];
    const around = '.bd-sidebar, .bd-header-article, .bd-footer-content, dialog, button, input, .prev-next-footer';
    const article = document.querySelector('.bd-article');
    const inner = element => !element.closest('math, svg, .visually-hidden') && element.clientWidth > 0;
    return {
        text: article.innerText,
        title: shown(article.querySelector('h1')),
        around: all.filter(one => one.matches(around) && shown(one)).map(one => one.outerHTML.slice(0, 80)),
        cut: all.filter(one => article.contains(one) && shown(one) && inner(one)
                               && one.scrollWidth > one.clientWidth + 1
                               && getComputedStyle(one).overflowX != 'visible').map(one => one.outerHTML.slice(0, 80)),
        width: document.scrollingElement.scrollWidth,
        folded: [...article.querySelectorAll('details > :not(summary)')].filter(
            one => !one.closest('.tag_hide-input') && !shown(one)).map(one => one.outerHTML.slice(0, 80)),
        colours: [...new Set(all.filter(one => article.contains(one) && shown(one) && one.childNodes.length)
                                .map(one => getComputedStyle(one).color))],
        ground: getComputedStyle(document.body).backgroundColor,
        breakable: [...article.querySelectorAll('img')].filter(
            one => getComputedStyle(one).breakInside != 'avoid').length,
    };
}"""


@pytest.fixture(scope="module")
def printed(site, pages, look_at_all) -> dict[str, dict]:
    """Every page as print shows it while the site is dark, by its address within the site."""

    def look(page, path: Path) -> dict:
        page.goto(path.as_uri())
        page.wait_for_selector("html[data-theme=dark]")
        page.add_style_tag(content="* { transition: none !important }")  # or colours would be met half way
        page.emulate_media(media="print")
        return page.evaluate(PRINTED)

    articles = [path for path in pages if path.parent != site]  # the search is none
    return look_at_all(look, articles, viewport=PAPER, color_scheme="dark")


def test_nothing_but_the_text_is_printed(printed):
    assert len(printed) > 20
    assert {name: one["around"] for name, one in printed.items() if one["around"]} == {}
    assert [name for name, one in printed.items() if not one["title"]] == []


def test_nothing_is_cut_off_at_the_right(printed):
    assert {name: one["cut"] for name, one in printed.items() if one["cut"]} == {}
    assert {name: one["width"] for name, one in printed.items() if one["width"] > PAPER["width"]} == {}


def test_what_was_folded_can_be_read(printed):
    assert {name: one["folded"] for name, one in printed.items() if one["folded"]} == {}
    solutions = printed["notebooks/01_smallnet_solutions.html"]["text"]
    assert "# </solution>" in solutions
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
