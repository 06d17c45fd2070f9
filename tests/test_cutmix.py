"""CutMix: what is pasted where, the loss that goes with it, and the loader and the run that use it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from course_utils import data, training
from course_utils.lab import recipes, runs
from course_utils.lab.cutmix import CutMix, part

QUICK = replace(
    recipes.MUON_SMALLNET,
    data="shapes10",
    network_args={"widths": (8, 16), "hidden": 20},
    batch_size=100,
    epochs=4,
    cutmix_epochs=3,
)
LABELS = torch.arange(40) % 7


def pasted(rng):
    """Images whose pixels say which image they come from, after `paste`, and the loss that knows about it."""
    images = torch.arange(40.0).view(40, 1, 1, 1).repeat(1, 3, 32, 32)
    loss_fn = CutMix()
    loss_fn.paste(images, LABELS, rng)
    return images, loss_fn


def test_the_same_rectangle_of_each_image_shows_another_and_its_area_is_the_share():
    rng, mixed, shares = np.random.default_rng(0), 0, []
    for _ in range(300):
        images, loss_fn = pasted(rng)
        own = images == torch.arange(40).view(40, 1, 1, 1)
        if loss_fn.other is None:
            assert own.all()
            continue
        mixed += 1
        shares.append(loss_fn.share)
        where = ~own.all(0)[0]
        assert round((1 - loss_fn.share) * 32 * 32) == where.sum()
        rows, columns = where.any(1), where.any(0)
        assert torch.equal(where, rows[:, None] & columns)
        for side in (rows, columns):  # of one piece
            assert side.diff().sum() <= 2
        if where.any():
            source = images[:, 0, where]
            assert torch.equal(source[:, :1].expand_as(source), source)
            assert torch.equal(loss_fn.other, LABELS[source[:, 0].long()])
    assert 120 < mixed < 180
    assert min(shares) < 0.3 and max(shares) > 0.95


@pytest.mark.parametrize(
    ("middle", "area", "expected"),
    [(0.5, 0.25, (8, 24)), (0.0, 0.25, (0, 8)), (0.999, 0.25, (24, 32)), (0.5, 0.0, (16, 16)), (0.5, 1.0, (0, 32))],
)  # fmt: skip
def test_a_part_stays_inside_its_side(middle, area, expected):
    found = part(32, middle, area)
    assert (found.start, found.stop) == expected


def test_a_range_test_knows_what_was_pasted(monkeypatch):
    seen = {}
    monkeypatch.setattr(
        runs.schedules, "lr_range_test", lambda model, loader, loss_fn, *_, **__: seen.update(vars())
    )
    runs.range_test(replace(QUICK, schedule="range_test", schedule_args={"steps": 3}), 0)
    assert seen["loss_fn"] is seen["loader"].cutmix


def test_the_loss_is_torchs_with_each_label_weighted_by_its_area():
    torch.manual_seed(0)
    logits, labels, other = (
        torch.randn(6, 5),
        torch.tensor([0, 1, 2, 3, 4, 0]),
        torch.tensor([1, 1, 0, 4, 3, 2]),
    )
    for smoothing in (0.0, 0.1):
        ours, theirs = CutMix(label_smoothing=smoothing), nn.CrossEntropyLoss(label_smoothing=smoothing)
        assert torch.equal(ours(logits, labels), theirs(logits, labels))
        ours.other, ours.share = other, 0.7
        soft = 0.7 * nn.functional.one_hot(labels, 5) + 0.3 * nn.functional.one_hot(other, 5)
        torch.testing.assert_close(ours(logits, labels), theirs(logits, soft))
        ours.clear()
        assert torch.equal(ours(logits, labels), theirs(logits, labels))


def test_a_loader_pastes_in_its_first_epochs_and_crops_as_without(shapes):
    few = data.take(shapes, 400)
    stats = data.channel_stats(few)
    ours, plain = (runs.build_loader(replace(QUICK, cutmix_epochs=n), few, stats, True, 0) for n in (2, 0))
    places = []
    for _ in range(3):
        pairs = list(zip(ours, plain, strict=True))
        assert ours.cutmix.other is None, "validation comes next"
        assert all(torch.equal(labels, same) for (_, labels), (_, same) in pairs)
        places.append(torch.stack([(images != whole).any(0).any(0) for (images, _), (whole, _) in pairs]))
    assert [epoch.any().item() for epoch in places] == [True, True, False]
    assert not torch.equal(places[0], places[1])
    again = runs.build_loader(replace(QUICK, cutmix_epochs=2), few, stats, True, 0)
    again.epoch = ours.epoch = 1
    assert all(torch.equal(a[0], b[0]) for a, b in zip(ours, again, strict=True))


def test_what_was_pasted_last_is_not_measured():
    _, loss_fn = pasted(np.random.default_rng(1))
    assert loss_fn.other is not None
    logits = torch.randn(40, 7, generator=torch.Generator().manual_seed(0))
    plain = nn.functional.cross_entropy(logits, LABELS)
    assert loss_fn(logits, LABELS) != plain
    with torch.inference_mode():
        assert loss_fn(logits, LABELS) == plain


def test_a_run_trains_with_the_loss_that_knows(shapes, monkeypatch):
    monkeypatch.setattr(data, "load", lambda *_: (data.take(shapes, 1000), data.take(shapes, 100, seed=1)))
    asked = []

    def forward(self, logits, labels):
        asked.append(self.other is not None)
        return nn.CrossEntropyLoss.forward(self, logits, labels)

    monkeypatch.setattr(CutMix, "forward", forward)
    monkeypatch.setattr(training, "evaluate", lambda *_, **__: 0.0)
    runs.train(replace(QUICK, validation=0.1), 0)
    training_batches = [
        asked[epoch * 10 : epoch * 10 + 9] for epoch in range(4)
    ]  # and then one for validation
    assert [any(epoch) for epoch in training_batches] == [True, True, True, False]
    assert not any(asked[9::10])
