"""Batches: shapes, dtypes, order and augmentation that depend on (seed, epoch) alone."""

import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from course_utils.data import ImageSet
from course_utils.data import BatchLoader, PerImageDataset
from course_utils.transforms import Augment, per_image

MEAN, STD = np.array([0.5, 0.4, 0.3]), np.array([0.2, 0.25, 0.3])


def image_set(n=50):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)
    return ImageSet(images, np.arange(n, dtype=np.int64) % 5, tuple("abcde"), "random train")


def test_batches_cover_every_image_once():
    loader = BatchLoader(image_set(), 16, shuffle=True)
    batches = list(loader)
    assert len(loader) == len(batches) == 4
    assert [len(labels) for _, labels in batches] == [16, 16, 16, 2]
    images, labels = batches[0]
    assert images.shape == (16, 3, 32, 32)
    assert images.dtype == torch.float32
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert labels.dtype == torch.int64
    seen = np.sort(np.concatenate([images.numpy().sum((1, 2, 3)) for images, _ in batches]))
    everything = np.sort((image_set().images / 255).sum((1, 2, 3)))
    np.testing.assert_allclose(seen, everything, rtol=1e-5)


def test_images_keep_their_labels():
    parts = image_set()
    loader = BatchLoader(parts, 50, shuffle=True, seed=3)
    images, labels = next(iter(loader))
    label_of = {image.tobytes(): label for image, label in zip(parts.images, parts.labels, strict=True)}
    pixels = (images.permute(0, 2, 3, 1) * 255).round().to(torch.uint8).numpy()
    assert [label_of[image.tobytes()] for image in pixels] == labels.tolist()


@pytest.mark.parametrize("augment", [None, Augment()])
def test_an_epoch_depends_on_seed_and_number_alone(augment):
    def epoch(seed, number):
        loader = BatchLoader(image_set(), 16, augment=augment, fill=MEAN, shuffle=True, seed=seed)
        loader.epoch = number
        torch.rand(7)  # other people's random numbers do not matter
        return torch.cat([images for images, _ in loader])

    assert torch.equal(epoch(0, 3), epoch(0, 3))
    assert not torch.equal(epoch(0, 3), epoch(0, 4))
    assert not torch.equal(epoch(0, 3), epoch(1, 3))


def test_epochs_differ_within_one_loader():
    loader = BatchLoader(image_set(), 50, shuffle=True)
    assert not torch.equal(next(iter(loader))[0], next(iter(loader))[0])
    assert loader.epoch == 2


def test_evaluation_keeps_the_order():
    parts = image_set()
    labels = torch.cat([labels for _, labels in BatchLoader(parts, 7)])
    assert torch.equal(labels, torch.from_numpy(parts.labels))


def test_both_roads_agree_without_augmentation():
    parts = image_set()
    one = DataLoader(PerImageDataset(parts, per_image(MEAN, STD, train=False)), batch_size=16)
    twin = BatchLoader(parts, 16, mean=MEAN, std=STD)
    for (images, labels), (twin_images, twin_labels) in zip(one, twin, strict=True):
        torch.testing.assert_close(images, twin_images, rtol=0, atol=1e-5)
        assert torch.equal(labels, twin_labels)


def test_augmented_batches_have_the_shape_of_plain_ones():
    loader = BatchLoader(image_set(), 16, mean=MEAN, std=STD, augment=Augment(), shuffle=True)
    images, labels = next(iter(loader))
    assert images.shape == (16, 3, 32, 32)
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert labels.shape == (16,)


def test_no_images_are_refused():
    empty = image_set().subset(np.array([], dtype=np.int64))
    with pytest.raises(ValueError, match="random train: no images"):
        BatchLoader(empty)


def test_any_order_in_memory_will_do_and_augmented_pictures_are_square():
    planes = np.random.default_rng(0).integers(0, 256, (8, 3, 32, 32), dtype=np.uint8)
    labels = np.zeros(8, dtype=np.int64)
    pixels = planes.transpose(0, 2, 3, 1)  # as it comes from (N, 3, H, W)
    images, _ = next(
        iter(BatchLoader(ImageSet(pixels, labels, ("a",), "planes"), 8, augment=Augment(0, 0, 0, 0)))
    )
    np.testing.assert_allclose(images.numpy() * 255, planes, atol=1e-3)
    wide = ImageSet(np.zeros((8, 20, 40, 3), dtype=np.uint8), labels, ("a",), "wide")
    with pytest.raises(ValueError, match=r"wide: expected square images to augment, found 20×40"):
        BatchLoader(wide, 8, augment=Augment())


def test_the_pipeline_an_image_at_a_time_can_be_handed_to_workers():
    """Windows and macOS start workers anew, with what they are to do in a pickle."""
    image = np.full((32, 32, 3), 7, dtype=np.uint8)
    transform = per_image(MEAN, STD, train=False)
    assert torch.equal(pickle.loads(pickle.dumps(transform))(image), transform(image))
