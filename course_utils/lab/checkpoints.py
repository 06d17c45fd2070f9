"""Checkpoints: a hook for `fit` that writes all that a run's future depends on after every epoch, and resumes."""

import os
import re
import shutil
import zlib
from dataclasses import asdict
from operator import length_hint
from pathlib import Path
from typing import Any

import torch
from torch import nn

from course_utils import training
from course_utils.data import BatchLoader
from course_utils.datasets import cifar
from course_utils.exercises import first_batch
from course_utils.exercises.first_batch import image_set_of, unwrap
from course_utils.lab import files

# What changes in a scheduler as it goes on; the rest of its state are its settings.
PROGRESS = {"last_epoch", "_step_count", "_last_lr", "_is_initial", "_get_lr_called_within_step"}
PROGRESS |= {"T_cur", "T_i", "best", "num_bad_epochs", "cooldown_counter"}


class Checkpoint:
    """`fit(…, hooks=[Checkpoint("run.pt")])` goes on from the file if there is one, and otherwise starts anew.

    With a `BatchLoader` and in one process on a CPU, a run that was cut off gives the same bits as one that was not.
    That is not promised on a graphics card, nor for a `DataLoader` with a generator of its own or persistent workers.

    The file is written whole or not at all, and the one before stays as `<name>.previous`. A file with a wrong checksum
    is set aside as `<name>.damaged`, and the previous one is used. Raises ValueError where the path cannot be written,
    `recipe` or a setting could not be read back, and where the file belongs to another run: with another recipe, model,
    loss, optimizer, schedule or precision, other trainable weights, other data or another class of loader, and where it
    has more epochs than this run. Of a `DataLoader` it knows batches and, over a `PerImageDataset`, images and labels;
    not its transforms and seed. Of a function, such as a `LambdaLR`'s, it does not know what is inside.
    """

    def __init__(self, path: Path | str, recipe: dict[str, Any] | None = None):
        self.path, self.recipe = Path(path).expanduser(), recipe
        self.previous = self.path.with_name(self.path.name + ".previous")

    def start(self, run: training.Run) -> None:
        self.about = describe(run) | {"recipe": self.recipe}
        self.about = files.plain(self.state(run), "the checkpoint")["about"]
        if found := difference(self.about, self.about):
            why = "it equals nothing, so no run could be resumed"
            raise ValueError(f"expected a number for {found[0]}, found NaN: {why}")
        files.try_to_write(self.path, "the checkpoint")
        name = self.path.name
        while self.path.exists():
            try:
                return self.restore(run, files.read_tensors(self.path), name)
            except files.Damaged:
                print(f"{name} is damaged: set aside as {set_aside(self.path).name}", flush=True)
            if self.previous.exists():
                name = self.previous.name
                os.replace(self.previous, self.path)
            else:
                self.path.unlink()

    def restore(self, run: training.Run, state: dict[str, Any], name: str) -> None:
        advice = "Delete the file to start anew, or give another path"
        if missing := self.state(run).keys() - state.keys() - {"loss"}:  # which not every run has
            absent = ", ".join(sorted(missing))
            raise ValueError(f"{self.path} is no checkpoint: it has no {absent}. {advice}")
        ours = {key: value for key, value in self.about.items() if key in state["about"]}  # of an older file
        if found := difference(ours, state["about"]):
            differs = "expected {} {!r}, found {!r}".format(*found)
            raise ValueError(f"the checkpoint {self.path} belongs to another run: {differs}. {advice}")
        if (made := len(state["history"]["seconds"])) > run.epochs:
            planned = f"this run is to have {run.epochs}"
            raise ValueError(f"{self.path} is after {made} epochs, {planned}. {advice}")
        files.load_state(unwrap(run.model), state["model"], self.path)
        first_batch.note(run.model, run.loader, anew=True)
        run.optimizer.load_state_dict(state["optimizer"])
        if run.scheduler:
            run.scheduler.load_state_dict(state["scheduler"])
        run.scaler.load_state_dict(state["scaler"])
        vars(run.history).update(state["history"])
        if state["loader_epoch"] is not None:  # a list of batches has no epochs of its own
            run.loader.epoch = state["loader_epoch"]
        if "loss" in state:
            run.loss_fn.load_state_dict(state["loss"])
        restore_random_state(state["random"])
        if made == run.epochs:
            print(f"{name} has all {made} epochs: nothing is left to train. {advice}", flush=True)
        else:
            print(f"continuing after epoch {made} from {name}", flush=True)

    def after_epoch(self, run: training.Run) -> None:
        if self.path.exists():  # copied: there is no moment without a file at `path`
            copy = shutil.copyfile(self.path, self.path.with_name(self.path.name + ".copy"))
            os.replace(copy, self.previous)
        else:
            self.previous.unlink(missing_ok=True)  # of another run: this one has started anew
        files.write_tensors(self.state(run), self.path)

    def state(self, run: training.Run) -> dict[str, Any]:
        of_loss = run.loss_fn.state_dict() if isinstance(run.loss_fn, nn.Module) else {}
        return ({"loss": of_loss} if of_loss else {}) | {
            "about": self.about,
            "history": vars(run.history),
            "model": unwrap(run.model).state_dict(),
            "optimizer": run.optimizer.state_dict(),
            "scheduler": run.scheduler.state_dict() if run.scheduler else None,
            "scaler": run.scaler.state_dict(),
            "loader_epoch": getattr(run.loader, "epoch", None),
            "random": random_state(),
        }


def describe(run: training.Run) -> dict[str, Any]:
    """What must be the same when a run goes on: the settings of each of its parts, without its progress."""
    device = next(run.model.parameters()).device
    groups = [one | {"lr": float(one.get("initial_lr", one["lr"]))} for one in run.optimizer.param_groups]
    changing = {"params", "initial_lr"}
    if getattr(run.scheduler, "cycle_momentum", False):
        changing |= {"momentum", "betas"}
    optimizer = [{k: v for k, v in group.items() if k not in changing} for group in groups]
    return {
        "data": batches_of(run.loader),
        "precision": str(training.pick_precision(device, run.precision)),
        "model": settings(unwrap(run.model)),
        "loss": settings(run.loss_fn),
        "loss weights": fixed(run.loss_fn) if isinstance(run.loss_fn, nn.Module) else None,
        "optimizer": {"type": type(run.optimizer).__name__, "groups": optimizer},
        "schedule": run.scheduler
        and {"type": type(run.scheduler).__name__, **schedule(run.scheduler.state_dict())},
        "trained": {name: weight.requires_grad for name, weight in unwrap(run.model).named_parameters()},
        "loader": type(run.loader).__qualname__,  # which may change images in its own way
    }


def batches_of(loader: Any) -> dict[str, Any]:
    """The settings of a loader, and a checksum of its images and labels, as far as it shows them."""
    if not isinstance(loader, BatchLoader):
        found = {"batches": length_hint(loader), "batch_size": getattr(loader, "batch_size", None)}
        if images := image_set_of(loader):
            found["contents"] = cifar.fingerprint(images.images, images.labels)
        return found
    images = loader.image_set
    contents = zlib.crc32(images.labels.tobytes(), zlib.crc32(images.images.tobytes()))
    plain = {name: getattr(loader, name) for name in ("batch_size", "shuffle", "seed")}
    colours = {name: getattr(loader, name).tolist() for name in ("mean", "std", "fill")}
    augment = loader.augment and asdict(loader.augment)
    return {"images": len(images), "contents": contents, "augment": augment} | plain | colours


def settings(part: Any) -> Any:
    """The layers of a module with their types and plain attributes; of a function, what it is called."""
    if not isinstance(part, nn.Module):
        return re.sub(" at 0x[0-9a-f]+", "", repr(part), flags=re.IGNORECASE)
    found = {}
    for name, layer in part.named_modules():
        public = {key: value for key, value in vars(layer).items() if key[0] != "_" and key != "training"}
        simple = {key: value for key, value in public.items() if isinstance(value, (int, float, str))}
        sizes = {key: str(value) for key, value in public.items() if isinstance(value, tuple)}
        found[name] = {"type": type(layer).__name__, **simple, **sizes}
    return found


def fixed(loss_fn: nn.Module) -> dict[str, torch.Tensor]:
    """What a loss begins with and does not learn, such as the weights of classes; copied, as it may move."""
    frozen = {name: weight for name, weight in loss_fn.named_parameters() if not weight.requires_grad}
    return {name: value.detach().clone() for name, value in (dict(loss_fn.named_buffers()) | frozen).items()}


def schedule(state: dict[str, Any]) -> dict[str, Any]:
    """A scheduler's state without its progress, nor that of the schedulers inside it."""
    kept = {key: value for key, value in state.items() if key not in PROGRESS}
    return kept | {"_schedulers": [schedule(scheduler) for scheduler in state.get("_schedulers", [])]}


def difference(ours: Any, theirs: Any, where: str = "") -> tuple[str, Any, Any] | None:
    """The first place in which two plain values differ, and what is there."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        pairs = [(f"{where} {key}", ours.get(key), theirs.get(key)) for key in ours | theirs]
    elif isinstance(ours, (list, tuple)) and type(ours) is type(theirs) and len(ours) == len(theirs):
        pairs = [(where, *pair) for pair in zip(ours, theirs, strict=True)]
    elif isinstance(ours, torch.Tensor) and isinstance(theirs, torch.Tensor):
        return difference(ours.tolist(), theirs.tolist(), where)
    else:
        return None if ours == theirs else (where.strip(), ours, theirs)
    return next((found for place, a, b in pairs if (found := difference(a, b, place))), None)


def set_aside(path: Path) -> Path:
    """Copy a damaged file to the first free name of `<name>.damaged`, `<name>.damaged2` and so on."""
    names = (path.with_name(f"{path.name}.damaged{n if n > 1 else ''}") for n in range(1, 1000))
    return shutil.copyfile(path, next(name for name in names if not name.exists()))


def random_state() -> dict[str, Any]:
    """Torch's random numbers, on the CPU and on every accelerator."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    mps = torch.mps.get_rng_state() if torch.mps.is_available() else None
    return {"torch": torch.get_rng_state(), "cuda": cuda, "mps": mps}


def restore_random_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    if torch.mps.is_available() and state["mps"] is not None:
        torch.mps.set_rng_state(state["mps"])
