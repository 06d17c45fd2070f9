"""Checkpoints: a hook for `fit` that writes all that a run's future depends on after every epoch, and goes on from it."""

import os
import re
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from course_utils import models, training

PROGRESS = (
    "last_epoch",
    "best",
    "num_bad_epochs",
    "cooldown_counter",
)  # a scheduler's counters; the rest are settings


class Checkpoint:
    """`fit(…, hooks=[Checkpoint("run.pt")])` goes on from the file where there is one, and else starts anew.

    With a `BatchLoader` and in one process, a run that was cut off and resumed gives the same bits as one that was not. A
    `DataLoader` that shuffles goes on with other orders if it has a generator of its own or persistent workers.

    The file is written whole or not at all, and the one before stays as `<name>.previous`. Where the checksum of the file
    is wrong, it is set aside as `<name>.damaged` and the previous one is used. Raises ValueError where the path cannot be
    written, where `recipe` or a setting could not be read back, and where the file belongs to another run: with another
    recipe, model, loss, optimizer, schedule, precision or other data.
    """

    def __init__(self, path: Path | str, recipe: dict[str, Any] | None = None):
        self.path, self.recipe = Path(path).expanduser(), recipe
        self.previous = self.path.with_name(self.path.name + ".previous")

    def start(self, run: training.Run) -> None:
        self.about = models.plain(describe(run) | {"recipe": self.recipe}, "the checkpoint")
        if found := difference(self.about, self.about):
            raise ValueError(
                f"expected a number for {found[0]}, found NaN: a checkpoint of it would not be known again"
            )
        try_to_write(self.path)
        if (found := self.read()) is not None:
            self.restore(run, *found)

    def read(self) -> tuple[dict[str, Any], str] | None:
        """The newest sound checkpoint and the name of its file; None where the file was deleted, to start anew."""
        name = self.path.name
        while self.path.exists():
            try:
                return models.read_tensors(self.path), name
            except models.Damaged:
                print(f"{name} is damaged: set aside as {set_aside(self.path).name}", flush=True)
            if self.previous.exists():
                name = self.previous.name
                os.replace(self.previous, self.path)
            else:
                self.path.unlink()
        return None

    def restore(self, run: training.Run, state: dict[str, Any], name: str) -> None:
        advice = "Delete the file to start anew, or give another path"
        if missing := self.state(run).keys() - state.keys():
            raise ValueError(
                f"{self.path} is no checkpoint: it has no {', '.join(sorted(missing))}. {advice}"
            )
        if found := difference(self.about, state["about"]):
            where, ours, theirs = found
            raise ValueError(
                f"the checkpoint {self.path} belongs to another run: expected {where} {ours!r}, found {theirs!r}. {advice}"
            )
        models.load_state(models.unwrap(run.model), state["model"], self.path)
        run.optimizer.load_state_dict(state["optimizer"])
        if run.scheduler:
            run.scheduler.load_state_dict(state["scheduler"])
        run.scaler.load_state_dict(state["scaler"])
        vars(run.history).update(state["history"])
        if state["loader_epoch"] is not None:  # a list of batches has no epochs of its own
            run.loader.epoch = state["loader_epoch"]
        restore_random_state(state["random"])
        print(f"continuing after epoch {len(run.history)} from {name}", flush=True)

    def after_epoch(self, run: training.Run) -> None:
        if self.path.exists():  # copied, so that there is no moment without a checkpoint at `path`
            copy = self.path.with_name(self.path.name + ".copy")
            shutil.copyfile(self.path, copy)
            os.replace(copy, self.previous)
        models.write_tensors(self.state(run), self.path)

    def state(self, run: training.Run) -> dict[str, Any]:
        return {
            "about": self.about,
            "history": asdict(run.history),
            "model": models.unwrap(run.model).state_dict(),
            "optimizer": run.optimizer.state_dict(),
            "scheduler": run.scheduler.state_dict() if run.scheduler else None,
            "scaler": run.scaler.state_dict(),
            "loader_epoch": getattr(run.loader, "epoch", None),
            "random": random_state(),
        }


def describe(run: training.Run) -> dict[str, Any]:
    """What must be the same when a run goes on, as plain values: for each part its settings, and no progress."""
    device = next(run.model.parameters()).device
    groups = run.optimizer.state_dict()["param_groups"]
    others = {"batches": len(run.loader), "batch_size": getattr(run.loader, "batch_size", None)}
    return {
        "data": getattr(run.loader, "about", others),
        "precision": str(training.pick_precision(device, run.precision)),
        "model": settings(models.unwrap(run.model)),
        "loss": settings(run.loss_fn),
        "optimizer": [
            type(run.optimizer).__name__,
            *({**g, "lr": g.get("initial_lr", g["lr"])} for g in groups),
        ],
        "scheduler": run.scheduler and [type(run.scheduler).__name__, schedule(run.scheduler.state_dict())],
    }


def settings(part: Any) -> Any:
    """The layers of a module with their types and plain attributes, or the name of a function."""
    if not isinstance(part, nn.Module):
        return re.sub(" at 0x[0-9a-f]+", "", repr(part))
    layers = {}
    for name, layer in part.named_modules():
        kept = {
            k: v for k, v in vars(layer).items() if isinstance(v, (int, float, str, tuple)) and k[0] != "_"
        }
        kept.pop("training", None)
        layers[name] = {"type": type(layer).__name__} | kept
    return layers


def schedule(state: Any) -> Any:
    """A scheduler's state, or that of one inside it, without its progress."""
    if isinstance(state, list):
        return [schedule(entry) for entry in state]
    if not isinstance(state, dict):
        return state
    return {
        k: schedule(v)
        for k, v in state.items()
        if k not in PROGRESS and (str(k)[0] != "_" or k == "_schedulers")
    }


def difference(ours: Any, theirs: Any, where: str = "") -> tuple[str, Any, Any] | None:
    """The first place in which two plain values differ, and what is there."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        pairs = [(f"{where} {key}", ours.get(key), theirs.get(key)) for key in ours | theirs]
    elif isinstance(ours, (list, tuple)) and type(ours) is type(theirs) and len(ours) == len(theirs):
        pairs = [(where, *pair) for pair in zip(ours, theirs, strict=True)]
    else:
        same = (
            torch.equal(ours, theirs) if torch.is_tensor(ours) and torch.is_tensor(theirs) else ours == theirs
        )
        return None if same else (where.strip(), ours, theirs)
    return next((found for place, a, b in pairs if (found := difference(a, b, place))), None)


def try_to_write(path: Path) -> None:
    """Raise ValueError where no file can be written to `path`: better before an epoch than after it."""
    try:
        if path.is_dir():
            raise IsADirectoryError("it is a folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        trial = path.with_name(path.name + ".trial")
        trial.touch()
        trial.unlink()
    except OSError as error:
        raise ValueError(f"the checkpoint {path} cannot be written: {error}") from error


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
    if state["cuda"] and torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    if state["mps"] is not None and torch.mps.is_available():
        torch.mps.set_rng_state(state["mps"])
