"""The charts whose knobs the reader turns: on a phone, by keys, and by what a screen reader hears.

What axe says of the page, and how it prints, is asked of every page in the other files.
"""

import numpy as np
import pytest

from course_utils.authoring import curves
from course_utils.lab import recipes, verdicts


@pytest.fixture
def knobs(watched, site):
    """The page, opened from disk; nothing goes wrong on it, whatever a test does."""
    watched.goto((site / "book" / "turn_the_knobs.html").as_uri())
    return watched


def turn(page, name: str, value: float) -> None:
    page.get_by_role("slider", name=name, exact=True).fill(str(value))


def said(page, panel: str) -> str:
    """What stands below a chart, which is also the chart's text for those who do not see it."""
    text = page.locator(f".knobs-{panel} .knobs-said").inner_text()
    assert page.locator(f".knobs-{panel} > svg").get_attribute("aria-label") == text
    return text


def lines(page, panel: str, name: str = "knobs-line") -> list[str]:
    paths = page.locator(f".knobs-{panel} > svg path.{name}").all()
    return [path.get_attribute("d") for path in paths]


def test_dead_epochs_are_counted_and_marked(knobs):
    assert "From epoch 61 on, 270 epochs are dead" in said(knobs, "steps"), "as the lesson says"
    before, dead = lines(knobs, "steps"), knobs.locator("rect.knobs-dead")
    assert dead.count() == 1
    turn(knobs, "epochs", 60)
    assert "No epoch is dead" in said(knobs, "steps")
    assert dead.count() == 0
    assert lines(knobs, "steps") != before
    turn(knobs, "epochs", 120)
    turn(knobs, "step (epochs)", 8)
    turn(knobs, "first rate", -1.3)  # 0.05: exercise 3
    assert "From epoch 97 on, 24 epochs are dead" in said(knobs, "steps")


def test_a_rate_that_does_not_change_is_not_said_to_fall(knobs):
    turn(knobs, "gamma", 1)
    assert said(knobs, "steps").startswith("The rate stays at 0.1. ")
    turn(knobs, "ends at", 7)
    assert "at epoch 5, and stays there. On the noisy parabola" in said(knobs, "cycle")


def test_a_step_schedule_is_drawn_as_steps(knobs):
    turn(knobs, "epochs", 25)
    knobs.get_by_label("logarithmic scale").uncheck()
    (line,) = lines(knobs, "steps")
    points = np.array([point.split() for point in line[1:].split("L")], dtype=float)
    assert len(np.unique(points[:, 1])) == 5
    assert (np.diff(points, axis=0) == 0).any(1).all(), "across or down, never aslant"


@pytest.mark.parametrize(("peak", "place", "end"), [(5, 3, 0.01), (5, 7, 1), (20, 0, 0)])
def test_a_cycle_leaves_what_the_parabola_says(knobs, peak, place, end):
    turn(knobs, "peak at epoch", peak)
    turn(knobs, "ends at", place)
    mean, variance = 3, 0
    for rate in 0.1 * np.interp(np.arange(24 * 98), np.multiply(98, [0, peak, 24]), [0.01, 1, end]):
        mean, variance = (1 - rate) * mean, (1 - rate) ** 2 * variance + rate**2
    assert said(knobs, "cycle").endswith(f"a loss of {(mean**2 + variance) / 2:.2g}.")


def test_keys_turn_a_knob_and_its_value_is_heard(knobs):
    gamma = knobs.get_by_role("slider", name="gamma")
    gamma.focus()
    knobs.keyboard.press("ArrowRight")
    assert gamma.get_attribute("aria-valuetext") == "0.25"
    assert knobs.locator("output[for=knob-gamma]").inner_text() == "0.25"
    end = knobs.get_by_role("slider", name="ends at")
    end.focus()
    knobs.keyboard.press("Home")
    assert end.get_attribute("aria-valuetext") == "zero"


def test_curves_are_chosen_added_and_taken_away(knobs):
    (first, second), chart = lines(knobs, "runs"), knobs.locator(".knobs-runs > svg")
    seeds = sum(len(verdicts.runs_of(name)) for name in ("smallnet-source", "smallnet-best"))
    assert len(lines(knobs, "runs", "knobs-seed")) == seeds
    knobs.get_by_role("button", name="Add a curve").click()
    assert len(lines(knobs, "runs")) == 3
    knobs.get_by_role("combobox", name="Recipe").nth(2).select_option("smallnet-gamma-0.1")
    assert "smallnet-gamma-0.1, validation accuracy, ends at" in chart.get_attribute("aria-label")
    knobs.get_by_role("combobox", name="Curve").nth(2).select_option("training")
    assert lines(knobs, "runs")[:2] == [first, second]
    knobs.get_by_role("combobox", name="Recipe").nth(2).select_option("resnet-fast")
    assert knobs.get_by_role("combobox", name="Curve").nth(2).locator("option").nth(1).is_disabled()
    for left in (2, 1, 0):
        knobs.get_by_role("button", name="Remove").first.click()
        assert len(lines(knobs, "runs")) == left
    assert chart.get_attribute("aria-label") == "no curve"


def test_a_recipe_without_validation_is_passed_and_forgotten(knobs):
    recipe = knobs.get_by_role("combobox", name="Recipe").nth(1)
    curve = knobs.get_by_role("combobox", name="Curve").nth(1)
    for name, shown in {"smallnet-best": "other", "smallnet-muon": "training", "budgetnet": "other"}.items():
        recipe.select_option(name)
        assert curve.input_value() == shown, name


def test_the_keyboard_keeps_its_place(knobs):
    focus = "document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent"
    knobs.get_by_role("button", name="Remove smallnet-source, validation accuracy").press("Enter")
    assert knobs.evaluate(focus) == "Remove smallnet-best, validation accuracy"
    knobs.keyboard.press("Enter")
    assert knobs.evaluate(focus) == "Add a curve"
    for _ in range(6):
        knobs.keyboard.press("Enter")
    assert knobs.evaluate("document.activeElement.value") == "smallnet-best"


def test_there_is_no_more_than_a_colour_a_curve(knobs):
    add = knobs.get_by_role("button", name="Add a curve")
    for _ in range(4):
        add.click()
    assert add.is_disabled()
    colours = (
        "[...document.querySelectorAll('.knobs-runs > svg .knobs-line')].map(x => getComputedStyle(x).stroke)"
    )
    assert len(set(knobs.evaluate(colours))) == 6


def test_without_javascript_figures_stand_there(browser, site):
    with browser.new_context(java_script_enabled=False) as context:
        page = context.new_page()
        page.goto((site / "book" / "turn_the_knobs.html").as_uri())
        stills = page.locator("noscript img").all()
        assert [still.bounding_box()["height"] > 100 for still in stills] == [True] * 3
        assert not any(panel.is_visible() for panel in page.locator(".knobs").all())


def test_where_the_recorded_curves_do_not_arrive_no_empty_chart_is_shown(browser, site):
    page = browser.new_page()
    page.route("**/knobs_data.js", lambda route: route.abort())
    page.goto((site / "book" / "turn_the_knobs.html").as_uri())
    assert page.locator(".knobs-steps").is_visible()
    assert page.locator(".knobs-runs").is_hidden()
    page.close()


def test_where_a_curve_ends_is_rounded_once():
    """The page averages over seeds and shows one digit; what it averages must not have lost any that matter."""
    for name, recipe in recipes.RECIPES.items():
        recorded = verdicts.runs_of(name) if recipe.epochs else []
        shown = curves.entry(recipe, recorded)
        for which, key in (("training", "train_accuracy"), ("other", "validation_accuracy")):
            ends = [run["history"][key][-1] for run in recorded if run["history"][key][-1] is not None]
            found = np.mean([curve[-1] for curve in shown[which]] or [0])
            assert abs(found - 100 * np.mean(ends or [0])) < 0.001, (name, which)
