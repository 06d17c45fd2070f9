"""What a kept network gets right and wrong, from the test images: computed once, and kept beside its record.

The book is built where CIFAR is not at hand. So what needs the test images is a small JSON file, `examined-seed0.json`
beside `seed0.pt`. It names the weights by their SHA-256, and is refused where they are not the record's.
"""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from course_utils import data, training
from course_utils.lab import checkpoints, pictures, recipes, records, runs, sweeps, verdicts
from course_utils.models import SmallNet

SCHEMA = 1
N_BINS = 15

# An examined file has exactly these entries, of these types.
FIELDS = {
    "schema": int,
    "weights": str,  # SHA-256 of the file that was examined
    "data": str,  # fingerprint of the test set
    "top1": float,
    "top5": float,
    "calibration": dict,  # {"count": […], "confidence": […], "accuracy": […]}, a value for each of N_BINS
    "ece": float,  # expected calibration error, in [0, 1]
    "confusion": list,  # a row of counts for each true class, as text: "47 0 3 …"
    "likeness": float,  # of the first filters to their random start: mean cosine, 1 for the same, 0 for strangers
    "silent": dict,  # {stage: the channels, or neurons, that no test image brings above 0}
}

# The 100 classes by superclass. Source: A. Krizhevsky, "Learning multiple layers of features from tiny images", 2009.
# His numbering is alphabetical; this order has what looks alike side by side, so that a heat map shows blocks.
SUPERCLASSES = {
    "people": "baby boy girl man woman",
    "large carnivores": "bear leopard lion tiger wolf",
    "large omnivores and herbivores": "camel cattle chimpanzee elephant kangaroo",
    "medium-sized mammals": "fox porcupine possum raccoon skunk",
    "small mammals": "hamster mouse rabbit shrew squirrel",
    "aquatic mammals": "beaver dolphin otter seal whale",
    "fish": "aquarium_fish flatfish ray shark trout",
    "reptiles": "crocodile dinosaur lizard snake turtle",
    "non-insect invertebrates": "crab lobster snail spider worm",
    "insects": "bee beetle butterfly caterpillar cockroach",
    "flowers": "orchid poppy rose sunflower tulip",
    "fruit and vegetables": "apple mushroom orange pear sweet_pepper",
    "food containers": "bottle bowl can cup plate",
    "household electrical devices": "clock keyboard lamp telephone television",
    "household furniture": "bed chair couch table wardrobe",
    "vehicles 1": "bicycle bus motorcycle pickup_truck train",
    "vehicles 2": "lawn_mower rocket streetcar tank tractor",
    "large man-made outdoor things": "bridge castle house road skyscraper",
    "large natural outdoor scenes": "cloud forest mountain plain sea",
    "trees": "maple_tree oak_tree palm_tree pine_tree willow_tree",
}


def superclass_of_each() -> np.ndarray:
    """For each of CIFAR-100's classes, in label order, the place of its superclass in `SUPERCLASSES`: int64 (100,)."""
    place = {name: k for k, names in enumerate(SUPERCLASSES.values()) for name in names.split()}
    return np.array([place[name] for name in pictures.CLASSES["cifar100"]])


# --- The file.


def path_of(recipe: str, seed: int = 0) -> Path:
    return records.path_of(recipe, seed).with_name(f"examined-seed{seed}.json")


def examine(pattern: str = "*", root: Path | None = None) -> None:
    """Examine every kept network of the recipes that match `pattern`, and write what was found beside its record.

    Raises ValueError where no network of them is kept, and where weights or test images are not the recorded ones.
    """
    matching = recipes.matching(pattern)
    kept = [(recipe, run) for recipe in matching for run in verdicts.runs_of(recipe.name) if run["weights"]]
    if not kept:
        raise ValueError(f"no kept network matches {pattern!r}: choose among {', '.join(recipes.KEPT)}")
    for recipe, record in kept:
        path = path_of(recipe.name, record["seed"])
        found = findings(recipe, record, root)
        check(found, record, path)
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        os.replace(partial, path)
        name = f"{recipe.name} seed {record['seed']}"
        print(f"{name}: {found['top1']:.2%} right, calibration error {found['ece']:.2%}", flush=True)


def findings(recipe: recipes.Recipe, record: dict[str, Any], root: Path | None = None) -> dict[str, Any]:
    """What the file says of the kept network of one `record`, from its weights and the test images."""
    weights = records.weights_of(recipe.name, record["seed"])
    found = checkpoints.sha256(weights) if weights.exists() else "no file"
    if found != record["weights"]:
        raise ValueError(f"{weights}: expected the recorded weights {record['weights']}, found {found}")
    if (found := sweeps.fingerprints(recipe, root)["test"]) != record["data"]["test"]:
        raise ValueError(f"{recipe.data}: expected the test set {record['data']['test']}, found {found}")
    loader = runs.prepare(recipe, record["seed"], root).test
    network = runs.trained_network(recipe, record["seed"]).to(training.pick_device())
    highest: dict[str, Tensor] = {}

    def keep_highest(stage: str, maps: Tensor) -> None:
        above = maps.transpose(0, 1).flatten(1).amax(1)
        highest[stage] = above.maximum(highest.get(stage, above))

    with watching(stages(network) | dense_layer(network), keep_highest):
        probabilities, labels = training.predict(network, loader, precision="float32")
    return {
        "schema": SCHEMA,
        "weights": record["weights"],
        "data": record["data"]["test"],
        **measures(probabilities, labels),
        "likeness": likeness(network.cpu(), untrained(recipe, record["seed"])),
        "silent": {stage: (top <= 0).nonzero().flatten().tolist() for stage, top in highest.items()},
    }


def read(recipe: str, seed: int = 0) -> dict[str, Any]:
    """The examined file of a recorded run, its "confusion" as int64 (n_classes, n_classes).

    Raises ValueError, saying what to do, where the file is malformed or was made from other weights than the record's.
    """
    path = path_of(recipe, seed)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON: {error}. {again(path)}") from error
    check(found, records.read(records.path_of(recipe, seed)), path)
    return found | {"confusion": matrix(found["confusion"])}


def check(found: dict[str, Any], record: dict[str, Any], path: Path) -> None:
    """Raise ValueError where the file's contents do not fit together, or not with the `record` beside it."""

    def expect(ok: bool, expected: str, value: object) -> None:
        if not ok:
            raise ValueError(f"{path}: expected {expected}, found {value}. {again(path)}")

    expect(isinstance(found, dict) and found.get("schema") == SCHEMA, f"schema {SCHEMA}", found)
    expect(set(found) == set(FIELDS), f"the entries {sorted(FIELDS)}", sorted(found))
    for name, kind in FIELDS.items():
        expect(isinstance(found[name], kind), f"{name} as {kind.__name__}", repr(found[name]))
    for name, recorded in (("weights", record["weights"]), ("data", record["data"]["test"])):
        expect(found[name] == recorded, f"the record's {name} {recorded}", found[name])
    bins, rows = found["calibration"], found["confusion"]
    lengths = {name: len(values) for name, values in bins.items()}
    expected = dict.fromkeys(("count", "confidence", "accuracy"), N_BINS)
    expect(lengths == expected, f"bins {expected}", lengths)
    widths = {len(row.split()) for row in rows}
    expect(widths == {len(rows)}, f"{len(rows)} counts in each row of the confusion matrix", widths)
    counts, n = matrix(rows), sum(bins["count"])
    expect(counts.sum() == n, f"a confusion matrix of the {n} images in the bins", counts.sum())
    right = counts.trace() / n
    expect(abs(found["top1"] - right) < 1e-6, f"top1 as in the confusion matrix, {right}", found["top1"])
    recorded = record["test_accuracy"]
    expect(abs(right - recorded) <= sweeps.TOLERANCE, f"the record's accuracy, {recorded}", right)
    error = calibration_error(bins)
    expect(abs(found["ece"] - error) < 1e-6, f"ece as in the bins, {error}", found["ece"])


def again(path: Path) -> str:
    return f"Make it again: python -m course_utils examine {path.parent.name}"


def matrix(rows: list[str]) -> np.ndarray:
    return np.array([row.split() for row in rows], dtype=np.int64)


# --- What is measured.


def measures(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Accuracies, calibration and confusion of `probabilities` (n, n_classes) for the true `labels` (n,)."""
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :5]
    hits = best == labels[:, None]
    bins = reliability(probabilities.max(1), hits[:, 0])
    counts = training.confusion_matrix(labels, best[:, 0], probabilities.shape[1])
    return {
        "top1": float(hits[:, 0].mean()),
        "top5": float(hits.any(1).mean()),
        "calibration": bins,
        "ece": calibration_error(bins),
        "confusion": [" ".join(map(str, row)) for row in counts],
    }


def reliability(confidence: np.ndarray, right: np.ndarray) -> dict[str, list]:
    """How often predictions of each confidence are right: `N_BINS` bins of equal width, None where one is empty.

    `confidence` is the predicted class's probability (n,), `right` whether that class is the true one (n,).
    Source: C. Guo and others, "On calibration of modern neural networks", ICML 2017.
    """
    place = np.clip(np.ceil(confidence * N_BINS).astype(int) - 1, 0, N_BINS - 1)
    count = np.bincount(place, minlength=N_BINS)

    def means(values: np.ndarray) -> list[float | None]:
        sums = np.bincount(place, weights=values, minlength=N_BINS)
        return [float(total / n) if n else None for total, n in zip(sums, count, strict=True)]

    return {"count": count.tolist(), "confidence": means(confidence), "accuracy": means(right)}


def calibration_error(bins: dict[str, list]) -> float:
    """The gap between confidence and accuracy, averaged over the images: Guo and others' "ECE", in [0, 1]."""
    rows = zip(bins["count"], bins["confidence"], bins["accuracy"], strict=True)
    return sum(n * abs(sure - right) for n, sure, right in rows if n) / sum(bins["count"])


def by_superclass(counts: np.ndarray) -> np.ndarray:
    """CIFAR-100's confusion matrix (100, 100) summed over the classes of each superclass: int64 (20, 20)."""
    member = np.eye(len(SUPERCLASSES), dtype=np.int64)[superclass_of_each()]
    return member.T @ counts @ member


def share_within(counts: np.ndarray) -> float:
    """Of the mistakes in CIFAR-100's confusion matrix (100, 100), the share that names the right superclass."""
    right = counts.trace()
    return float((by_superclass(counts).trace() - right) / (counts.sum() - right))


# --- Inside the network.


def stages(network: nn.Module) -> dict[str, nn.Module]:
    """The names of a network's stages, each with the layer that the stage's output goes into."""
    if isinstance(network, SmallNet):
        convolutions = [layer for layer in network.features if isinstance(layer, nn.Conv2d)]
        return {f"stage {k}": layer for k, layer in enumerate([*convolutions[1:], network.head], 1)}
    return {
        "prep": network.layer1,
        "layer 1": network.layer2,
        "layer 2": network.layer3,
        "layer 3": network.pool,
    }


def dense_layer(network: nn.Module) -> dict[str, nn.Module]:
    """The name of SmallNet's layer of neurons, with the layer that its output goes into; empty if there is none."""
    return {"dense layer": network.head[3]} if isinstance(network, SmallNet) else {}


def first_filters(network: nn.Module) -> Tensor:
    """The weights of the first convolution: float (filters, 3, 3, 3)."""
    return next(layer for layer in network.modules() if isinstance(layer, nn.Conv2d)).weight.detach()


def untrained(recipe: recipes.Recipe, seed: int) -> nn.Module:
    """The network as the run with this `seed` began with it."""
    training.seed_everything(seed)
    return runs.build_network(recipe, data.N_CLASSES[recipe.data])


def likeness(one: nn.Module, other: nn.Module) -> float:
    """The mean cosine of the angles between two networks' first filters, each with its counterpart."""
    return float(nn.functional.cosine_similarity(*(first_filters(n).flatten(1) for n in (one, other))).mean())


@contextmanager
def watching(behind: dict[str, nn.Module], see: Callable[[str, Tensor], None]) -> Iterator[None]:
    """Hand each stage's output to `see(stage, output)` whenever the network is run.

    `behind` names the stages, each with the layer that its output goes into: see `stages` and `dense_layer`.
    The output is (N, channels, side, side), or (N, neurons).
    """
    hooks = [
        layer.register_forward_pre_hook(lambda _, inputs, stage=stage: see(stage, inputs[0]))
        for stage, layer in behind.items()
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
