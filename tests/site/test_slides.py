"""Ten slides a session, in one file that asks for nothing else."""

import pytest


@pytest.mark.parametrize("lesson", ["01_smallnet", "02_resnet"])
def test_a_session_has_ten_slides(lesson, site, browser):
    page, asked = browser.new_page(viewport={"width": 1400, "height": 900}), []
    page.on("request", lambda request: asked.append(request.url))
    page.goto((site / "_static" / "slides" / f"{lesson}.html").as_uri())
    slides = page.locator("section")
    assert slides.count() == 10
    heights = slides.evaluate_all("all => all.map(one => one.scrollHeight)")
    assert max(heights) <= 900, "a slide does not fit on the screen"
    page.locator("section a").first.click()
    page.wait_for_function("document.scrollingElement.scrollTop > 800")
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    page.close()
