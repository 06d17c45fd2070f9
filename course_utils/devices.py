"""Where to compute and in which precision: asked once, so that no loop has to ask."""

import ctypes
import sys

import torch

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def pick_device() -> torch.device:
    """The fastest device here: CUDA, then Apple's MPS, then the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def pick_precision(device: torch.device, precision: str = "auto") -> torch.dtype:
    """The dtype that the forward pass runs in; "auto" takes the fastest that `device` has instructions for.

    bfloat16 keeps float32's range, so it needs no loss scaling; older CUDA cards have only float16,
    for which `training` scales the loss. Weights stay in float32 in every case ("mixed precision",
    Micikevicius et al., ICLR 2018).
    """
    if precision != "auto":
        if precision not in PRECISIONS:
            raise ValueError(f"unknown precision {precision!r}: use 'auto' or one of {sorted(PRECISIONS)}")
        return PRECISIONS[precision]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    if device.type == "cpu" and torch.cpu._is_avx512_bf16_supported():
        return torch.bfloat16
    return torch.float32


def autocast(device: torch.device, precision: str = "auto") -> torch.autocast:
    """A context in which networks on `device` compute in the picked precision."""
    dtype = pick_precision(device, precision)
    return torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32)


def keep_freed_memory() -> None:
    """Have Linux's C library keep the memory that a batch frees, for the next batch to use.

    Otherwise it hands large blocks back to the system and asks for them again at every step, and the
    system clears each page before it gives it out: a tenth of a small network's training time on a CPU.
    """
    if sys.platform != "linux" or not hasattr(libc := ctypes.CDLL(None), "mallopt"):
        return
    trim_threshold, top_pad, mmap_threshold = -1, -2, -3  # the names' numbers in malloc.h
    # Older C libraries refuse the first, and take at most the second.
    libc.mallopt(mmap_threshold, 1 << 30) or libc.mallopt(mmap_threshold, 1 << 25)
    libc.mallopt(trim_threshold, (1 << 31) - 1)
    libc.mallopt(top_pad, 1 << 28)
