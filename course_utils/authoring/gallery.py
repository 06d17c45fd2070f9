"""The pictures of CIFAR that the book's pages show: chosen by the data and the saved networks, stored small.

Each function below makes one figure: groups of pictures, each with a title and a caption a picture. `write` stores the
pictures of a figure in one image, `gallery/NAME.webp`, and its words in `gallery.json`, both beside the records;
`lab.gallery` shows them. The data set itself is never stored.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from matplotlib import colormaps
from PIL import Image

from course_utils import data, training, transforms
from course_utils.lab import diagnostics, gallery, recipes, records, runs, sprint
from course_utils.lab.pictures import kept_viewer
from course_utils.models import SixViews
from course_utils.plots import confusion_matrix
from course_utils.transforms import Augment

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
    drawn = {name: draw(root) for name, draw in FIGURES.items()}  # before anything is written
    for name, figure in drawn.items():
        words[name] = vars(figure) | {
            "alt": " ".join(figure.alt.split()),
            "networks": {one: records.of_recipe(one)[0]["weights"] for one in figure.networks},
            "groups": [{k: v for k, v in vars(one).items() if k != "pictures"} for one in figure.groups],
        }
        save([one for group in figure.groups for one in group.pictures], gallery.path_of(name))
        print(f"{name}: {gallery.path_of(name).stat().st_size:,} bytes", flush=True)
    records.write_text(json.dumps(words, indent=1, ensure_ascii=False) + "\n", gallery.words_path())


def save(pictures: list[np.ndarray], path: Path) -> None:
    """All pictures row by row in one image, pixel for pixel; what is left over in the last row is black."""
    side, down = len(pictures[0]), -(-len(pictures) // gallery.ACROSS)
    store = np.zeros((down * gallery.ACROSS, side, side, 3), np.uint8)
    store[: len(pictures)] = pictures
    sheet = store.reshape(down, gallery.ACROSS, side, side, 3).swapaxes(1, 2).reshape(down * side, -1, 3)
    Image.fromarray(sheet).save(path, lossless=True, quality=100, method=6)


# ---- what the networks say ----


class Answers:
    """The test images of a data set, and what a network says of them: probabilities float32 (n, n_classes)."""

    def __init__(self, test: data.ImageSet, shares: np.ndarray):
        self.test, self.labels = test, test.labels
        self.said, self.sure = shares.argmax(1), shares.max(1)
        self.of_label = shares[np.arange(len(test)), test.labels]

    def name(self, label: int) -> str:
        return self.test.classes[label].replace("_", " ")

    def surest(self, among: np.ndarray, n: int) -> np.ndarray:
        """Of the images marked in `among`, the `n` whose answer is surest."""
        places = np.flatnonzero(among)
        return places[np.argsort(-self.sure[places], kind="stable")][:n]

    def verdict(self, i: int) -> str:
        return f"{self.name(self.labels[i])}\nsaid: {self.name(self.said[i])}\n{percent(self.sure[i])}"

    def group(self, title: str, chosen: Iterable[int], caption: Callable[[int], str], **layout) -> Group:
        return Group(title, [self.test.images[i] for i in chosen], [caption(i) for i in chosen], **layout)


@cache
def answers(name: str, root: Path | None) -> Answers:
    recipe = recipes.get(name)
    network = runs.trained_network(recipe).to(training.pick_device())
    with runs.exact():
        shares, _ = training.predict(network, runs.prepare(recipe, 0, root).test, precision="float32")
    return Answers(data.load(recipe.data, root)[1], shares)


def percent(share: float) -> str:
    return "< 1 %" if share < 0.005 else "> 99 %" if share >= 0.995 else f"{100 * share:.0f} %"


def pairs_of(name: str, root: Path | None, n: int = 4) -> Iterator[Group]:
    """A network's `n` commonest mistakes, and of each the five pictures on which it is surest."""
    one = answers(name, root)
    counts = confusion_matrix(one.labels, one.said, one.test.n_classes)
    of = counts.sum(1)
    np.fill_diagonal(counts, 0)
    for place in np.argsort(-counts, axis=None, kind="stable")[:n]:
        true, said = divmod(int(place), len(counts))
        title = f"{name}: {one.name(true)} → {one.name(said)} ({counts[true, said]} of {of[true]:,})"
        chosen = one.surest((one.labels == true) & (one.said == said), 5)
        yield one.group(title, chosen, lambda i: percent(one.sure[i]), columns=5, narrow=5)


def extremes_of(one: Answers, label: int, each: int = 2) -> Group:
    """Of a class the pictures to whose label the network gives most, and those to which it gives least."""

    def caption(i: int) -> str:
        wrong = f"\nsaid: {one.name(one.said[i])}" if one.said[i] != label else ""
        return percent(one.of_label[i]) + wrong

    places = np.flatnonzero(one.labels == label)
    order = places[np.argsort(-one.of_label[places], kind="stable")]
    title = f"{one.name(label)}: {(one.said[places] == label).sum()} of {len(places):,} right"
    return one.group(title, [*order[:each], *order[-each:]], caption, columns=2 * each, narrow=2 * each)


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
    alt = """One picture of each of CIFAR-100's hundred classes with its name below, five in a row for each of
        the twenty superclasses: people, then animals, plants, things, vehicles, buildings, landscapes and
        trees."""
    return Figure(alt, "cifar100", groups, beside=2, networks=("budgetnet",))


def augmented(images: np.ndarray, mean: np.ndarray, *settings: float) -> np.ndarray:
    """The images uint8 (n, 32, 32, 3) as `Augment(*settings)` changes them; `mean` fills what is uncovered."""
    augment, fill = Augment(*settings), torch.tensor(transforms.mean_colour(mean), dtype=torch.uint8)
    store = transforms.pad(torch.from_numpy(images), augment.padding, fill)
    draws = augment.draw(len(images), 32, np.random.default_rng(3))
    return augment(store, torch.arange(len(images)), draws, fill).numpy()


def jittered(images: np.ndarray, factor: float) -> np.ndarray:
    """Brightness, contrast and saturation of all images times `factor`."""
    return transforms.jitter_colours(torch.from_numpy(images), torch.full((len(images), 3), factor)).numpy()


def in_rows(versions: dict[str, np.ndarray]) -> Group:
    """A row a picture: its versions, uint8 (n, 32, 32, 3) each, under their names."""
    pictures, n = np.stack([*versions.values()], axis=1), len(versions)
    return Group("", pictures.reshape(-1, 32, 32, 3), [*versions] * len(pictures), columns=n, narrow=n)


def originals(network: str, classes: str, root: Path | None) -> tuple[np.ndarray, np.ndarray]:
    """A picture of each class that is easy for a network, and the mean colour of the training images."""
    one, chosen = answers(network, root), typical(network, root)
    mean, _ = data.channel_stats(data.load(recipes.get(network).data, root)[0])
    return one.test.images[[chosen[name] for name in classes.split()]], mean


def augmentation_100(root: Path | None) -> Figure:
    images, mean = originals("budgetnet", "fox sunflower castle motorcycle", root)
    versions = {
        "original": images,
        "crop": augmented(images, mean, 4, 0, 0, 0),
        "flip": augmented(images, mean, 0, 1, 0, 0),
        "jitter, at its least": jittered(images, 0.8),
        "jitter, at its most": jittered(images, 1.2),
    }
    alt = """Four pictures of CIFAR-100, each beside its changed versions: cropped, it is shifted by some pixels
        and a border of one colour appears; flipped, it is its mirror image; with the least colour jitter it
        is darker and paler, with the most it is brighter and its colours are stronger."""
    return Figure(alt, "cifar100", [in_rows(versions)], networks=("budgetnet",))


def augmentation_10(root: Path | None) -> Figure:
    images, mean = originals("resnet-best", "cat truck ship frog", root)
    settings = {"crop": (4, 0, 0, 0), "flip": (0, 1, 0, 0), "cutout": (0, 0, 8, 1), "all three": (4, 1, 8, 1)}
    versions = {"original": images} | {name: augmented(images, mean, *one) for name, one in settings.items()}
    alt = """Four pictures of CIFAR-10, each beside its changed versions: cropped, it is shifted by some pixels
        and a border of one colour appears; flipped, it is its mirror image; with cutout, a grey square of 8
        by 8 pixels hides a part of it."""
    return Figure(alt, "cifar10", [in_rows(versions)], networks=("resnet-best",))


def pictures_of(images: torch.Tensor, loader: data.BatchLoader) -> np.ndarray:
    """The `uint8` pictures (n, 32, 32, 3) behind a batch of the loader's, float (n, 3, 32, 32)."""
    pixels = images.permute(0, 2, 3, 1) * loader.std + loader.mean
    return (255 * pixels).round().to(torch.uint8).cpu().numpy()


def first_batch(root: Path | None) -> Figure:
    loader = runs.prepare(recipes.get("resnet-lr-range"), 0, root).train
    images, _ = next(iter(loader))
    pictures = pictures_of(images[:64], loader)
    alt = """64 training pictures of CIFAR-10 in random order, animals and vehicles side by side. Many are
        shifted, so that a border of one colour shows, and about half have a grey square cut out of them."""
    group = Group("", pictures, [""] * len(pictures), columns=16, narrow=8)
    return Figure(alt, "cifar10", [group])


def sprint_images(root: Path | None) -> Figure:
    """One picture as the sprint meets it: in eight epochs with two ways to flip, and with each other change."""
    images, mean = originals("resnet-best", "truck", root)
    one = data.ImageSet(images, np.zeros(1, np.int64), ("truck",), "truck")
    groups = []
    for title, alternate in {"Mirrored by chance": False, "Mirrored alternately": True}.items():
        loader = data.BatchLoader(one, 1, augment=Augment(0, 0.5, 0, 0, alternate=alternate))
        epochs = [pictures_of(next(iter(loader))[0], loader)[0] for _ in range(8)]
        groups.append(Group(title, epochs, [f"epoch {k}" for k in range(1, 9)]))
    fill, grey = (torch.tensor(one, dtype=torch.uint8) for one in (transforms.mean_colour(mean), [128] * 3))
    pixels = torch.from_numpy(images)
    small = sprint.shrink(pixels.permute(0, 3, 1, 2).float(), 24).permute(0, 2, 3, 1).round().to(torch.uint8)
    mirrored = np.pad(images, [(0, 0), (2, 2), (2, 2), (0, 0)], mode="reflect")
    versions = {
        "as it is": images,
        "moved, a plain border": transforms.pad(pixels, 2, fill)[:, :32, :32],
        "moved, its own border": mirrored[:, :32, :32],
        "colours at their weakest": jittered(images, 0.9),
        "and at their strongest": jittered(images, 1.1),
        "at 24 × 24 pixels": transforms.pad(small, 4, grey),
    }
    groups.append(Group("The other changes", np.concatenate([*versions.values()]), [*versions]))
    alt = """A truck as eight epochs show it. Mirrored by chance, it looks the same way several times running;
        mirrored alternately, it faces left and right in turn. Below, it is moved by two pixels, with a grey
        and with a mirrored border; paler and stronger in colour; and smaller."""
    return Figure(alt, "cifar10", groups, networks=("resnet-best",))


def six_views(root: Path | None) -> Figure:
    """Of the pictures that one view gets wrong and six views get right, the one on which six are surest."""
    recipe, one = recipes.get("sprint"), answers("sprint", root)
    loader = runs.prepare(recipe, 0, root).test
    network = runs.trained_network(recipe).to(loader.device)
    with runs.exact():
        shares, _ = training.predict(SixViews(network), loader, precision="float32")
    six, seen = Answers(one.test, shares), []
    (chosen,) = six.surest((one.said != one.labels) & (six.said == six.labels), 1)
    image = torch.from_numpy(one.test.images[[chosen]]).to(loader.device)
    image = transforms.normalise(image, loader.mean, loader.std)
    network.register_forward_hook(lambda _, inputs, logits: seen.append((inputs[0], logits.softmax(1)[0])))
    with torch.no_grad():
        SixViews(network).eval()(image)
    views = "as it is", "mirrored", "down and right", "and mirrored", "up and left", "and mirrored"
    captions = [
        f"{view}:\n{one.name(int(share.argmax()))}, {percent(float(share.max()))}"
        for view, (_, share) in zip(views, seen, strict=True)
    ]
    title = f"All six: {six.name(six.labels[chosen])}, {percent(six.sure[chosen])}"
    pictures = [pictures_of(image, loader)[0] for image, _ in seen]
    alt = f"""Six views of one picture that hardly differ to the eye, each with what the sprint's network said and
        how sure it was: {", ".join(caption.replace(chr(10), " ") for caption in captions)}."""
    groups = [Group(title, pictures, captions, columns=6, narrow=3)]
    return Figure(alt, "cifar10", groups, networks=("sprint",))


def feature_maps(root: Path | None) -> Figure:
    """All maps of smallnet-best for one picture: black for zero, white for the largest value of the stage."""
    viewer, maps = kept_viewer("smallnet-best"), {}
    picture = answers("budgetnet", root).test.images[typical("budgetnet", root)["telephone"]]
    with diagnostics.watching(viewer.network, lambda stage, values: maps.update({stage: values[0].float()})):
        viewer.probabilities(picture)
    groups = [Group("The picture", [picture], [""])]
    for stage, values in maps.items():
        if values.ndim == 3:  # the dense layer has no maps
            side = values.shape[1]
            shares = (values.clamp(min=0) / values.max()).sqrt().numpy()  # the root shows weak values, too
            tiles = colormaps["magma"](shares, bytes=True)[..., :3]
            tiles = tiles.repeat(32 // side, 1).repeat(32 // side, 2)
            title = f"{stage.capitalize()}: {len(values)} maps of {side} × {side}"
            wide = 16 if side > 4 else 32
            groups.append(Group(title, tiles, [""] * len(tiles), columns=wide, narrow=wide // 2))
    alt = """A picture of a telephone, and below it all feature maps of SmallNet's three stages. In most of the
        first stage's 32 maps the telephone's outline is seen; in the second stage's 64 bright spots mark
        pieces of it; the third stage's 128 maps have a few bright squares each, or are black."""
    return Figure(alt, "cifar100", groups, networks=("smallnet-best",))


def mistakes(names: tuple[str, ...], root: Path | None) -> Figure:
    found = {name: answers(name, root) for name in names}
    groups = [
        one.group(name, one.surest(one.said != one.labels, 8), one.verdict) for name, one in found.items()
    ]
    alt = f"""The eight most confident mistakes of {", ".join(names)}, as pictures, each with its label, what the
        network said and how sure it was."""
    return Figure(alt, recipes.get(names[0]).data, groups, networks=names)


def pairs(names: tuple[str, ...], root: Path | None) -> Figure:
    groups = [group for name in names for group in pairs_of(name, root)]
    alt = f"""The four commonest mistakes of {", ".join(names)}, each as five pictures of a class that the network
        said to be of another, with how sure it was."""
    return Figure(alt, recipes.get(names[0]).data, groups, beside=2, networks=names)


def easy_and_hard(name: str, root: Path | None, most: int) -> Figure:
    """For the `most` classes of which the network gets most and fewest pictures right."""
    one = answers(name, root)
    right = np.bincount(one.labels[one.said == one.labels], minlength=one.test.n_classes)
    order = np.argsort(-right, kind="stable").tolist()
    chosen = order if len(order) <= most else order[: most // 2] + order[-most // 2 :]
    alt = f"""Of {len(chosen)} classes the two easiest pictures for {name} and the two hardest, with the
        probability that it gave to the label, and what it said where it was wrong."""
    groups = [extremes_of(one, label) for label in chosen]
    return Figure(alt, recipes.get(name).data, groups, beside=2, networks=(name,))


FIGURES: dict[str, Callable[[Path | None], Figure]] = {
    "classes-cifar10": classes_10,
    "classes-cifar100": classes_100,
    "augmentation-cifar10": augmentation_10,
    "augmentation-cifar100": augmentation_100,
    "first-batch": first_batch,
    "sprint-images": sprint_images,
    "six-views": six_views,
    "feature-maps": feature_maps,
    "mistakes-cifar10": partial(mistakes, ("resnet-best",)),
    "mistakes-cifar100": partial(mistakes, SESSION_1),
    "pairs-cifar10": partial(pairs, ("resnet-best",)),
    "pairs-cifar100": partial(pairs, SESSION_1),
    "easy-and-hard-cifar10": partial(easy_and_hard, "resnet-best", most=10),
    "easy-and-hard-cifar100": partial(easy_and_hard, "budgetnet", most=8),
}
