"""Weights in files: torch's own format, a zip archive, whose comment is the SHA-256 of all bytes before it."""

import hashlib
import io
import re
import zipfile
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from course_utils.exercises import parts
from course_utils.exercises.first_batch import TRAINED_ON, note_spreads, spreads, unwrap, warn
from course_utils.lab import records

MARK, DIGITS = b"sha256:", 64
SAVED = {}  # of this session's files, by SHA-256: what their networks were trained on, and the networks' layers


class Damaged(ValueError):
    """A file whose checksum is wrong, or in which torch finds nothing that it can read."""


def save_weights(model: nn.Module, path: Path | str) -> None:
    """Write the weights of `model`, compiled or wrapped in DataParallel or not, and nothing else, to `path`."""
    network = unwrap(parts.network(model))
    state = {name.replace("_orig_mod.", ""): tensor for name, tensor in network.state_dict().items()}
    SAVED[write_tensors(state, path)] = TRAINED_ON.get(network), spreads(network), layers_of(model)


def load_weights(model: nn.Module, path: Path | str) -> None:
    """Load what `save_weights` wrote, or `torch.save` of a state dict, into `model`.

    Raises `Damaged` where the file is damaged, and ValueError where it belongs to another architecture, naming the
    first difference. Warns where a network with other layers was trained to these weights in this session: shapes
    alone do not tell. Code in a file is not run.
    """
    load_state(parts.network(model), read_tensors(path), path)
    trained_on, known, layers = SAVED.get(records.sha256(Path(path).expanduser()), (None, {}, []))
    if not trained_on:
        return
    TRAINED_ON[unwrap(model)] = trained_on[0], set()
    note_spreads(unwrap(model), known)
    for there, here in zip_longest(layers, layers_of(model), fillvalue="nothing"):
        if there != here:
            found = f"the weights fit, but were saved from another network: {there} there, {here} here"
            return warn(f"{found}; if that is not meant, make it with the same arguments")


def layers_of(model: nn.Module) -> list[str]:
    """A network as torch describes it, a layer a line, without names and what leaves its answers alone."""
    rests = r"^ *\(\w+\): |.*(Dropout|DropPath|StochasticDepth|Identity).*|(inplace|momentum)=[^,)]*(, )?"
    lines = [re.sub(rests, "", line).strip() for line in repr(unwrap(model)).splitlines()[1:]]
    return [line for line in lines if line not in ("", "Sequential(", ")")]  # which a dropout may add


def load_state(model: nn.Module, state: dict[str, Tensor], path: Path | str) -> None:
    """Load a state dict that came from `path`; prefixes in names, which wrappers leave there, do not matter.

    What `model` was trained on is forgotten. Raises a ValueError that names the first tensor in which it and `state`
    differ.
    """
    if others := [name for name, value in state.items() if not isinstance(value, Tensor)]:
        raise ValueError(f"{path} holds more than weights ({others[0]}): is it a checkpoint of `fit`?")
    names = {plain_name(name): name for name in model.state_dict()}
    state = {names.get(plain_name(name), name): tensor for name, tensor in state.items()}
    ours, theirs = ({k: tuple(v.shape) for k, v in one.items()} for one in (model.state_dict(), state))
    for name in ours | theirs:
        if ours.get(name) != theirs.get(name):
            found = f"is expected as {ours.get(name, 'absent')}, found {theirs.get(name, 'absent')}"
            raise ValueError(f"{path} holds weights for another architecture: {name} {found}")
    model.load_state_dict(state)
    TRAINED_ON.pop(unwrap(model), None)
    note_spreads(unwrap(model), {})


def plain_name(name: str) -> str:
    """A tensor's name without what torch.compile and DataParallel put into it."""
    return name.replace("_orig_mod.", "").removeprefix("module.")


def try_to_write(path: Path, what: str) -> None:
    """Raise ValueError where no file can be written to `path`, named `what`: better before an epoch than after it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        trial = path.with_name(path.name + ".trial")
        trial.touch()
        trial.unlink(missing_ok=True)  # of several processes
        if path.is_dir():
            raise IsADirectoryError("it is a folder")
    except OSError as error:
        raise ValueError(f"{what} {path} cannot be written: {error}") from error


def write_tensors(state: dict[str, Any], path: Path | str) -> str:
    """Write tensors and plain values, so that a crash leaves the old file or the new one; the file's SHA-256, in hex.

    Raises ValueError for what could not be read back, see `plain`.
    """
    path, buffer = Path(path).expanduser(), io.BytesIO()
    torch.save(plain(state), buffer)
    length = len(MARK) + DIGITS  # of the comment: torch leaves it out, and counts 0 in the last two bytes
    body = buffer.getvalue()[:-2] + length.to_bytes(2, "little") + MARK
    content = body + hashlib.sha256(body).hexdigest().encode()
    records.write_bytes(content, path)
    return hashlib.sha256(content).hexdigest()


def read_tensors(path: Path | str) -> dict[str, Any]:
    """What `write_tensors` or `torch.save` wrote, on the CPU; code in a file is not run.

    Raises `Damaged` where the checksum is wrong or, without one, nothing can be read. Other errors, as when memory is
    short, say nothing about the file and are passed on.
    """
    content = Path(path).expanduser().read_bytes()
    file, body = io.BytesIO(content), memoryview(content)[:-DIGITS]
    signed = bytes(body[-len(MARK) :]) == MARK
    if signed and hashlib.sha256(body).hexdigest().encode() != content[-DIGITS:]:
        raise Damaged(f"{path} is damaged, its checksum is wrong: get or make it again")
    try:
        if not signed and zipfile.is_zipfile(file) and zipfile.ZipFile(file).testzip():
            raise zipfile.BadZipFile("a checksum is wrong")  # which torch would not look at
        file.seek(0)
        state = torch.load(file, weights_only=True, map_location="cpu")
    except Exception as error:  # wrong bytes can end up anywhere
        if signed or isinstance(error, MemoryError) or "allocate memory" in str(error):
            raise
        raise Damaged(f"{path} is damaged, or is no file of plain weights: get or make it again") from error
    if not isinstance(state, dict):
        raise Damaged(f"{path} is no file of plain weights: expected a dict, found {type(state).__name__}")
    return state


def plain(value: Any, where: str = "the value") -> Any:
    """`value` as what a file gives back without running code: tensors, numbers, text and None, in dicts, lists, tuples.

    NumPy's numbers become Python's. Raises ValueError for anything else, and says `where` it is.
    """
    if isinstance(value, dict):
        return {plain(key, where): plain(entry, f"{where}[{key!r}]") for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        entries = [plain(entry, f"{where}[{place}]") for place, entry in enumerate(value)]
        return tuple(entries) if isinstance(value, tuple) else entries
    if isinstance(value, Tensor) or value is None:
        return value
    value = value.item() if isinstance(value, np.generic) else value
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    found = f"{where}, a {type(value).__name__}"
    raise ValueError(f"expected tensors, numbers, text or None to save, found {found}")
