"""The self-checks: right answers pass, each likely wrong one gets its own message, and none is given away."""

import copy
import functools
import re

import numpy as np
import pytest
import torch
from torch import nn

from course_utils import schedules
from course_utils.exercises import checks
from course_utils.models import SmallNet, count_parameters

NETWORK = SmallNet(n_classes=10, widths=(16, 48), hidden=60)
SCHEDULE = {"epochs": 120, "lr": 0.05, "step_epochs": 8, "gamma": 0.2}
CYCLE = {"epochs": 30, "lr_min": 1e-4, "lr_max": 1e-2, "peak_epoch": 6}
RATES = np.geomspace(1e-6, 1, 121)
LOSSES = 2.3 - 1.4 / (1 + (3e-3 / RATES) ** 1.2) + (RATES / 0.3) ** 2  # lowest near 0.05


def message(check, *answers, **task) -> str:
    """What a check says about a wrong answer: one line, and the class that notebooks show as such."""
    with pytest.raises(checks.NotYet) as wrong:
        check(*answers, **task)
    text = str(wrong.value)
    assert "\n" not in text
    return text


def wrong(*cases):
    """Parametrise over (wrong answer, what its message must say)."""
    return pytest.mark.parametrize(("answer", "says"), cases, ids=[case[1] for case in cases])


# --- What all checks share.


def test_a_right_answer_prints_one_line(capsys):
    checks.weights(192_526, NETWORK)
    assert re.fullmatch("correct: .*\n", capsys.readouterr().out)


def test_three_dots_are_no_answer():
    assert "in place of the three dots" in message(checks.weights, ..., NETWORK)
    assert "in place of the three dots" in message(checks.needs_no_bias, ..., ..., None, None)


def test_a_function_that_is_still_a_stub():
    def flip_batch(images, mask): ...

    assert message(checks.flips, flip_batch) == "flip_batch returns nothing yet"


def test_an_answer_that_is_no_number():
    assert message(checks.weights, "many", NETWORK) == "expected a number, found str"


def test_a_notebook_shows_one_line_in_place_of_a_traceback():
    assert checks.NotYet("look there")._render_traceback_() == ["not yet: look there"]


# --- Session 1.


@wrong(
    (192_526 - 16 - 48 - 60 - 10, "biases of the convolutions"),
    (192_526 - 2 * 16 - 2 * 48 - 60 - 10, "biases are missing"),
    (192_526 - 2 * (16 + 48), "two numbers a channel"),
    (192_526 + 2 * (16 + 48), "measured, not learned"),
    (192_526 - 610, "last dense layer"),
    (192_526 + 3 * 3072 * 60, "does the last stage pool"),
    (192_526 - 3 * 768 * 60, "how often is the picture halved"),
    (200_000, "layer_table"),
)
def test_weights(answer, says):
    text = message(checks.weights, answer, NETWORK)
    assert says in text
    assert "192" not in text


@wrong(
    (7, "the pooling is missing"),
    (18, "before the last pooling"),
    (29, "before it, not after it"),
    (8, "how far apart"),
    (32, "not quite the whole"),
    (20, "before each layer"),
)
def test_receptive_field(answer, says):
    text = message(checks.receptive_field, answer, SmallNet().features)
    assert says in text
    assert "22" not in text


def test_the_receptive_field_is_what_gradients_reach():
    features = SmallNet(batch_norm=False, conv_dropout=0).features
    smooth = [nn.AvgPool2d(2) if isinstance(layer, nn.MaxPool2d) else layer for layer in features]
    for layer in smooth:
        if isinstance(layer, nn.Conv2d):
            nn.init.constant_(layer.weight, 0.01)
            nn.init.zeros_(layer.bias)
    image = torch.ones(1, 3, 32, 32, requires_grad=True)
    nn.Sequential(*smooth)(image)[0, 0, 2, 2].backward()
    side = int((image.grad[0, 0] != 0).any(0).sum())
    checks.receptive_field(side, features)


@wrong(
    (23, "one too few"),
    (25, "one too many"),
    (96, "are alive"),
    (97, "the number of the first dead epoch"),
    (12, "the number of drops"),
    (32, "not so soon"),
    (48, "the weight here is 0.01"),
    (60, "logarithmic scale"),
)
def test_dead_epochs(answer, says):
    text = message(checks.dead_epochs, answer, **SCHEDULE)
    assert says in text
    assert "24" not in text


def test_dead_epochs_are_those_in_which_sgd_does_not_move_the_weight():
    rates = schedules.rates_of(lambda optimizer: schedules.step_decay(optimizer, 8, 0.2, 1), 120, 0.05)
    dead = 0
    for rate in rates:
        weight = nn.Parameter(torch.tensor([0.01]))
        weight.grad = torch.ones(1)
        torch.optim.SGD([weight], lr=rate).step()
        dead += bool(weight == torch.tensor([0.01]))
    checks.dead_epochs(dead, **SCHEDULE)


def test_right_numbers(capsys):
    checks.receptive_field(22, SmallNet().features)
    checks.dead_epochs(24, **SCHEDULE)
    checks.cycle_rate(0.00835, epoch=11, **CYCLE)
    checks.picked_rate(0.005, RATES, LOSSES)
    assert capsys.readouterr().out.count("correct: ") == 4


def flipped(axis, choose=lambda mask: mask):
    def flip_batch(images, mask):
        return torch.where(choose(mask)[:, None, None, None], images.flip(axis), images)

    return flip_batch


def flip_in_place(images, mask):
    images[mask] = images[mask].flip(2)
    return images


@wrong(
    (flipped(1), "on their heads"),
    (flipped(3), "colours are swapped"),
    (flipped(2, lambda mask: ~mask), "the wrong ones"),
    (flipped(2, torch.ones_like), "the mask is ignored"),
    (flipped(2, torch.zeros_like), "no image is mirrored"),
    (flip_in_place, "work on a copy"),
    (lambda images, mask: images[mask].flip(2), "all images come back"),
    (lambda images, mask: flipped(2)(images, mask).float(), "found torch.float32"),
    (lambda images, mask: images.numpy(), "expected a torch tensor"),
    (lambda images, mask: 255 - images, "some pixels differ"),
)
def test_flips(answer, says):
    text = message(checks.flips, answer)
    assert says in text
    assert not re.search(r"flip\(|axis 2|dims", text)


def share(logits, labels) -> float:
    return float((logits.argmax(1) == labels).float().mean())


def measured(network, images, labels, after=None, guard=torch.no_grad):
    mode = network.training
    network.eval()
    with guard():
        logits = network(images)
    network.train(mode if after is None else after)
    return share(logits, labels)


@wrong(
    (lambda network, *batch: share(network(batch[0]), batch[1]), "is in train mode"),
    (lambda *args: measured(*args, guard=torch.enable_grad), "autograd takes notes"),
    (lambda *args: measured(*args, after=False), "leaves in eval mode"),
    (lambda *args: measured(*args, after=True), "came in eval mode"),
    (lambda *args: 100 * measured(*args), "found a count or a percentage"),
    (lambda *args: 1 - measured(*args), "the share is wrong"),
)
def test_measures(answer, says):
    text = message(checks.measures, answer)
    assert says in text
    assert not re.search(r"eval\(|no_grad|inference_mode", text)


def bias_pair(change=lambda bare, bare_norm, conv, norm: None, bias=False, **options):
    """(bare, bare_norm, conv, norm), right but for what `change` does to them."""
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
    norm.running_mean += torch.rand(4)
    bare, bare_norm = nn.Conv2d(3, 4, 3, bias=bias, **options), nn.BatchNorm2d(4)
    bare.load_state_dict(conv.state_dict(), strict=False)
    bare_norm.load_state_dict(norm.state_dict())
    bare_norm.running_mean -= conv.bias.data
    with torch.no_grad():
        change(bare, bare_norm, conv, norm)
    return bare, bare_norm, conv, norm


@wrong(
    (bias_pair(bias=True), "still has a bias"),
    (bias_pair(stride=2), "from 3×8×8 the new pair makes 4×3×3, the old one 4×6×6"),
    (bias_pair(padding=1), "the old one 4×6×6"),
    (bias_pair(dilation=2, padding=1), "the output is another"),
    (bias_pair(lambda bare, *_: bare.weight.zero_()), "weights were not copied"),
    (bias_pair(lambda _, bare_norm, *__: bare_norm.running_var.mul_(2)), "running_var of the"),
    (bias_pair(lambda _, bare_norm, conv, __: bare_norm.running_mean.add_(conv.bias)), "is the old one"),
    (bias_pair(lambda _, bare_norm, conv, __: bare_norm.running_mean.add_(2 * conv.bias)), "the wrong way"),
    (bias_pair(lambda _, bare_norm, conv, __: bare_norm.running_mean.copy_(-conv.bias)), "had measured"),
    (bias_pair(lambda _, bare_norm, *__: bare_norm.running_mean.add_(1)), "what was it a mean of"),
)
def test_needs_no_bias(answer, says):
    text = message(checks.needs_no_bias, *answer)
    assert says in text
    assert not re.search(r"subtract|-=|minus", text)


def test_the_network_without_biases_does_the_same(capsys):
    bare, bare_norm, conv, norm = (layer.eval() for layer in bias_pair())
    checks.needs_no_bias(bare, bare_norm, conv, norm)
    x = torch.rand(2, 3, 8, 8)
    assert torch.allclose(bare_norm(bare(x)), norm(conv(x)), atol=1e-6)
    assert capsys.readouterr().out == "correct: the same output with 4 weights fewer\n"


SMALL = SmallNet(100, widths=(32, 64, 96, 128), hidden=120)


@wrong(
    ((SmallNet(10), 300_000, 0.5, 0.1), "expected 100 logits"),
    ((SmallNet(100), 300_000, 0.5, 0.1), "696,376 weights over the budget"),
    ((SMALL, 300_000, 0.1, 0.1), "no better than"),
    ((SMALL, 300_000, 0.34, 0.3), "less than fifteen points"),
)
def test_within_budget(answer, says):
    assert says in message(checks.within_budget, *answer)


def worst(count=2, drop_diagonal=True, swap=False, ascending=False):
    def two_worst(confusion):
        mistakes = confusion - np.diag(np.diag(confusion)) * drop_diagonal
        order = np.argsort(mistakes if ascending else -mistakes, axis=None, kind="stable")
        pairs = [divmod(int(place), len(confusion)) for place in order[:count]]
        return [pair[::-1] if swap else pair for pair in pairs]

    return two_worst


def erase_the_diagonal(confusion):
    np.fill_diagonal(confusion, 0)
    return worst()(confusion)


@wrong(
    (worst(drop_diagonal=False), "leave it out"),
    (worst(swap=True), "a row is a true class"),
    (lambda confusion: worst()(confusion)[::-1], "comes first"),
    (worst(count=3), "expected two pairs, found 3"),
    (lambda confusion: np.argsort(confusion.ravel())[-2:], "np.unravel_index"),
    (lambda confusion: [(2, 0, 12), (0, 1, 9)], "expected pairs (true, predicted)"),
    (lambda confusion: [(0, 3), (3, 0)], "not the commonest"),
    (erase_the_diagonal, "work on a copy"),
)
def test_finds_confusions(answer, says):
    assert says in message(checks.finds_confusions, answer)


def test_right_functions_of_session_1(capsys):
    checks.flips(flipped(2))
    checks.measures(measured)
    checks.within_budget(SMALL, 300_000, 0.5, 0.1)
    checks.finds_confusions(worst())
    assert capsys.readouterr().out.count("correct: ") == 4


# --- Session 2.


@wrong(
    (0.01 - 0.0099 * 5 / 24, "one epoch late"),
    (0.01 - 0.0099 * 3 / 24, "one epoch early"),
    (0.01 * 20 / 24, "does not go down to zero"),
    (0.01 - 0.0099 * 10 / 30, "how long is the way down"),
    (0.01 * 20 / 30, "and to zero"),
    (0.01 * 0.01 ** (1 / 6), "logarithmic"),
    (0.0001 + 0.0099 / 6, "subtract it from the top"),
    (0.5, "sketch the line"),
)
def test_cycle_rate(answer, says):
    text = message(checks.cycle_rate, answer, epoch=11, **CYCLE)
    assert says in text
    assert "835" not in text


def cycle(epochs=24, steps=10, start=0.1, top=1.0, peak=12, end=0.0):
    corners = (0, peak * steps, epochs * steps)
    return np.interp(np.arange(epochs * steps), corners, (start, top, end))


def cosine_cycle():
    half_wave = (1 - np.cos(np.pi * np.arange(120) / 120)) / 2
    return np.concatenate([0.1 + 0.9 * half_wave, 1 - half_wave])


@wrong(
    (cycle(steps=1), "a rate a step, not one an epoch"),
    (cycle(epochs=12, peak=6), "expected 240 rates"),
    (cycle(peak=5), "found it after 5"),
    (cycle(top=2.0), "highest rate should be 1"),
    (cycle(start=0.2), "first rate should be 0.1"),
    (cycle(end=0.1), "down to zero"),
    (cosine_cycle(), "straight lines"),
    (np.isin(np.arange(240), 120) + 0.1 * np.isin(np.arange(240), 0), "straight lines"),
)
def test_cycle(answer, says):
    task = {"epochs": 24, "steps_per_epoch": 10, "lr_min": 0.1, "lr_max": 1.0, "peak_epoch": 12}
    assert says in message(checks.cycle, answer, **task)
    checks.cycle(cycle(), **task)


@wrong(
    (0.05, "keep a distance"),
    (0.2, "rising already"),
    (1e-5, "would crawl"),
    (83, "from the curve's axis"),
    ("0.01 or so", "expected a rate"),
)
def test_picked_rate(answer, says):
    text = message(checks.picked_rate, answer, RATES, LOSSES)
    assert says in text
    assert "tenth" not in text


def unnormalise(batch, mean, std, scale=255, nudge=0.5):
    pixels = scale * (batch * std[:, None, None] + mean[:, None, None])
    return (pixels.permute(0, 2, 3, 1) + nudge).to(torch.uint8)


@wrong(
    (lambda *args: unnormalise(*args, nudge=0), "cuts the fraction off"),
    (lambda *args: unnormalise(*args, scale=1), "pixels go up to 255"),
    (lambda batch, mean, std: batch * 0.2 + 0.4, "still on the scale"),
    (lambda *args: unnormalise(*args).permute(0, 3, 1, 2), "channels last"),
    (lambda batch, mean, std: unnormalise((batch + 1) * 0.9, mean, std), "undo the last thing first"),
    (lambda batch, mean, std: unnormalise(batch.mul_(1.1), mean, std), "work on a copy"),
)
def test_unnormalises(answer, says):
    text = message(checks.unnormalises, answer)
    assert says in text
    assert not re.search(r"round|permute|\* ?255", text)


def windows(padded, top, left, size):
    images = torch.arange(len(padded))[:, None, None]
    square = torch.arange(size)
    return padded[images, (top[:, None] + square)[:, :, None], (left[:, None] + square)[:, None, :]]


@wrong(
    (lambda padded, top, left, size: windows(padded, left, top, size), "top and left are swapped"),
    (lambda padded, top, left, size: padded[:, :size, 4 : 4 + size], "the first one's window"),
    (lambda padded, top, left, size: padded[:, :size, :size], "starts in the corner"),
    (lambda *args: windows(*args).transpose(1, 2), "rows and columns are exchanged"),
    (lambda padded, top, left, size: padded[:, :, :size], "one window an image"),
    (lambda padded, top, left, size: padded[:, -size:, -size:], "some pixels differ"),
)
def test_crops(answer, says):
    assert says in message(checks.crops, answer)


def branch(c_in, c_out, stride, between=nn.ReLU):
    def layers(c_in, stride):
        return nn.Conv2d(c_in, c_out, 3, stride, padding=1), nn.BatchNorm2d(c_out)

    return nn.Sequential(*layers(c_in, stride), between(), *layers(c_out, 1))


def short(c_in, c_out, stride):
    return nn.Conv2d(c_in, c_out, 3, stride, padding=1)


def block(
    branch=branch,
    kernel=1,
    changes=lambda c_in, c_out, stride: c_in != c_out or stride != 1,
    combine=lambda branch, shortcut: branch + shortcut,
):
    class Block(nn.Module):
        def __init__(self, c_in, c_out, stride):
            super().__init__()
            self.branch = branch(c_in, c_out, stride)
            self.shortcut = (
                nn.Conv2d(c_in, c_out, kernel, stride, padding=kernel // 2)
                if changes(c_in, c_out, stride)
                else nn.Identity()
            )

        def forward(self, x):
            return combine(self.branch(x), self.shortcut(x))

    return Block


class Unfinished(nn.Module):
    def __init__(self, c_in, c_out, stride):
        super().__init__()
        self.branch = ...


@wrong(
    (Unfinished, "no layers in self.branch yet"),
    (block(lambda c_in, c_out, stride: branch(c_in, c_out, 1)), "the branch turns 8×6×6 into 16×6×6"),
    (block(short), "found 1 and 0"),
    (block(functools.partial(branch, between=nn.Identity)), "the branch is linear"),
    (block(changes=lambda c_in, c_out, stride: c_in != c_out), "branch gives 8×3×3, the shortcut 8×6×6"),
    (block(changes=lambda c_in, c_out, stride: stride != 1), "branch gives 16×6×6, the shortcut 8×6×6"),
    (block(kernel=3), "that is a second branch"),
    (block(changes=lambda *shape: True), "it needs no weights"),
    (block(combine=lambda branch, shortcut: branch), "nothing goes around it"),
    (block(combine=lambda branch, shortcut: shortcut), "the shortcut alone"),
    (block(combine=lambda branch, shortcut: (branch + shortcut).relu()), "free of a ReLU"),
    (block(combine=lambda branch, shortcut: branch * shortcut), "does not return the sum"),
    (block(combine=lambda *both: torch.cat(both, 1)), "another shape"),
    (block(combine=lambda *both: None), "returns nothing yet"),
)
def test_residual_block(answer, says):
    assert says in message(checks.residual_block, answer)


def test_residual_block_whose_shapes_differ():
    class Block(nn.Module):
        def __init__(self, c_in, c_out, stride):
            super().__init__()
            self.branch, self.shortcut = branch(c_in, c_out, stride), nn.Identity()

    assert "the branch gives 16×3×3, the shortcut 8×6×6" in message(checks.residual_block, Block)


def smoothed(logits, labels, smoothing, spread=lambda k: k, reduce=torch.mean):
    n, k = logits.shape
    target = torch.full((n, k), smoothing / spread(k))
    target[torch.arange(n), labels] = 1 - smoothing + (smoothing / k if spread(k) == k else 0)
    return reduce(-(target * logits.log_softmax(1)).sum(1))


@wrong(
    (lambda logits, labels, smoothing: smoothed(logits, labels, 0), "without smoothing"),
    (lambda *args: smoothed(*args, spread=lambda k: k - 1), "the true one included"),
    (lambda logits, *args: smoothed(logits.softmax(1), *args), "softmax comes twice"),
    (lambda *args: smoothed(*args, reduce=torch.sum), "the batch's sum"),
    (lambda *args: smoothed(*args) / 4, "average over the pictures only"),
    (lambda *args: -smoothed(*args), "the sign"),
    (lambda *args: smoothed(*args, reduce=lambda x: x), "expected one number"),
    (lambda *args: 10.0, "it must sum to 1"),
)
def test_smooths_labels(answer, says):
    text = message(checks.smooths_labels, answer)
    assert says in text
    assert not re.search(r"log_softmax|/ ?K", text)


def averaged(network, images, axis=3, guard=torch.no_grad, mode=False, of=lambda logits: logits):
    network.train(mode)
    with guard():
        return (of(network(images)) + of(network(images.flip(axis)))) / 2


@wrong(
    (lambda *args: averaged(*args, axis=2), "on their heads"),
    (lambda *args: averaged(*args, axis=1), "colours are swapped"),
    (lambda *args: averaged(*args, mode=True), "in train mode"),
    (lambda *args: averaged(*args, guard=torch.enable_grad), "autograd takes notes"),
    (lambda *args: 2 * averaged(*args), "the sum of the two"),
    (lambda *args: averaged(*args, of=lambda logits: logits.softmax(1)), "average the logits"),
    (lambda *args: averaged(*args).argmax(1), "one row of logits an image"),
    (lambda *args: 3 * averaged(*args), "not the mean"),
    (lambda network, images: averaged(network, images, of=lambda x: network(images)), "images alone"),
    (
        lambda network, images: averaged(network, images, of=lambda x: network(images.flip(3))),
        "mirrored images alone",
    ),
)
def test_averages_flips(answer, says):
    text = message(checks.averages_flips, answer)
    assert says in text
    assert not re.search(r"flip\(|axis 3|dims", text)


def test_averaging_flips_may_put_the_mode_back_or_work_on_a_copy(capsys):
    def puts_it_back(network, images):
        found = averaged(network, images)
        network.train()
        return found

    checks.averages_flips(puts_it_back)
    checks.averages_flips(lambda network, images: averaged(copy.deepcopy(network), images))
    assert capsys.readouterr().out.count("correct: ") == 2
    assert "in train mode" in message(
        checks.averages_flips, lambda network, images: averaged(copy.deepcopy(network), images, mode=True)
    )


def test_right_functions_of_session_2(capsys):
    checks.unnormalises(unnormalise)
    checks.crops(windows)
    checks.residual_block(block())
    checks.residual_block(block(functools.partial(branch, between=nn.GELU)))
    checks.smooths_labels(smoothed)
    checks.averages_flips(averaged)
    assert capsys.readouterr().out.count("correct: ") == 6


def test_the_small_network_of_the_budget_fits_it():
    assert 150_000 < count_parameters(SMALL) <= 300_000
