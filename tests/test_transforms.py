"""Both pipelines: the same draws give the same pixels, the draws have the right distribution, in workers as well."""

import pickle

import albumentations as A
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from course_utils import transforms
from course_utils.data import BatchLoader, ImageSet, PerImageDataset
from course_utils.transforms import Augment, per_image

MEAN, STD = np.array([0.49, 0.48, 0.45]), np.array([0.25, 0.24, 0.26])
FILL = torch.tensor(transforms.mean_colour(MEAN), dtype=torch.uint8)


def pictures(n, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)


def batched(images, augment, draws):
    padded = transforms.pad(torch.from_numpy(images), augment.padding, FILL)
    pixels = augment(padded, torch.arange(len(images)), draws, FILL)
    return transforms.normalise(pixels, torch.tensor(MEAN).float(), torch.tensor(STD).float())


def one_image(image, draws, i, monkeypatch):
    """The assignment's pipeline on one image, with its random choices replaced by `draws[i]`."""
    corner = {"top": int(draws.top[i]), "left": int(draws.left[i]), "height": 32, "width": 32}
    original = v2.RandomCrop.make_params

    def make_params(self, flat_inputs):
        return original(self, flat_inputs) | corner

    top, left = int(draws.hole_top[i]), int(draws.hole_left[i])
    holes = np.array([[left, top, left + 8, top + 8]])
    monkeypatch.setattr(v2.RandomCrop, "make_params", make_params)
    monkeypatch.setattr(A.HorizontalFlip, "should_apply", lambda self, force_apply=False: bool(draws.flip[i]))
    monkeypatch.setattr(A.CoarseDropout, "should_apply", lambda self, force_apply=False: top >= 0)
    where = "get_params_dependent_on_data"
    monkeypatch.setattr(A.CoarseDropout, where, lambda self, params, data: {"holes": holes, "seed": 0})
    return per_image(MEAN, STD)(image)


def test_same_draws_same_pixels(monkeypatch):
    images, augment = pictures(40), Augment()
    draws = augment.draw(40, 32, np.random.default_rng(1))
    assert len({(bool(f), bool(h >= 0)) for f, h in zip(draws.flip, draws.hole_top, strict=True)}) == 4
    twin = batched(images, augment, draws)
    for i in range(40):
        torch.testing.assert_close(one_image(images[i], draws, i, monkeypatch), twin[i], rtol=0, atol=1e-5)


def test_draws_have_the_assignments_distribution():
    draws = Augment().draw(20_000, 32, np.random.default_rng(0))
    has_hole = draws.hole_top >= 0
    for choice, low, high in ((draws.top, 0, 8), (draws.left, 0, 8)):
        counts = torch.bincount(choice, minlength=9)
        assert (int(choice.min()), int(choice.max())) == (low, high)
        assert torch.allclose(counts / 20_000, torch.full((9,), 1 / 9), atol=0.01)
    assert float(draws.flip.float().mean()) == pytest.approx(0.5, abs=0.02)
    assert float(has_hole.float().mean()) == pytest.approx(0.5, abs=0.02)
    assert torch.equal(has_hole, draws.hole_left >= 0)
    assert torch.equal(draws.hole_top[has_hole].unique(), torch.arange(25)), "the hole lies inside the image"
    assert abs(float(torch.corrcoef(torch.stack([draws.top, draws.left]).float())[0, 1])) < 0.03


def test_both_pipelines_draw_the_same_range_of_holes_and_shifts():
    """What is uncovered, over many draws of one white image, agrees between the two pixel by pixel."""
    white = np.full((1, 32, 32, 3), 255, dtype=np.uint8)
    torch.manual_seed(0)
    transform = per_image(MEAN, STD)
    one = torch.stack([transform(white[0]) for _ in range(6000)])
    augment = Augment()
    twin = batched(np.repeat(white, 6000, 0), augment, augment.draw(6000, 32, np.random.default_rng(0)))
    shares = [(batch[:, 0] < 0.5).float().mean(0) for batch in (one, twin)]
    assert float((shares[0] - shares[1]).abs().max()) < 0.06
    assert float((shares[0] - shares[1]).abs().mean()) < 0.01


def choices(loader):
    """For each image, of which the right half is white: whether it was flipped, has a hole, and its crop's corner."""
    images = torch.cat([images for images, _ in loader])[:, 0]
    flipped = images[:, :, :12].mean((1, 2)) > images[:, :, 20:].mean((1, 2))
    hole = ((images - images.amax((1, 2), keepdim=True)).abs() > 0.1).long().sum((1, 2)) % 64
    return torch.stack([flipped.long(), hole, images.argmax(2).sum(1)])


@pytest.mark.parametrize("persistent", [False, True])
def test_workers_draw_apart_in_every_epoch_and_a_seed_repeats_them(persistent):
    half = np.zeros((256, 32, 32, 3), np.uint8)
    half[:, :, 16:] = 255
    images = ImageSet(half, np.zeros(256, np.int64), ("half",), "halves")

    def epochs(seed, workers):
        torch.manual_seed(seed)
        dataset = PerImageDataset(images, per_image(MEAN, STD))
        options = {"num_workers": workers, "persistent_workers": persistent and workers > 0}
        loader = DataLoader(dataset, batch_size=32, **options)
        return choices(loader), choices(loader)

    for workers in (0, 2):
        first, second = epochs(0, workers)
        again, _ = epochs(0, workers)
        other, _ = epochs(1, workers)
        batches = first[0].view(-1, 2, 32)  # batches go to workers 0, 1, 0, 1, …
        assert torch.equal(first, again), "reproducible"
        for a, b in ((first[0], second[0]), (batches[:, 0], batches[:, 1]), (first[0], other[0])):
            assert 0.35 < float((a == b).float().mean()) < 0.65, "unrelated flips agree in a half"
        flip, hole = first[0] > 0, first[1] > 0
        assert 0.35 < float((flip == hole).float().mean()) < 0.65, "the flip does not decide on the hole"


def test_the_pipeline_without_chance_takes_no_random_numbers_and_can_be_pickled():
    """Windows and macOS start workers anew, with what they are to do in a pickle."""
    image, transform = pictures(1)[0], per_image(MEAN, STD, train=False)
    assert torch.equal(transform(Image.fromarray(image)), transform(image)), (
        "as torchvision's datasets give it"
    )
    before = torch.get_rng_state()
    out = pickle.loads(pickle.dumps(transform))(image)
    np.testing.assert_allclose(out.numpy(), ((image / 255 - MEAN) / STD).transpose(2, 0, 1), atol=1e-5)
    assert torch.equal(before, torch.get_rng_state())
    pickle.dumps(per_image(MEAN, STD))


@pytest.mark.parametrize("std", [(0.2, 0.0, 0.2), (0.2, np.nan, 0.2)])
def test_a_constant_channel_is_named(std):
    with pytest.raises(ValueError, match="standard deviations above 0, found (0|nan) in the green channel"):
        per_image(MEAN, std)


@pytest.mark.parametrize("std", [0.2, (0.2, 0.2), (0.2,) * 4])
def test_there_are_three_standard_deviations(std):
    with pytest.raises(ValueError, match="expected three standard deviations, found "):
        per_image(MEAN, std)


@pytest.mark.parametrize("std", [(63.0, 62.1, 66.7), (0.2, 0.2, 62.0)])
def test_statistics_of_bytes_are_refused(std):
    with pytest.raises(ValueError, match=r"of pixels in \[0, 1\], found 6[23]: divide std by 255"):
        per_image(MEAN, std, train=False)


@pytest.mark.parametrize("colour", [(125.3, 123.0, 113.9), (-0.5, 0.0, 0.0), (0.5, float("nan"), 0.5)])
def test_a_colour_lies_between_black_and_white(colour):
    with pytest.raises(ValueError, match=r"expected mean or fill in \[0, 1\], .*found \["):
        transforms.mean_colour(colour)


def test_jitter_is_torchvisions_in_a_fixed_order():
    images, augment = pictures(20), Augment(padding=0, flip=0, hole=0, hole_chance=0, jitter=0.3)
    draws = augment.draw(20, 32, np.random.default_rng(0))
    out = augment(torch.from_numpy(images), torch.arange(20), draws, FILL)
    steps = (v2.functional.adjust_brightness, v2.functional.adjust_contrast, v2.functional.adjust_saturation)
    for image, light, found in zip(images, draws.light, out, strict=True):
        expected = torch.from_numpy(image).permute(2, 0, 1).float() / 255
        for adjust, factor in zip(steps, light.tolist(), strict=True):
            expected = adjust(expected, factor)
        torch.testing.assert_close(found.permute(2, 0, 1).float() / 255, expected, rtol=0, atol=1.5 / 255)


def test_jitter_draws_its_own_factors_for_each_image_and_leaves_the_other_draws():
    without = Augment().draw(5000, 32, np.random.default_rng(0))
    with_jitter = Augment(jitter=0.2).draw(5000, 32, np.random.default_rng(0))
    assert torch.equal(without.light, torch.ones(5000, 3))
    for name in ("top", "left", "flip", "hole_top", "hole_left"):
        assert torch.equal(getattr(without, name), getattr(with_jitter, name))
    assert float(with_jitter.light.min()) == pytest.approx(0.8, abs=0.001)
    assert float(with_jitter.light.max()) == pytest.approx(1.2, abs=0.001)
    assert float((torch.corrcoef(with_jitter.light.T) - torch.eye(3)).abs().max()) < 0.05


def test_originals_are_not_touched():
    images = pictures(8)
    store = torch.from_numpy(images.copy())
    augment = Augment(padding=0, flip=1.0, hole_chance=1.0, jitter=0.2)
    augment(store, torch.arange(8), augment.draw(8, 32, np.random.default_rng(0)), FILL)
    assert np.array_equal(store.numpy(), images)


def test_fill_becomes_zero_after_normalisation():
    painted = FILL.expand(1, 32, 32, 3).contiguous()
    out = transforms.normalise(painted, torch.tensor(MEAN).float(), torch.tensor(STD).float())
    assert float(out.abs().max()) < 0.5 / 255 / STD.min() + 1e-6


def test_a_store_in_another_order_gives_the_same_pixels():
    images, augment = torch.from_numpy(pictures(8)), Augment(padding=2)
    planes = images.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    draws = augment.draw(8, 28, np.random.default_rng(0))
    expected, found = (augment(store, torch.arange(8), draws, FILL) for store in (images, planes))
    assert torch.equal(found, expected)


@pytest.mark.parametrize("chance", [True, 50, -0.1, float("nan")])
@pytest.mark.parametrize(
    ("name", "what"), [("flip", "probability"), ("hole_chance", "probability"), ("jitter", "share")]
)
def test_a_chance_is_a_probability_and_a_jitter_a_share(name, what, chance):
    with pytest.raises(ValueError, match=f"expected {name} to be a {what}, 0 to 1, found {chance!r}"):
        Augment(**{name: chance})


@pytest.mark.parametrize("name", ["padding", "hole"])
@pytest.mark.parametrize("pixels", [-1, 4.0])
def test_padding_and_hole_are_whole_pixels(name, pixels):
    with pytest.raises(ValueError, match=f"expected {name} in whole pixels, 0 or more, found {pixels}"):
        Augment(**{name: pixels})


def test_a_hole_fits_into_the_image():
    assert (Augment(hole=32).draw(8, 32, np.random.default_rng(0)).hole_top <= 0).all()
    with pytest.raises(ValueError, match="a hole of 40 pixels does not fit into images of 32"):
        Augment(hole=40).draw(8, 32, np.random.default_rng(0))


@pytest.mark.parametrize(("mean", "std"), [(0.5, 0.5), ((0.5,), (0.5,))])
def test_three_channels_have_three_means(mean, std):
    images = ImageSet(np.zeros((4, 32, 32, 3), np.uint8), np.arange(4) % 2, ("a", "b"), "four")
    for scale in (per_image, lambda *_: BatchLoader(images, 4, mean=mean, std=std)):
        with pytest.raises(ValueError, match=r"expected mean or fill in \[0, 1\], three, found \[0.5"):
            scale(mean, std)


def test_a_mean_of_bytes_is_refused_whatever_the_fill():
    images = ImageSet(np.zeros((4, 32, 32, 3), np.uint8), np.arange(4) % 2, ("a", "b"), "four")
    with pytest.raises(
        ValueError, match=r"expected mean or fill in \[0, 1\], .* found \[120 120 120\] .are these bytes"
    ):
        BatchLoader(images, 4, mean=(120, 120, 120), std=(0.2, 0.2, 0.2), fill=(0.5, 0.5, 0.5))


def test_pictures_of_another_size_are_not_cut_without_a_word():
    transform = per_image((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    with pytest.raises(ValueError, match=r"pictures of 32×32 to crop .*, found \(64, 64, 3\)"):
        transform(np.zeros((64, 64, 3), np.uint8))


def test_normalise_in_channels_last():
    images = pictures(4)
    out = transforms.normalise(
        torch.from_numpy(images), torch.tensor(MEAN).float(), torch.tensor(STD).float()
    )
    expected = ((images / 255 - MEAN) / STD).transpose(0, 3, 1, 2)
    assert out.shape == (4, 3, 32, 32)
    assert out.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_allclose(out.numpy(), expected, atol=1e-5)
