"""The network in the page: it computes what PyTorch computes, soon enough, for every kind of reader."""

import base64
from pathlib import Path
from statistics import median

import numpy as np
import pytest
import torch
from PIL import Image

from course_utils import transforms
from course_utils.datasets.cifar import STATS
from course_utils.lab import recipes, runs

APART, MILLISECONDS = 0.001, 50

# Every test picture through a network, after one picture for the browser to compile the code.
THINK = """async name => {
    const network = await LIVE.load(name);
    LIVE.think(network, LIVE.pixelsOf(0));
    const answers = LIVE.pictures.map((_, i) => LIVE.think(network, LIVE.pixelsOf(i)));
    return {logits: answers.map(a => [...a.logits]), milliseconds: answers.map(a => a.milliseconds)};
}"""


@pytest.fixture
def live(watched, site):
    """The page See it think, opened from disk, with its first answer given."""
    watched.goto((site / "book" / "see_it_think.html").as_uri())
    watched.wait_for_selector(".live-bars li")
    return watched


def show(page, name: str, nth: int = 0) -> None:
    page.get_by_role("button", name=name, exact=True).nth(nth).click()


def hide(page, across: int, down: int, size: int) -> None:
    for name, value in {"across": across, "down": down, "size": size}.items():
        page.get_by_role("slider", name=name).fill(str(value))


def sheet(page) -> np.ndarray:
    """The picture as the network is given it, (32, 32, 4)."""
    pen = "document.querySelector('.live-sheet canvas').getContext('2d')"
    return np.array(page.evaluate(f"[...{pen}.getImageData(0, 0, 32, 32).data]")).reshape(32, 32, 4)


def expect_answer(page, name: str) -> None:
    page.wait_for_function(
        "name => document.querySelector('.live-bars li span')?.textContent === name", arg=name, timeout=5000
    )


@pytest.mark.parametrize("name", ["smallnet-best", "budgetnet"])
def test_logits_are_those_of_pytorch_and_come_in_an_instant(live, name):
    pictures = [base64.b64decode(text) for text in live.evaluate("LIVE.pictures")]
    images = torch.tensor(np.frombuffer(b"".join(pictures), np.uint8).reshape(-1, 32, 32, 3))
    assert len(images) == 20
    with torch.inference_mode():
        network = runs.trained_network(recipes.get(name)).eval()
        expected = network(transforms.normalise(images, *map(torch.tensor, STATS["cifar100"]))).numpy()
    found = live.evaluate(THINK, name)
    assert np.abs(np.array(found["logits"]) - expected).max() <= APART
    assert name != "smallnet-best" or median(found["milliseconds"]) <= MILLISECONDS
    stored = np.array(live.evaluate("name => LIVE.logits[name]", name))
    assert np.abs(stored - expected).max() < 1e-4, "what the page compares with"


def test_experiments_end_as_the_page_says(live):
    show(live, "fox")
    hide(live, 16, 16, 8)
    expect_answer(live, "tractor")
    hide(live, 16, 16, 0)
    show(live, "butterfly")
    expect_answer(live, "poppy")
    hide(live, 28, 16, 12)
    expect_answer(live, "butterfly")
    hide(live, 16, 16, 0)
    live.get_by_text("budgetnet (2 MB more)").click()
    for mistaken, right in {
        "sweet pepper": "apple",
        "telephone": "clock",
        "poppy": "butterfly",
        "rocket": "skyscraper",
    }.items():
        live.get_by_role("radio", name="budgetnet").check()
        show(live, right)
        expect_answer(live, right)
        live.get_by_role("radio", name="SmallNet").first.check()
        expect_answer(live, mistaken)
    live.get_by_role("radio", name="untrained").check()
    live.wait_for_function("document.querySelector('.live-bars li span:last-child')?.textContent === '1 %'")


def test_a_ring_is_a_worm_and_a_disc_an_orange(live):
    live.get_by_role("button", name="Blank sheet").click()
    live.locator(".live-sheet").scroll_into_view_if_needed()
    box = live.locator(".live-sheet canvas").bounding_box()
    scale, middle = box["width"] / 32, (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    for radii, answer in ([10], "worm"), ([8, 5, 2], "orange"):
        for radius in radii:
            circle = np.exp(2j * np.pi * np.arange(17) / 16) * radius * scale
            for step, point in enumerate(circle):
                live.mouse.move(middle[0] + point.real, middle[1] + point.imag)
                if step == 0:
                    live.mouse.down()
            live.mouse.up()
        expect_answer(live, answer)


def test_keys_are_enough_and_a_pointed_map_is_enlarged(live):
    live.get_by_role("button", name="tiger").focus()
    live.keyboard.press("Enter")
    expect_answer(live, "tiger")
    live.wait_for_function("document.querySelector('[role=status]').textContent === 'tiger, 91 %'")
    stage = live.get_by_role("slider", name="Stage 2")
    stage.focus()
    live.keyboard.press("ArrowRight")
    assert stage.get_attribute("aria-valuenow") == "2"
    assert live.locator(".live-closer p").inner_text().startswith("Stage 2, map 2:")
    live.get_by_role("slider", name="Stage 3").hover(position={"x": 2, "y": 2})
    assert live.locator(".live-closer p").inner_text().startswith("Stage 3, map 1:")
    live.get_by_role("radio", name="SmallNet").first.focus()
    live.keyboard.press("ArrowUp")  # round to the last one
    live.wait_for_function("document.querySelectorAll('.live output')[2].textContent.endsWith('1 %')")
    live.get_by_role("slider", name="size").focus()
    live.keyboard.press("End")
    live.get_by_role("application").focus()
    live.keyboard.press("ArrowLeft")
    assert live.get_by_role("slider", name="across").input_value() == "15"


def test_a_patch_says_where_it_is(live):
    hide(live, 28, 15, 13)
    said = "[...document.querySelectorAll('.live-patch output')].map(one => one.value).join()"
    live.wait_for_function(f"{said} === '28,15,13'", timeout=5000)


def test_each_stage_remembers_its_map(live):
    first = live.get_by_role("slider", name="Stage 1")
    first.click(position={"x": 60, "y": 5})
    begun = int(first.get_attribute("aria-valuenow"))
    live.get_by_role("slider", name="Stage 3").hover(position={"x": 100, "y": 5})
    live.keyboard.press("ArrowRight")
    assert int(first.get_attribute("aria-valuenow")) == begun + 1 > 2
    for key, number in {"End": "32", "Home": "1"}.items():
        live.keyboard.press(key)
        assert first.get_attribute("aria-valuenow") == number


def test_a_line_begins_where_the_pointer_goes_down(live):
    live.get_by_role("button", name="Draw on the picture").click()
    live.locator(".live-sheet").scroll_into_view_if_needed()
    box, before = live.locator(".live-sheet canvas").bounding_box(), sheet(live)
    for start, drawn in ((box["y"] - 5, False), (box["y"] + 5, True)):
        live.mouse.move(box["x"] + 20, start)
        live.mouse.down()
        live.mouse.move(box["x"] + 20, box["y"] + 40, steps=4)
        live.mouse.up()
        live.wait_for_timeout(200)
        assert (sheet(live) != before).any() == drawn


def test_the_same_photo_can_be_chosen_again(live, tmp_path):
    Image.new("RGB", (40, 40), "red").save(tmp_path / "photo.png")
    live.locator("input[type=file]").set_input_files(tmp_path / "photo.png")
    with live.expect_file_chooser():
        live.locator("label", has_text="Your photo").click()
    assert live.locator("input[type=file]").input_value() == ""


def test_a_photo_is_cut_to_a_square(live, tmp_path):
    photo = Image.new("RGB", (640, 320), "white")
    photo.paste((200, 30, 30), (160, 0, 480, 320))
    photo.save(tmp_path / "photo.png")
    live.locator("input[type=file]").set_input_files(tmp_path / "photo.png")
    live.get_by_text("your picture", exact=True).wait_for()
    assert np.abs(sheet(live) - [200, 30, 30, 255]).max() <= 2
    (tmp_path / "notes.png").write_text("no picture")
    live.locator("input[type=file]").set_input_files(tmp_path / "notes.png")
    live.locator("[data-part=note]", has_text="cannot read this file").wait_for()
    assert "cannot read this file" in live.locator("[data-part=status]").inner_text(), "and is heard"


def test_a_picture_of_the_networks_own_size_is_not_changed(live, tmp_path):
    expected = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    Image.fromarray(expected).save(tmp_path / "photo.png")
    live.locator("input[type=file]").set_input_files(tmp_path / "photo.png")
    live.get_by_text("your picture", exact=True).wait_for()
    np.testing.assert_array_equal(sheet(live)[:, :, :3], expected)


def test_a_blank_sheet_has_no_patch(live):
    show(live, "fox")
    hide(live, 16, 16, 8)
    live.get_by_role("button", name="Blank sheet").click()
    live.get_by_text("your picture", exact=True).wait_for()
    assert (sheet(live) == 255).all()
    assert live.get_by_role("slider", name="size").input_value() == "0"


def test_on_the_way_back_the_marked_network_answers(live, site):
    weights = {"smallnet-best": "996,376 weights", "budgetnet": "931,332 weights"}
    live.get_by_role("radio", name="budgetnet").check()
    live.locator("[data-part=note]", has_text=weights["budgetnet"]).wait_for()
    live.goto((site / "book" / "claims.html").as_uri())
    live.go_back()
    live.wait_for_timeout(500)  # a browser may mark what was marked before after all scripts have run
    marked = live.locator(".live input:checked").get_attribute("value")
    live.locator("[data-part=note]", has_text=weights[marked]).wait_for()
    mark = (
        "document.querySelector('.live input[value=smallnet-best]').checked = true"  # as a slow browser does
    )
    live.evaluate(f"() => {{ {mark}; dispatchEvent(new PageTransitionEvent('pageshow')); }}")
    live.locator("[data-part=note]", has_text=weights["smallnet-best"]).wait_for()


def test_a_network_that_is_marked_before_the_script_runs_is_the_one_that_is_loaded(watched, site):
    """As after a reload: some browsers mark what was marked while they read the page."""
    mark = "document.querySelector('input[value=budgetnet]')?.click()"
    watched.add_init_script(
        f"new MutationObserver(() => {{ {mark}; }}).observe(document, {{childList: true, subtree: true}})"
    )
    asked = []
    watched.on("request", lambda request: asked.append(Path(request.url).name))
    watched.goto((site / "book" / "see_it_think.html").as_uri())
    watched.locator("[data-part=note]", has_text="931,332 weights").wait_for()
    assert "network_budgetnet.js" in asked
    assert "network_smallnet-best.js" not in asked


def test_a_page_in_the_place_of_a_script_did_not_arrive(browser, site):
    page = browser.new_page()
    page.route(
        "**/network_smallnet-best.js", lambda route: route.fulfill(body="", content_type="text/javascript")
    )
    page.goto((site / "book" / "see_it_think.html").as_uri())
    page.locator("[data-part=note]", has_text="did not arrive").wait_for()
    page.close()


def test_while_a_network_loads_no_other_answer_stands_beside_the_picture(live):
    live.evaluate("void (LIVE.load = () => new Promise(() => {}))")  # a line that is very slow
    live.get_by_text("budgetnet (2 MB more)").click()
    live.locator("[data-part=note]", has_text="Loading").wait_for()
    show(live, "tiger")
    assert live.locator(".live-bars li").count() == 0
    assert live.get_by_role("slider", name="Stage 1").count() == 0, "nor its maps"


def test_a_photo_is_shrunk_by_means_and_stands_upright(live, tmp_path):
    """Browsers that pick single pixels of a large photo would see stripes or black here."""
    stripes = np.zeros((960, 1280, 3), np.uint8)
    stripes[np.arange(960) // 15 % 2 == 0] = 255  # a pair of them is as wide as a pixel of the small picture
    stripes[:, :640] //= 2  # the upper half, which is stored on its side
    photo, exif = Image.fromarray(stripes), Image.Exif()
    exif[0x0112] = 6  # a quarter turn clockwise, and it is upright
    photo.save(tmp_path / "photo.png", exif=exif)
    live.locator("input[type=file]").set_input_files(tmp_path / "photo.png")
    live.get_by_text("your picture", exact=True).wait_for()
    pixels = sheet(live)
    assert np.abs(pixels[:15, :, :3] - 64).max() <= 5
    assert np.abs(pixels[17:, :, :3] - 128).max() <= 5


def test_a_network_that_does_not_arrive_says_so_and_can_be_asked_again(browser, site):
    page = browser.new_page()
    page.route("**/network_budgetnet.js", lambda route: route.abort())
    page.goto((site / "book" / "see_it_think.html").as_uri())
    page.wait_for_selector(".live-bars li")
    page.locator("input[value=budgetnet]").check()
    page.locator("[data-part=note]", has_text="did not arrive").wait_for()
    assert page.locator(".live-bars li").count() == 0, "the other network's answer is none of this one"
    assert not page.locator("[data-part=stages]").is_visible()
    page.unroute("**/network_budgetnet.js")
    page.locator("[data-part=strip] button").nth(3).click()
    page.wait_for_selector(".live-bars li")
    assert page.locator("[data-part=stages]").is_visible()
    page.close()


def test_a_picture_is_seen_before_the_network_has_arrived(browser, site):
    page = browser.new_page()
    page.route("**/network_smallnet-best.js", lambda route: route.abort())
    page.goto((site / "book" / "see_it_think.html").as_uri())
    page.locator("[data-part=note]", has_text="did not arrive").wait_for()
    assert len(np.unique(sheet(page))) > 20
    page.close()


def test_the_welcome_page_loads_the_network_when_asked(watched, site):
    asked = []
    watched.on("request", lambda request: asked.append(Path(request.url).name))
    watched.goto((site / "book" / "intro.html").as_uri(), wait_until="networkidle")
    assert "network.js" in asked
    assert "network_smallnet-best.js" not in asked
    show(watched, "tiger")
    expect_answer(watched, "tiger")
    assert "network_smallnet-best.js" in asked


@pytest.mark.parametrize("name", ["see_it_think", "intro"])
def test_without_javascript_a_picture_stands_there(browser, site, name):
    with browser.new_context(java_script_enabled=False) as context:
        page = context.new_page()
        page.goto((site / "book" / f"{name}.html").as_uri())
        still = page.locator("noscript img")
        assert still.bounding_box()["height"] > 50
        assert page.locator(".live").is_hidden()


@pytest.mark.parametrize("missing", ["network_data.js", "network.js"])
def test_where_a_script_does_not_arrive_nothing_empty_is_shown(browser, site, missing):
    page = browser.new_page()
    page.route(f"**/{missing}", lambda route: route.abort())
    page.goto((site / "book" / "see_it_think.html").as_uri())
    assert page.locator(".live").is_hidden()
    page.close()
