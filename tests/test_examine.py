"""What is kept of a network's predictions: measured by hand, stale files refused, and drawn where it is there."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from course_utils import data, training
from course_utils.lab import checkpoints, examine, insight, pictures, recipes, records, runs, sweeps
from course_utils.lab.evidence import Html
from course_utils.models import CustomResNet, SmallNet
from course_utils.lessons import LESSONS
from course_utils.lab.runs import Outcome
from course_utils.lab.verdicts import NOT_RUN

TINY = replace(LESSONS["resnet"]["quick"], name="tiny", network_args={"widths": (4, 4, 8, 8)}, epochs=1)
SILENT = 2  # a channel of the first stage


# --- What is measured.


def test_every_class_has_one_superclass_and_its_number_is_krizhevskys():
    members = " ".join(examine.SUPERCLASSES.values()).split()
    assert sorted(members) == list(pictures.CLASSES["cifar100"])
    place = examine.superclass_of_each()
    assert np.bincount(place).tolist() == [5] * 20
    numbers = np.argsort(np.argsort(list(examine.SUPERCLASSES)))  # his are alphabetical
    # The coarse labels of apple, aquarium fish, baby, bear, beaver, bed, bee, beetle, bicycle, bottle.
    assert numbers[place[:10]].tolist() == [4, 1, 14, 8, 0, 6, 7, 7, 18, 3]


def test_bins_hold_what_their_edges_say():
    confidence = np.array([1 / 15, 0.07, 0.13, 0.95, 1.0])
    bins = examine.reliability(confidence, np.array([1, 0, 1, 1, 0], dtype=bool))
    assert bins["count"] == [1, 2] + [0] * 12 + [2]
    assert bins["accuracy"] == [1, 0.5] + [None] * 12 + [0.5]
    assert bins["confidence"][1] == pytest.approx(0.1)
    gaps = (1 - 1 / 15) + 2 * 0.4 + 2 * 0.475
    assert examine.calibration_error(bins) == pytest.approx(gaps / 5)


def test_a_network_that_is_as_often_right_as_it_says_has_no_error():
    right = np.arange(100) < 80
    assert examine.calibration_error(examine.reliability(np.full(100, 0.8), right)) == pytest.approx(0)


def test_accuracies_and_confusion_are_counted():
    probabilities = np.array([[0.4, 0.3, 0.1, 0.08, 0.07, 0.05]] * 3 + [[0.1, 0.5, 0.1, 0.1, 0.1, 0.1]])
    found = examine.measures(probabilities, np.array([0, 4, 5, 1]))
    assert (found["top1"], found["top5"]) == (0.5, 0.75)
    assert found["confusion"] == [
        "1 0 0 0 0 0",
        "0 1 0 0 0 0",
        *["0 0 0 0 0 0"] * 2,
        "1 0 0 0 0 0",
        "1 0 0 0 0 0",
    ]


def test_mistakes_inside_a_superclass_are_told_from_those_outside():
    classes = pictures.CLASSES["cifar100"]
    counts = np.diag(np.full(100, 7))
    for true, said, n in (("otter", "seal", 3), ("otter", "whale", 2), ("otter", "rocket", 5)):
        counts[classes.index(true), classes.index(said)] = n
    names = list(examine.SUPERCLASSES)
    grouped = examine.by_superclass(counts)
    assert grouped[names.index("aquatic mammals"), names.index("aquatic mammals")] == 5 * 7 + 5
    assert grouped[names.index("aquatic mammals"), names.index("vehicles 2")] == 5
    assert examine.share_within(counts) == 0.5


# --- Inside the network.


def test_the_stages_outputs_are_seen_and_the_hooks_are_gone():
    torch.manual_seed(0)
    images = torch.rand(2, 3, 32, 32)
    for network, last in (
        (SmallNet().eval(), "stage 3"),
        (CustomResNet(widths=(4, 4, 8, 8)).eval(), "layer 3"),
    ):
        seen = {}
        with examine.watching(examine.stages(network), seen.__setitem__):
            network(images)
        assert list(seen) == list(examine.stages(network))
        pool = getattr(network, "pool", torch.nn.Identity())
        torch.testing.assert_close(pool(seen[last]), network.features(images))
        seen.clear()
        network(images)
        assert seen == {}


def test_a_dense_neuron_that_never_speaks_is_silent():
    network = SmallNet(hidden=5).eval()
    with torch.no_grad():
        network.head[1].bias.fill_(100.0)[SILENT] = -100.0
    seen = {}
    with examine.watching(examine.dense_layer(network), seen.__setitem__):
        network(torch.rand(2, 3, 32, 32))
    assert seen["dense layer"].shape == (2, 5)
    assert (seen["dense layer"].amax(0) <= 0).nonzero().flatten().tolist() == [SILENT]
    assert examine.dense_layer(CustomResNet(widths=(4, 4, 8, 8))) == {}


def test_maps_are_shown_from_the_most_to_the_least_varied():
    scales = torch.randperm(50)
    channels = scales[:, None, None] * torch.tensor([[0.0, 1.0], [0.0, 1.0]])
    shown = insight.spread_out(channels)
    assert shown[:, 0, 1].tolist() == [49, 42, 35, 28, 21, 14, 7, 0]
    assert len(insight.spread_out(channels[:3])) == 3


# --- The file.


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A recorded network, untrained, and with one channel that never speaks."""
    monkeypatch.setattr(records, "RECORDED", tmp_path)
    monkeypatch.setattr(recipes, "RECIPES", {"tiny": TINY})
    network = examine.untrained(TINY, seed=0)
    torch.nn.init.constant_(network.prep[1].bias[SILENT : SILENT + 1], -100.0)
    record_network(network)
    examine.examine("tiny")
    return network


def record_network(network, recipe=TINY) -> None:
    accuracy = runs.test_accuracy(network, runs.prepare(recipe, 0))
    weights = checkpoints.save_half(network, records.weights_of("tiny", 0))
    history = training.History(*([1.0] for _ in range(6)))
    record = sweeps.describe(replace(recipe, curve_on_test=True), 0, Outcome(network, history, accuracy))
    record |= {"recipe": recipe.plain(), "weights": weights}
    records.write(record, records.path_of("tiny", 0))


def test_what_was_examined_is_kept_and_read_back(tiny):
    found = examine.read("tiny")
    assert len(records.of_recipe("tiny")) == 1, "an examined file is no record"
    _, test = data.load("shapes10")
    assert found["confusion"].sum(1).tolist() == np.bincount(test.labels).tolist()
    assert found["top5"] > found["top1"]
    assert found["silent"]["prep"] == [SILENT]
    assert found["likeness"] == pytest.approx(1, abs=1e-3), "it was never trained"
    assert examine.likeness(tiny, examine.untrained(TINY, seed=1)) < 0.5


def test_the_silent_neurons_of_a_dense_layer_are_counted(tmp_path, monkeypatch):
    small = replace(TINY, network="SmallNet", network_args={"widths": [4, 4], "hidden": 5})
    monkeypatch.setattr(records, "RECORDED", tmp_path)
    monkeypatch.setattr(recipes, "RECIPES", {"tiny": small})
    network = examine.untrained(small, seed=0)
    with torch.no_grad():
        network.head[1].bias.fill_(100.0)[SILENT] = -100.0
    record_network(network, small)
    examine.examine("tiny")
    assert examine.read("tiny")["silent"]["dense layer"] == [SILENT]


def test_a_file_of_other_weights_is_refused(tiny):
    torch.nn.init.normal_(tiny.head.weight)
    record_network(tiny)  # trained again, but not examined again
    with pytest.raises(ValueError, match="expected the record's weights .* examine tiny"):
        examine.read("tiny")
    with pytest.raises(ValueError, match="expected the record's weights"):
        insight.calibration({"a run": "tiny"})
    examine.examine("tiny")
    examine.read("tiny")


def test_weights_and_images_that_are_not_the_recorded_ones_are_not_examined(tiny):
    path = records.path_of("tiny", 0)
    record = records.read(path)
    records.write(record | {"data": {"test": "0" * 16}}, path)
    with pytest.raises(ValueError, match="expected the test set 0000"):
        examine.examine("tiny")
    records.weights_of("tiny", 0).write_bytes(b"other weights")
    with pytest.raises(ValueError, match="expected the recorded weights"):
        examine.examine("tiny")
    records.write(record | {"weights": None}, path)
    with pytest.raises(ValueError, match="no kept network matches 'tiny'"):
        examine.examine("tiny")


def test_a_damaged_file_is_refused(tiny):
    path = examine.path_of("tiny")
    whole = json.loads(path.read_text())
    bins = whole["calibration"]
    for damage, message in (
        ({"schema": 2}, "expected schema 1"),
        ({"extra": 0}, "expected the entries"),
        ({"ece": "small"}, "expected ece as float"),
        ({"data": "0" * 16}, "expected the record's data"),
        ({"calibration": bins | {"count": [1000]}}, "expected bins"),
        ({"calibration": bins | {"count": [2 * n for n in bins["count"]]}}, "images in the bins"),
        ({"confusion": whole["confusion"][1:]}, "9 counts in each row"),
        ({"top1": whole["top1"] + 0.01}, "expected top1 as in the confusion matrix"),
        ({"ece": whole["ece"] / 2}, "expected ece as in the bins"),
    ):
        path.write_text(json.dumps(whole | damage))
        with pytest.raises(ValueError, match=message):
            examine.read("tiny")
    path.write_text("{")
    with pytest.raises(ValueError, match="is not JSON.*examine tiny"):
        examine.read("tiny")


def test_another_accuracy_than_the_records_is_refused(tiny):
    path = records.path_of("tiny", 0)
    record = records.read(path)
    records.write(record | {"test_accuracy": record["test_accuracy"] + 0.01}, path)
    with pytest.raises(ValueError, match="expected the record's accuracy"):
        examine.read("tiny")


@pytest.mark.parametrize(
    "path", sorted(records.RECORDED.glob("*/seed*.pt")), ids=lambda path: path.parent.name
)
def test_every_kept_network_was_examined(path):
    name, seed = path.parent.name, int(path.stem.removeprefix("seed"))
    assert examine.path_of(name, seed).exists(), f"run `python -m course_utils examine {name}`"
    network = runs.trained_network(recipes.get(name), seed)
    assert list(examine.read(name, seed)["silent"]) == [
        *examine.stages(network),
        *examine.dense_layer(network),
    ]


# --- What is drawn of it.

FIGURES = [
    insight.filters,
    insight.feature_maps,
    insight.superclasses,
    insight.confusion,
    insight.most_confused,
]
TABLES = [
    insight.likeness,
    insight.silent,
    insight.unused,
    insight.within,
    insight.calibration,
    insight.reliability,
]


@pytest.mark.parametrize("show", [*FIGURES, *TABLES], ids=lambda show: show.__name__)
def test_what_was_not_run_says_so(show, tmp_path, monkeypatch):
    monkeypatch.setattr(records, "RECORDED", tmp_path)
    shown = show("smallnet-best") if show in FIGURES else show({"a run": "smallnet-best"})
    assert isinstance(shown, Html)
    assert NOT_RUN in shown
    assert "smallnet-best" in shown


@pytest.mark.parametrize("show", FIGURES, ids=lambda show: show.__name__)
def test_what_was_run_is_drawn(show):
    assert isinstance(show("smallnet-source"), Figure)


def test_one_run_is_shown_beside_one_that_waits(tmp_path, monkeypatch):
    for path in (records.RECORDED / "smallnet-source").iterdir():
        (tmp_path / "smallnet-source").mkdir(exist_ok=True)
        (tmp_path / "smallnet-source" / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(records, "RECORDED", tmp_path)
    both = {"as given": "smallnet-source", "better": "smallnet-best"}
    found = examine.read("smallnet-source")
    assert f"{100 * found['top5']:.2f}\u00a0%" in insight.calibration(both)
    assert NOT_RUN in insight.calibration(both)
    curves = insight.reliability(both).axes[0]
    drawn = curves.containers[0].lines[0].get_xdata()
    assert len(drawn) == sum(n >= insight.FEW for n in found["calibration"]["count"]) < examine.N_BINS
    texts = [text.get_text() for text in curves.get_legend().get_texts()]
    assert texts == [f"as given: ECE {100 * found['ece']:.1f} points", f"better: {NOT_RUN}"]


def test_the_weights_of_silent_neurons_are_those_to_and_from_them():
    network = runs.trained_network(recipes.get("smallnet-source"))
    silent = examine.read("smallnet-source")["silent"]["dense layer"]
    first, last = network.head[1], network.head[-1]
    weights = first.weight[silent].numel() + first.bias[silent].numel() + last.weight[:, silent].numel()
    shown = insight.unused({"as given": "smallnet-source"})
    assert f"<td>{len(silent)} of 420</td><td>{weights:,}</td>" in shown


def test_the_heat_map_writes_shares_of_the_true_superclass():
    counts = examine.by_superclass(examine.read("smallnet-source")["confusion"])
    axes = insight.superclasses("smallnet-source").axes[0]
    written = {text.get_position(): text.get_text() for text in axes.texts}
    assert written[(0, 0)] == f"{100 * counts[0, 0] / counts[0].sum():.0f}"
    true, said = np.argwhere(counts - np.diag(np.diag(counts)) == (counts - np.diag(np.diag(counts))).max())[
        0
    ]
    assert written[(said, true)] == f"{100 * counts[true, said] / counts[true].sum():.0f}"
