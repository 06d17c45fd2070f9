"""Arrays in one `.npz` file: written whole or not at all, and read only if it holds what it should."""

import os
import zipfile
from pathlib import Path
from typing import BinaryIO

import numpy as np


def save(path: Path, arrays: dict[str, np.ndarray]) -> None:
    part = path.with_name(f"{path.name}.part")
    with part.open("wb") as file:
        np.savez(file, **arrays)
    os.replace(part, path)


def read(file: BinaryIO, shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Arrays of integers of these shapes by name, those of several axes uint8.

    The header of each is read first, since a small file can say that it holds gigabytes, and hold them. Raises
    ValueError for other contents, and whatever zip, zlib and NumPy raise for a damaged file.
    """
    arrays = {}
    with zipfile.ZipFile(file) as npz:
        for key, expected in shapes.items():
            with npz.open(f"{key}.npy") as member:
                np.lib.format.read_magic(member)
                shape, _, dtype = np.lib.format.read_array_header_1_0(member)
            if shape != expected or dtype.kind not in "iu" or (len(shape) > 1 and dtype != np.uint8):
                raise ValueError(f"{key} is {dtype} {shape}, expected integers (images in uint8) {expected}")
            with npz.open(f"{key}.npy") as member:
                arrays[key] = np.lib.format.read_array(member, allow_pickle=False)
    return arrays
