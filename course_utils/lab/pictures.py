"""A trained network and what it takes to show it a picture."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from course_utils import training, transforms
from course_utils.datasets.cifar import CLASSES, STATS
from course_utils.lab import recipes, records, runs


@dataclass(frozen=True)
class Viewer:
    """A trained network, and what it takes to show it a picture.

    name         for messages: "the network trained above"
    data         the data set that it was trained on
    classes      the names, in label order
    mean, std    its training data's, if it was trained on normalised pictures
    """

    name: str
    network: nn.Module
    data: str
    classes: tuple[str, ...]
    mean: np.ndarray | tuple = (0.0, 0.0, 0.0)
    std: np.ndarray | tuple = (1.0, 1.0, 1.0)

    def probabilities(self, picture: np.ndarray) -> np.ndarray:
        """Float32 (n_classes,) for a `picture` uint8 (32, 32, 3), prepared as the training pictures were."""
        mean, std = (torch.as_tensor(values, dtype=torch.float32) for values in (self.mean, self.std))
        images = transforms.normalise(torch.tensor(picture)[None], mean, std)
        probabilities, _ = training.predict(self.network, [(images, torch.zeros(1, dtype=torch.int64))])
        return probabilities[0]

    def top_classes(self, picture: np.ndarray, k: int = 5) -> list[tuple[str, float]]:
        """The `k` likeliest classes and their probabilities, the likeliest first."""
        probabilities = self.probabilities(picture)
        best = np.argsort(-probabilities, kind="stable")[:k]
        return [(self.classes[label], float(probabilities[label])) for label in best]


def kept_viewer(*names: str, seed: int = 0) -> Viewer | None:
    """The recorded network of the first of these recipes whose weights are kept here; None where none are."""
    kept = [name for name in names if records.weights_of(name, seed).exists()]
    if not kept:
        return None
    recipe = recipes.get(kept[0])
    scaling = STATS[recipe.data] if recipe.normalise else ()
    network = runs.trained_network(recipe, seed)
    return Viewer(f"the recorded network {recipe.name}", network, recipe.data, CLASSES[recipe.data], *scaling)
