"""A run is a recipe and a seed. Recipes are plain values in one table, so an ablation is a one-line change."""

import json
import os
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn, optim

from course_utils import data, devices, models, parallel, schedules, training
from course_utils.data import ImageSet
from course_utils.loaders import BatchLoader
from course_utils.transforms import Augment


@dataclass(frozen=True)
class Recipe:
    """Everything that decides how a network is trained, but for the seed.

    `validation` is the share of the training images held out; with 0 nothing is, and the curves have
    no validation. `crop` is the padding in pixels before the random crop, `flip` and `hole_chance`
    are probabilities, `hole` is a side in pixels; zero switches each off.
    """

    name: str
    about: str
    data: str = "cifar100"
    validation: float = 0.1
    network: str = "SmallNet"
    network_args: dict[str, Any] = field(default_factory=dict)
    normalise: bool = False
    crop: int = 0
    flip: float = 0.0
    hole: int = 0
    hole_chance: float = 0.0
    batch_size: int = 128
    epochs: int = 25
    optimizer: str = "SGD"
    optimizer_args: dict[str, Any] = field(default_factory=dict)
    schedule: str = "constant"
    schedule_args: dict[str, Any] = field(default_factory=dict)
    label_smoothing: float = 0.0
    precision: str = "auto"
    curve_on_test: bool = False

    def plain(self) -> dict[str, Any]:
        """The recipe as JSON would give it back: lists for tuples, and nothing but plain values."""
        return json.loads(json.dumps(asdict(self)))


SOURCE_SMALLNET = Recipe(
    name="smallnet-source",
    about="the source project's settings, up to where its schedule goes flat",
    optimizer_args={"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4},
    schedule="step_decay",
    schedule_args={"step_epochs": 5, "gamma": 0.2},
    epochs=25,
)

SOURCE_RESNET = Recipe(
    name="resnet-assignment",
    about="the 24-epoch assignment as logged, its test curve included",
    data="cifar10",
    validation=0.0,
    network="CustomResNet",
    normalise=True,
    crop=4,
    flip=0.5,
    hole=8,
    hole_chance=0.5,
    batch_size=512,
    epochs=24,
    optimizer="Adam",
    schedule="one_cycle",
    schedule_args={"lr_min": 3.2e-6, "lr_max": 3.2e-4, "peak_epoch": 5},
    curve_on_test=True,
)

BEST_SMALLNET = replace(
    SOURCE_SMALLNET,
    name="smallnet-best",
    about="the same 996,376 weights, a better recipe, inside an hour on two CPU cores",
    network_args={"conv_dropout": 0.0},
    normalise=True,
    crop=4,
    flip=0.5,
    epochs=40,
    optimizer_args={"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4, "nesterov": True},
    schedule="one_cycle",
    schedule_args={"lr_min": 0.01, "lr_max": 0.1, "peak_epoch": 8, "lr_end": 0.0},
    label_smoothing=0.1,
)

RECIPES = {recipe.name: recipe for recipe in (SOURCE_SMALLNET, SOURCE_RESNET, BEST_SMALLNET)}

# What each lesson trains. The quick profile keeps the recipe's form and shrinks its cost: shapes drawn
# by code for CIFAR, fewer epochs, and for the ResNet a quarter of the channels.
LESSONS = {
    "smallnet": {
        "quick": replace(
            SOURCE_SMALLNET,
            name="smallnet-quick",
            about="session 1 in a minute: shapes instead of CIFAR-100, a shorter schedule",
            data="shapes100",
            batch_size=64,  # a tenth of the images: half the batch leaves enough steps
            epochs=10,
            optimizer_args={"lr": 0.02, "momentum": 0.9, "weight_decay": 5e-4},
            schedule_args={"step_epochs": 4, "gamma": 0.2},
        ),
        "full": SOURCE_SMALLNET,
    },
    "resnet": {
        "quick": replace(
            SOURCE_RESNET,
            name="resnet-quick",
            about="session 2 in a minute: shapes instead of CIFAR-10, a quarter of the channels",
            data="shapes10",
            validation=0.1,
            network_args={"widths": (16, 32, 64, 128)},
            batch_size=128,
            epochs=6,
            schedule_args={"lr_min": 3.2e-5, "lr_max": 3.2e-3, "peak_epoch": 2},
            curve_on_test=False,
        ),
        "full": replace(
            SOURCE_RESNET,
            name="resnet-lesson",
            about="the assignment with a tenth held out, so that the test set is looked at once",
            validation=0.1,
            curve_on_test=False,
        ),
    },
}

# What a student may expect of each: how long it takes on two CPU cores, and the accuracy at the end.
EXPECTATIONS = {
    "smallnet-quick": ("about 90 seconds", "55 to 70 % on validation images; a guess is 1 %"),
    "resnet-quick": ("about 40 seconds", "over 95 % on validation images; a guess is 10 %"),
    "smallnet-source": (
        "an estimated half an hour",
        "the source reports 50.5 % on test images; a guess is 1 %",
    ),
    "resnet-lesson": (
        "an estimated 90 minutes",
        "the published run reached 91.7 % on test images; a guess is 10 %",
    ),
}


def get(name: str) -> Recipe:
    """The recipe called `name`; a ValueError that lists all names if there is none."""
    if name not in RECIPES:
        raise ValueError(f"unknown recipe {name!r}: choose one of {', '.join(sorted(RECIPES))}")
    return RECIPES[name]


def profile() -> str:
    """The profile in `COURSE_PROFILE`: "quick" (the default) or "full"."""
    name = os.environ.get("COURSE_PROFILE", "quick")
    if name not in ("quick", "full"):
        raise ValueError(f"unknown profile {name!r} in COURSE_PROFILE: use 'quick' or 'full'")
    return name


def for_lesson(lesson: str) -> Recipe:
    """What `lesson` ("smallnet" or "resnet") trains in the present profile; says so in print."""
    if lesson not in LESSONS:
        raise ValueError(f"unknown lesson {lesson!r}: choose one of {', '.join(LESSONS)}")
    recipe = LESSONS[lesson][profile()]
    duration, accuracy = EXPECTATIONS[recipe.name]
    print(f"profile  {profile()}  (set COURSE_PROFILE to quick or full)")
    print(f"data     {recipe.data}" + ("  (drawn by code: not CIFAR)" if profile() == "quick" else ""))
    print(f"trains   {recipe.epochs} epochs; the notebook takes {duration} on two CPU cores")
    print(f"expect   {accuracy}")
    return recipe


def build_network(recipe: Recipe, n_classes: int) -> nn.Module:
    return getattr(models, recipe.network)(n_classes=n_classes, **recipe.network_args)


def build_loader(
    recipe: Recipe, image_set: ImageSet, stats, train: bool, seed: int, device="cpu"
) -> BatchLoader:
    """The recipe's loader for training (shuffled, augmented) or evaluation, given `data.channel_stats`."""
    mean, std = stats
    scaling = {"mean": mean, "std": std} if recipe.normalise else {}
    if not train:
        return BatchLoader(image_set, 1000, **scaling, device=device)
    augment = Augment(recipe.crop, recipe.flip, recipe.hole, recipe.hole_chance)
    return BatchLoader(
        image_set,
        recipe.batch_size,
        **scaling,
        augment=augment if augment != Augment(0, 0, 0, 0) else None,
        fill=mean,
        shuffle=True,
        seed=seed,
        device=device,
    )


def build_optimizer(recipe: Recipe, model: nn.Module) -> optim.Optimizer:
    trainable = [p for p in model.parameters() if p.requires_grad]
    return getattr(optim, recipe.optimizer)(trainable, **recipe.optimizer_args)


def build_schedule(recipe: Recipe, optimizer: optim.Optimizer, steps_per_epoch: int):
    args = dict(recipe.schedule_args)
    if recipe.schedule != "constant":
        args["steps_per_epoch"] = steps_per_epoch
    if recipe.schedule == "one_cycle":
        args["epochs"] = recipe.epochs
    return getattr(schedules, recipe.schedule)(optimizer, **args)


@dataclass
class Outcome:
    """What a run gives: the trained model, its curves, and its accuracy on the images it was never shown."""

    model: nn.Module
    history: training.History
    test_accuracy: float


def train(recipe: Recipe, seed: int, root: Path | None = None, checkpoint: Path | None = None) -> Outcome:
    """Run `recipe` with `seed` from data to test accuracy; with `checkpoint`, resumable."""
    parallel.start()
    device = devices.pick_device()
    train_set, test_set = data.load(recipe.data, root)
    train_set, validation_set = data.split(train_set, recipe.validation, seed)
    stats = data.channel_stats(train_set)
    train_loader = build_loader(recipe, train_set, stats, True, seed, device)
    test_loader = build_loader(recipe, test_set, stats, False, seed, device)
    validation_loader = (
        build_loader(recipe, validation_set, stats, False, seed, device) if recipe.validation else None
    )
    training.seed_everything(seed)
    model = build_network(recipe, train_set.n_classes).to(device)
    training.seed_everything(seed + 1_000_000 * parallel.rank())  # processes start alike, and drop out apart
    optimizer = build_optimizer(recipe, model)
    history = training.fit(
        parallel.wrap(model),
        train_loader,
        test_loader if recipe.curve_on_test else validation_loader,
        nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing),
        optimizer,
        build_schedule(recipe, optimizer, len(train_loader)),
        epochs=recipe.epochs,
        precision=recipe.precision,
        checkpoint=checkpoint,
        recipe=recipe.plain() | {"seed": seed},
    )
    return Outcome(model, history, training.evaluate(model, test_loader, precision=recipe.precision))
