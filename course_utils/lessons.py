"""What each lesson trains: every setting of a run by name, in a quick profile and in a full one.

Read it beside a lesson. The quick profile is the full one made cheap: drawn shapes, fewer epochs, a narrower ResNet.
"""

import json
import os
from dataclasses import asdict, dataclass, field, replace
from typing import Any


@dataclass(frozen=True)
class Recipe:
    """Everything that decides how a network is trained, apart from the seed."""

    name: str
    about: str
    data: str = "cifar100"
    validation: float = 0.1  # share of the training images held out; with 0 the curves have no validation
    network: str = "SmallNet"
    network_args: dict[str, Any] = field(default_factory=dict)
    normalise: bool = False
    crop: int = 0  # pixels of padding before the random crop; zero is off, here as in the next four
    flip: float = 0.0  # probability
    hole: int = 0  # side of the cutout in pixels
    hole_chance: float = 0.0
    jitter: float = 0.0  # how far brightness, contrast and saturation go from 1
    batch_size: int = 128
    epochs: int = 25
    optimizer: str = "SGD"
    optimizer_args: dict[str, Any] = field(default_factory=dict)
    schedule: str = "constant"
    schedule_args: dict[str, Any] = field(default_factory=dict)
    label_smoothing: float = 0.0
    precision: str = "auto"
    curve_on_test: bool = False  # as the source of Session 2 drew its curves; nothing may be chosen by them
    wrong_mean: bool = False  # as that source normalised: with the standard deviations in place of the means
    hole_fill: tuple[float, float, float] | None = None  # after normalising; None: the mean colour
    alternate: bool = False  # mirror each image in every second epoch instead of by chance
    reflect: bool = False  # the crop's border is the image's own, mirrored
    small_epochs: int = 0  # at first on images of `small_size` × `small_size` pixels
    small_size: int = 24
    cutmix_epochs: int = 0  # at first with a piece of another image pasted over each, in half of the batches
    six_views: bool = False  # whether the test accuracy is measured in six views as well

    def plain(self) -> dict[str, Any]:
        """The recipe as JSON would give it back: lists for tuples, and nothing but plain values."""
        return json.loads(json.dumps(asdict(self)))


SMALLNET = Recipe(
    name="smallnet-source",
    about="the source project's settings, up to where its schedule goes flat",
    optimizer_args={"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4},
    schedule="step_decay",
    schedule_args={"step_epochs": 5, "gamma": 0.2},
)
SMALLNET_QUICK = replace(
    SMALLNET,
    name="smallnet-quick",
    about="session 1 in a minute: shapes instead of CIFAR-100, a shorter schedule",
    data="shapes100",
    batch_size=64,  # a tenth of the images: half the batch leaves enough steps
    epochs=5,
    optimizer_args={"lr": 0.015, "momentum": 0.9, "weight_decay": 5e-4},
    schedule_args={"step_epochs": 4, "gamma": 0.2},
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
RESNET_LESSON = replace(
    RESNET,
    name="resnet-lesson",
    about="the assignment with a tenth held out, so that the test set is looked at once",
    validation=0.1,
    curve_on_test=False,
)
RESNET_QUICK = replace(
    RESNET_LESSON,
    name="resnet-quick",
    about="session 2 in a minute: shapes instead of CIFAR-10, a quarter of the channels",
    data="shapes10",
    network_args={"widths": (16, 32, 64, 128)},
    batch_size=128,
    epochs=4,
    schedule_args={"lr_min": 3.2e-5, "lr_max": 3.2e-3, "peak_epoch": 1},
)
LESSONS = {
    "smallnet": {"quick": SMALLNET_QUICK, "full": SMALLNET},
    "resnet": {"quick": RESNET_QUICK, "full": RESNET_LESSON},
}

# What a student may expect of each: how long it takes on two CPU cores, and the accuracy at the end.
EXPECTATIONS = {
    "smallnet-quick": ("about a minute", "45 to 60 % on validation images; a guess is 1 %"),
    "resnet-quick": ("about a minute", "over 95 % on validation images; a guess is 10 %"),
    "smallnet-source": ("15 minutes", "about 51 % on test images (published: 50.5 %); a guess is 1 %"),
    "resnet-lesson": ("about two hours", "about 89 % on test images (published: 91.7 %); a guess is 10 %"),
}


def profile() -> str:
    """The profile in `COURSE_PROFILE`: "quick" (the default) or "full"."""
    name = os.environ.get("COURSE_PROFILE", "quick")
    if name not in ("quick", "full"):
        raise ValueError(f"unknown profile {name!r} in COURSE_PROFILE: use 'quick' or 'full'")
    return name


def for_lesson(lesson: str) -> Recipe:
    """What `lesson` ("smallnet" or "resnet") trains in the current profile; prints a summary."""
    recipe = Recipe(**asdict(LESSONS[lesson][profile()]))  # a copy: a cell may change its dictionaries
    duration, accuracy = EXPECTATIONS[recipe.name]
    cores = "two CPU cores" + (" that compute in bfloat16" if profile() == "full" else "")
    print(f"profile  {profile()}  (set COURSE_PROFILE to quick or full)")
    print(f"data     {recipe.data}" + ("  (drawn by code: not CIFAR)" if profile() == "quick" else ""))
    print(f"trains   {recipe.epochs} epochs; the notebook takes {duration} on {cores}")
    print(f"expect   {accuracy}")
    return recipe
