"""Your own picture: any picture file, or one drawn by code, before a network that was trained on pictures of 32×32."""

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import nn

from course_utils import data, recipes, records, runs, shapes, training, transforms
from course_utils.data import SIZE

read = data.read_picture  # a file of yours

# In label order, as in the data sets' own files, so that kept weights are of use where CIFAR itself is not at hand.
NAMES = {
    "cifar10": "airplane automobile bird cat deer dog frog horse ship truck",
    "cifar100": """
        apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can
        castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin
        elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster
        man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck
        pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk
        skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger
        tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm""",
}
CLASSES = {data: tuple(names.split()) for data, names in NAMES.items()}
# `data.channel_stats` of all 50,000 training images.
STATS = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
}


# --- Pictures.


def drawn(data: str) -> np.ndarray:
    """A picture for a network trained on `data`, uint8 (32, 32, 3): a shape, a sunflower, or a ship at sea."""
    if data.startswith("shapes"):
        images, labels = shapes.draw(len(shapes.CLASSES), seed=2)
        return images[labels == shapes.CLASSES.index("ringed heart")][0]
    picture = sunflower() if data == "cifar100" else ship()
    return np.asarray(picture.resize((SIZE, SIZE)))


def sunflower() -> Image.Image:
    picture = Image.new("RGB", (320, 320), "forestgreen")
    pen = ImageDraw.Draw(picture)
    # Pointed, to the right of the middle.
    petal = np.array([(50, -13), (107, -22), (150, 0), (107, 22), (50, 13)])
    for angle in np.arange(0, 2 * np.pi, np.pi / 9):
        right, down = np.cos(angle), np.sin(angle)
        turned = 160 + petal @ np.array([(right, down), (-down, right)])
        pen.polygon([tuple(corner) for corner in turned], fill="gold", outline="orange")
    pen.ellipse((95, 95, 225, 225), fill="saddlebrown")
    return picture


def ship() -> Image.Image:
    picture = Image.new("RGB", (320, 320), "skyblue")
    pen = ImageDraw.Draw(picture)
    pen.rectangle((0, 150, 320, 320), fill="steelblue")
    pen.polygon([(10, 180), (310, 180), (270, 240), (50, 240)], fill="firebrick")
    pen.rectangle((90, 120, 230, 180), fill="white")
    for left in (120, 180):
        pen.rectangle((left, 80, left + 20, 120), fill="black")  # funnels
    for mast in (60, 265):
        pen.line((mast, 60, mast, 180), fill="black", width=8)
    return picture


# --- Who looks at them.


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
        probabilities, _ = training.predict(self.network, [(images, torch.zeros(1))])
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
