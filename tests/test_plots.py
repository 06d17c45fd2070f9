"""The figures hold the data they were given, can be read anywhere, and leave no trace in the session."""

import itertools
import os
import subprocess
import sys
from types import SimpleNamespace

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text

from course_utils import plots
from course_utils.lab import recipes, records

PHONE_PIXELS = 350  # what a page leaves for a figure on a phone that is 390 wide
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
LABELS = np.arange(12) % 4
CLASSES = ("aquarium_fish", "caterpillar", "chimpanzee", "pickup_truck")
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
        seconds=[8.0] * epochs,
    )


def unvalidated():
    run = history()
    run.validation_loss = run.validation_accuracy = [np.nan] * 6
    return run


EVERY = {
    "show_images": lambda: plots.show_images(IMAGES, LABELS, CLASSES, title="Twelve"),
    "show_augmented": lambda: plots.show_augmented(IMAGES[:2], IMAGES[2:8].reshape(2, 3, 32, 32, 3)),
    "learning_curves": lambda: plots.learning_curves(history(), ("log", [1, 8], [40, 90]), "A run"),
    "compare_histories": lambda: plots.compare_histories({"a": history(), "b": history(1)}),
    "schedule": lambda: plots.schedule(RATES, 10, log=True, marks={"a": 2, "b": 9}),
    "range_test": lambda: plots.range_test(RATES, LOSSES, 1e-3),
    "confusion": lambda: plots.confusion(MATRIX, CLASSES, title="Four"),
    "confusion of 100": lambda: plots.confusion(np.eye(100), [f"class_{k}" for k in range(100)]),
    "most_confused": lambda: plots.most_confused(MATRIX, CLASSES),
    "worst_mistakes": lambda: plots.worst_mistakes(IMAGES, LABELS, PROBABILITIES, CLASSES),
    "filters": lambda: plots.filters(np.linspace(-1, 1, 4 * 27).reshape(4, 3, 3, 3)),
    "prediction_bars": lambda: plots.prediction_bars(IMAGES[0], PROBABILITIES[0], CLASSES),
}


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def pixels(figure):
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba()).copy()


def texts(figure):
    """What is written in a figure, once it is drawn."""
    figure.draw_without_rendering()
    return [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip()]


def pictures(figure):
    return [axes.images[0].get_array() for axes in figure.axes if axes.images]


def titles(figure):
    figure.draw_without_rendering()
    return [axes.title for axes in figure.axes if axes.get_title()]


def captions(figure):
    return [title.get_text() for title in titles(figure)]


def tick_names(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def overlapping(some_texts):
    boxes = [Text.get_window_extent(t) for t in some_texts]  # without an annotation's arrow
    return [(a, b) for a, b in itertools.combinations(boxes, 2) if a.overlaps(b)]


# ---- every figure ----


@pytest.mark.parametrize("name", EVERY)
def test_figure_is_opaque_readable_and_independent_of_the_style_it_is_drawn_in(name):
    figure = EVERY[name]()
    expected = pixels(figure)
    assert (expected[..., 3] == 255).all()
    assert figure.get_figwidth() <= plots.WIDTH and figure.get_figwidth() * figure.dpi <= 1000
    smallest = min((t.get_fontsize() for t in texts(figure)), default=10)  # 72 points are an inch
    assert smallest / 72 * PHONE_PIXELS / plots.WIDTH >= 9
    with plt.style.context("dark_background"):
        before = dict(matplotlib.rcParams)
        figure = EVERY[name]()
        assert dict(matplotlib.rcParams) == before
        np.testing.assert_array_equal(pixels(figure), expected)


def test_the_first_figure_of_a_notebook_leaves_interactive_mode_on():
    code = "import matplotlib.pyplot as plt; from course_utils import plots; plots.schedule([1, 2]);"
    done = subprocess.run(
        [sys.executable, "-m", "IPython", "-c", code + "print('on:', plt.isinteractive())"],
        env=os.environ | {"MPLBACKEND": "module://matplotlib_inline.backend_inline"},
        capture_output=True,
        text=True,
    )
    assert "on: True" in done.stdout, done.stdout + done.stderr


# ---- images ----


def test_show_images_puts_each_name_above_its_own_picture():
    figure = plots.show_images(IMAGES, LABELS, CLASSES)
    np.testing.assert_array_equal(pictures(figure), IMAGES)
    assert [c.replace("\n", "_") for c in captions(figure)] == [CLASSES[k] for k in LABELS]
    assert all(axes.images[0].get_interpolation() == "nearest" for axes in figure.axes if axes.images)
    assert overlapping(titles(figure)) == []
    assert captions(plots.show_images(IMAGES, LABELS)) == [str(k) for k in LABELS]
    assert captions(plots.show_images(IMAGES)) == []


@pytest.mark.parametrize(("n", "labels", "columns"), [(12, False, 8), (12, True, 6), (8, True, 4)])
def test_show_images_leaves_room_for_names(n, labels, columns):
    figure = plots.show_images(IMAGES[:n], LABELS[:n] if labels else None, CLASSES)
    assert figure.axes[0].get_gridspec().ncols == columns
    assert plots.show_images(IMAGES, columns=3).axes[0].get_gridspec().ncols == 3


def test_show_augmented_has_a_row_an_original():
    augmented = IMAGES[2:8].reshape(2, 3, 32, 32, 3)
    figure = plots.show_augmented(IMAGES[:2], augmented)
    shown = np.array(pictures(figure)).reshape(2, 4, 32, 32, 3)
    np.testing.assert_array_equal(shown[:, 0], IMAGES[:2])
    np.testing.assert_array_equal(shown[:, 1:], augmented)
    assert captions(figure) == ["original", "version 1", "version 2", "version 3"]


def test_worst_mistakes_come_surest_first():
    figure = plots.worst_mistakes(IMAGES, LABELS, PROBABILITIES, CLASSES, n=3)
    np.testing.assert_array_equal(pictures(figure), IMAGES[[11, 10, 9]])
    assert " ".join(captions(figure)[0].split()) == "true: pickup truck said: aquarium fish at 94.0 %"
    assert overlapping(titles(figure)) == []
    perfect = plots.worst_mistakes(IMAGES[:8], LABELS[:8], PROBABILITIES[:8], CLASSES)
    assert [t.get_text() for t in texts(perfect)] == ["no mistakes among these images"]


def test_filters_share_a_scale_that_one_outlier_does_not_set():
    weights = np.full((32, 3, 3, 3), 0.1)
    weights[0, 0, 0, 0], weights[0, 1, 0, 0], weights[0, 2, 0, 0] = 50, 0, -0.05
    figure = plots.filters(weights)
    np.testing.assert_allclose(pictures(figure)[0][0, 0], [1, 0.5, 0.25])
    np.testing.assert_allclose(pictures(figure)[31], 1)
    assert np.all(pictures(plots.filters(np.zeros((1, 3, 3, 3))))[0] == 0.5)


def test_prediction_bars_show_the_top_classes_in_order():
    image, bars = plots.prediction_bars(IMAGES[0], [0.1, 0.6, 0.05, 0.25], CLASSES, top=3).axes
    np.testing.assert_array_equal(image.images[0].get_array(), IMAGES[0])
    assert tick_names(bars.yaxis) == ["caterpillar", "pickup_truck", "aquarium_fish"]
    assert bars.yaxis_inverted()  # the first on top
    np.testing.assert_allclose([bar.get_width() for bar in bars.patches], [60, 25, 10])
    assert [t.get_text() for t in bars.texts] == ["60.0", "25.0", "10.0"]


# ---- curves ----


def test_recorded_runs_are_drawn_as_their_mean_and_named():
    def record(seed, accuracy):
        return {
            "recipe": {"name": "smallnet-source", "data": "cifar100", "curve_on_test": False},
            "machine": {"device": "cpu", "name": "some processor", "threads": 2},
            "precision": "float32",
            "seed": seed,
            "date": "2026-11-22",
            "history": vars(history(4, accuracy)),
        }

    figure = plots.recorded_runs([record(0, 0.4), record(1, 0.6)])
    (line,) = figure.axes[1].lines
    np.testing.assert_allclose(line.get_ydata(), [12.5, 25, 37.5, 50])
    title = " ".join(figure.get_suptitle().split())
    for word in (
        "smallnet-source on cifar100",
        "seeds 0, 1",
        "some processor, 2 threads, float32",
        "2026-11-22",
    ):
        assert word in title
    assert "seed 0;" in " ".join(plots.recorded_runs([record(0, 0.4)]).get_suptitle().split())
    on_test = record(0, 0.4)
    on_test["recipe"]["curve_on_test"] = True
    for run, images in ((record(0, 0.4), "validation"), (on_test, "test")):
        assert plots.recorded_runs([run]).axes[1].texts[0].get_text() == images
    (text,) = plots.recorded_runs([]).texts
    assert "No run of this recipe is recorded" in text.get_text()


@pytest.mark.parametrize("recipe", ["resnet-best", "resnet-lr-range"])
def test_recorded_runs_without_a_validation_curve_say_so(recipe):
    (text,) = plots.recorded_runs(records.of_recipe(recipe)).texts
    assert "Nothing was validated" in text.get_text()


@pytest.mark.parametrize("recipe", recipes.RECIPES)
def test_the_recorded_runs_of_any_recipe_can_be_drawn(recipe):
    assert isinstance(plots.recorded_runs(records.of_recipe(recipe)), Figure)
    plt.close()


def test_learning_curves_hold_the_history_and_the_reference():
    run = history(24, 0.9)
    figure = plots.learning_curves(run, reference=("published", [1, 30], [49.0, 91.7]))
    loss, accuracy, rate = figure.axes
    drawn = [line.get_ydata() for line in loss.lines]
    np.testing.assert_array_equal(drawn, [run.train_loss, run.validation_loss])
    ours, published = accuracy.lines
    np.testing.assert_allclose(ours.get_ydata(), 100 * np.array(run.validation_accuracy))
    np.testing.assert_array_equal(ours.get_xdata(), range(1, 25))
    np.testing.assert_array_equal(published.get_data(), [[1, 30], [49.0, 91.7]])
    np.testing.assert_array_equal(rate.lines[0].get_ydata(), run.learning_rate)
    assert [t.get_text() for t in accuracy.texts] == ["validation", "published"]  # lowest first
    assert [axes.get_ylabel() for axes in figure.axes] == [
        "loss\n(cross entropy, nats)",
        "top-1 accuracy (%)",
        "learning rate",
    ]
    assert rate.get_xlabel() == "epoch"


@pytest.mark.parametrize(
    ("epochs", "ticks"),
    [
        (1, [1]),
        (3, [1, 2, 3]),
        (20, [1, *range(4, 21, 2)]),
        (24, [1, 5, 10, 15, 20]),
        (330, [1, *range(50, 301, 50)]),
    ],
)
def test_epoch_ticks_are_whole_and_start_at_one(epochs, ticks):
    rate = plots.learning_curves(history(epochs)).axes[2]
    assert rate.get_xticks().tolist() == ticks
    assert tick_names(rate.xaxis) == [f"$\\mathdefault{{{tick}}}$" for tick in ticks]


def test_compare_histories_draws_a_line_a_run_and_labels_apart():
    runs = {f"the same accuracy {k}": history(4 + k, 0.5) for k in range(8)}
    figure = plots.compare_histories(runs)
    axes = figure.axes[0]
    assert [len(line.get_xdata()) for line in axes.lines] == list(range(4, 12))
    assert all(line.get_ydata()[-1] == pytest.approx(50) for line in axes.lines)
    assert len({(line.get_color(), line.get_linestyle()) for line in axes.lines}) == 8
    figure.draw_without_rendering()
    assert len(axes.texts) == 8
    assert overlapping(axes.texts) == []
    for box in map(Text.get_window_extent, axes.texts):
        assert axes.bbox.y0 <= box.y0 < box.y1 <= axes.bbox.y1 and box.x1 <= figure.bbox.x1


@pytest.mark.parametrize(
    ("wanted", "placed"),
    [
        ([0.3, 0.8], [0.3, 0.8]),  # room enough
        ([0.2, 0.5, 0.5], [0.2, 0.5, 0.7]),  # crowded half-way up
        ([0.0, 0.05, 0.2, 0.9], [0.1, 0.3, 0.5, 0.9]),  # crowded on the floor
        ([0.1, 0.9, 0.95, 1.0], [0.1, 0.5, 0.7, 0.9]),  # and under the ceiling
    ],
)
def test_labels_move_only_as_far_as_they_must(wanted, placed):
    centres = plots._apart(np.array(wanted), np.full(len(wanted), 0.2))
    np.testing.assert_allclose(centres, placed)


def test_compare_histories_draws_the_quantity_asked_for():
    axes = plots.compare_histories({"a": unvalidated()}, quantity="train_loss").axes[0]
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), history().train_loss)
    assert axes.get_ylabel() == "training loss (cross entropy, nats)"


def test_a_gap_in_a_curve_is_labelled_at_its_last_finite_value():
    run = history(3)
    run.validation_loss[-1] = np.nan
    validation = plots.learning_curves(run).axes[0].texts[1]
    assert validation.get_text() == "validation" and validation.xy == (2, run.validation_loss[1])


def test_schedule_counts_epochs_and_marks_them():
    figure = plots.schedule(np.arange(40.0), steps_per_epoch=10, marks={"peak": 1.5, "end": 1.6})
    axes = figure.axes[0]
    curve, peak, end = axes.lines
    np.testing.assert_allclose(curve.get_data(), [np.arange(40) / 10, np.arange(40)])
    assert (peak.get_xdata()[0], end.get_xdata()[0]) == (1.5, 1.6)
    assert [t.get_text().strip() for t in axes.texts] == ["peak", "end"]
    assert overlapping(texts(figure)) == []
    assert (axes.get_xlabel(), axes.get_yscale()) == ("epochs completed", "linear")
    in_steps = plots.schedule(np.arange(1.0, 41), log=True).axes[0]
    assert (in_steps.get_xlabel(), in_steps.get_yscale()) == ("step", "log")
    assert in_steps.lines[0].get_xdata()[-1] == 39


def test_range_test_marks_the_suggestion_on_the_curve():
    losses = 3 - 0.5 * np.log10(RATES / RATES[0])
    axes = plots.range_test(RATES, losses, RATES[50]).axes[0]
    raw, mean, dot, vertical = axes.lines
    np.testing.assert_allclose(raw.get_data(), [RATES, losses])
    np.testing.assert_allclose(mean.get_ydata()[5:-5], losses[5:-5])  # centred: no lag
    np.testing.assert_allclose(np.ravel(dot.get_data()), [RATES[50], losses[50]], rtol=1e-6)
    assert to_hex(dot.get_color()) == plots.COLOURS[1].lower()
    assert vertical.get_xdata()[0] == RATES[50]
    assert axes.texts[0].get_text().strip() == f"suggested: {RATES[50]:.1e}"
    assert (axes.get_xscale(), axes.get_xlabel()) == ("log", "learning rate")
    assert axes.get_ylabel() == "loss (cross entropy, nats)"


def test_range_test_keeps_to_the_learning_when_the_loss_explodes():
    losses = LOSSES.copy()
    losses[95:] = np.nan
    axes = plots.range_test(RATES, losses).axes[0]
    low, high = axes.get_ylim()
    assert 1 < low < 1.31 and 2.3 < high < 3.5
    learned = RATES < 0.005
    mean = axes.lines[1].get_ydata()
    np.testing.assert_allclose(mean[learned[:95]], LOSSES[learned], atol=0.1)
    assert axes.patches[0].get_x() == RATES[95]
    assert [t.get_text() for t in axes.texts] == ["not finite"]


# ---- confusion ----


def test_confusion_is_normalised_by_row_and_a_missing_class_stays_empty():
    axes = plots.confusion(MATRIX, CLASSES).axes[0]
    expected = [[90, 10, 0, 0], [0, 80, 0, 20], [0, 0, 0, 0], [25, 0, 0, 75]]
    np.testing.assert_allclose(axes.images[0].get_array(), expected)
    written = {t.get_position()[::-1]: t.get_text() for t in axes.texts}
    nonzero = {(r, c): str(v) for r, row in enumerate(expected) for c, v in enumerate(row) if v}
    assert written == nonzero
    assert tick_names(axes.xaxis) == tick_names(axes.yaxis) == list(CLASSES)


def test_confusion_of_a_hundred_classes_is_a_picture_with_few_names():
    figure = plots.confusion(np.eye(100), [f"class_{k}" for k in range(100)])
    axes, bar = figure.axes
    assert len(axes.texts) == 0
    assert tick_names(axes.yaxis) == [f"class_{k} {k}" for k in range(0, 100, 10)]
    assert bar.get_xlabel() == "share of the true class (%)"
    assert overlapping(texts(figure)) == []


def test_most_confused_pairs_are_shares_of_the_true_class():
    axes = plots.most_confused(MATRIX, CLASSES, n=2).axes[0]
    assert tick_names(axes.yaxis) == ["pickup_truck → aquarium_fish", "caterpillar → pickup_truck"]
    np.testing.assert_allclose([bar.get_width() for bar in axes.patches], [25, 20])
    assert len(plots.most_confused(MATRIX, CLASSES).axes[0].patches) == 3  # none that is 0
    perfect = plots.most_confused(np.eye(4), CLASSES)
    assert [t.get_text() for t in texts(perfect)] == ["no mistakes in this matrix"]


# ---- wrong input ----


def uneven():
    run = history()
    run.validation_loss.pop()
    return run


WRONG = {
    "uint8 .* found float64": lambda: plots.show_images(IMAGES / 255),
    r"uint8 .* found uint8 \(32, 32, 3\)": lambda: plots.show_images(IMAGES[0]),
    r"images uint8 .* found uint8 \(0, 32": lambda: plots.show_images(IMAGES[:0]),
    r"labels of shape \(12,\); found \(5,\)": lambda: plots.show_images(IMAGES, LABELS[:5], CLASSES),
    "labels 0 to 2; found 0 to 3": lambda: plots.show_images(IMAGES, LABELS, CLASSES[:3]),
    r"augmented of shape \(2, K, 32, 32, 3\); found \(2, 32": lambda: plots.show_augmented(
        IMAGES[:2], IMAGES[2:4]
    ),
    "augmented uint8 .* found float64": lambda: plots.show_augmented(IMAGES[:1], IMAGES[None] / 1),
    r"probabilities of shape \(12, 4\); found \(12, 3\)": lambda: plots.worst_mistakes(
        IMAGES, LABELS, PROBABILITIES[:, :3], CLASSES
    ),
    "sum to 1; found -1 to 2: .*softmax": lambda: plots.prediction_bars(IMAGES[0], [-1, 0, 0, 2], CLASSES),
    "sum to 1; found 0.5 to 0.5": lambda: plots.prediction_bars(IMAGES[0], [0.5] * 4, CLASSES),
    r"\(out, 3, k, k\); found \(8, 1, 3, 3\)": lambda: plots.filters(np.ones((8, 1, 3, 3))),
    "finite weights; found nan": lambda: plots.filters(np.full((8, 3, 3, 3), np.nan)),
    r"history.train_loss .*found \(0,\)": lambda: plots.learning_curves(history(0)),
    r"validation_loss .* not all nan; found \(6,\), 0": lambda: plots.learning_curves(unvalidated()),
    "one length; found .*'validation_loss': 5": lambda: plots.learning_curves(uneven()),
    "as many reference epochs .* found 2 and 1": lambda: plots.learning_curves(
        history(), ("log", [1, 2], [50])
    ),
    "one of train_loss, .*; found 'accuracy'": lambda: plots.compare_histories({"a": history()}, "accuracy"),
    "at least one; found none": lambda: plots.compare_histories({}),
    r"rates .* not all nan; found \(3,\), 0 of them": lambda: plots.schedule([np.nan] * 3),
    "as many rates as losses; found 100 and 99": lambda: plots.range_test(RATES, LOSSES[1:]),
    "rates above 0.*found 0": lambda: plots.range_test([0, 1], [2, 1]),
    "at the first rate; found nan": lambda: plots.range_test([1, 2], [np.nan, 1]),
    "suggestion in 1e-06 to 1; found 7": lambda: plots.range_test(RATES, LOSSES, 7),
    r"matrix of shape \(3, 3\); found \(4, 4\)": lambda: plots.confusion(MATRIX, CLASSES[:3]),
    "counts, not all 0; found -3 to 1": lambda: plots.confusion([[1, -3], [0, 1]], "ab"),
    "counts, not all 0; found 0 to 0": lambda: plots.most_confused(np.zeros((2, 2)), "ab"),
}


@pytest.mark.parametrize("message", WRONG)
def test_wrong_input_is_named_and_leaves_no_half_drawn_figure(message):
    with pytest.raises(ValueError, match=message):
        WRONG[message]()
    assert plt.get_fignums() == []
