"""More than one process: what `torchrun` starts, data-parallel through PyTorch's own `DistributedDataParallel`.

Each process takes its part of every batch; DDP averages the gradients, so all of them make the same
step. In a single process every function here does nothing. BatchNorm sees only its process's part.
"""

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel


def start() -> None:
    """Join the other processes, if `torchrun` started this one among several."""
    if distributed.is_torchelastic_launched() and not distributed.is_initialized():
        distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
        if torch.cuda.is_available():
            torch.cuda.set_device(rank() % torch.cuda.device_count())


def stop() -> None:
    """Leave the other processes."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


def rank() -> int:
    """This process's number; 0 is the one that reports and records."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def world() -> int:
    """How many processes there are."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def wrap(model: nn.Module) -> nn.Module:
    """`model` with gradients averaged over the processes."""
    return DistributedDataParallel(model) if world() > 1 else model


def unwrap(model: nn.Module) -> nn.Module:
    """The network inside `wrap`."""
    return model.module if isinstance(model, DistributedDataParallel) else model


def total(values: Tensor) -> Tensor:
    """The sum of `values` over all processes."""
    if world() > 1:
        distributed.all_reduce(values)
    return values


def own_part(batch: Tensor, even: bool) -> Tensor:
    """This process's part of a batch's indices; `even` leaves out the few that do not divide.

    Parts of the same size make the average of the processes' gradients the gradient of the batch.
    """
    usable = len(batch) - len(batch) % world() if even else len(batch)
    return batch[rank() : usable : world()]
