"""What a saved network learned and gets wrong: computed once by `examine`, from its weights and the test images.

The book is built without CIFAR. So all of this goes into a small JSON file beside the record, `examined-seed0.json`,
which `tables.examined` reads. It names the weights by their SHA-256.
"""

import json
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from course_utils import training
from course_utils.datasets.cifar import CLASSES
from course_utils.datasets.pictures import drawn
from course_utils.lab import recipes, records, runs, sweeps, verdicts
from course_utils.lab.pictures import kept_viewer
from course_utils.lab.tables import EXAMINED_SCHEMA, examined_path
from course_utils.lessons import Recipe
from course_utils.models import SmallNet
from course_utils.plots import confusion_matrix

N_BINS = 15
N_MAPS = 8  # of each stage

# The 100 classes by superclass, some names shortened. Source: A. Krizhevsky, "Learning multiple layers of features from
# tiny images", 2009. In this order, not his, what looks alike is side by side, so that a heat map shows blocks.
SUPERCLASSES = {
    "people": "baby boy girl man woman",
    "large carnivores": "bear leopard lion tiger wolf",
    "omni-, herbivores": "camel cattle chimpanzee elephant kangaroo",
    "medium mammals": "fox porcupine possum raccoon skunk",
    "small mammals": "hamster mouse rabbit shrew squirrel",
    "aquatic mammals": "beaver dolphin otter seal whale",
    "fish": "aquarium_fish flatfish ray shark trout",
    "reptiles": "crocodile dinosaur lizard snake turtle",
    "other invertebrates": "crab lobster snail spider worm",
    "insects": "bee beetle butterfly caterpillar cockroach",
    "flowers": "orchid poppy rose sunflower tulip",
    "fruit, vegetables": "apple mushroom orange pear sweet_pepper",
    "food containers": "bottle bowl can cup plate",
    "electrical devices": "clock keyboard lamp telephone television",
    "furniture": "bed chair couch table wardrobe",
    "vehicles 1": "bicycle bus motorcycle pickup_truck train",
    "vehicles 2": "lawn_mower rocket streetcar tank tractor",
    "buildings, roads": "bridge castle house road skyscraper",
    "landscapes": "cloud forest mountain plain sea",
    "trees": "maple_tree oak_tree palm_tree pine_tree willow_tree",
}

NETWORKS = ("SmallNet", "CustomResNet")  # those whose `stages` are known


def examine(pattern: str = "*", root: Path | None = None) -> None:
    """Examine every saved network of the recipes that match `pattern`, and write what was found beside its record.

    Raises ValueError where no network of them is saved, and where weights or test images are not the recorded ones;
    FileNotFoundError where the weights are gone.
    """
    known = [one for one in recipes.matching(pattern) if one.network in NETWORKS and one.data in CLASSES]
    recorded = [(one, run) for one in known for run in verdicts.runs_of(one.name)]
    if not (saved := [(recipe, run) for recipe, run in recorded if run["weights"]]):
        names = ", ".join(name for name in recipes.KEPT if recipes.get(name).network in NETWORKS)
        raise ValueError(f"no saved network matches {pattern!r}: choose among {names}")
    for recipe, record in saved:
        found = findings(recipe, record, root)
        records.write_text(json.dumps(found, indent=1) + "\n", examined_path(recipe.name, record["seed"]))
        name = f"{recipe.name} seed {record['seed']}"
        print(f"{name}: {found['top1']:.2%} right, calibration error {found['ece']:.2%}", flush=True)


def findings(recipe: Recipe, record: dict[str, Any], root: Path | None = None) -> dict[str, Any]:
    """What the file says of the saved network of one `record`."""
    if problem := sweeps.difference(recipe, record, root):  # from what `verify` would find
        raise ValueError(f"{recipe.name} seed {record['seed']}: {problem}")
    viewer = kept_viewer(recipe.name, seed=record["seed"])
    loaders = runs.prepare(recipe, record["seed"], root)
    maps, highest = {}, {}

    def keep_highest(stage: str, values: Tensor) -> None:
        top = values.transpose(0, 1).flatten(1).amax(1)
        highest[stage] = top.maximum(highest.get(stage, top))

    with watching(viewer.network, lambda stage, values: maps.update({stage: values[0].float()})):
        viewer.probabilities(drawn(recipe.data))
    network = viewer.network.to(training.pick_device())
    with watching(network, keep_highest), runs.exact():
        probabilities, labels = training.predict(network, loaders.test, precision="float32")
    dead = {stage: (top <= 0).nonzero().flatten().tolist() for stage, top in highest.items()}
    return {
        "schema": EXAMINED_SCHEMA,
        "weights": record["weights"],
        **measures(probabilities, labels),
        "filters": first_filters(network.cpu()),
        "maps": {stage: strip(channels) for stage, channels in maps.items() if channels.ndim == 3},
        "units": {stage: len(top) for stage, top in highest.items()},
        "dead": {stage: len(units) for stage, units in dead.items()},  # that no test image brings above 0
        **(only_smallnet(network, dead) if isinstance(network, SmallNet) else {}),
    }


# ---- right and wrong ----


def measures(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Accuracies, calibration and confusion of `probabilities` (n, n_classes) for the true `labels` (n,)."""
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :5]
    hits = best == labels[:, None]
    bins = reliability(probabilities.max(1), hits[:, 0])
    counts = confusion_matrix(labels, best[:, 0], probabilities.shape[1])
    found = {
        "top1": float(hits[:, 0].mean()),
        "top5": float(hits.any(1).mean()),
        "confidence": float(probabilities.max(1).mean()),
        "calibration": bins,
        "ece": expected_calibration_error(bins),
        "confusion": lines(counts),  # a line of counts for each true class
        "mistakes": int((~hits[:, 0]).sum()),
    }
    if len(counts) != 100:
        return found
    grouped = by_superclass(counts)
    right = {"right_superclass": float(grouped.trace() / len(labels))}
    return found | right | {"superclasses": lines(grouped), "superclass_names": list(SUPERCLASSES)}


def lines(matrix: Iterable[Iterable[object]]) -> list[str]:
    """A row as text, "47 0 3 …": JSON would take a line a number."""
    return [" ".join(map(str, row)) for row in matrix]


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


def expected_calibration_error(bins: dict[str, list]) -> float:
    """The gap between confidence and accuracy, averaged over the images, in [0, 1]. Source: Guo and others."""
    rows = zip(bins["count"], bins["confidence"], bins["accuracy"], strict=True)
    return sum(n * abs(sure - right) for n, sure, right in rows if n) / sum(bins["count"])


def by_superclass(counts: np.ndarray) -> np.ndarray:
    """CIFAR-100's confusion matrix (100, 100) summed over the classes of each superclass: int64 (20, 20)."""
    groups = [names.split() for names in SUPERCLASSES.values()]
    member = np.array([[name in group for group in groups] for name in CLASSES["cifar100"]], dtype=np.int64)
    return member.T @ counts @ member


# ---- inside the network ----


def convolutions(network: nn.Module) -> list[nn.Conv2d]:
    return [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]


def stages(network: nn.Module) -> dict[str, nn.Module]:
    """A network's stages, and SmallNet's dense layer: by name, the layer that the stage's output goes into."""
    if isinstance(network, SmallNet):
        # Not the 1×1 convolutions of a separable one: they are the second halves of theirs.
        starts = [layer for layer in convolutions(network) if layer.kernel_size != (1, 1)]
        later = [*starts[1:], network.head]
        return {f"stage {k}": layer for k, layer in enumerate(later, 1)} | {"dense layer": network.head[3]}
    behind = (network.layer1, network.layer2, network.layer3, network.pool)
    return dict(zip(("prep", "layer 1", "layer 2", "layer 3"), behind, strict=True))


def watching(network: nn.Module, see: Callable[[str, Tensor], None]) -> ExitStack:
    """A context in which each stage's output, (N, channels, side, side) or (N, neurons), is handed to `see`."""
    hooks = ExitStack()
    for stage, layer in stages(network).items():
        hook = layer.register_forward_pre_hook(lambda _, inputs, stage=stage: see(stage, inputs[0]))
        hooks.enter_context(hook)
    return hooks


def first_filters(network: nn.Module) -> list[str]:
    """The first convolution's filters, 3 colours × 3 × 3 each, the longest first."""
    filters = convolutions(network)[0].weight.detach().flatten(1)
    longest_first = filters[filters.norm(dim=1).argsort(descending=True)]
    return lines([f"{weight:.4f}" for weight in one] for one in longest_first)


def strip(channels: Tensor) -> list[str]:
    """`N_MAPS` of the channels (all, if fewer), evenly from the one that varies most to the one that varies least.

    Each is side × side bytes in hexadecimal: 0 for zero and below, 255 for the channel's largest value.
    """
    order = channels.flatten(1).std(dim=1).argsort(descending=True)
    places = np.linspace(0, len(order) - 1, min(N_MAPS, len(order))).round()
    shown = channels[order[places]].clamp(min=0)
    scaled = 255 * shown / shown.amax((1, 2), keepdim=True).clamp(min=1e-9)
    return [one.round().to(torch.uint8).numpy().tobytes().hex() for one in scaled]


def only_smallnet(network: SmallNet, dead: dict[str, list[int]]) -> dict[str, Any]:
    """Why channels are dead, and how many weights lead to dead neurons of the dense layer or away from them.

    Behind batch norm a channel is `scale * z + shift`, with z in deviations from its mean: it is above 0 from
    z = -shift / scale on. For a dead channel and the median of its stage: length of its filter, scale, shift, that z.
    """
    norms = [layer for layer in network.features if isinstance(layer, nn.BatchNorm2d)]
    why = {}
    # What is in front of the norm: the whole convolution, or the second half of a separable one.
    before = [layer for layer in convolutions(network) if layer.groups == 1]
    for stage, convolution, norm in zip(stages(network), before, norms, strict=False):
        lengths, scale, shift = convolution.weight.flatten(1).norm(dim=1), norm.weight, norm.bias
        values = torch.stack([lengths, scale, shift, -shift / scale], dim=1).detach()
        for channel in dead[stage]:
            why[f"{stage}, number {channel}"] = values[channel].tolist()
            why[f"{stage}, median"] = values.median(dim=0).values.tolist()
    each = network.head[1].in_features + 1 + network.head[-1].out_features
    return {"why": why, "dead_weights": each * len(dead["dense layer"])}
