"""Where to compute and in which precision: asked once, so that no loop has to ask."""

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
