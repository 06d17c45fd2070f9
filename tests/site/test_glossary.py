"""Terms of the glossary: a page shows a definition to whoever points, types or taps."""

import pytest

TERM = "a.term >> nth=0"
SHOWN = "getComputedStyle(document.querySelector('.tip')).display != 'none'"


@pytest.fixture
def page(watched, site):
    """A page with terms, on a device with a touch screen."""
    watched.goto((site / "book" / "session1" / "dropout.html").as_uri())
    assert not watched.evaluate(SHOWN)
    return watched


def test_a_pointer_and_the_keyboard_show_a_definition(page):
    page.hover(TERM)
    assert page.evaluate(SHOWN)
    page.keyboard.press("Escape")
    assert not page.evaluate(SHOWN)
    page.mouse.move(0, 0)
    page.locator(TERM).focus()
    assert page.evaluate(SHOWN)
    assert page.locator(TERM).get_attribute("aria-describedby") == page.locator(
        ".tip >> nth=0"
    ).get_attribute("id")


def test_a_first_tap_shows_it_and_a_second_leads_to_the_glossary(page):
    page.tap(TERM)
    assert page.evaluate(SHOWN)
    page.tap(TERM)
    page.wait_for_url("**/glossary.html#term-*")
