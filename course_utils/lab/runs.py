"""From a recipe and a seed to a trained network: data, loaders, network, optimizer, schedule, and the run itself."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn, optim

from course_utils import data, models, schedules, training
from course_utils.lab import checkpoints, parallel, recipes, records
from course_utils.data import ImageSet
from course_utils.data import BatchLoader
from course_utils.lessons import Recipe
from course_utils.training import History
from course_utils.transforms import Augment


def build_network(recipe: Recipe, n_classes: int) -> nn.Module:
    """The recipe's untrained network; over a `backbone`, named in its arguments, if it is a `TransferNet`."""
    args = dict(recipe.network_args)
    if "backbone" in args:
        args["backbone"] = build_backbone(args["backbone"])
    return getattr(models, recipe.network)(n_classes=n_classes, **args)


def build_backbone(name: str) -> nn.Module:
    """A network without its head: "resnet18" (torchvision's) or "CustomResNet" with random weights, or else a recipe's
    with the trained weights that are kept.
    """
    if name == "resnet18":
        return models.resnet18_backbone()
    if name == "CustomResNet":
        return models.headless(models.CustomResNet())
    return models.headless(trained_network(recipes.get(name)))


def trained_network(recipe: Recipe, seed: int = 0) -> nn.Module:
    """The recipe's network with the weights that are kept beside its record; FileNotFoundError if none are."""
    path = records.weights_of(recipe.name, seed)
    if not path.exists():
        raise FileNotFoundError(
            f"{path} is not there: `python -m course_utils run {recipe.name} --seed {seed}` makes it"
        )
    model = build_network(recipe, data.N_CLASSES[recipe.data])
    models.load_weights(model, path)
    return model


def build_loader(
    recipe: Recipe, image_set: ImageSet, stats, train: bool, seed: int, device="cpu"
) -> BatchLoader:
    """The recipe's loader for training (shuffled, augmented) or evaluation, given `data.channel_stats`."""
    mean, std = stats
    scaling = {"mean": mean, "std": std} if recipe.normalise else {}
    if not train:
        return BatchLoader(image_set, 1000, **scaling, device=device)
    augment = Augment(recipe.crop, recipe.flip, recipe.hole, recipe.hole_chance, recipe.jitter)
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
    """The recipe's optimizer over the weights that are trained; `fused` makes its step one pass over each."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    return getattr(optim, recipe.optimizer)(trainable, **recipe.optimizer_args, fused=True)


def build_schedule(recipe: Recipe, optimizer: optim.Optimizer, steps_per_epoch: int):
    args = dict(recipe.schedule_args)
    if recipe.schedule != "constant":
        args["steps_per_epoch"] = steps_per_epoch
    if recipe.schedule == "one_cycle":
        args["epochs"] = recipe.epochs
    return getattr(schedules, recipe.schedule)(optimizer, **args)


@dataclass
class Loaders:
    """A recipe's data, ready to train on; `validation` is None where nothing is held out."""

    train: BatchLoader
    validation: BatchLoader | None
    test: BatchLoader
    n_classes: int


def prepare(recipe: Recipe, seed: int, root: Path | None = None) -> Loaders:
    """Load, split and normalise the recipe's data; the statistics are those of the training images alone."""
    device = training.pick_device()
    train, test = data.load(recipe.data, root)
    train, validation = data.split(train, recipe.validation, seed)
    stats = data.channel_stats(train)
    return Loaders(
        build_loader(recipe, train, stats, True, seed, device),
        build_loader(recipe, validation, stats, False, seed, device) if len(validation) else None,
        build_loader(recipe, test, stats, False, seed, device),
        train.n_classes,
    )


@dataclass
class Outcome:
    """What a run gives: the trained model, its curves, and its accuracy on the images it was never shown."""

    model: nn.Module
    history: History
    test_accuracy: float


def train(recipe: Recipe, seed: int, root: Path | None = None, checkpoint: Path | None = None) -> Outcome:
    """Run `recipe` with `seed` from data to test accuracy; with `checkpoint`, resumable."""
    loaders = prepare(recipe, seed, root)
    training.seed_everything(seed)
    model = build_network(recipe, loaders.n_classes).to(
        training.pick_device(), memory_format=torch.channels_last
    )
    training.seed_everything(seed + 1_000_000 * parallel.rank())  # processes start alike, and drop out apart
    optimizer = build_optimizer(recipe, model)
    history = training.fit(
        parallel.wrap(model),
        loaders.train,
        loaders.test if recipe.curve_on_test else loaders.validation,
        nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing),
        optimizer,
        build_schedule(recipe, optimizer, len(loaders.train)),
        epochs=recipe.epochs,
        precision=recipe.precision,
        checkpoint=checkpoint,
        recipe={key: value for key, value in recipe.plain().items() if key != "about"} | {"seed": seed},
    )
    return Outcome(model, history, test_accuracy(model, loaders))


def test_accuracy(model: nn.Module, loaders: Loaders) -> float:
    """In float32 whatever a run was trained in: it can be measured again to a few images on any machine.

    Of 10,000 images, bfloat16's three digits decide about a dozen one way or the other.
    """
    return training.evaluate(model, loaders.test, precision="float32")


def range_test(recipe: Recipe, seed: int, root: Path | None = None) -> schedules.RangeTest:
    """The learning-rate range test of a recipe whose schedule is "range_test"."""
    loaders = prepare(recipe, seed, root)
    training.seed_everything(seed)
    model = build_network(recipe, loaders.n_classes).to(training.pick_device())
    loss_fn = nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)
    optimizer = build_optimizer(recipe, model)
    return schedules.lr_range_test(
        model, loaders.train, loss_fn, optimizer, **recipe.schedule_args, precision=recipe.precision
    )
