"""Image sets and batches of them: what they refuse, how they are split, and that epochs are those of the records."""

import dataclasses
import hashlib
import re

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from course_utils import data, transforms
from course_utils.data import BatchLoader, PerImageDataset
from course_utils.datasets import shapes
from course_utils.lab import checkpoints
from course_utils.transforms import Augment


def image_set(counts: list[int], size: int = 8, seed: int = 0) -> data.ImageSet:
    """Noise, with these many images a class, mixed."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    images = rng.integers(0, 256, (len(labels), size, size, 3), dtype=np.uint8)
    return data.ImageSet(images, labels, tuple(f"class {i}" for i in range(len(counts))), "noise train")


def contents(one: data.ImageSet) -> set[tuple[bytes, int]]:
    return {(image.tobytes(), int(label)) for image, label in zip(one.images, one.labels, strict=True)}


# --- ImageSet.


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"images": np.zeros((6, 8, 8, 3))},
            "noise train: expected images uint8 (n, height, width, 3), found float64",
        ),
        ({"images": np.zeros((6, 8, 8, 3))}, "take (255 * images).round().astype(np.uint8)"),
        ({"images": np.zeros((6, 3, 8, 8), np.uint8)}, "found uint8 (6, 3, 8, 8)"),
        ({"images": np.zeros((6, 8, 8), np.uint8)}, "found uint8 (6, 8, 8)"),
        ({"labels": np.zeros(6, np.uint8)}, "expected labels int64 (n,), found uint8 (6,)"),
        ({"labels": np.zeros((6, 1), np.int64)}, "expected labels int64 (n,), found int64 (6, 1)"),
        ({"labels": np.zeros(5, np.int64)}, "expected one label per image, found 6 images, 5 labels"),
        ({"labels": np.full(6, 2)}, "expected labels 0 to 1, found 2 to 2"),
        ({"labels": np.full(6, -1)}, "expected labels 0 to 1, found -1 to -1"),
    ],
)
def test_an_image_set_refuses_what_does_not_fit(change, message):
    good = image_set([3, 3])
    with pytest.raises(ValueError, match=re.escape(message)):
        dataclasses.replace(good, **change)


def test_an_image_set_takes_what_torchvision_has():
    good = image_set([3, 3])
    for images, labels in (
        (good.images, good.labels.tolist()),
        (torch.from_numpy(good.images), torch.tensor(good.labels)),
    ):
        made = data.ImageSet(images, labels, good.classes, "lists")
        np.testing.assert_array_equal(made.images, good.images)
        np.testing.assert_array_equal(made.subset(np.array([0, 5])).labels, good.labels[[0, 5]])


def test_a_subset_by_places_or_by_mask():
    whole = image_set([3, 3])
    mask = np.array([True, False, False, True, False, True])
    for part in (whole.subset(np.array([0, 3, 5])), whole.subset(mask)):
        assert (len(part), part.n_classes, part.name) == (3, 2, "noise train")
        np.testing.assert_array_equal(part.images, whole.images[[0, 3, 5]])
        np.testing.assert_array_equal(part.labels, whole.labels[[0, 3, 5]])
    with pytest.raises(ValueError, match=r"found noughts and ones: mask.astype\(bool\)"):
        whole.subset(mask.astype(int))
    np.testing.assert_array_equal(whole.subset(-np.arange(1, 7)).labels, whole.labels[::-1])
    for places in (torch.tensor([4]), torch.tensor([4, 1]), torch.from_numpy(mask), [], [4]):
        assert len(whole.subset(places)) == (sum(mask) if len(places) == 6 else len(places))


# --- split, take, channel_stats.


def test_the_split_is_disjoint_complete_and_stratified():
    whole = image_set([40, 25, 8, 0])
    train, validation = data.split(whole, validation=0.2, seed=3)
    assert np.bincount(validation.labels, minlength=4).tolist() == [8, 5, 2, 0]
    assert np.bincount(train.labels, minlength=4).tolist() == [32, 20, 6, 0]
    assert contents(train) | contents(validation) == contents(whole)
    assert (train.name, validation.name) == ("noise train", "noise validation")


def test_the_split_depends_on_the_seed_and_not_on_the_order_of_the_file():
    whole = image_set([40, 40])
    shuffled = whole.subset(np.random.default_rng(5).permutation(80))
    for one, same in zip(data.split(whole, seed=1), data.split(shuffled, seed=1), strict=True):
        assert contents(one) == contents(same)
    assert contents(data.split(whole, seed=2)[1]) != contents(data.split(whole, seed=1)[1])


def test_a_share_too_small_for_any_class_is_said():
    with pytest.warns(UserWarning, match="class 0, class 1 too small to have a validation picture"):
        data.split(image_set([4, 4]), 0.1)


@pytest.mark.parametrize(("share", "part"), [(0.2, "validation"), (0.9, "training")])
def test_classes_that_the_split_leaves_out_are_named(share, part):
    said = f"noise train: class 1, class 3 too small to have a {part} picture"
    with pytest.warns(UserWarning, match=said) as caught:
        data.split(image_set([40, 2, 8, 1]), validation=share)
    assert [warning.filename for warning in caught] == [__file__]


def test_a_share_of_nothing_is_a_split_but_a_whole_is_none():
    train, validation = data.split(image_set([4, 4]), validation=0)
    assert (len(train), len(validation)) == (8, 0)
    for share in (-0.1, 1, 10):
        with pytest.raises(ValueError, match=f"expected a validation share .* found {share}"):
            data.split(image_set([4, 4]), validation=share)


def test_take_keeps_the_proportions():
    few = data.take(image_set([60, 30, 10]), 20, seed=1)
    assert np.bincount(few.labels).tolist() == [12, 6, 2]
    assert len(data.take(image_set([60, 30, 10]), 17)) == 17
    assert contents(few) != contents(data.take(image_set([60, 30, 10]), 20, seed=2))
    for n in (0, 101, 0.1):
        with pytest.raises(ValueError, match=f"expected 1 to 100 images to take, found {n}"):
            data.take(image_set([60, 30, 10]), n)


def test_channel_stats_are_those_of_the_pixels():
    whole = image_set([1500, 1000])
    whole.images[..., 1] //= 3
    mean, std = data.channel_stats(whole)
    pixels = whole.images.reshape(-1, 3) / 255
    np.testing.assert_allclose(mean, pixels.mean(axis=0), rtol=1e-10)
    np.testing.assert_allclose(std, pixels.std(axis=0), rtol=1e-10)
    with pytest.raises(ValueError, match="validation: no images to measure"):
        data.channel_stats(data.split(whole, validation=0)[1])


# --- Batches.

MEAN, STD = np.array([0.5, 0.4, 0.3]), np.array([0.2, 0.25, 0.3])


def numbered(n=50):
    """Noise of which each picture can be told from the others."""
    return image_set([n // 5] * 5, size=32)


def epoch(image_set=None, number=0, **options):
    options = {"batch_size": 16, "fill": MEAN, "shuffle": True} | options
    loader = BatchLoader(image_set or numbered(), **options)
    loader.epoch = number
    torch.rand(7)  # other people's random numbers do not matter
    return torch.cat([images for images, _ in loader])


@pytest.mark.parametrize("augment", [None, Augment(0, 0, 0, 0)])
def test_batches_cover_every_image_once_with_its_label(augment):
    whole = numbered()
    loader = BatchLoader(whole, 16, shuffle=True, seed=3, augment=augment)
    batches = list(loader)
    assert [len(labels) for _, labels in batches] == [16, 16, 16, 2]
    assert (len(loader), loader.epoch) == (4, 1)
    seen = set()
    for images, labels in batches:
        assert (images.dtype, labels.dtype, images.shape[1:]) == (torch.float32, torch.int64, (3, 32, 32))
        assert images.is_contiguous(memory_format=torch.channels_last)
        pixels = (images.permute(0, 2, 3, 1) * 255).round().to(torch.uint8).numpy()
        seen |= {(image.tobytes(), int(label)) for image, label in zip(pixels, labels, strict=True)}
    assert seen == contents(whole)


def test_an_epoch_depends_on_seed_and_number_alone():
    for augment in (None, Augment(jitter=0.2)):
        first = epoch(number=3, augment=augment)
        assert torch.equal(first, epoch(number=3, augment=augment))
        assert not torch.equal(first, epoch(number=4, augment=augment))
        assert not torch.equal(first, epoch(number=3, seed=1, augment=augment))


def test_epochs_are_those_of_the_recorded_runs():
    """Order, crop, flip and hole of the third epoch with seed 1, as they were before this loader was rewritten."""
    images = epoch(number=2, seed=1, augment=Augment(), mean=MEAN, std=STD)
    assert hashlib.sha256(images.numpy().tobytes()).hexdigest()[:12] == "baeb9fb244b1"


def test_evaluation_keeps_the_order_and_both_pipelines_agree():
    whole = numbered()
    one = DataLoader(PerImageDataset(whole, transforms.per_image(MEAN, STD, train=False)), batch_size=16)
    other = BatchLoader(whole, 16, mean=MEAN, std=STD)
    for (images, labels), (twins, twin_labels) in zip(one, other, strict=True):
        torch.testing.assert_close(images, twins, rtol=0, atol=1e-5)
        assert torch.equal(labels, twin_labels)


@pytest.mark.parametrize(
    ("n", "size", "sizes"),
    [(33, 16, [16, 17]), (1, 16, [1]), (32, 16, [16, 16]), (3, 1, [1, 1, 1]), (17, 16, [17])],
)
def test_a_last_image_joins_the_batch_before(n, size, sizes):
    loader = BatchLoader(image_set([n]), size, shuffle=True)
    assert [len(labels) for _, labels in loader] == sizes
    assert len(loader) == len(sizes)


def test_what_no_batches_can_be_made_of():
    for size in (0, -1, 32.0, "32", None):
        with pytest.raises(ValueError, match=f"whole number of images per batch.* found batch_size={size!r}"):
            BatchLoader(numbered(), size)
    assert BatchLoader(numbered(), np.int64(32)).batch_size == 32
    with pytest.raises(ValueError, match="noise train: no images"):
        BatchLoader(numbered().subset(np.array([], dtype=np.int64)))
    wide = data.ImageSet(np.zeros((8, 20, 40, 3), np.uint8), np.zeros(8, np.int64), ("a",), "wide")
    with pytest.raises(ValueError, match=r"wide: expected square images to augment, found 20×40"):
        BatchLoader(wide, 8, augment=Augment())
    flat = numbered()
    flat.images[..., 2] = 7
    mean, std = data.channel_stats(flat)
    with pytest.raises(ValueError, match="standard deviations above 0, found 0 in the blue channel"):
        BatchLoader(flat, mean=mean, std=std)


@pytest.mark.parametrize("augment", [True, Augment, "flip"])
def test_what_is_no_augment_is_refused(augment):
    with pytest.raises(ValueError, match=r"expected augment=Augment\(…\), or None for none, found"):
        BatchLoader(image_set([4, 4]), 4, augment=augment)


def test_any_order_in_memory_will_do():
    planes = np.random.default_rng(0).integers(0, 256, (8, 3, 32, 32), dtype=np.uint8)
    pixels = planes.transpose(0, 2, 3, 1)  # as it comes from (n, 3, H, W)
    whole = data.ImageSet(pixels, np.zeros(8, np.int64)[::-1], ("a",), "planes")
    images, _ = next(iter(BatchLoader(whole, 8, augment=Augment(0, 0, 0, 0))))
    np.testing.assert_allclose(images.numpy() * 255, planes, atol=1e-3)
    copied = dataclasses.replace(whole, images=pixels.copy(), labels=whole.labels.copy())
    first, second = (checkpoints.batches_of(BatchLoader(one))["contents"] for one in (whole, copied))
    assert first == second


def test_read_only_arrays_are_copied_without_a_word():
    whole = numbered()
    for array in (whole.images, whole.labels):
        array.flags.writeable = False
    images, labels = next(iter(BatchLoader(whole, 4)))  # torch's warning would be an error
    assert images.shape[0] == len(labels) == 4


@pytest.mark.parametrize(
    "default", [lambda: torch.set_default_device("meta"), lambda: torch.set_default_dtype(torch.float64)]
)
def test_a_default_device_or_dtype_changes_no_batch(default):
    options = {"augment": Augment(jitter=0.2), "mean": MEAN, "std": STD}
    expected = epoch(**options)
    try:
        default()
        found = epoch(**options)
    finally:
        torch.set_default_device(None)
        torch.set_default_dtype(torch.float32)
    assert (found.device.type, found.dtype) == ("cpu", torch.float32)
    assert torch.equal(found, expected)


# --- The shapes; CIFAR and folders are tested where they are read.


def test_the_shapes_come_in_two_labellings(capsys):
    fine_train, fine_test = data.load("shapes100")
    coarse_train, coarse_test = data.load("shapes10")
    assert capsys.readouterr().out == "shapes100: drawn by code\nshapes10: drawn by code\n"
    assert [len(s) for s in (fine_train, fine_test, coarse_train, coarse_test)] == [5000, 1000] * 2
    assert (fine_train.classes, coarse_train.classes) == (shapes.CLASSES, shapes.SHAPES)
    assert (fine_train.name, coarse_test.name) == ("shapes100 train", "shapes10 test")
    np.testing.assert_array_equal(fine_test.images, coarse_test.images)
    np.testing.assert_array_equal(fine_test.images, shapes.draw(1000, seed=1)[0])
    for fine, coarse in zip(fine_test.labels[:100], coarse_test.labels[:100], strict=True):
        assert shapes.CLASSES[fine].endswith(shapes.SHAPES[coarse])
    assert not contents(fine_train) & contents(fine_test)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a graphics card")
def test_on_a_graphics_card_no_batch_waits_for_the_steps_before():
    """Waiting for a copy would mean waiting for all that is queued, and the card would idle while Python goes on."""
    augment = Augment(jitter=0.1, alternate=True, reflect=True)
    loader = BatchLoader(data.load("shapes10")[0], 500, augment=augment, shuffle=True, device="cuda")
    *_, (there, labels) = loader  # once without the check: the first call of some functions waits
    here = BatchLoader(loader.image_set, 500, augment=augment, shuffle=True)
    *_, (images, expected) = here
    assert torch.allclose(there.cpu(), images, atol=1.5 / 255) and labels.cpu().equal(expected)
    torch.cuda.set_sync_debug_mode("error")
    try:
        assert sum(len(labels) for _, labels in loader) == 5000
    finally:
        torch.cuda.set_sync_debug_mode("default")
