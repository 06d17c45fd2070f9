"""The pictures of CIFAR that the book's pages show: chosen by the data and the saved networks, stored small.

Each function below makes one figure: groups of pictures, each with a title and a caption a picture. `write` stores the
pictures of a figure in one image, `gallery/NAME.webp`, and its words in `gallery.json`, both beside the records;
`lab.gallery` shows them. The data set itself is never stored.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from matplotlib import colormaps
from PIL import Image

from course_utils import data, training, transforms
from course_utils.lab import diagnostics, gallery, recipes, records, runs
from course_utils.lab.pictures import kept_viewer
from course_utils.plots import confusion_matrix
from course_utils.transforms import Augment

ACROSS = gallery.ACROSS
SESSION_1 = ("smallnet-source", "smallnet-best", "budgetnet")


@dataclass
class Group:
    """Pictures uint8 (n, 32, 32, 3) under a title; `columns` in a row on a wide page, `narrow` on a phone's."""

    title: str
    pictures: Iterable[np.ndarray] = field(repr=False)
    captions: list[str]
    columns: int = 8
    narrow: int = 4


@dataclass
class Figure:
    """Groups, `beside` of them in a row on a wide page; `networks` are the recipes whose weights it shows."""

    alt: str
    data: str
    groups: list[Group]
    beside: int = 1
    networks: tuple[str, ...] = ()


def write(root: Path | None = None) -> None:
    """Draw every figure anew; needs both data sets and the saved weights."""
    gallery.folder().mkdir(exist_ok=True)
    words = {}
    for name, draw in FIGURES.items():
        figure = draw(root)
        words[name] = asdict(replace(figure, groups=[])) | {
            "networks": {one: records.of_recipe(one)[0]["weights"] for one in figure.networks},
            "groups": [{k: v for k, v in vars(one).items() if k != "pictures"} for one in figure.groups],
        }
        save([one for group in figure.groups for one in group.pictures], gallery.path_of(name))
        print(f"{name}: {gallery.path_of(name).stat().st_size:,} bytes", flush=True)
    text = json.dumps(words, indent=1, ensure_ascii=False)
    gallery.words_path().write_text(text + "\n", encoding="utf-8")


def save(pictures: list[np.ndarray], path: Path) -> None:
    """All pictures row by row in one image, pixel for pixel; what is left over in the last row is black."""
    side, down = len(pictures[0]), -(-len(pictures) // ACROSS)
    store = np.zeros((down * ACROSS, side, side, 3), np.uint8)
    store[: len(pictures)] = pictures
    sheet = store.reshape(down, ACROSS, side, side, 3).swapaxes(1, 2).reshape(down * side, -1, 3)
    Image.fromarray(sheet).save(path, lossless=True, quality=100, method=6)


# ---- what the networks say ----


@dataclass
class Answers:
    """The test images of a data set, and what a network says of them: probabilities float32 (n, n_classes)."""

    test: data.ImageSet
    shares: np.ndarray

    def __post_init__(self) -> None:
        self.labels, self.said, self.sure = self.test.labels, self.shares.argmax(1), self.shares.max(1)
        self.of_label = self.shares[np.arange(len(self.labels)), self.labels]

    def name(self, label: int) -> str:
        return self.test.classes[label].replace("_", " ")

    def verdict(self, i: int) -> str:
        return f"{self.name(self.labels[i])}\nsaid: {self.name(self.said[i])}\n{percent(self.sure[i])}"

    def group(self, title: str, chosen: Iterable[int], caption: Callable[[int], str], **layout) -> Group:
        return Group(title, [self.test.images[i] for i in chosen], [caption(i) for i in chosen], **layout)


@cache
def answers(name: str, root: Path | None) -> Answers:
    recipe = recipes.get(name)
    network = runs.trained_network(recipe).to(training.pick_device())
    shares, _ = training.predict(network, runs.prepare(recipe, 0, root).test, precision="float32")
    return Answers(data.load(recipe.data, root)[1], shares)


def percent(share: float) -> str:
    return "< 1 %" if share < 0.005 else "> 99 %" if share >= 0.995 else f"{100 * share:.0f} %"


def surest(answers: Answers, among: np.ndarray, n: int) -> np.ndarray:
    """Of the images marked in `among`, the `n` whose answer is surest."""
    places = np.flatnonzero(among)
    return places[np.argsort(-answers.sure[places], kind="stable")][:n]


def mistakes(names: Iterable[str], root: Path | None) -> list[Group]:
    """For each network the eight mistakes it is surest of."""
    found = {name: answers(name, root) for name in names}
    return [
        one.group(name, surest(one, one.said != one.labels, 8), one.verdict) for name, one in found.items()
    ]


def pairs(name: str, root: Path | None, n: int, shown: int = 5) -> list[Group]:
    """A network's `n` commonest mistakes, and of each the `shown` pictures on which it is surest."""
    one, groups = answers(name, root), []
    counts = confusion_matrix(one.labels, one.said, one.test.n_classes)
    np.fill_diagonal(counts, 0)
    for place in np.argsort(-counts, axis=None, kind="stable")[:n]:
        true, said = divmod(int(place), len(counts))
        of = (one.labels == true).sum()
        title = f"{name}: {one.name(true)}, said to be {one.name(said)} ({counts[true, said]} of {of:,})"
        chosen = surest(one, (one.labels == true) & (one.said == said), shown)
        groups.append(one.group(title, chosen, lambda i: percent(one.sure[i]), columns=shown, narrow=shown))
    return groups


def easiest_and_hardest(name: str, root: Path | None, classes: Iterable[int], each: int) -> list[Group]:
    """Of each class the pictures to whose label the network gives most and those to which it gives least."""
    one, groups = answers(name, root), []
    for label in classes:
        places = np.flatnonzero(one.labels == label)
        order = places[np.argsort(-one.of_label[places], kind="stable")]
        right = (one.said[places] == label).sum()
        chosen = [*order[:each], *order[-each:]]

        def caption(i: int) -> str:
            wrong = f"\nsaid: {one.name(one.said[i])}" if one.said[i] != one.labels[i] else ""
            return percent(one.of_label[i]) + wrong

        title = f"{one.name(label)}: {right} of {len(places):,} right"
        groups.append(one.group(title, chosen, caption, columns=2 * each, narrow=2 * each))
    return groups


def ranked(name: str, root: Path | None) -> np.ndarray:
    """The classes, from the one of which the network gets most pictures right to the one of which it gets fewest."""
    one = answers(name, root)
    right = np.bincount(one.labels[one.said == one.labels], minlength=one.test.n_classes)
    return np.argsort(-right, kind="stable")


def typical(name: str, root: Path | None) -> dict[str, int]:
    """A picture of each class: that to whose label the network gives most."""
    one = answers(name, root)
    return {
        label: int(np.where(one.labels == k, one.of_label, -1).argmax())
        for k, label in enumerate(one.test.classes)
    }


# ---- the figures ----


def classes_10(root: Path | None) -> Figure:
    one, chosen = answers("resnet-best", root), typical("resnet-best", root)
    group = one.group("", chosen.values(), lambda i: one.name(one.labels[i]), columns=10, narrow=5)
    alt = "One picture of each of CIFAR-10's ten classes, each 32 by 32 pixels, with its name below."
    return Figure(alt, "cifar10", [group], networks=("resnet-best",))


def classes_100(root: Path | None) -> Figure:
    one, chosen, groups = answers("budgetnet", root), typical("budgetnet", root), []
    for title, members in diagnostics.SUPERCLASSES.items():
        places = [chosen[member] for member in members.split()]
        groups.append(one.group(title, places, lambda i: one.name(one.labels[i]), columns=5, narrow=5))
    alt = """One picture of each of CIFAR-100's hundred classes with its name below, five in a row for each of the twenty
        superclasses: people, then animals, plants, things, vehicles, buildings, landscapes and trees."""
    return Figure(" ".join(alt.split()), "cifar100", groups, beside=2, networks=("budgetnet",))


# A step of the pipeline alone, at its settings; `chance` 1 stands for the one half of the recipes.
STEPS = {
    "crop": Augment(4, 0, 0, 0),
    "flip": Augment(0, 1, 0, 0),
    "cutout": Augment(0, 0, 8, 1),
    "colour jitter": Augment(0, 0, 0, 0, jitter=0.2),
}


def augmented(images: np.ndarray, mean: np.ndarray, augment: Augment, seed: int) -> np.ndarray:
    """The images uint8 (n, 32, 32, 3), each with random choices of its own; `mean` fills what is uncovered."""
    fill = torch.tensor(transforms.mean_colour(mean), dtype=torch.uint8)
    store = transforms.pad(torch.from_numpy(images), augment.padding, fill)
    draws = augment.draw(len(images), 32, np.random.default_rng(seed))
    return augment(store, torch.arange(len(images)), draws, fill).numpy()


def before_and_after(set_name: str, classes: str, steps: dict[str, Augment], root: Path | None) -> Group:
    """A row for each of `classes`: its picture, and what each of `steps` makes of it."""
    train, test = data.load(set_name, root)
    mean, _ = data.channel_stats(train)
    chosen = typical("resnet-best" if set_name == "cifar10" else "budgetnet", root)
    images = test.images[[chosen[one] for one in classes.split()]]
    columns = [images, *(augmented(images, mean, step, seed=3) for step in steps.values())]
    rows, captions = np.stack(columns, axis=1), ["original", *steps] * len(images)
    return Group("", rows.reshape(-1, 32, 32, 3), captions, columns=len(columns), narrow=len(columns))


def augmentation_100(root: Path | None) -> Figure:
    steps = {name: STEPS[name] for name in ("crop", "flip", "colour jitter")}
    steps["all three"] = Augment(4, 1, 0, 0, jitter=0.2)
    group = before_and_after("cifar100", "fox sunflower castle motorcycle", steps, root)
    alt = """Four pictures of CIFAR-100, each beside its changed versions: cropped, it is shifted by some pixels and a border
        of one colour appears; flipped, it is its mirror image; with colour jitter, it is a little darker or lighter
        and its colours are weaker or stronger."""
    return Figure(" ".join(alt.split()), "cifar100", [group])


def augmentation_10(root: Path | None) -> Figure:
    steps = {name: STEPS[name] for name in ("crop", "flip", "cutout")} | {"all three": Augment(4, 1, 8, 1)}
    group = before_and_after("cifar10", "cat truck ship frog", steps, root)
    alt = """Four pictures of CIFAR-10, each beside its changed versions: cropped, it is shifted by some pixels and a border
        of one colour appears; flipped, it is its mirror image; with cutout, a grey square of 8 by 8 pixels hides a
        part of it."""
    return Figure(" ".join(alt.split()), "cifar10", [group])


def first_batch(root: Path | None) -> Figure:
    loader = runs.prepare(recipes.get("resnet-lr-range"), 0, root).train
    images, _ = next(iter(loader))
    pixels = images[:64].permute(0, 2, 3, 1) * loader.std + loader.mean  # back from normalised
    pictures = (255 * pixels).round().to(torch.uint8).numpy()
    alt = """64 training pictures of CIFAR-10 in random order, animals and vehicles side by side. Many are shifted, so that
        a border of one colour shows, and about half have a grey square cut out of them."""
    group = Group("", pictures, [""] * len(pictures), columns=16, narrow=8)
    return Figure(" ".join(alt.split()), "cifar10", [group])


def feature_maps(root: Path | None) -> Figure:
    """All maps of smallnet-best for one picture: black for zero, white for the largest value of the stage."""
    viewer, maps = kept_viewer("smallnet-best"), {}
    picture = answers("budgetnet", root).test.images[typical("budgetnet", root)["castle"]]
    with diagnostics.watching(viewer.network, lambda stage, values: maps.update({stage: values[0].float()})):
        viewer.probabilities(picture)
    groups = [Group("The picture", [picture], [""])]
    for stage, values in maps.items():
        if values.ndim == 3:  # the dense layer has no maps
            side = values.shape[1]
            shares = (values.clamp(min=0) / values.max()).sqrt().numpy()  # the root shows weak values, too
            tiles = np.uint8(255 * colormaps["magma"](shares)[..., :3]).repeat(32 // side, 1).repeat(32 // side, 2)
            title = f"{stage.capitalize()}: {len(values)} maps of {side} × {side}"
            wide = 16 if side > 4 else 32
            groups.append(Group(title, tiles, [""] * len(tiles), columns=wide, narrow=wide // 2))
    alt = """A picture of a castle, and below it all feature maps of SmallNet's three stages. In many of the first stage's
        32 maps the castle's outline is seen; in the second stage's 64 bright spots mark pieces of it; the third
        stage's 128 maps have a few bright squares each, or are black."""
    return Figure(" ".join(alt.split()), "cifar100", groups, networks=("smallnet-best",))


def mistakes_100(root: Path | None) -> Figure:
    alt = """The eight most confident mistakes of smallnet-source, smallnet-best and budgetnet, as pictures, each with its
        label, what the network said and how sure it was."""
    return Figure(" ".join(alt.split()), "cifar100", mistakes(SESSION_1, root), networks=SESSION_1)


def mistakes_10(root: Path | None) -> Figure:
    alt = "The eight most confident mistakes of resnet-best, as pictures, each with its label, what was said and how surely."
    return Figure(alt, "cifar10", mistakes(["resnet-best"], root), networks=("resnet-best",))


def pairs_100(root: Path | None) -> Figure:
    groups = [group for name in SESSION_1 for group in pairs(name, root, 4)]
    alt = """Pictures of the four commonest mistakes of smallnet-source, smallnet-best and budgetnet: five pictures of a
        class that the network said to be of another."""
    return Figure(" ".join(alt.split()), "cifar100", groups, beside=2, networks=SESSION_1)


def pairs_10(root: Path | None) -> Figure:
    alt = "Pictures of resnet-best's four commonest mistakes: five pictures of a class that it said to be of another."
    return Figure(alt, "cifar10", pairs("resnet-best", root, 4), beside=2, networks=("resnet-best",))


def easy_and_hard_100(root: Path | None) -> Figure:
    order = ranked("budgetnet", root)
    groups = easiest_and_hardest("budgetnet", root, [*order[:3], *order[-3:]], 3)
    alt = """Of six classes of CIFAR-100 the three easiest pictures for budgetnet and the three hardest, with the probability
        that it gave to the label, and what it said where it was wrong."""
    return Figure(" ".join(alt.split()), "cifar100", groups, beside=2, networks=("budgetnet",))


def easy_and_hard_10(root: Path | None) -> Figure:
    groups = easiest_and_hardest("resnet-best", root, ranked("resnet-best", root), 2)
    alt = """Of each class of CIFAR-10 the two easiest pictures for resnet-best and the two hardest, with the probability that
        it gave to the label, and what it said where it was wrong."""
    return Figure(" ".join(alt.split()), "cifar10", groups, beside=2, networks=("resnet-best",))


FIGURES = {
    "classes-cifar10": classes_10,
    "classes-cifar100": classes_100,
    "augmentation-cifar10": augmentation_10,
    "augmentation-cifar100": augmentation_100,
    "first-batch": first_batch,
    "feature-maps": feature_maps,
    "mistakes-cifar10": mistakes_10,
    "mistakes-cifar100": mistakes_100,
    "pairs-cifar10": pairs_10,
    "pairs-cifar100": pairs_100,
    "easy-and-hard-cifar10": easy_and_hard_10,
    "easy-and-hard-cifar100": easy_and_hard_100,
}
