"""CutMix: a rectangle of another image is pasted over each, and the label is shared by area.

Cutout hides a part of an image, and so wastes it; here the part shows something, which the network has to name as well.
Source: Yun et al., "CutMix: regularization strategy to train strong classifiers", ICCV 2019, arXiv:1905.04899.
"""

import numpy as np
import torch
from torch import Tensor, nn

from course_utils import transforms


class CutMix(nn.CrossEntropyLoss):
    """Cross entropy that knows what `paste` did to the batch; torch's own where it did nothing."""

    other, share = None, 1.0  # the labels of what was pasted, and how much is left of an image

    def paste(self, images: Tensor, labels: Tensor, rng: np.random.Generator) -> None:
        """In half of the cases, exchange one rectangle between all `images` (n, 3, H, W), in place.

        Its area is uniform between none and all, its middle anywhere; what lies outside is lost.
        """
        self.clear()
        area, row, column = rng.random(3)
        if rng.random() < 0.5:
            return
        order = transforms.to_device(torch.from_numpy(rng.permutation(len(labels))), labels.device)
        height, width = images.shape[2:]
        rows, columns = part(height, row, area), part(width, column, area)
        images[:, :, rows, columns] = images[:, :, rows, columns][order]
        pasted = (rows.stop - rows.start) * (columns.stop - columns.start)
        self.other, self.share = labels[order], 1 - pasted / (height * width)

    def clear(self) -> None:
        self.other, self.share = None, 1.0

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        loss = super().forward(logits, labels)
        if self.other is None or not torch.is_grad_enabled():  # what is measured was not pasted
            return loss
        return self.share * loss + (1 - self.share) * super().forward(logits, self.other)


def part(length: int, middle: float, area: float) -> slice:
    """What a square of `area`, its middle at `middle` in [0, 1), covers of `length` pixels."""
    start = round(length * middle - length * area**0.5 / 2)
    return slice(max(0, start), min(length, start + round(length * area**0.5)))
