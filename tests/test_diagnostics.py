"""What is computed of a saved network: measured by hand, and refused where it is of other weights than the record's."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from made_up import HERE

from course_utils import data, training
from course_utils.authoring import gallery
from course_utils.datasets.cifar import CLASSES
from course_utils.lab import diagnostics, recipes, records, runs, sweeps, tables
from course_utils.lab.runs import Outcome
from course_utils.lessons import LESSONS
from course_utils.models import CustomResNet, SmallNet

QUICK = LESSONS["resnet"]["quick"]
TINY = replace(QUICK, name="tiny", network_args={"widths": (4, 4, 8, 8)}, epochs=1, normalise=False)
SMALL = replace(TINY, network="SmallNet", network_args={"widths": [4, 4], "hidden": 5})
DEAD = 2


# ---- what is measured ----


def test_every_class_has_one_superclass():
    members = " ".join(diagnostics.SUPERCLASSES.values()).split()
    assert sorted(members) == list(CLASSES["cifar100"])
    assert diagnostics.by_superclass(np.eye(100, dtype=int)).tolist() == (5 * np.eye(20)).tolist()


def test_mistakes_inside_a_superclass_are_told_from_those_outside():
    classes, names = CLASSES["cifar100"], list(diagnostics.SUPERCLASSES)
    counts = np.diag(np.full(100, 7))
    for said, n in (("seal", 3), ("whale", 2), ("rocket", 5)):
        counts[classes.index("otter"), classes.index(said)] = n
    grouped = diagnostics.by_superclass(counts)
    sea = names.index("aquatic mammals")
    assert (grouped[sea, sea], grouped[sea, names.index("vehicles 2")]) == (5 * 7 + 5, 5)


def test_right_superclasses_are_counted_beside_right_classes():
    labels = np.full(4, CLASSES["cifar100"].index("otter"))
    said = [CLASSES["cifar100"].index(one) for one in ("otter", "seal", "whale", "rocket")]
    found = diagnostics.measures(np.eye(100)[said], labels)
    assert (found["top1"], found["mistakes"], found["right_superclass"]) == (0.25, 3, 0.75)
    assert tables.COLUMNS["Inside the superclass"](found) == "66.7 %"


def test_a_separable_convolution_is_one_stage():
    network, seen = SmallNet(10, widths=(4, 8), hidden=5, separable=True).eval(), {}
    with diagnostics.watching(network, lambda stage, output: seen.update({stage: output.shape[1]})):
        network(torch.zeros(2, 3, 32, 32))
    assert seen == {"stage 1": 4, "stage 2": 8, "dense layer": 5}
    why = diagnostics.only_smallnet(network, {"stage 1": [], "stage 2": [7], "dense layer": []})["why"]
    length = network.features[6].weight[7].norm().item()  # of the 1×1 convolution in front of the norm
    assert why["stage 2, number 7"][0] == pytest.approx(length)


def test_bins_hold_what_their_edges_say():
    confidence = np.array([1 / 15, 0.07, 0.13, 0.95, 1.0])
    bins = diagnostics.reliability(confidence, np.array([1, 0, 1, 1, 0], dtype=bool))
    assert bins["count"] == [1, 2] + [0] * 12 + [2]
    assert bins["accuracy"] == [1, 0.5] + [None] * 12 + [0.5]
    assert bins["confidence"][1] == pytest.approx(0.1)
    gaps = (1 - 1 / 15) + 2 * 0.4 + 2 * 0.475
    assert diagnostics.expected_calibration_error(bins) == pytest.approx(gaps / 5)


def test_accuracies_and_confusion_are_counted():
    probabilities = np.array([[0.4, 0.3, 0.1, 0.08, 0.07, 0.05]] * 3 + [[0.1, 0.5, 0.1, 0.1, 0.1, 0.1]])
    found = diagnostics.measures(probabilities, np.array([0, 4, 5, 1]))
    assert (found["top1"], found["top5"], found["mistakes"]) == (0.5, 0.75, 2)
    nothing, first = "0 0 0 0 0 0", "1 0 0 0 0 0"
    assert found["confusion"] == [first, "0 1 0 0 0 0", nothing, nothing, first, first]


# ---- inside the network ----


@pytest.mark.parametrize("network", [SmallNet(), CustomResNet(widths=(4, 4, 8, 8))], ids=["small", "res"])
def test_the_stages_outputs_are_seen_and_the_hooks_are_gone(network):
    images, seen = torch.rand(2, 3, 32, 32), {}
    network.eval()
    with diagnostics.watching(network, seen.__setitem__):
        network(images)
    assert list(seen) == list(diagnostics.stages(network))
    *_, last = (values for values in seen.values() if values.ndim == 4)
    pool = getattr(network, "pool", torch.nn.Identity())
    torch.testing.assert_close(pool(last), network.features(images))
    seen.clear()
    network(images)
    assert seen == {}


def test_maps_go_from_the_most_to_the_least_varied_each_to_its_own_largest():
    scales = torch.randperm(50)
    channels = scales[:, None, None] * torch.tensor([[-1.0, 0.5], [0.0, 1.0]])
    shown = [np.frombuffer(bytes.fromhex(one), np.uint8).tolist() for one in diagnostics.strip(channels)]
    assert shown == [[0, 128, 0, 255]] * 7 + [[0, 0, 0, 0]]
    assert len(diagnostics.strip(channels[:3])) == 3


# ---- the file ----


@pytest.fixture
def record(few, empty, monkeypatch):
    """Save an untrained network of a recipe, with one unit that is never above 0, and record it, on few images."""
    monkeypatch.setattr(data, "load", lambda name, root=None: few)

    def record(recipe):
        monkeypatch.setitem(recipes.RECIPES, "tiny", recipe)
        monkeypatch.setitem(CLASSES, "shapes10", data.shapes.SHAPES)
        training.seed_everything(0)
        network = runs.build_network(recipe, 10)
        layer = network.head[1] if recipe is SMALL else network.prep[1]
        with torch.no_grad():
            layer.bias.fill_(100.0)[DEAD] = -100.0
        accuracy = runs.test_accuracy(network, runs.prepare(recipe, 0))
        weights = runs.save_half(network, records.weights_of("tiny", 0))
        history = training.History(*([1.0] for _ in range(6)))
        made = sweeps.describe(replace(recipe, curve_on_test=True), 0, Outcome(network, history, accuracy))
        made |= {"recipe": recipe.plain(), "weights": weights, "machine": HERE}
        records.write(made, records.path_of("tiny", 0))

    return record


def test_what_was_examined_is_written_and_read_back(few, record):
    record(TINY)
    diagnostics.examine("tiny")
    found = tables.examined("tiny")
    assert len(records.of_recipe("tiny")) == 1, "an examined file is no record"
    _, test = few
    assert found["confusion"].sum(1).tolist() == np.bincount(test.labels).tolist()
    assert found["top5"] > found["top1"]
    assert (found["dead"]["prep"], found["units"]["prep"]) == (1, 4)
    assert found["filters"].shape == (4, 27)
    assert [len(maps) for maps in found["maps"].values()] == [4, 4, 8, 8]


def test_what_a_card_finds_is_found_without_tf32(record, monkeypatch):
    """As `verify` measures it."""
    record(TINY)
    seen, predict = [], training.predict

    def noting(*args, **options):
        seen.append(torch.backends.cudnn.conv.fp32_precision)
        return predict(*args, **options)

    monkeypatch.setattr(training, "predict", noting)
    diagnostics.examine("tiny")
    gallery.answers.__wrapped__("tiny", None)
    assert seen[1:] == ["ieee", "ieee"], "the first is the viewer, on a processor"


@pytest.mark.parametrize("other", [{"network": "Sprint"}, {"data": "shapes100"}])
def test_a_network_without_known_stages_or_of_drawn_shapes_is_left_out(record, monkeypatch, other):
    record(TINY)
    [run] = records.of_recipe("tiny")
    monkeypatch.setattr(records, "of_recipe", lambda name: [run])
    monkeypatch.setitem(recipes.RECIPES, "tiny", replace(TINY, **other))
    with pytest.raises(ValueError, match="no saved network matches 'tiny'"):
        diagnostics.examine("tiny")
    assert not tables.examined_path("tiny", 0).exists()


def test_the_dead_neurons_of_a_dense_layer_and_their_weights_are_counted(record):
    record(SMALL)
    diagnostics.examine("tiny")
    shown = tables.networks({"it": "tiny"}, "Dead neurons", "Weights to and from them")
    assert f"<td>1 of 5</td><td>{4 * 8 * 8 + 1 + 10}</td>" in shown


def test_a_file_of_other_weights_is_refused(record):
    record(TINY)
    diagnostics.examine("tiny")
    path = tables.examined_path("tiny")
    whole = json.loads(path.read_text())
    for stale in ({"schema": 1}, {"weights": "0" * 64}):
        path.write_text(json.dumps(whole | stale))
        with pytest.raises(ValueError, match="expected .* found .* examine tiny"):
            tables.examined("tiny")


def test_weights_that_are_not_the_recorded_ones_are_not_examined(record):
    record(TINY)
    path = records.path_of("tiny", 0)
    made = records.read(path)
    runs.save_half(runs.build_network(TINY, 10), records.weights_of("tiny", 0))
    with pytest.raises(ValueError, match="is not the file that was recorded"):
        diagnostics.examine("tiny")
    records.write(made | {"weights": None}, path)
    with pytest.raises(ValueError, match="no saved network matches 'tiny'"):
        diagnostics.examine("tiny")


SAVED = [
    path
    for path in sorted(records.RECORDED.glob("*/seed*.pt"))
    if recipes.get(path.parent.name).network in diagnostics.NETWORKS
]


@pytest.mark.parametrize("path", SAVED, ids=lambda path: path.parent.name)
def test_every_saved_network_was_examined_and_what_was_found_fits_its_record(path):
    name, seed = path.parent.name, int(path.stem.removeprefix("seed"))
    found, made = tables.examined(name, seed), records.read(path.with_suffix(".json"))
    assert found, f"run `python -m course_utils examine {name}`"
    counts, bins = found["confusion"], found["calibration"]
    assert counts.sum() == sum(bins["count"]) == 10_000
    assert found["top1"] == pytest.approx(counts.trace() / 10_000)
    assert found["top1"] == pytest.approx(made["test_accuracy"], abs=0.001)
    assert found["ece"] == pytest.approx(diagnostics.expected_calibration_error(bins))
    if len(counts) == 100:
        assert found["superclasses"].tolist() == diagnostics.by_superclass(counts).tolist()
    network = runs.trained_network(recipes.get(name), seed)
    assert list(found["units"]) == list(diagnostics.stages(network))
