"""The sprint: its network, its optimizer, and what is special about the way in which it sees its images."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn, optim

from course_utils import data, models, training
from course_utils.data import BatchLoader
from course_utils.lab import recipes, runs, sprint
from course_utils.transforms import Augment

QUICK = replace(
    recipes.SPRINT,
    data="shapes10",
    batch_size=500,
    epochs=5,
    network_args={"widths": (8, 16, 16)},
    small_epochs=2,
)


def test_the_first_layer_whitens_patches(shapes):
    mean, std = data.channel_stats(shapes)
    images, _ = next(iter(BatchLoader(shapes, 1000, mean=mean, std=std)))
    model = models.Sprint()
    model.whiten(images)
    nn.init.zeros_(model.patches.bias)
    outputs = model.patches(images)[:, :12].permute(1, 0, 2, 3).flatten(1).double()
    correlations = outputs @ outputs.T / outputs.shape[1]
    loud = correlations.diagonal() > 0.9  # the faintest directions are damped, so that noise is not blown up
    assert loud.sum() >= 6
    torch.testing.assert_close(
        correlations[loud][:, loud], torch.eye(int(loud.sum()), dtype=torch.float64), atol=0.1, rtol=0
    )
    assert (correlations - correlations.diagonal().diag()).abs().max() < 0.01
    assert torch.equal(model.patches.weight[12:], -model.patches.weight[:12])
    assert not model.patches.weight.requires_grad


def test_filters_begin_as_copies_of_their_inputs():
    filters = models.Sprint().filters()[2]  # 64 → 64
    images = torch.rand(2, 64, 5, 5)
    torch.testing.assert_close(nn.functional.conv2d(images, filters, padding=1), images)
    assert not torch.equal(models.Sprint(identity=False).filters()[2], filters)


def test_residual_stages_add_what_they_are_given():
    model = models.Sprint(100, (64, 96, 160), stem=32, residual=True)
    assert models.count_parameters(model) == 937_592
    assert [len(filters) for filters in model.filters()] == [24, 32, *[64] * 3, *[96] * 3, *[160] * 3]
    last = [module for module in model.modules() if isinstance(module, models.Residual)][-1]
    images = torch.randn(4, 160, 3, 3)
    assert not torch.allclose(last(images), images)
    nn.init.zeros_(last[3].weight)  # of the second convolution: nothing is added
    torch.testing.assert_close(last(images), images)


def test_the_first_answers_are_a_guess():
    torch.manual_seed(0)
    labels = torch.randint(10, (64,))
    logits = models.Sprint()(torch.randn(64, 3, 32, 32)).detach()
    loss = nn.functional.cross_entropy(logits, labels)
    assert float(loss) == pytest.approx(np.log(10), abs=0.05)


class Corner(nn.Module):
    """The image's first pixel as its logits."""

    def forward(self, images):
        assert images.shape[2:] == (4, 5), "each view has the size of the picture"
        return images[:, :, 0, 0]


def test_six_views_are_those_that_it_says():
    images = torch.arange(60.0).view(1, 3, 4, 5)
    padded = nn.functional.pad(images, (1, 1, 1, 1), "reflect")
    up_and_left, down_and_right = padded[..., 0:4, 0:5], padded[..., 2:6, 2:7]

    def corners(view):  # of the view and of its mirror image
        return view[:, :, 0, 0] + view[:, :, 0, -1]

    expected = (2 * corners(images) + corners(up_and_left) + corners(down_and_right)) / 8
    torch.testing.assert_close(models.SixViews(Corner())(images), expected)


def test_evaluate_asks_six_times():
    """A network that sees nothing but whether the corner is bright: right in one view, wrong in most of six."""
    image = torch.zeros(1, 3, 8, 8)
    image[..., 0, 0] = 1

    class Bright(nn.Module):
        def forward(self, images):
            bright = images[:, 0, 0, 0]
            return torch.stack([0.4 + 0 * bright, bright], 1)

    batch = [(image, torch.tensor([1]))]
    assert training.evaluate(Bright(), batch) == 1
    assert training.evaluate(Bright(), batch, six_views=True) == 0


@pytest.mark.parametrize("shape", [(16, 40), (40, 16), (20, 20)])
def test_a_step_of_muon_is_nearly_orthogonal(shape):
    torch.manual_seed(0)
    found = torch.linalg.svdvals(sprint.orthogonal(torch.randn(shape), steps=5))
    assert found.min() > 0.3 and found.max() < 1.3


@pytest.mark.parametrize("shape", [(16, 40), (40, 16), (20, 20)])
def test_its_steps_in_the_small_square_are_those_of_the_whole_matrix(shape):
    torch.manual_seed(0)
    matrix = torch.randn(shape).double()
    x = matrix / matrix.norm()
    for _ in range(3):
        x = 3.4445 * x - 4.7750 * x @ x.T @ x + 2.0315 * x @ x.T @ x @ x.T @ x
    torch.testing.assert_close(sprint.orthogonal(matrix), x, atol=1e-6, rtol=0)


def test_muon_keeps_filters_at_their_length_and_moves_all_directions_alike():
    torch.manual_seed(0)
    filters = nn.Parameter(torch.randn(8, 3, 3, 3))
    start = filters.detach() * (8**0.5 / filters.detach().norm())
    filters.grad = torch.randn(8, 3, 3, 3) * torch.logspace(0, -1, 8).view(8, 1, 1, 1)
    sprint.Muon([filters], lr=0.1, momentum=0.6, orthogonal=True).step()
    moved = torch.linalg.svdvals((filters.detach() - start).flatten(1))
    gradient = torch.linalg.svdvals(filters.grad.flatten(1))
    assert moved.max() / moved.min() < gradient.max() / gradient.min() / 2
    assert moved.min() > 0.02 and moved.max() < 0.13


def test_its_other_groups_are_torchs_sgd():
    torch.manual_seed(0)
    ours, theirs = (nn.Parameter(torch.ones(5)) for _ in range(2))
    settings = {"lr": 0.1, "momentum": 0.85, "weight_decay": 0.01}
    optimizers = sprint.Muon([ours], **settings), optim.SGD([theirs], **settings, nesterov=True)
    for _ in range(5):
        ours.grad = theirs.grad = torch.randn(5)
        for optimizer in optimizers:
            optimizer.step()
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("more", [{}, {"stem": 32, "residual": True}])
def test_every_weight_is_in_one_group(more):
    model = models.Sprint(**more)
    model.whiten(torch.rand(10, 3, 32, 32))
    groups = sprint.build_optimizer(model, 0.24, 106.0, 0.02, 0.004).param_groups
    held = [id(p) for group in groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in model.parameters() if p.requires_grad)
    model = models.Sprint(whitened=False, **more)
    groups = sprint.build_optimizer(model, 2.9, 106.0, 0.02, 0.004, muon=False).param_groups
    assert model.patches.weight is groups[0]["params"][0] and not groups[0]["orthogonal"]
    assert all("epochs" not in group for group in groups), (
        "a first layer that is learned is learned to the end"
    )


@pytest.mark.parametrize("model", [models.SmallNet(), models.CustomResNet()])
def test_other_networks_have_muon_for_all_weights_but_the_last_layers(model):
    hidden, rest = sprint.hidden_by_muon(model, 0.1, 0.2, 5e-4).param_groups
    last = list(model.parameters())[-2:]
    assert all(weight.ndim > 1 for weight in hidden["params"])
    assert {id(weight) for weight in last} <= {id(weight) for weight in rest["params"]}
    held = [id(weight) for group in (hidden, rest) for weight in group["params"]]
    assert sorted(held) == sorted(id(weight) for weight in model.parameters())
    assert (hidden["lr"], hidden["orthogonal"], hidden["weight_decay"]) == (0.1, True, 0)
    assert (rest["lr"], rest["orthogonal"], rest["weight_decay"]) == (0.2, False, 5e-4)


def test_rates_fall_to_zero_and_the_first_layers_bias_after_three_epochs():
    model = models.Sprint()
    optimizer = sprint.build_optimizer(model, 0.24, 106.0, 0.02, 0.004)
    scheduler = sprint.falling(optimizer, epochs=9, steps_per_epoch=2)
    rates = []
    for _ in range(18):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    assert rates[0] == [0.24, 106.0, 106.0, 0.02]
    assert rates[9] == pytest.approx([0.12, 53.0, 0.0, 0.01])
    assert rates[5][2] == pytest.approx(106 / 6)
    assert scheduler.get_last_lr() == [0, 0, 0, 0]


def test_nothing_is_flipped_where_flips_are_switched_off(shapes):
    few = data.take(shapes, 40)
    loader = BatchLoader(few, 40, augment=Augment(0, 0, 0, 0, alternate=True))
    (one, _), (other, _) = next(iter(loader)), next(iter(loader))
    assert torch.equal(one, other)


def test_flips_alternate(shapes):
    few = data.take(shapes, 40)
    loader = BatchLoader(few, 40, augment=Augment(0, 0.5, 0, 0, alternate=True))
    first, second, third = (next(iter(loader))[0] for _ in range(3))
    plain = next(iter(BatchLoader(few, 40)))[0]
    assert torch.equal(first, third)
    assert torch.equal(first, second.flip(3))
    mirrored = [not torch.equal(a, b) for a, b in zip(first, plain, strict=True)]
    assert 10 < sum(mirrored) < 30


def test_a_border_is_reflected(shapes):
    images = shapes.images[:5]
    expected = np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)), mode="reflect")
    loader = BatchLoader(shapes, 5, augment=Augment(2, 0, 0, 0, reflect=True))
    assert np.array_equal(loader.store[:5].numpy(), expected)


def test_first_epochs_are_small(shapes):
    loader = runs.build_loader(QUICK, shapes, data.channel_stats(shapes), True, 0)
    sizes = [next(iter(loader))[0].shape[2:] for _ in range(3)]
    assert sizes == [(24, 24), (24, 24), (32, 32)]
    for phase in ("small_epochs", "cutmix_epochs"):
        short = replace(QUICK, epochs=1, **{"small_epochs": 0, "cutmix_epochs": 0} | {phase: 2})
        with pytest.raises(ValueError, match=f"`{phase}` is more than its 1 epochs: shorten it, too"):
            runs.build_loader(short, shapes, data.channel_stats(shapes), True, 0)
    line = torch.linspace(0, 1, 32)
    middles = ((torch.arange(24) + 0.5) * 32 / 24 - 0.5) / 31  # where the small pixels lie on it
    found = sprint.shrink((line + line[:, None]).repeat(2, 3, 1, 1), 24)[..., 1:-1, 1:-1]
    expected = (middles + middles[:, None])[1:-1, 1:-1].expand(2, 3, 22, 22)
    torch.testing.assert_close(found, expected, atol=0.002, rtol=0)  # the nearest pixel is 0.016 off
    whole, part = (runs.training_flops(replace(QUICK, small_epochs=n)) for n in (0, 2))
    assert 0.75 < part / whole < 0.85  # two of five epochs at about half


def test_a_resumed_sprint_is_the_same(shapes, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(data, "load", lambda *_: (data.take(shapes, 1000), data.take(shapes, 100, seed=1)))
    whole = runs.train(QUICK, 0)
    path = tmp_path / "run.checkpoint"

    class Stop(Exception):
        pass

    class Cut(runs.RunCheckpoint):
        def after_epoch(self, run):
            super().after_epoch(run)
            if len(run.history) == 4:
                raise Stop

    with pytest.raises(Stop):
        runs.train(QUICK, 0, checkpoint=Cut(path, QUICK, 0, {}))
    resumed = runs.train(QUICK, 0, checkpoint=runs.RunCheckpoint(path, QUICK, 0, {}))
    assert "continuing after epoch 4 from run.checkpoint\n" in capsys.readouterr().out
    assert not resumed.model.patches.bias.requires_grad
    for ours, theirs in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert whole.six_views == resumed.six_views is not None
