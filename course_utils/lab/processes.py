"""One run in several processes, as `torchrun` starts them; in a single one all of this changes nothing.

Each process takes its part of every batch, `DistributedDataParallel` averages the gradients, and so all make the same
step. BatchNorm sees its process's part; the running statistics are the first process's, which every evaluation hands to
the others. One network is trained, tested and saved.
"""

import os
from typing import Any

import torch
from torch import distributed

from course_utils import training
from course_utils.lab import records


def start() -> None:
    """Join the other processes, if `torchrun` started this one among several.

    Raises ValueError where there are more of them than graphics cards, of which Apple's counts as none.
    """
    if not distributed.is_torchelastic_launched() or distributed.is_initialized():
        return
    device, each = training.pick_device().type, int(os.environ["LOCAL_WORLD_SIZE"])
    cards = torch.cuda.device_count() if device == "cuda" else 0
    if device != "cpu" and cards < each:
        advice = "start as many as there are cards, or set COURSE_DEVICE=cpu"
        raise ValueError(f"{each} processes cannot share {cards} card(s) that train together: {advice}")
    distributed.init_process_group("nccl" if cards and distributed.is_nccl_available() else "gloo")
    if cards:
        torch.cuda.set_device(rank() % cards)


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


def own_seed(seed: int) -> int:
    return seed + rank() * records.SEEDS


def of_first(value: Any) -> Any:
    """What the first process found, for all of them."""
    shared = [value]
    if world() > 1:
        distributed.broadcast_object_list(shared)
    return shared[0]


class AverageHistory:
    """After each epoch the curves are the mean over the processes, each of which saw its part of the images."""

    def start(self, run: training.Run) -> None:
        self.device = next(run.model.parameters()).device

    def after_epoch(self, run: training.Run) -> None:
        if world() > 1:
            curves = vars(run.history).values()
            newest = torch.tensor([curve[-1] for curve in curves], dtype=torch.float64, device=self.device)
            distributed.all_reduce(newest)
            for curve, total in zip(curves, newest.tolist(), strict=True):
                curve[-1] = total / world()
