"""What the page *See it think* runs on: the weights of two recorded networks and twenty test pictures, as JavaScript.

A page opened from disk may load scripts and nothing else, so the data are scripts: `network_data.js` makes the global
`LIVE`, and `network_pictures.js` and a file a network add to it. The weights are the recorded half-precision numbers
themselves, first the high byte of each and then the low bytes, which deflate packs into a tenth less.
"""

import base64
import json
import zlib
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn

from course_utils import data, transforms
from course_utils.authoring import curves
from course_utils.datasets.cifar import STATS
from course_utils.lab import recipes, records, runs
from course_utils.models import SmallNet, count_parameters

NETWORKS = ("smallnet-best", "budgetnet")
# What a picture shows and, where smallnet-best is mistaken and budgetnet is not, what smallnet-best says.
PICTURES = """sunflower, tiger, apple > sweet_pepper, castle, clock > telephone, motorcycle, butterfly > poppy,
    elephant, train, camel, apple, clock, butterfly, skyscraper > rocket, tractor, lion, palm_tree, bicycle, fox,
    telephone"""
FIRST = 8  # so many for the welcome page, which stays light
STILL = 3  # the castle
SURE = 0.9  # the probability to which a picture named rightly comes closest: sure, and not the easiest of its class


def write(out: Path = curves.STATIC) -> None:
    """Write the scripts, and a still in their place, into `out`; needs CIFAR-100 and the recorded weights."""
    curves.write(out)  # which needs neither
    _, test = data.load("cifar100")
    networks = {name: runs.trained_network(recipes.get(name)).eval() for name in NETWORKS}
    logits = {name: logits_of(network, test.images) for name, network in networks.items()}
    chosen = choose(test, *logits.values())
    pictures = [base64.b64encode(test.images[index].tobytes()).decode() for index in chosen]
    mean, std = STATS["cifar100"]
    common = {
        "classes": test.classes,
        "mean": mean,
        "std": std,
        "labels": test.labels[chosen].tolist(),
        "pictures": pictures[:FIRST],
        "counts": {name: count_parameters(network) for name, network in networks.items()},
        "weights": {},
        "logits": {},
    }
    scripts = {
        "data": f"window.LIVE = {json.dumps(common)};",
        "pictures": f"LIVE.pictures.push(...{json.dumps(pictures[FIRST:])});",
    }
    for name, network in networks.items():
        scores = logits[name][chosen].double().numpy().round(5).tolist()
        scripts[name] = f'LIVE.weights["{name}"] = "{packed(network)}";\n'
        scripts[name] += f'LIVE.logits["{name}"] = {json.dumps(scores)};'
    for name, script in scripts.items():
        records.write_text(f"{script}\n", out / f"network_{name}.js")
    draw_still(networks["smallnet-best"], test, chosen[STILL], out / "see_it_think.webp")


def normalised(images: np.ndarray) -> torch.Tensor:
    """uint8 (N, 32, 32, 3) as the networks take them, float32 (N, 3, 32, 32)."""
    return transforms.normalise(torch.from_numpy(images), *map(torch.tensor, STATS["cifar100"]))


@torch.inference_mode()
def logits_of(network: nn.Module, images: np.ndarray) -> torch.Tensor:
    """Float32 (N, 100). `training.predict` may compute in half precision; the page does not."""
    return torch.cat([network(normalised(part)) for part in np.array_split(images, -(-len(images) // 500))])


def choose(test: data.ImageSet, smallnet: torch.Tensor, budgetnet: torch.Tensor) -> list[int]:
    """Indices of PICTURES, given logits (N, 100): the surest of a mistake, the nearest to SURE of a class."""
    truth, chosen = torch.from_numpy(test.labels), []
    for picture in PICTURES.split(","):
        shown, _, said = picture.strip().partition(" > ")
        label, answer = test.classes.index(shown), test.classes.index(said or shown)
        fits = (truth == label) & (smallnet.argmax(1) == answer) & (budgetnet.argmax(1) == label)
        distance = (smallnet.softmax(1)[:, answer] - (1 if said else SURE)).abs()
        if not fits.any():
            asked = f"{shown} that smallnet-best calls {said or shown} and budgetnet names rightly"
            raise ValueError(f"no test picture of the class {asked}: choose others")
        chosen.append(int(torch.where(fits, distance, 2).argmin()))
    return chosen


def packed(network: nn.Module) -> str:
    """All of the network's floating-point numbers, in the order of its layers."""
    numbers = [value.flatten() for value in network.state_dict().values() if value.is_floating_point()]
    high_and_low = torch.cat(numbers).numpy().astype(">f2").view(np.uint8).reshape(-1, 2)
    return base64.b64encode(zlib.compress(high_and_low.T.tobytes(), 9)).decode()


@torch.inference_mode()
def draw_still(network: SmallNet, test: data.ImageSet, index: int, path: Path) -> None:
    """A test picture, the sixteen strongest maps of each stage, and the top five."""
    x, panels = normalised(test.images[index][None]), {"the picture": test.images[index]}
    for layer in network.features:
        x = layer(x)
        if isinstance(layer, nn.ReLU):
            strongest = x[0, x[0].amax((1, 2)).topk(16).indices].sqrt().numpy()
            framed = np.pad(strongest, ((0, 0), (1, 1), (1, 1)), constant_values=np.nan)
            grid = framed.reshape(4, 4, *framed.shape[1:])
            panels[f"stage {len(panels)}"] = np.block([list(row) for row in grid])
    best = network.head(x)[0].softmax(0).topk(5)
    figure, axes = plt.subplots(1, 5, figsize=(11, 2.5), layout="constrained")
    for axis, (title, panel) in zip(axes, panels.items(), strict=False):
        axis.imshow(panel, cmap="magma")
        axis.set_title(title)
        axis.set_axis_off()
    axes[4].barh([test.classes[label] for label in best.indices], best.values.tolist())
    axes[4].invert_yaxis()
    axes[4].set(xlim=(0, 1), title="the top five")
    figure.savefig(path, dpi=100)
    plt.close(figure)
