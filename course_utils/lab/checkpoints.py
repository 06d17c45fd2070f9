"""Checkpoints that survive a crash: written whole or not at all, with the one before kept beside."""

import hashlib
import io
import os
import pickle
import zipfile
import zlib
from pathlib import Path
from typing import Any

import torch
from torch import nn

# What reading a damaged file may raise: bytes that are wrong can end up anywhere.
DAMAGED = (
    *(RuntimeError, ValueError, EOFError, OSError, LookupError, TypeError, AttributeError),
    *(pickle.UnpicklingError, zipfile.BadZipFile, zlib.error),
)


def save_half(model: nn.Module, path: Path) -> str:
    """Write the weights in half the space, as float16, and return the file's SHA-256.

    Eleven significant bits of each weight are kept. `load_weights` reads the file back into a float32 model.
    """
    halved = {
        name: tensor.cpu().half() if tensor.is_floating_point() else tensor.cpu()
        for name, tensor in model.state_dict().items()
    }
    write({name: tensor.contiguous() for name, tensor in halved.items()}, path)
    return sha256(path)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write(state: Any, path: Path) -> None:
    """Write `state` to `path` so that a crash at any moment leaves the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with open(partial, "wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def previous(path: Path) -> Path:
    """Where the checkpoint before the one at `path` is kept."""
    return path.with_name(path.name + ".previous")


def save(state: dict[str, Any], path: Path) -> None:
    """Write a checkpoint, keeping the last one as `previous(path)`."""
    fresh = path.with_name(path.name + ".new")
    write(state, fresh)
    if path.exists():
        os.replace(path, previous(path))
    os.replace(fresh, path)


def load(path: Path) -> dict[str, Any] | None:
    """The newest readable checkpoint of `path`, or None where there is none.

    A file that cannot be read is set aside as `*.damaged` and named in a message; the one before
    it is used instead. Files are loaded with `weights_only=True`: a checkpoint cannot run code.
    """
    for candidate in (path.with_name(path.name + ".new"), path, previous(path)):
        if not candidate.exists():
            continue
        content = io.BytesIO(candidate.read_bytes())  # a file that may not be read is not a damaged one
        try:
            return read(content)
        except DAMAGED as error:
            aside = candidate.with_name(candidate.name + ".damaged")
            os.replace(candidate, aside)
            print(f"{candidate.name} is damaged ({type(error).__name__}): set aside as {aside.name}")
    return None


def read(content: io.BytesIO) -> dict[str, Any]:
    """What `write` wrote; raises one of `DAMAGED` where it is anything else.

    torch does not look at the checksums that its files have, and would load tensors with wrong numbers.
    """
    with zipfile.ZipFile(content) as archive:
        if damaged := archive.testzip():
            raise zipfile.BadZipFile(f"the checksum of {damaged} is wrong")
    content.seek(0)
    state = torch.load(content, weights_only=True, map_location="cpu")
    if not isinstance(state, dict):
        raise TypeError(f"expected a dict, found {type(state).__name__}")
    return state
