"""From an `ImageSet` to batches: one loader that works on whole batches, one dataset for the image-at-a-time road."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from course_utils import parallel, transforms
from course_utils.data import ImageSet
from course_utils.transforms import Augment


class BatchLoader:
    """Yields (images, labels) batches: float32 (n, 3, H, W) channels-last, normalised, and int64 (n,).

    Images are gathered, augmented and normalised a batch at a time from one `uint8` store, which
    keeps CIFAR's 50,000 training images in 154 MB (240 MB padded for the crop).

    The order and the augmentation of epoch `e` depend on (seed, e) alone, whatever ran before: set
    `epoch` to continue an interrupted run exactly where it was. Among several processes, each gets
    its part of every batch. With `mean=0, std=1` pixels are
    scaled to [0, 1] and no more. `fill` is the colour, in [0, 1], of what the crop and the hole
    uncover; by default it is `mean`.
    """

    def __init__(
        self,
        image_set: ImageSet,
        batch_size: int = 128,
        *,
        mean: np.ndarray | tuple = (0.0, 0.0, 0.0),
        std: np.ndarray | tuple = (1.0, 1.0, 1.0),
        augment: Augment | None = None,
        fill: np.ndarray | tuple | None = None,
        shuffle: bool = False,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ):
        if len(image_set) == 0:
            raise ValueError(f"{image_set.name}: no images to load")
        height, width = image_set.images.shape[1:3]
        if augment and height != width:
            raise ValueError(f"{image_set.name}: expected square images to augment, found {height}×{width}")
        self.image_set, self.batch_size = image_set, batch_size
        self.augment, self.shuffle, self.seed = augment, shuffle, seed
        self.device = torch.device(device)
        self.epoch = 0
        self.mean = torch.as_tensor(mean, dtype=torch.float32, device=self.device)
        self.std = torch.as_tensor(std, dtype=torch.float32, device=self.device)
        colour = transforms.mean_colour(mean if fill is None else fill)
        self.fill = torch.tensor(colour, dtype=torch.uint8, device=self.device)
        self.store = torch.from_numpy(np.ascontiguousarray(image_set.images)).to(self.device)
        self.labels = torch.from_numpy(image_set.labels).to(self.device)
        if augment and augment.padding:
            self.store = transforms.pad(self.store, augment.padding, self.fill)

    def __len__(self) -> int:
        return -(-len(self.image_set) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        rng = np.random.default_rng((self.seed, self.epoch))
        self.epoch += 1
        n = len(self.image_set)
        order = torch.from_numpy(rng.permutation(n) if self.shuffle else np.arange(n))
        for batch in order.to(self.device).split(self.batch_size):
            part = parallel.own_part(torch.arange(len(batch)), even=self.shuffle)
            if len(part):
                images = self.pixels(batch, part, rng)
                yield transforms.normalise(images, self.mean, self.std), self.labels[batch[part]]

    def pixels(self, batch: Tensor, part: Tensor, rng: np.random.Generator) -> Tensor:
        """This process's `part` of a batch as `uint8` (n, H, W, 3), augmented if this loader augments.

        Choices are drawn for the whole batch, so that they do not depend on the number of processes.
        """
        if self.augment is None:
            return self.store[batch[part]]
        draws = self.augment.draw(len(batch), self.image_set.images.shape[1], rng).take(part)
        return self.augment(self.store, batch[part], draws, self.fill)


class PerImageDataset(Dataset):
    """The ordinary road: one transformed image and its label at a time, for torch's `DataLoader`."""

    def __init__(self, image_set: ImageSet, transform: Callable[[np.ndarray], Tensor]):
        self.image_set, self.transform = image_set, transform

    def __len__(self) -> int:
        return len(self.image_set)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.image_set.images[index]), int(self.image_set.labels[index])
