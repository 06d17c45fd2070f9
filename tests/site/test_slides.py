"""Ten slides a session, in one file that asks for nothing else."""

import pytest

from course_utils.authoring import in_full


@pytest.mark.parametrize("lesson", in_full.LESSONS)
def test_a_session_has_ten_slides_that_fit_on_a_screen(lesson, site, browser):
    page, asked = browser.new_page(viewport={"width": 1400, "height": 900}), []
    page.on("request", lambda request: asked.append(request.url))
    page.goto((site / "_static" / "slides" / f"{lesson}.html").as_uri())
    slides = page.locator("section")
    assert slides.count() == 10
    assert slides.evaluate_all("all => all.filter(one => one.offsetHeight > 900).map(one => one.id)") == []
    assert all(slide.locator("h1, h2").count() for slide in slides.all())
    alts = page.locator("img").evaluate_all("all => all.map(one => one.alt)")
    assert alts and all(len(alt) > 40 and not alt.startswith("No description") for alt in alts)
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    page.wait_for_function("Math.round(scrollY / innerHeight) == 1")
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    page.close()
