"""What each lesson trains: its settings in the quick profile and in the full one."""

import json
import os
from dataclasses import asdict, dataclass, field, replace
from typing import Any


@dataclass(frozen=True)
class Recipe:
    """Everything that decides how a network is trained, but for the seed.

    `validation` is the share of the training images held out; with 0 nothing is, and the curves have
    no validation. `crop` is the padding in pixels before the random crop, `flip` and `hole_chance`
    are probabilities, `hole` is a side in pixels, `jitter` how far brightness, contrast and saturation
    go from 1; zero switches each off. `curve_on_test` draws the
    curves on the test set, as the source of Session 2 did; nothing may be chosen by them. Two of that source's slips
    can be had for comparison: `wrong_mean` normalises with the standard deviations in place of the means, and
    `hole_fill` gives the hole this value (of each channel, after normalising) in place of the mean colour.
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
    jitter: float = 0.0
    batch_size: int = 128
    epochs: int = 25
    optimizer: str = "SGD"
    optimizer_args: dict[str, Any] = field(default_factory=dict)
    schedule: str = "constant"
    schedule_args: dict[str, Any] = field(default_factory=dict)
    label_smoothing: float = 0.0
    precision: str = "auto"
    curve_on_test: bool = False
    wrong_mean: bool = False
    hole_fill: tuple[float, float, float] | None = None

    def plain(self) -> dict[str, Any]:
        """The recipe as JSON would give it back: lists for tuples, and nothing but plain values."""
        return json.loads(json.dumps(asdict(self)))


SMALLNET = Recipe(
    name="smallnet-source",
    about="the source project's settings, up to where its schedule goes flat",
    optimizer_args={"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4},
    schedule="step_decay",
    schedule_args={"step_epochs": 5, "gamma": 0.2},
    epochs=25,
)

RESNET = Recipe(
    name="resnet-assignment",
    about="R1: the 24-epoch assignment as logged, its test curve included",
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

# What each lesson trains. The quick profile keeps the recipe's form and shrinks its cost: shapes drawn
# by code for CIFAR, fewer epochs, and for the ResNet a quarter of the channels.
LESSONS = {
    "smallnet": {
        "quick": replace(
            SMALLNET,
            name="smallnet-quick",
            about="session 1 in a minute: shapes instead of CIFAR-100, a shorter schedule",
            data="shapes100",
            batch_size=64,  # a tenth of the images: half the batch leaves enough steps
            epochs=5,
            optimizer_args={"lr": 0.015, "momentum": 0.9, "weight_decay": 5e-4},
            schedule_args={"step_epochs": 4, "gamma": 0.2},
        ),
        "full": SMALLNET,
    },
    "resnet": {
        "quick": replace(
            RESNET,
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
            RESNET,
            name="resnet-lesson",
            about="the assignment with a tenth held out, so that the test set is looked at once",
            validation=0.1,
            curve_on_test=False,
        ),
    },
}

# What a student may expect of each: how long it takes on two CPU cores, and the accuracy at the end.
EXPECTATIONS = {
    "smallnet-quick": ("about a minute", "45 to 60 % on validation images; a guess is 1 %"),
    "resnet-quick": ("about 40 seconds", "over 95 % on validation images; a guess is 10 %"),
    "smallnet-source": (
        "half an hour",
        "about 51 % on test images, as the source's 50.5 %; a guess is 1 %",
    ),
    "resnet-lesson": (
        "about an hour",
        "about 89 % on test images, where the published run has 91.7 %; a guess is 10 %",
    ),
}


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
