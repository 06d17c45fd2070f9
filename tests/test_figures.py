"""Figures of the book's pages: drawn with records, with some and with none, and true to them."""

import json
import warnings

import matplotlib.pyplot as plt
import numpy as np
import pytest
from made_up import write
from matplotlib.figure import Figure

from course_utils.authoring import diagrams
from course_utils.lab import figures, published, records, tables
from course_utils.lab.verdicts import NOT_RUN

SOURCE, BEST, WITHOUT = "smallnet-source", "smallnet-best", "smallnet-no-dropout"


DRAWN = {
    "accuracies": lambda: figures.accuracies({"a": SOURCE, "b": BEST}, mark=("the source", 50.48)),
    "worth": lambda: figures.worth(SOURCE, {"a": WITHOUT, "b": "smallnet-gelu"}),
    "bars": lambda: figures.bars(figures.HEADLINE),
    "curves": lambda: figures.curves({"a": SOURCE, "b": BEST}),
    "losses": lambda: figures.losses({"a": SOURCE, "b": BEST}),
    "range test": lambda: figures.range_test("resnet-lr-range"),
    "weights": lambda: figures.against("weights", "cifar100"),
    "minutes": lambda: figures.against("minutes", "cifar10"),
    "PFLOP": lambda: figures.against("PFLOP", "cifar10"),
    "filters": lambda: figures.filters(SOURCE),
    "feature maps": lambda: figures.feature_maps(SOURCE),
    "superclasses": lambda: figures.superclasses(SOURCE),
    "confusion": lambda: figures.confusion("resnet-fast"),
    "most confused": lambda: figures.most_confused(SOURCE),
    "reliability": lambda: figures.reliability({"a run": SOURCE, "another": BEST}),
}


def words(figure: Figure) -> str:
    return " ".join(text.get_text() for text in figure.findobj(plt.Text))


@pytest.mark.parametrize("draw", DRAWN.values(), ids=DRAWN)
def test_what_was_run_is_drawn_and_closed(draw):
    figure = draw()
    assert isinstance(figure, Figure)
    assert not plt.fignum_exists(figure.number)
    assert NOT_RUN not in words(figure)


@pytest.mark.parametrize("draw", DRAWN.values(), ids=DRAWN)
def test_what_was_not_run_says_so(draw, empty):
    shown = draw()
    assert NOT_RUN in (words(shown) if isinstance(shown, Figure) else shown)


def test_runs_of_different_lengths_are_named(empty):
    write(SOURCE, 50.0, 51.0)
    path = records.path_of(SOURCE, 1)
    cut = json.loads(path.read_text())
    cut["history"] = {name: curve[:-1] for name, curve in cut["history"].items()}
    path.write_text(json.dumps(cut))
    for draw in (figures.curves, figures.losses):
        with pytest.raises(
            ValueError, match=f"{SOURCE}: its recorded runs have .* epochs: delete those cut off"
        ):
            draw({"a": SOURCE})


def test_a_range_test_has_no_accuracy_to_draw():
    names = {"a": SOURCE, "the test": "resnet-lr-range"}
    figure = figures.accuracies(names, mark=("the source", 50.48))
    assert isinstance(figure, Figure) and "the test" not in words(figure)


def test_filters_share_a_scale_that_one_outlier_does_not_set(monkeypatch):
    weights = np.full((32, 3, 3, 3), 0.1)
    weights[0, :, 0, 0] = 50, 0, -0.05
    monkeypatch.setattr(figures, "examined", lambda name: {"filters": weights.reshape(32, -1)})
    first, *_, last = (axes.images[0].get_array() for axes in figures.filters(SOURCE).axes if axes.images)
    np.testing.assert_array_equal(first[0, 0], [255, 127, 63])
    assert np.all(last == 255)


def test_a_dollar_in_a_name_is_a_dollar(empty):
    write(SOURCE, 50.0, 51.0)
    names = {"costs $5 or $x_{": SOURCE}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for figure in (figures.accuracies(names, title="$5_{"), figures.curves(names, title="$5_{")):
            figure.draw_without_rendering()
            assert "$" in words(figure)


def test_seeds_are_thin_lines_behind_their_mean(empty):
    write(SOURCE, 50.0, 52.0)
    write(WITHOUT, 40.0)
    (axes,) = figures.curves({"a for $5": SOURCE, "b": WITHOUT}).axes
    last = {(float(line.get_ydata()[-1]), line.get_linewidth() < 1) for line in axes.lines}
    assert last == {(51.0, False), (50.0, True), (52.0, True), (40.0, False)}


def test_a_panel_of_losses_has_the_mean_of_both_over_the_seeds(empty):
    write(SOURCE, 50.0, 52.0)
    write(WITHOUT, 40.0)
    recorded = records.of_recipe(SOURCE)
    first, second = figures.losses({"a": SOURCE, "waiting": BEST, "b": WITHOUT}).axes
    assert (first.get_title(), second.get_title()) == ("a", "b")
    for line, curve in zip(first.lines, ("train_loss", "validation_loss"), strict=True):
        both = [run["history"][curve] for run in recorded]
        np.testing.assert_allclose(line.get_ydata(), np.mean(both, axis=0))


def test_others_curves_stand_beside_ours():
    shown = figures.curves({"here": "resnet-assignment"}, beside={"published": published.RESNET_CURVE})
    (axes,) = shown.axes
    lines = {line.get_label(): line.get_ydata() for line in axes.lines}
    np.testing.assert_allclose(lines["published"], published.RESNET_CURVE)
    assert "here" in lines and axes.get_ylabel() == "test accuracy (%)"
    (axes,) = figures.curves({"here": "resnet-assignment"}).axes
    assert axes.get_ylabel() == "test accuracy (%)", "as its source drew it"
    (axes,) = figures.curves({"here": "resnet-assignment", "there": SOURCE}).axes
    assert axes.get_ylabel() == "test or validation accuracy (%)"
    assert [line.get_label() for line in figures.losses({"here": "resnet-assignment"}).axes[0].lines][
        1
    ] == "test"


def test_runs_that_hold_nothing_out_have_no_validation_curve(empty):
    write(SOURCE, 50.0)
    write("resnet-fast", 90.0, curve=[None, None])
    figure = figures.curves({"with": SOURCE, "all images": "resnet-fast"})
    assert [line.get_label() for line in figure.axes[0].lines] == ["with"]


def test_what_was_not_run_has_no_row_and_no_line(empty):
    write(SOURCE, 50.0)
    names = {"run": SOURCE, "waiting": BEST}
    assert figures.accuracies(names) == f"<p>{BEST}: {NOT_RUN}.</p>"  # nothing to compare
    write(WITHOUT, 49.0)
    (axes,) = figures.accuracies(names | {"run, too": WITHOUT}).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["run", "run, too"]
    assert [line.get_label() for line in figures.curves(names).axes[0].lines] == ["run"]


def test_a_small_difference_is_not_drawn_large(empty):
    write("smallnet-start", 50.0)
    write("smallnet-wide", 50.5)
    shown = {"one": "smallnet-start", "other": "smallnet-wide"}
    low, high = figures.accuracies(shown).axes[0].get_xlim()
    assert high - low == pytest.approx(figures.LEAST_SPAN)
    assert (low + high) / 2 == pytest.approx(50.25)
    low, high = figures.accuracies(shown, mark=("far", 90.0)).axes[0].get_xlim()
    assert 40 < high - low < 60


def test_what_each_thing_is_worth_has_an_interval_from_all_runs_together(empty):
    assert WITHOUT in figures.worth(BEST, {"one": WITHOUT})
    write(BEST, 60.0, 61.0, 80.0)
    write(WITHOUT, 50.0, 52.0)
    write("smallnet-gelu", 58.0, 61.0)
    figure = figures.worth(BEST, {"one": WITHOUT, "other": "smallnet-gelu"})
    # From seed 0 to 1 the three gain 1, 2 and 3: a variance of 1 with two degrees of freedom, t = 4.303.
    half = 4.303 / 2**0.5
    assert f"9.5 ± {half:.1f}" in words(figure) and f"1.0 ± {half:.1f}" in words(figure)


def test_the_heat_map_writes_shares_of_the_true_superclass():
    counts = tables.examined(SOURCE)["superclasses"]
    axes = figures.superclasses(SOURCE).axes[0]
    written = {text.get_position(): text.get_text() for text in axes.texts}
    wrong = counts - np.diag(np.diag(counts))
    true, said = np.unravel_index(wrong.argmax(), wrong.shape)
    assert written[said, true] == f"{100 * counts[true, said] / counts[true].sum():.0f}"


def test_bins_of_few_images_are_left_out_of_the_curve():
    found = tables.examined(SOURCE)
    curve, _ = figures.reliability({"a run": SOURCE}).axes
    count = np.array(found["calibration"]["count"])
    assert len(curve.containers[0].lines[0].get_xdata()) == (count >= figures.FEW).sum() < len(count)
    (label,) = curve.figure.legends[0].get_texts()
    assert label.get_text() == f"a run: ECE {100 * found['ece']:.1f} points"


def test_a_drawing_has_the_weights_and_the_products_of_each_stage():
    _, weights, products = ([text.get_text() for text in axes.texts] for axes in diagrams.resnet().axes)
    assert sum(int(one.replace(",", "")) for one in weights if one) == 6_575_370
    assert products == ["", "1.8", *["75.5"] * 5, "", "0.0"]  # millions, 9 × 64 × 128 × 32 × 32 among them
