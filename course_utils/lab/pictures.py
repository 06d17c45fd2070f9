"""A trained network and what it takes to show it a picture."""

from dataclasses import dataclass

import numpy as np
from torch import nn

from course_utils import training
from course_utils.data import BatchLoader, ImageSet
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
        places = range(len(self.classes))  # names of one's own are no other classes
        seen = ImageSet(np.asarray(picture)[None], np.zeros(1, np.int64), places, self.name)
        return training.predict(self.network, BatchLoader(seen, mean=self.mean, std=self.std))[0][0]

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
