"""From a recipe and a seed to a trained network: data, loaders, network, optimizer, schedule, and the run itself.

Under `torchrun` several processes share a run, see `processes.py`.
"""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn, optim
from torch.nn.parallel import DistributedDataParallel
from torch.optim import lr_scheduler
from torch.utils.flop_counter import FlopCounterMode

from course_utils import data, models, schedules, training, transforms
from course_utils.data import BatchLoader, ImageSet
from course_utils.lab import files, machine, processes, recipes, records, sprint
from course_utils.lab.checkpoints import Checkpoint
from course_utils.lab.cutmix import CutMix
from course_utils.lessons import Recipe
from course_utils.transforms import Augment

# Settings that do nothing without another.
NEEDS = {"hole": "hole_chance", "hole_chance": "hole", "hole_fill": "hole", "reflect": "crop"}
NEEDS |= {"alternate": "flip", "wrong_mean": "normalise"}


def build_network(recipe: Recipe, n_classes: int) -> nn.Module:
    """The recipe's untrained network. A `TransferNet` may name its `backbone`, a network without its head: "resnet18"
    (torchvision's) or "CustomResNet" with random weights, or else a recipe's with the trained weights that are saved.
    """
    args = dict(recipe.network_args)
    if (name := args.get("backbone")) == "resnet18":
        args["backbone"] = models.resnet18_backbone()
    elif name:
        made = models.CustomResNet() if name == "CustomResNet" else trained_network(recipes.get(name))
        args["backbone"] = models.headless(made)
    if not isinstance(kind := getattr(models, recipe.network, None), type):
        raise ValueError(f"{recipe.name}: `models` has no network {recipe.network!r}")
    with fitting(recipe, "network_args"):
        return kind(n_classes=n_classes, **args)


@contextmanager
def fitting(recipe: Recipe, setting: str) -> Iterator[None]:
    """A context in which arguments that do not fit are a ValueError that names the recipe's setting."""
    try:
        yield
    except TypeError as error:
        raise ValueError(f"{recipe.name}: its {setting} do not fit: {error}") from error


def trained_network(recipe: Recipe, seed: int = 0) -> nn.Module:
    """The recipe's network with the weights that lie beside its record.

    Raises FileNotFoundError if there are none, and ValueError if they are not the recorded ones.
    """
    path = records.weights_of(recipe.name, seed)
    if not path.exists():
        again = f"`python -m course_utils run {recipe.name} --seed {seed}` makes it"
        advice = f"restore it, or delete its record, and {again}"
        if recipe.name not in recipes.KEPT or seed:
            advice = "weights are saved of seed 0 of the recipes in `recipes.KEPT` alone"
        raise FileNotFoundError(f"{path} is not there: {advice}")
    record = path.with_suffix(".json")
    if record.exists() and records.read(record)["weights"] not in (None, records.sha256(path)):
        advice = "restore it, or delete both and run again"
        raise ValueError(f"{path} is not the file that was recorded: {advice}")
    model = build_network(recipe, data.N_CLASSES[recipe.data])
    files.load_weights(model, path)
    return model


def save_half(model: nn.Module, path: Path) -> str:
    """Write the weights as float16, which keeps eleven significant bits of each, and return the file's SHA-256.

    A tensor with a value beyond ±65,504, which float16 cannot hold, stays as it is.
    """
    weights = {name: w.cpu().contiguous() for name, w in model.state_dict().items()}
    halves = {name: w.half() for name, w in weights.items() if w.is_floating_point()}
    sound = {name: w for name, w in halves.items() if w.isfinite().equal(weights[name].isfinite())}
    return files.write_tensors(weights | sound, path)


def build_loader(
    recipe: Recipe, image_set: ImageSet, stats, train: bool, seed: int, device="cpu"
) -> BatchLoader:
    """The recipe's loader for training (shuffled, augmented) or evaluation, given `data.channel_stats`."""
    for setting, other in NEEDS.items():
        if getattr(recipe, setting) and not getattr(recipe, other):
            raise ValueError(f"{recipe.name}: `{setting}` does nothing without `{other}`")
    for phase in ("small_epochs", "cutmix_epochs"):
        if recipe.epochs and getattr(recipe, phase) > recipe.epochs:
            raise ValueError(
                f"{recipe.name}: `{phase}` is more than its {recipe.epochs} epochs: shorten it, too"
            )
    mean, std = stats
    mean = std if recipe.wrong_mean else mean
    scaling = {"mean": mean, "std": std} if recipe.normalise else {}
    if not train:
        return BatchLoader(image_set, 1000, **scaling, device=device)
    chances = recipe.crop, recipe.flip, recipe.hole, recipe.hole_chance, recipe.jitter
    return RunLoader(
        recipe,
        image_set,
        recipe.batch_size,
        **scaling,
        augment=Augment(*chances, recipe.alternate, recipe.reflect) if any(chances) else None,
        fill=mean,
        # The colour whose normalised value is `hole_fill`, as near as whole numbers from 0 to 255 come to it.
        hole_fill=np.clip(recipe.hole_fill * std + mean, 0, 1) if recipe.hole_fill else None,
        shuffle=True,
        seed=seed,
        device=device,
    )


def build_optimizer(recipe: Recipe, model: nn.Module) -> optim.Optimizer:
    """The recipe's optimizer over the weights that are trained; `fused` makes its step one pass over each.

    Not in float16: where the first step is skipped, as its gradients overflow, fused momentum begins with garbage.
    Raises ValueError for a name that is none.
    """
    if recipe.optimizer == "Muon":
        build = sprint.build_optimizer if isinstance(model, models.Sprint) else sprint.hidden_by_muon
        with fitting(recipe, "optimizer_args"):
            return build(model, **recipe.optimizer_args)
    kind = getattr(optim, recipe.optimizer, None)
    if not isinstance(kind, type):
        found = f"torch.optim has no {recipe.optimizer!r}; names are like 'SGD' and 'Adam'"
        raise ValueError(f"{recipe.name}: {found}")
    trainable = [p for p in model.parameters() if p.requires_grad]
    scaled = training.grad_scaler(model, recipe.precision).is_enabled()
    fused = {"fused": True} if "fused" in inspect.signature(kind).parameters and not scaled else {}
    with fitting(recipe, "optimizer_args"):
        return kind(trainable, **recipe.optimizer_args, **fused)


def build_schedule(
    recipe: Recipe, optimizer: optim.Optimizer, steps_per_epoch: int
) -> lr_scheduler.LRScheduler | None:
    """The recipe's schedule; None for a constant rate.

    Raises ValueError for a name that is none and for a rate without effect.
    """
    run, args = (optimizer, recipe.epochs, steps_per_epoch), recipe.schedule_args
    schedule = {
        "constant": lambda **unused: None,
        "step_decay": lambda step_epochs, gamma: lr_scheduler.StepLR(optimizer, step_epochs, gamma),
        "one_cycle": partial(schedules.one_cycle, *run),
        "falling": partial(sprint.falling, *run),
    }
    if recipe.schedule not in schedule:
        known = "constant, step_decay, one_cycle or falling"
        raise ValueError(f"{recipe.name}: expected {known}, found {recipe.schedule!r}")
    top = args.get("lr_max")
    if recipe.schedule == "one_cycle" and top and (lr := recipe.optimizer_args.get("lr", top)) != top:
        raise ValueError(f"{recipe.name}: the cycle goes up to {top}, so lr={lr} changes nothing: set lr_max")
    if recipe.schedule == "constant" and "lr" in args:
        raise ValueError(f"{recipe.name}: the schedule is constant, so its rate belongs in optimizer_args")
    with fitting(recipe, "schedule_args"):
        return schedule[recipe.schedule](**args)


@dataclass
class Loaders:
    """A recipe's data, ready to train on; `validation` is None where nothing is held out."""

    train: "RunLoader"
    validation: BatchLoader | None
    test: BatchLoader
    n_classes: int


def prepare(recipe: Recipe, seed: int, root: Path | None = None) -> Loaders:
    """Load, split and normalise the recipe's data; the statistics are those of the training images alone."""
    records.path_of(recipe.name, seed)  # refuses a seed that is none
    device = training.pick_device()
    train, test = data.load(recipe.data, root)
    train, validation = data.split(train, recipe.validation, seed)
    build = partial(build_loader, recipe, stats=data.channel_stats(train), seed=seed, device=device)
    return Loaders(
        build(train, train=True),
        build(validation, train=False) if len(validation) else None,
        build(test, train=False),
        train.n_classes,
    )


@dataclass
class Outcome:
    """What a run gives: the trained model, its curves, and its accuracy on the images it was never shown.

    `six_views` is the accuracy with six views of each image, where the recipe asks for it.
    """

    model: nn.Module
    history: training.History
    test_accuracy: float
    six_views: float | None = None


def train(
    recipe: Recipe, seed: int, root: Path | None = None, checkpoint: "RunCheckpoint | None" = None
) -> Outcome:
    """Run `recipe` with `seed` from data to test accuracy; with a `checkpoint`, resumable."""
    machine.keep_freed_memory()
    loaders = prepare(recipe, seed, root)
    model = new_network(recipe, seed, loaders)
    hooks = [processes.AverageHistory(), *([checkpoint] if checkpoint else [])]
    # Several processes expect gradients of the same weights in every step: there a zero rate alone stops the bias.
    if getattr(model, "whitened", False) and processes.world() == 1:
        hooks.append(sprint.FreezeFirstLayer())
    training.seed_everything(processes.own_seed(seed))  # same initial weights, different dropout
    optimizer = build_optimizer(recipe, model)
    with exact(recipe.precision == "float32"):
        history = training.fit(
            DistributedDataParallel(model) if processes.world() > 1 else model,
            loaders.train,
            loaders.test if recipe.curve_on_test else loaders.validation,
            loaders.train.cutmix,  # the loader pastes, and tells its loss what
            optimizer,
            build_schedule(recipe, optimizer, len(loaders.train)),
            epochs=recipe.epochs,
            precision=recipe.precision,
            hooks=hooks,
            verbose=processes.rank() == 0,
        )
    six = test_accuracy(model, loaders, six_views=True) if recipe.six_views else None
    return Outcome(model, history, test_accuracy(model, loaders), six)


def new_network(recipe: Recipe, seed: int, loaders: Loaders) -> nn.Module:
    """The recipe's network before its first step, on the data's device; a first layer that whitens has been set."""
    training.seed_everything(seed)
    loader = loaders.train
    model = build_network(recipe, loaders.n_classes).to(loader.device)
    if getattr(model, "whitened", False):
        first = torch.from_numpy(loader.image_set.images[:5000]).to(loader.device)
        model.whiten(transforms.normalise(first, loader.mean, loader.std))
    return model


def test_accuracy(model: nn.Module, loaders: Loaders, six_views: bool = False) -> float:
    """In float32 whatever a run was trained in: any machine measures the same to within a few images.

    With bfloat16's two to three digits, about a dozen of 10,000 images can go either way.
    """
    with exact():
        return training.evaluate(model, loaders.test, precision="float32", six_views=six_views)


@contextmanager
def exact(wanted: bool = True) -> Iterator[None]:
    """A context in which a graphics card's convolutions compute in float32; else they round to TF32's three digits."""
    convolutions = torch.backends.cudnn.conv
    before = convolutions.fp32_precision
    convolutions.fp32_precision = "ieee" if wanted else before
    try:
        yield
    finally:
        convolutions.fp32_precision = before


def range_test(recipe: Recipe, seed: int, root: Path | None = None) -> schedules.RangeTest:
    """The learning-rate range test of a recipe whose schedule is "range_test".

    Raises ValueError in several processes, each of which would see its part of a batch alone.
    """
    if processes.world() > 1:
        raise ValueError(f"{recipe.name}: a range test is for one process, start it without torchrun")
    loaders = prepare(recipe, seed, root)
    model = new_network(recipe, seed, loaders)
    settings = {**recipe.schedule_args, "precision": recipe.precision}
    optimizer, loader = build_optimizer(recipe, model), loaders.train
    with exact(recipe.precision == "float32"):
        return schedules.lr_range_test(model, loader, loader.cutmix, optimizer, **settings)


def training_flops(recipe: Recipe) -> int:
    """Floating-point operations of a run's training: forward and backward over every image of every epoch.

    Torch counts those of convolutions and matrix products, on a batch of two; a multiplication and an addition are two.
    Augmentation, the optimizer's steps and what is validated and tested are left out. A range test counts all steps.
    """
    if recipe.network == "TransferNet":  # with a random backbone, unless it names another
        recipe = replace(recipe, network_args={"backbone": "resnet18"} | recipe.network_args)
    model = build_network(recipe, data.N_CLASSES[recipe.data])
    images = 50_000 if recipe.data.startswith("cifar") else 5_000
    shown = images - round(recipe.validation * images)
    if recipe.schedule == "range_test":
        return recipe.schedule_args.get("steps", 100) * recipe.batch_size * step_flops(model)
    whitened = getattr(model, "whitened", False)
    epochs = [
        (recipe.small_size if epoch < recipe.small_epochs else 32, whitened and epoch >= sprint.BIAS_EPOCHS)
        for epoch in range(recipe.epochs)
    ]
    each = {kind: step_flops(model, *kind) for kind in set(epochs)}
    return shown * sum(each[kind] for kind in epochs)


def step_flops(model: nn.Module, size: int = 32, frozen: bool = False) -> int:
    """Operations of a training step for each image of `size` × `size` pixels; `frozen`: none for the first layer."""
    if getattr(model, "whitened", False):
        model.patches.requires_grad_(False)
        model.patches.bias.requires_grad_(not frozen)
    with FlopCounterMode(display=False) as counter:
        model.train()(torch.zeros(2, 3, size, size)).sum().backward()
    return counter.get_total_flops() // 2


class RunLoader(BatchLoader):
    """Of each batch this process's part; all parts are equal, and the few images that do not divide are left out.

    In the recipe's first `small_epochs` images are shrunk; in its first `cutmix_epochs` its loss, `cutmix`, pastes.

    Raises ValueError where a batch has fewer than two images for each process: BatchNorm cannot train on one.
    """

    def __init__(self, recipe: Recipe, *args, hole_fill=None, **options):
        super().__init__(*args, **options)
        if hole_fill is not None:  # the border has its colour by now
            self.fill = torch.tensor(transforms.mean_colour(hole_fill), dtype=torch.uint8, device=self.device)
        self.recipe, self.cutmix = recipe, CutMix(label_smoothing=recipe.label_smoothing)
        if processes.world() > 1 and min(self.sizes()) < 2 * processes.world():
            found = f"a batch of {min(self.sizes())} for {processes.world()} processes"
            raise ValueError(f"expected two images or more of each batch for each process, found {found}")

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        small, mixed = self.epoch < self.recipe.small_epochs, self.epoch < self.recipe.cutmix_epochs
        rng = np.random.default_rng((self.seed, self.epoch, processes.rank(), 1))  # not the one of the crops
        for images, labels in super().__iter__():
            images = sprint.shrink(images, self.recipe.small_size) if small else images
            each = len(labels) // processes.world()
            part = slice(processes.rank() * each, (processes.rank() + 1) * each)
            images, labels = images[part], labels[part]
            if mixed:
                self.cutmix.paste(images, labels, rng)
            yield images, labels
        self.cutmix.clear()


class RunCheckpoint(Checkpoint):
    """The checkpoint of a recorded run, with the machines that had a part in it: the last of `machines` is this one.

    Of several processes the first writes, and all read. A run resumed in one process on a CPU gives the same bits as
    one that was never cut off. In several that is not promised: all but the first get new random numbers for dropout.
    """

    def __init__(self, path: Path, recipe: Recipe, seed: int, here: dict[str, Any]):
        made_by = {"about": "", "seed": seed, "backbone": records.backbone_weights(recipe)}
        super().__init__(path, recipe.plain() | made_by)  # its description may be reworded
        self.seed, self.machines = seed, [here]

    def start(self, run: training.Run) -> None:
        for process in range(processes.world()):  # one after another: a damaged file is set aside once
            if process == processes.rank():
                super().start(run)
            processes.of_first(None)
        if processes.rank():
            training.seed_everything(processes.own_seed(self.seed) + len(run.history))

    def restore(self, run: training.Run, state: dict[str, Any], name: str) -> None:
        if made := state.get("about", {}).get("recipe"):  # with the defaults of settings that are younger
            state["about"]["recipe"] = Recipe("", "").plain() | made
        super().restore(run, state, name)
        self.machines = [one for one in state["machines"] if one not in self.machines] + self.machines

    def after_epoch(self, run: training.Run) -> None:
        if processes.rank() == 0:
            super().after_epoch(run)

    def state(self, run: training.Run) -> dict[str, Any]:
        return super().state(run) | {"machines": self.machines}
