"""The figures hold the data they were given, can be read anywhere, and leave no trace in the session."""

import itertools
import math
import os
import subprocess
import sys
from types import SimpleNamespace

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.text import Text

from course_utils import plots
from course_utils.lab import records
from course_utils.schedules import RangeTest

PHONE_PIXELS = 350  # what a page leaves for a figure on a phone that is 390 wide
IMAGES = np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
LABELS = np.arange(12) % 4
NO_FORMULA = r"$\oops$"  # drawn as one it is an error
CLASSES = ("aquarium_fish", NO_FORMULA, "a_b$", "pickup_truck")
# The model is right about images 0 to 7 and takes 8 to 11 for the next class, ever more surely.
SURE = np.where(np.arange(12) < 8, 0.7, 0.5 + 0.04 * np.arange(12))
SAID = np.where(np.arange(12) < 8, LABELS, (LABELS + 1) % 4)
PROBABILITIES = np.where(np.arange(4) == SAID[:, None], SURE[:, None], (1 - SURE[:, None]) / 3)
MATRIX = np.array([[90, 10, 0, 0], [0, 40, 0, 10], [0, 0, 0, 0], [1, 0, 0, 3]])
RATES = np.geomspace(1e-6, 1, 100)
LOSSES = np.where(RATES < 0.01, 2.3 - 1e2 * np.minimum(RATES, 0.01), 1e6 * RATES)


def history(epochs=6, accuracy=0.5):
    ramp = np.arange(1, epochs + 1) / epochs
    return SimpleNamespace(
        train_loss=list(3 - 2 * ramp),
        validation_loss=list(3 - ramp),
        validation_accuracy=list(accuracy * ramp),
        learning_rate=list(0.1 * (1 - ramp)),
    )


FIGURES = {
    "show_images": lambda: plots.show_images(IMAGES, LABELS, CLASSES, title=NO_FORMULA),
    "show_augmented": lambda: plots.show_augmented(IMAGES[:2], IMAGES[2:8].reshape(2, 3, 32, 32, 3)),
    "worst_mistakes": lambda: plots.worst_mistakes(IMAGES, LABELS, PROBABILITIES, CLASSES),
    "prediction_bars": lambda: plots.prediction_bars(IMAGES[0], PROBABILITIES[0], CLASSES),
    "learning_curves": lambda: plots.learning_curves(history(), (NO_FORMULA, [1, 8], [40, 90]), "A run"),
    "compare_histories": lambda: plots.compare_histories({NO_FORMULA: history(), "b": history(1)}),
    "schedule": lambda: plots.schedule(RATES, 10, log=True, marks={NO_FORMULA: 2, "b": 9}),
    "range_test": lambda: plots.range_test(RATES, LOSSES, {NO_FORMULA: 1e-3}),
    "confusion": lambda: plots.confusion(MATRIX, CLASSES, title="Four"),
    "confusion of 100": lambda: plots.confusion(np.eye(100), [f"class_{k}" for k in range(100)]),
    "most_confused": lambda: plots.most_confused(MATRIX, CLASSES),
}


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def pixels(figure):
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba()).copy()


def texts(figure):
    """What is written in a figure beside its ticks, once it is drawn."""
    figure.draw_without_rendering()
    axes = [axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)]
    ticks = {label for axis in axes for label in axis.get_ticklabels() + axis.get_minorticklabels()}
    found = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]
    return [text for text in found if text not in ticks]


def read(figure):
    """The same as plain strings, on one line each."""
    return [" ".join(text.get_text().replace(r"\$", "$").split()) for text in texts(figure)]


def pictures(figure):
    return [axes.images[0].get_array() for axes in figure.axes if axes.images]


def tick_names(axis):
    return [label.get_text().replace(r"\$", "$") for label in axis.get_ticklabels()]


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_can_be_read_anywhere_and_is_the_same_in_any_style(name):
    figure = FIGURES[name]()
    expected = pixels(figure)
    assert (expected[..., 3] == 255).all()
    assert figure.get_figwidth() <= plots.WIDTH and figure.get_figwidth() * figure.dpi <= 1000
    smallest = min(text.get_fontsize() for text in figure.findobj(Text))  # points, of which an inch has 72
    assert smallest / 72 * PHONE_PIXELS / plots.WIDTH >= 9
    boxes = [text.get_window_extent() for text in texts(figure)]
    assert [(a, b) for a, b in itertools.combinations(boxes, 2) if a.overlaps(b)] == []
    with plt.style.context("dark_background"):
        before = dict(matplotlib.rcParams)
        figure = FIGURES[name]()
        assert dict(matplotlib.rcParams) == before
        np.testing.assert_array_equal(pixels(figure), expected)


def test_the_first_figure_of_a_notebook_leaves_interactive_mode_on():
    code = "import matplotlib.pyplot as plt; from course_utils import plots; plots.schedule([1, 2]);"
    command = [sys.executable, "-m", "IPython", "-c", code + "print('on:', plt.isinteractive())"]
    inline = os.environ | {"MPLBACKEND": "module://matplotlib_inline.backend_inline"}
    done = subprocess.run(command, env=inline, capture_output=True, text=True)
    assert "on: True" in done.stdout, done.stdout + done.stderr


def test_show_images_puts_each_name_above_its_own_picture():
    figure = plots.show_images(IMAGES, LABELS, CLASSES)
    np.testing.assert_array_equal(pictures(figure), IMAGES)
    assert read(figure) == [CLASSES[k].replace("_", " ") for k in LABELS]
    assert read(plots.show_images(IMAGES, LABELS)) == [str(k) for k in LABELS]
    assert read(plots.show_images(IMAGES)) == []
    assert read(plots.show_images(IMAGES, torch.from_numpy(LABELS))) == [str(k) for k in LABELS]
    assert read(plots.show_images(IMAGES, LABELS, np.array(CLASSES))) == read(figure)
    np.testing.assert_array_equal(pictures(plots.show_images(torch.from_numpy(IMAGES))), IMAGES)


@pytest.mark.parametrize(
    ("n", "labels", "asked", "columns"),
    [(12, False, None, 8), (12, True, None, 6), (8, True, None, 4), (12, True, 3, 3), (2, False, None, 2)],
)
def test_show_images_leaves_room_for_names(n, labels, asked, columns):
    figure = plots.show_images(IMAGES[:n], LABELS[:n] if labels else None, CLASSES, columns=asked)
    assert figure.axes[0].get_gridspec().ncols == columns


def test_show_augmented_has_a_row_an_original():
    augmented = IMAGES[2:8].reshape(2, 3, 32, 32, 3)
    figure = plots.show_augmented(IMAGES[:2], augmented)
    shown = np.array(pictures(figure)).reshape(2, 4, 32, 32, 3)
    np.testing.assert_array_equal(shown[:, 0], IMAGES[:2])
    np.testing.assert_array_equal(shown[:, 1:], augmented)
    assert read(figure) == ["original", "version 1", "version 2", "version 3"]


def test_worst_mistakes_come_surest_first():
    figure = plots.worst_mistakes(IMAGES, LABELS, PROBABILITIES, CLASSES, n=3)
    np.testing.assert_array_equal(pictures(figure), IMAGES[[11, 10, 9]])
    assert read(figure)[0] == "true: pickup truck said: aquarium fish at 94.0 %"
    perfect = plots.worst_mistakes(IMAGES[:8], LABELS[:8], PROBABILITIES[:8], CLASSES)
    assert read(perfect) == ["no mistakes among these images"]


@pytest.mark.parametrize("other", [7, 9])
def test_pictures_labels_and_answers_must_be_as_many(other):
    with pytest.raises(ValueError, match=f"{other} images, 8 labels, 8 answers"):
        plots.worst_mistakes(IMAGES[:other], LABELS[:8], PROBABILITIES[:8], CLASSES)


@pytest.mark.parametrize("draw", [plots.confusion, plots.most_confused])
def test_a_matrix_has_a_row_for_each_class(draw):
    with pytest.raises(ValueError, match=r"a row and a column for 3 classes, found \(2, 2\)"):
        draw(np.eye(2), ("a", "b", "c"))


def test_prediction_bars_show_the_top_classes_in_order():
    image, bars = plots.prediction_bars(IMAGES[0], [0.1, 0.6, 0.05, 0.25], CLASSES, top=3).axes
    np.testing.assert_array_equal(image.images[0].get_array(), IMAGES[0])
    assert tick_names(bars.yaxis) == [NO_FORMULA, "pickup_truck", "aquarium_fish"]
    assert bars.yaxis_inverted()  # the first on top
    np.testing.assert_allclose([bar.get_width() for bar in bars.patches], [60, 25, 10])
    assert [text.get_text() for text in bars.texts] == ["60.0", "25.0", "10.0"]


def test_learning_curves_hold_the_history_and_the_reference():
    run = history(24, 0.9)
    figure = plots.learning_curves(run, ("published", [1, 30], [49.0, 91.7]), measured_on="test")
    loss, accuracy, rate = figure.axes
    losses = [line.get_ydata() for line in loss.lines]
    np.testing.assert_array_equal(losses, [run.train_loss, run.validation_loss])
    ours, published = accuracy.lines
    np.testing.assert_allclose(ours.get_data(), [range(1, 25), 100 * np.array(run.validation_accuracy)])
    np.testing.assert_array_equal(published.get_data(), [[1, 30], [49.0, 91.7]])
    assert rate.lines[0].get_drawstyle() == "default"
    np.testing.assert_array_equal(rate.lines[0].get_data(), [range(24), run.learning_rate])
    assert [text.get_text() for text in accuracy.get_legend().texts] == ["test", "published"]
    labels = ["loss", "top-1 accuracy (%)", "learning rate"]
    assert [axes.get_ylabel() for axes in figure.axes] == labels


def test_a_rate_that_stays_is_drawn_as_steps():
    run = history(24)
    run.learning_rate = [0.1] * 12 + [0.02] * 12
    assert plots.learning_curves(run).axes[2].lines[0].get_drawstyle() == "steps-post"


def test_epoch_ticks_are_whole():
    for epochs in (1, 3, 24, 330):
        ticks = plots.learning_curves(history(epochs)).axes[2].get_xticks()
        assert 1 <= len(ticks) <= 12 and np.all(ticks == np.round(ticks))


def record(seed, accuracy, on_test=False):
    return {
        "recipe": {"name": "smallnet-source", "data": "cifar100", "curve_on_test": on_test},
        "machine": {"name": "some processor"},
        "precision": "float32",
        "seed": seed,
        "date": f"2026-11-2{seed}",
        "history": vars(history(4, accuracy)),
    }


def test_recorded_runs_are_drawn_as_their_mean_and_named():
    figure = plots.recorded_runs([record(2, 0.4), record(1, 0.6)])
    np.testing.assert_allclose(figure.axes[1].lines[0].get_ydata(), [12.5, 25, 37.5, 50])
    title = "Recorded: smallnet-source on cifar100, seeds 2, 1; some processor, 2026-11-22"
    assert title in read(figure)
    assert "validation" in read(figure)
    alone = read(plots.recorded_runs([record(0, 0.4, on_test=True)]))
    assert "test" in alone and "validation" not in alone and "seed 0;" in " ".join(alone)
    smoothed = record(0, 0.4)
    smoothed["recipe"]["label_smoothing"] = 0.1
    assert plots.recorded_runs([smoothed]).axes[0].get_ylabel() == "loss (label smoothing 0.1)"


def test_runs_that_have_no_mean_are_named():
    other, longer = record(2, 0.4), record(1, 0.4) | {"history": vars(history(5))}
    other["recipe"]["name"] = "smallnet-best"
    for second, says in ((other, "smallnet-best of 4"), (longer, "smallnet-source of 5")):
        with pytest.raises(ValueError, match=f"equal runs of one recipe, found .*{says} epochs"):
            plots.recorded_runs([record(0, 0.4), second])


def test_a_records_history_is_drawn_beside_ones_own():
    kept = vars(history(4)) | {"validation_accuracy": [None] * 4}  # as JSON has it
    assert len(plots.learning_curves(kept).axes) == 3
    assert "recorded (not measured)" in read(plots.compare_histories({"mine": history(4), "recorded": kept}))


def test_a_title_in_another_place_is_no_curve():
    with pytest.raises(ValueError, match="found 'My run': title="):
        plots.learning_curves(history(4), "My run")
    with pytest.raises(ValueError, match="unknown quantity 'My run', expected one of train_loss"):
        plots.compare_histories({"mine": history(4)}, "My run")


@pytest.mark.parametrize("recipe", ["resnet-assignment", "resnet-best", "resnet-lr-range", "never-run"])
def test_recorded_runs_say_where_there_is_no_curve(recipe):
    figure = plots.recorded_runs(records.of_recipe(recipe))
    assert (len(figure.axes) == 3) == (recipe == "resnet-assignment")
    assert ("There is no recorded curve of this recipe." in read(figure)) == (len(figure.axes) == 0)


def test_runs_without_validation_are_drawn_as_far_as_they_were_measured():
    run = history()
    run.train_accuracy, run.validation_loss, run.validation_accuracy = (
        [0.5] * 6,
        [math.nan] * 6,
        [math.nan] * 6,
    )
    loss, accuracy, _ = plots.learning_curves(run).axes
    assert [text.get_text() for axes in (loss, accuracy) for text in axes.get_legend().texts] == [
        "training"
    ] * 2
    assert list(accuracy.lines[0].get_ydata()) == [50] * 6
    figure = plots.compare_histories({"mine": run, "yours": history()})
    assert [text.get_text() for text in figure.legends[0].texts] == ["mine (not measured)", "yours"]


def test_compare_histories_draws_a_line_a_run_and_tells_them_apart():
    axes = plots.compare_histories({f"run {k}": history(4 + k) for k in range(8)}).axes[0]
    assert [len(line.get_xdata()) for line in axes.lines] == list(range(4, 12))
    assert all(line.get_ydata()[-1] == pytest.approx(50) for line in axes.lines)
    assert len({(line.get_color(), line.get_linestyle()) for line in axes.lines}) == 8
    axes = plots.compare_histories({"a": history()}, "train_loss").axes[0]
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), history().train_loss)
    assert axes.get_ylabel() == "training loss"
    axes = plots.compare_histories({0.1: history(), 0.01: history()}).axes[0]  # what was varied, as it is
    assert [line.get_label() for line in axes.lines] == ["0.1", "0.01"]


def test_schedule_holds_each_rate_for_its_step_and_marks_epochs():
    figure = plots.schedule(np.arange(40.0), steps_per_epoch=10, marks={"peak": 1.5, "end": 1.6})
    axes = figure.axes[0]
    values, edges, _ = axes.patches[0].get_data()
    np.testing.assert_allclose(values, np.arange(40))
    np.testing.assert_allclose(edges, np.arange(41) / 10)
    assert [line.get_xdata()[0] for line in axes.lines] == [1.5, 1.6]
    assert [text.get_text() for text in figure.legends[0].texts] == ["peak", "end"]
    assert (axes.get_xlabel(), axes.get_yscale()) == ("epochs completed", "linear")
    in_steps = plots.schedule(np.arange(1.0, 41), log=True).axes[0]
    assert (in_steps.get_xlabel(), in_steps.get_yscale()) == ("step", "log")


def test_range_test_marks_what_its_own_test_suggests_and_keeps_to_the_learning():
    found = RangeTest(RATES, LOSSES)
    figure = plots.range_test(RATES, LOSSES, {"lowest": found.suggestion, "steepest": found.steepest})
    axes = figure.axes[0]
    raw, mean, *marks = axes.lines
    np.testing.assert_array_equal(raw.get_ydata(), LOSSES)
    np.testing.assert_array_equal(mean.get_data(), [RATES, found.smoothed])
    assert [mark.get_xdata()[0] for mark in marks] == [found.suggestion, found.steepest]
    labels = [f"lowest: {found.suggestion:.1e}", f"steepest: {found.steepest:.1e}"]
    assert [text.get_text() for text in figure.legends[0].texts] == labels
    low, high = axes.get_ylim()
    assert 1 < low < 1.4 and 2.3 < high < 3.5  # the losses go on to a million
    found = RangeTest(RATES[:1], LOSSES[:1])  # which diverged at its second rate
    axes = plots.range_test(found.rates, found.losses, {"suggestion": found.suggestion}).axes[0]
    assert axes.lines[-1].get_xdata()[0] == RATES[0]


@pytest.mark.parametrize("kind", [np.int64, np.uint8])
def test_confusion_matrix_counts_a_row_a_true_class(kind):
    labels, predictions = np.array([0, 0, 199, 199, 199], kind), np.array([0, 1, 199, 0, 0], kind)
    matrix = plots.confusion_matrix(labels, predictions, 200)
    assert matrix.dtype == np.int64 and matrix.shape == (200, 200) and matrix.sum() == 5
    assert (matrix[0, 0], matrix[0, 1], matrix[199, 199], matrix[199, 0]) == (1, 1, 1, 2)
    with pytest.raises(ValueError, match="invalid entry"):
        plots.confusion_matrix(labels, predictions, 100)


def test_confusion_is_normalised_by_row_and_of_a_hundred_classes_a_picture_with_few_names():
    axes = plots.confusion(MATRIX.tolist(), CLASSES).axes[0]
    expected = np.array([[90, 10, 0, 0], [0, 80, 0, 20], [0, 0, 0, 0], [25, 0, 0, 75]])
    np.testing.assert_allclose(axes.images[0].get_array(), expected)
    written = {text.get_position()[::-1]: int(text.get_text()) for text in axes.texts}
    assert written == {(row, column): expected[row, column] for row, column in np.argwhere(expected)}
    assert tick_names(axes.xaxis) == tick_names(axes.yaxis) == list(CLASSES)
    for matrix in (MATRIX / MATRIX.sum(), MATRIX.astype(np.uint8)):  # shares of all; counts in few bits
        shares = plots.confusion(matrix, CLASSES).axes[0].images[0].get_array()
        np.testing.assert_allclose(shares, expected)
    axes, bar = FIGURES["confusion of 100"]().axes
    assert len(axes.texts) == 0
    assert tick_names(axes.yaxis) == [f"class_{k}" for k in range(0, 100, 10)]
    assert bar.get_xlabel() == "share of the true class (%)"


def test_most_confused_pairs_are_shares_of_the_true_class():
    axes = plots.most_confused(MATRIX, CLASSES, n=2).axes[0]
    assert tick_names(axes.yaxis) == ["pickup_truck → aquarium_fish", f"{NO_FORMULA} → pickup_truck"]
    np.testing.assert_allclose([bar.get_width() for bar in axes.patches], [25, 20])
    assert len(plots.most_confused(MATRIX, CLASSES).axes[0].patches) == 3  # none that is 0
    assert read(plots.most_confused(np.eye(4), CLASSES)) == ["no mistakes in this matrix"]


@pytest.mark.parametrize(
    ("message", "draw"),
    [
        ("uint8 .* found float64", lambda: plots.show_images(IMAGES / 255)),
        (r"found uint8 \(32, 32, 3\)", lambda: plots.show_images(IMAGES[0])),
        (r"found uint8 \(2, 32, 32, 3\), 3 labels", lambda: plots.show_images(IMAGES[:2], LABELS[:3])),
        (r"found uint8 \(0, 32, 32, 3\)", lambda: plots.show_images(IMAGES[:0])),
        ("for logits, take the softmax", lambda: plots.prediction_bars(IMAGES[0], [-1, 0, 0, 2], CLASSES)),
        ("names for 4 classes, found 5", lambda: plots.prediction_bars(IMAGES[0], PROBABILITIES[0], "abcde")),
        ("names for 4 classes, found 3", lambda: plots.worst_mistakes(IMAGES, LABELS, PROBABILITIES, "abc")),
        ("for logits", lambda: plots.worst_mistakes(IMAGES, LABELS, 2 * PROBABILITIES, CLASSES)),
    ],
)
def test_what_students_mistake_for_something_else_is_named(message, draw):
    with pytest.raises(ValueError, match=message):
        draw()
