"""The self-checks: right answers pass, each likely wrong one gets its own message, and none is given away."""

import copy
import functools
import re
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from course_utils.exercises import self_check, session1, session2
from course_utils.models import SmallNet

NETWORK = SmallNet(n_classes=10, widths=(16, 48), hidden=60)
SMALL = SmallNet(100, widths=(32, 64, 96, 128), hidden=120)
FEATURES = SmallNet().features
TWICE = nn.Sequential(*2 * [nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.MaxPool2d(2)])
SCHEDULE = {"epochs": 120, "lr": 0.05, "step_epochs": 8, "gamma": 0.2}
RATE = {"epoch": 11, "epochs": 30, "lr_min": 1e-4, "lr_max": 1e-2, "peak_epoch": 6}
CYCLE = {"epochs": 24, "steps_per_epoch": 10, "lr_min": 0.1, "lr_max": 1.0, "peak_epoch": 12}
RATES = np.geomspace(1e-6, 1, 121)
LOSSES = 2.3 - 1.4 / (1 + (3e-3 / RATES) ** 1.2) + (RATES / 0.3) ** 2  # lowest near 0.05


# --- Answers as students give them: each function is right as it stands, and wrong by its arguments.


def train(
    network, loader, loss_fn, optimizer, schedule, epochs, forget=True, mode=True, moves="batch", weigh=True
):
    """Written again, as students do: the checks compare with a loop of their own."""
    losses = []
    for _ in range(epochs):
        network.train(mode)
        total = count = 0
        for images, labels in loader:
            if forget:
                optimizer.zero_grad()
            loss = loss_fn(network(images), labels)
            loss.backward()
            optimizer.step()
            if moves == "batch":
                schedule.step()
            size = len(labels) if weigh else 1
            total, count = total + size * loss.item(), count + size
        if moves == "epoch":
            schedule.step()
        losses.append(total / count)
    return losses


def share(logits, labels) -> float:
    return float((logits.argmax(1) == labels).float().mean())


def measure(network, images, labels, after=None, guard=torch.no_grad):
    mode = network.training
    network.eval()
    with guard():
        logits = network(images)
    network.train(mode if after is None else after)
    return share(logits, labels)


def put_one_mode_back(network, images, labels):
    mode = network.training
    found = measure(network, images, labels, after=False)
    network.training = mode
    return found


def functional():
    """A network of 100 classes whose activation is no module."""

    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3072, 100)

        def forward(self, x):
            return nn.functional.gelu(self.layer(x.flatten(1)))

    return Functional()


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


def two_worst(confusion, count=2, drop_diagonal=True, swap=False):
    mistakes = confusion - np.diag(np.diag(confusion)) * drop_diagonal
    order = np.argsort(-mistakes, axis=None, kind="stable")
    pairs = [divmod(int(place), len(confusion)) for place in order[:count]]
    return [pair[::-1] if swap else pair for pair in pairs]


def by_count(confusion):
    counts = {confusion[i, j]: (i, j) for i, j in np.ndindex(*confusion.shape) if i != j}
    return [counts[count] for count in sorted(counts, reverse=True)[:2]]


def of_four_classes(confusion):
    mistakes = confusion - np.diag(np.diag(confusion))
    return [divmod(int(place), 4) for place in np.argsort(-mistakes, axis=None, kind="stable")[:2]]


def skip_the_largest(confusion):
    """As if the diagonal held the largest counts: not where one class is hardly ever right."""
    order = np.argsort(-confusion, axis=None)[len(confusion) :][:2]
    return [np.unravel_index(place, confusion.shape) for place in order]


def mask_each_rows_largest(confusion):
    return two_worst(
        np.where(confusion == confusion.max(1, keepdims=True), 0, confusion), drop_diagonal=False
    )


def each_rows_largest(confusion):
    mistakes = confusion - np.diag(np.diag(confusion))
    return [(row, mistakes[row].argmax()) for row in np.argsort(-mistakes.max(1), kind="stable")[:2]]


def erase_the_diagonal(confusion):
    np.fill_diagonal(confusion, 0)
    return two_worst(confusion)


def cycle(epochs=24, steps=10, start=0.1, top=1.0, peak=12, end=0.0):
    corners = (0, peak * steps, epochs * steps)
    return np.interp(np.arange(epochs * steps), corners, (start, top, end))


def cosine_cycle():
    half_wave = (1 - np.cos(np.pi * np.arange(120) / 120)) / 2
    return np.concatenate([0.1 + 0.9 * half_wave, 1 - half_wave])


def unnormalise(batch, mean, std, scale=255, nudge=0.5):
    pixels = scale * (batch * std[:, None, None] + mean[:, None, None])
    return (pixels.permute(0, 2, 3, 1) + nudge).to(torch.uint8)


def windows(padded, top, left, size):
    images = torch.arange(len(padded))[:, None, None]
    square = torch.arange(size)
    return padded[images, (top[:, None] + square)[:, :, None], (left[:, None] + square)[:, None, :]]


def with_norm_itself():
    bare, _, conv, norm = bias_pair()
    norm.running_mean -= conv.bias.data
    return bare, norm, conv, norm


def one_by_one(padded, top, left, size):
    places = zip(padded, top, left, strict=True)
    return torch.stack([image[y : y + size, x : x + size] for image, y, x in places])


def branch(
    c_in, c_out, stride, between=nn.ReLU, before=nn.Identity, after=nn.Identity, bias=False, late=False
):
    def layers(c_in, stride):
        return nn.Conv2d(c_in, c_out, 3, stride, padding=1, bias=bias), nn.BatchNorm2d(c_out)

    strides = (1, stride) if late else (stride, 1)
    return nn.Sequential(before(), *layers(c_in, strides[0]), between(), *layers(c_out, strides[1]), after())


class Backwards(nn.Module):
    """A branch that makes its last layer first."""

    def __init__(self, *sizes):
        super().__init__()
        self.layers = nn.ModuleList([*branch(*sizes)][::-1])

    def forward(self, x):
        for layer in reversed(self.layers):
            x = layer(x)
        return x


def norms_last(c_in, c_out, stride):
    conv, norm, bend, other, last = [*branch(c_in, c_out, stride)][1:6]
    return nn.Sequential(conv, bend, other, norm, last)


def block(
    branch=branch,
    kernel=1,
    changes=lambda c_in, c_out, stride: c_in != c_out or stride != 1,
    combine=lambda branch, shortcut: branch + shortcut,
    last=nn.Identity,
):
    class Block(nn.Module):
        def __init__(self, c_in, c_out, stride):
            super().__init__()
            self.branch = branch(c_in, c_out, stride)
            short = nn.Conv2d(c_in, c_out, kernel, stride, padding=kernel // 2, bias=False)
            self.shortcut = nn.Sequential(short if changes(c_in, c_out, stride) else nn.Identity(), last())

        def forward(self, x):
            return combine(self.branch(x), self.shortcut(x))

    return Block


class Unfinished(nn.Module):
    def __init__(self, c_in, c_out, stride):
        super().__init__()
        self.branch = ...


def smoothed(
    logits,
    labels,
    smoothing,
    spread=lambda k: k,
    reduce=torch.mean,
    classes=lambda logits, labels: logits.shape[1],
):
    n, k = len(logits), classes(logits, labels)
    target = torch.full(logits.shape, smoothing / spread(k))
    target[torch.arange(n), labels] = 1 - smoothing + (smoothing / k if spread(k) == k else 0)
    return reduce(-(target * logits.log_softmax(1)).sum(1))


def interval(changed, baseline, ddof=1, factor=None, root=True, swap=False, of_rows=False):
    difference, n = changed - baseline, len(changed)
    spread = np.hypot(changed.std(ddof=1), baseline.std(ddof=1)) if of_rows else difference.std(ddof=ddof)
    half = (factor or stats.t.ppf(0.975, n - 1)) * spread / (n**0.5 if root else 1)
    ends = difference.mean() - half, difference.mean() + half
    return ends[::-1] if swap else ends


def averaged(network, images, axis=3, guard=torch.no_grad, mode=False, of=lambda logits: logits):
    network.train(mode)
    with guard():
        return (of(network(images)) + of(network(images.flip(axis)))) / 2


def averaged_by_a_copy(network, images, **how):
    return averaged(copy.deepcopy(network), images, **how)


def averaged_on_its_device(network, images):
    device = next(network.parameters()).device
    return averaged(network, images.to(device))


def log_of_softmax(logits, labels, smoothing):
    """Infinite where a probability is too small for float32."""
    logs = torch.log(torch.softmax(logits, 1))
    return -((1 - smoothing) * logs[torch.arange(len(labels)), labels] + smoothing * logs.mean(1)).mean()


def but(function, **how):
    """`function` with one thing done differently."""
    return functools.update_wrapper(functools.partial(function, **how), function)


# --- What they are told.


def softmax_before(loss_fn):
    return lambda logits, labels: loss_fn(logits.softmax(1), labels)


def share_the_mean(bare, bare_norm, conv, norm):
    bare_norm.running_mean = norm.running_mean
    norm.running_mean -= conv.bias


def cases(check, secret, *wrong, **task):
    """A test of `check` for each (answers, what its message must say); `secret` is what no message may contain."""
    rows = [(check, answers, task, says, secret) for answers, says in wrong]
    return [pytest.param(*row, id=f"{check.__name__}: {row[3]}") for row in rows]


def message(check, *answers, **task) -> str:
    with pytest.raises(self_check.NotYet) as wrong:
        check(*answers, **task)
    return str(wrong.value)


WRONG = [
    *cases(
        session1.weights,
        "192",
        ((192_526 - 16 - 48 - 60 - 10, NETWORK), "biases of the convolutions"),
        ((192_526 - 2 * 16 - 2 * 48 - 60 - 10, NETWORK), "biases are missing"),
        ((192_526 - 2 * (16 + 48), NETWORK), "two numbers a channel"),
        ((192_526 + 2 * (16 + 48), NETWORK), "measured, not learned"),
        ((192_526 - 610, NETWORK), "last dense layer"),
        ((192_526 + 90 * 61, NETWORK), "for a hundred classes"),
        ((192_526 + 3 * 3072 * 60, NETWORK), "does the last stage pool"),
        ((192_526 - 3 * 768 * 60, NETWORK), "how often is the picture halved"),
        ((200_000, NETWORK), "layer_table"),
        (("many", NETWORK), "expected a number, found str"),
        ((..., NETWORK), "in place of the three dots"),
    ),
    *cases(
        session1.receptive_field,
        "22",
        ((7, FEATURES), "the pooling is missing"),
        ((18, FEATURES), "before the last pooling"),
        ((29, FEATURES), "before it, not after it"),
        ((8, FEATURES), "how far apart"),
        ((32, FEATURES), "not quite the whole"),
        ((20, FEATURES), "before each layer"),
        ((9, TWICE), "the pooling is missing"),
        ((14, TWICE), "before the last pooling"),
        ((19, TWICE), "before it, not after it"),
        ((4, TWICE), "how far apart"),
    ),
    *cases(
        session1.dead_epochs,
        "24",
        ((23,), "one too few"),
        ((25,), "one too many"),
        ((96,), "are alive"),
        ((97,), "the number of the first dead epoch"),
        ((12,), "the number of drops"),
        ((32,), "not so soon"),
        ((48,), "the weight here is 0.01"),
        ((0,), "none in float64"),
        ((60,), "log scale"),
        **SCHEDULE,
    ),
    *cases(
        session1.trains,
        r"zero_grad|train\(|step\(|item\(",
        ((but(train, forget=False),), "pile up"),
        ((but(train, mode=False),), "in eval mode"),
        ((but(train, moves="never"),), "never changes"),
        ((but(train, moves="epoch"),), "once per epoch"),
        ((but(train, weigh=False),), "the last batch is smaller"),
        ((lambda *args: [0.0, 0.0],), "have not moved"),
        ((lambda *args: train(*args)[-1],), "expected a list of one loss"),
        ((lambda *args: list(map(torch.tensor, train(*args))),), "plain number"),
        ((lambda *args: [10 * loss for loss in train(*args)],), "the losses are not"),
        ((lambda *args: train(*args) and train(*args),), "the weights differ"),
        ((lambda *args: train(*args[:2], nn.CrossEntropyLoss(), *args[3:]),), "another loss"),
        (
            (lambda *args: train(*args[:2], softmax_before(args[2]), *args[3:]),),
            "softmax comes twice",
        ),
        ((lambda *args: train(*args[:-1], 2),), "it trains for more"),
        ((lambda *args: ...,), "returns nothing yet"),
    ),
    *cases(
        session1.measures,
        r"eval\(|no_grad|inference_mode",
        ((lambda network, images, labels: share(network(images), labels),), "is in train mode"),
        ((but(measure, guard=torch.enable_grad),), "autograd prepares"),
        ((but(measure, after=False),), "came in train mode and leaves in eval mode"),
        ((but(measure, after=True),), "came in eval mode and leaves in train mode"),
        ((put_one_mode_back,), "but its layers do not"),
        (
            (lambda network, *rest: measure(copy.deepcopy(network), *rest, guard=nullcontext),),
            "autograd prepares",
        ),
        ((lambda *args: 100 * measure(*args),), "found a percentage"),
        ((lambda *args: 10 * measure(*args),), "found a count"),
        ((lambda *args: 1 - measure(*args),), "the share is wrong"),
    ),
    *cases(
        session1.needs_no_bias,
        r"subtract|-=|minus",
        ((bias_pair(lambda bare, bare_norm, conv, norm: setattr(conv, "bias", None))), "has lost its bias"),
        ((..., ..., None, None), "in place of the three dots"),
        (bias_pair(lambda bare, bare_norm, conv, norm: conv.bias.zero_()), "has lost its bias"),
        (with_norm_itself(), "`bare_norm` is `norm` itself"),
        (bias_pair(share_the_mean), "has the running mean of `norm` itself"),
        (bias_pair(bias=True), "still has a bias"),
        (bias_pair(stride=2), "the shape (2, 4, 6, 6), found (2, 4, 3, 3): is all else as in `conv`"),
        (bias_pair(dilation=2, padding=1), "the output differs"),
        (bias_pair(lambda bare, *_: bare.weight.zero_()), "weights were not copied"),
        (bias_pair(lambda _, norm, *__: norm.running_var.mul_(2)), "running_var of the"),
        (bias_pair(lambda _, norm, conv, __: norm.running_mean.add_(conv.bias)), "is the old one"),
        (bias_pair(lambda _, norm, conv, __: norm.running_mean.add_(2 * conv.bias)), "the wrong way"),
        (bias_pair(lambda _, norm, conv, __: norm.running_mean.copy_(-conv.bias)), "had measured"),
        (bias_pair(lambda _, norm, *__: norm.running_mean.add_(1)), "what was it a mean of"),
        (bias_pair(lambda _, norm, *__: norm.running_mean.requires_grad_()), "autograd follows"),
    ),
    *cases(
        session1.within_budget,
        "widths|hidden",
        ((SmallNet(10), SMALL, 300_000, 0.5, 0.1), "expected 100 logits"),
        ((SmallNet(100), SMALL, 300_000, 0.5, 0.1), "696,376 weights over the budget"),
        ((SMALL, SmallNet(activation="GELU"), 300_000, 0.5, 0.1), "another activation"),
        ((SMALL, SMALL, 300_000, 0.1, 0.1), "no better than"),
        ((SMALL, SMALL, 300_000, 0.34, 0.3), "less than ten points"),
    ),
    *cases(
        session1.finds_confusions,
        r"\(2, 0\)|argsort|fill_diagonal",
        ((but(two_worst, drop_diagonal=False),), "leave it out"),
        ((but(two_worst, swap=True),), "a row is a true class"),
        ((lambda confusion: two_worst(confusion)[::-1],), "comes first"),
        ((but(two_worst, count=3),), "expected two pairs, found 3"),
        ((lambda confusion: np.argsort(confusion.ravel())[-2:],), "np.unravel_index"),
        ((lambda confusion: list(zip(*two_worst(confusion), strict=True)),), "zip makes pairs"),
        ((lambda confusion: [(2, 0, 12), (3, 1, 9)],), "expected pairs (true, predicted)"),
        ((lambda confusion: [(0, 3), (3, 0)],), "not the commonest"),
        ((erase_the_diagonal,), "work on a copy"),
        ((skip_the_largest,), "not the commonest"),
        ((mask_each_rows_largest,), "not the commonest"),
        ((each_rows_largest,), "may share a class"),
        ((by_count,), "may be equally common"),
        ((of_four_classes,), "there may be five classes"),
        ((lambda confusion: 12,), "expected two pairs, found 0"),
        ((lambda confusion: two_worst(confusion / confusion.sum(1, keepdims=True)),), "may share a class"),
    ),
    *cases(
        session2.cycle_rate,
        "835",
        ((0.01 - 0.0099 * 5 / 24,), "one epoch late"),
        ((0.01 - 0.0099 * 3 / 24,), "one epoch early"),
        ((0.01 * 20 / 24,), "does not go down to zero"),
        ((0.01 - 0.0099 * 10 / 30,), "how long is the way down"),
        ((0.01 * 20 / 30,), "and to zero"),
        ((0.01 * 0.01 ** (1 / 6),), "logarithmic"),
        ((0.0001 + 0.0099 / 6,), "added to the lowest rate: subtract it from the top"),
        ((0.0099 / 6,), "how far it has come down: subtract it from the top"),
        ((0.5,), "sketch the line"),
        **RATE,
    ),
    *cases(
        session2.cycle,
        "lr_end",
        ((cycle(steps=1),), "a rate a step, not one an epoch"),
        ((cycle(epochs=12, peak=6),), "expected 240 rates"),
        ((cycle(peak=5),), "found it after 5"),
        ((cycle(top=2.0),), "highest rate should be 1"),
        ((cycle(start=0.2),), "first rate should be 0.1"),
        ((cycle(end=0.1),), "down to zero"),
        ((cosine_cycle(),), "straight lines"),
        ((np.isin(np.arange(240), 120) + 0.1 * np.isin(np.arange(240), 0),), "straight lines"),
        **CYCLE,
    ),
    *cases(
        session2.picked_rate,
        "tenth",
        ((0.05, RATES, LOSSES), "keep a distance"),
        ((0.2, RATES, LOSSES), "rising already"),
        ((1e-5, RATES, LOSSES), "would crawl"),
        ((83, RATES, LOSSES), "from the curve's axis"),
        (("0.01 or so", RATES, LOSSES), "expected a number"),
    ),
    *cases(
        session2.unnormalises,
        r"round|permute|\* ?255",
        ((but(unnormalise, nudge=0),), "cuts the fraction off"),
        ((but(unnormalise, scale=1),), "pixels go up to 255"),
        ((lambda batch, mean, std: batch * 0.2 + 0.4,), "still on the scale"),
        ((lambda *args: unnormalise(*args).permute(0, 3, 1, 2),), "channels last"),
        ((lambda batch, mean, std: unnormalise((batch + 1) * 0.9, mean, std),), "undo the last thing first"),
        ((lambda batch, mean, std: unnormalise(batch.mul_(1.1), mean, std),), "work on a copy"),
    ),
    *cases(
        session2.crops,
        "arange|None",
        ((lambda padded, top, left, size: windows(padded, left, top, size),), "top and left are swapped"),
        ((lambda padded, top, left, size: padded[:, :size, 4 : 4 + size],), "the first one's window"),
        ((lambda padded, top, left, size: padded[:, :size, :size],), "starts in the corner"),
        ((lambda *args: windows(*args).transpose(1, 2),), "rows and columns are exchanged"),
        ((lambda padded, top, left, size: padded[:, :, :size],), "one window an image"),
        ((lambda padded, top, left, size: padded[:, -size:, -size:],), "some pixels differ"),
        ((one_by_one,), "cut one by one"),
    ),
    *cases(
        session2.residual_block,
        "padding=1",
        ((Unfinished,), "no layers in self.branch yet"),
        ((block(lambda c_in, c_out, _: branch(c_in, c_out, 1)),), "the branch turns 8×6×6 into 16×6×6"),
        ((block(lambda c_in, c_out, stride: nn.Conv2d(c_in, c_out, 3, stride, 1)),), "found 1 and 0"),
        ((block(norms_last),), "one batch normalisation belongs between"),
        ((block(but(branch, between=nn.Identity)),), "nothing bends the values between"),
        ((block(but(branch, between=nn.Identity, before=nn.ReLU)),), "nothing bends the values between"),
        ((block(but(branch, between=nn.Identity, after=nn.ReLU)),), "nothing bends the values between"),
        ((block(last=nn.ReLU),), "the shortcut ends in a ReLU"),
        ((block(changes=lambda *sizes: False),), "the branch gives 16×3×3, the shortcut 8×6×6"),
        ((block(changes=lambda c_in, c_out, _: c_in != c_out),), "branch gives 8×3×3, the shortcut 8×6×6"),
        ((block(changes=lambda _, __, stride: stride != 1),), "branch gives 16×6×6, the shortcut 8×6×6"),
        (
            (block(changes=lambda c_in, c_out, stride: c_out > c_in or stride == 2),),
            "4×6×6, the shortcut 8×6×6",
        ),
        ((block(but(branch, bias=True)),), "a convolution has a bias"),
        ((block(but(branch, late=True)),), "the first of the two convolutions"),
        ((block(kernel=3),), "that is a second branch"),
        ((block(changes=lambda *sizes: True),), "it needs no weights"),
        ((block(combine=lambda branch, shortcut: branch),), "nothing goes around it"),
        ((block(combine=lambda branch, shortcut: shortcut),), "the shortcut alone"),
        ((block(combine=lambda branch, shortcut: (branch + shortcut).relu()),), "free of a ReLU"),
        ((block(combine=lambda branch, shortcut: branch * shortcut),), "does not return the sum"),
        ((block(combine=lambda *both: torch.cat(both, 1)),), "forward should add the two"),
        ((block(combine=lambda *both: None),), "returns nothing yet"),
    ),
    *cases(
        session2.smooths_labels,
        r"log_softmax|/ ?K",
        ((lambda logits, labels, smoothing: smoothed(logits, labels, 0),), "without smoothing"),
        ((but(smoothed, spread=lambda k: k - 1),), "the true one included"),
        ((lambda logits, *args: smoothed(logits.softmax(1), *args),), "softmax comes twice"),
        ((but(smoothed, reduce=torch.sum),), "the batch's sum"),
        ((lambda *args: smoothed(*args) / 4,), "average over the pictures only"),
        ((lambda *args: -smoothed(*args),), "the sign"),
        ((but(smoothed, reduce=lambda x: x),), "expected one number"),
        ((lambda *args: smoothed(*args)[None],), "expected one number"),
        (
            (lambda logits, labels, _: smoothed(logits, labels, 0.2),),
            "not so with another smoothing",
        ),
        ((log_of_softmax,), "or an overflow"),
        ((lambda *args: 10.0,), "it must sum to 1"),
        (
            (lambda *args: nn.functional.cross_entropy(*args[:2], label_smoothing=args[2]),),
            "that is torch's own",
        ),
        ((lambda logits, *args: float(smoothed(logits.detach(), *args)),), "nothing learns from it"),
        (
            (lambda logits, *args: smoothed(torch.from_numpy(logits.numpy()), *args),),
            "nothing learns from it",
        ),
        ((but(smoothed, classes=lambda logits, labels: int(labels.max()) + 1),), "it must sum to 1"),
    ),
    *cases(
        session2.seed_by_seed,
        r"ddof=1|ppf",
        ((but(interval, ddof=0),), "look for ddof"),
        ((but(interval, root=False),), "the mean of n of them varies less"),
        ((but(interval, factor=1.96),), "for many runs"),
        ((but(interval, factor=stats.t.ppf(0.975, 4)),), "n pairs leave n - 1"),
        ((but(interval, factor=stats.t.ppf(0.975, 2)),), "a number in it"),
        ((but(interval, factor=stats.t.ppf(0.975, 2) * (4 / 3) ** 0.5),), "that is for three pairs"),
        ((but(interval, factor=stats.t.ppf(0.95, 3)),), "2.5 % on either side"),
        ((but(interval, of_rows=True),), "take the differences first"),
        ((but(interval, swap=True),), "the upper end comes first"),
        ((lambda changed, baseline: interval(baseline, changed),), "the wrong way round"),
        ((lambda changed, baseline: (changed - baseline).mean(),), "expected two numbers"),
        ((lambda changed, baseline: ((changed - baseline).mean(), interval(changed, baseline)),), "a number"),
        ((but(interval, factor=2.5),), "not this interval"),
    ),
    *cases(
        session2.averages_flips,
        r"flip\(|axis 3|dims",
        ((but(averaged, axis=2),), "on their heads"),
        ((but(averaged, axis=1),), "colours are swapped"),
        ((but(averaged, mode=True),), "in train mode"),
        ((but(averaged_by_a_copy, mode=True),), "in train mode"),
        ((but(averaged, guard=torch.enable_grad),), "autograd prepares"),
        ((lambda *args: 2 * averaged(*args),), "the sum of the two"),
        ((but(averaged, of=lambda logits: logits.softmax(1)),), "average the logits"),
        ((lambda *args: averaged(*args).argmax(1),), "one row of logits an image"),
        ((lambda *args: 3 * averaged(*args),), "not the mean"),
        ((lambda network, images: averaged(network, images, of=lambda _: network(images)),), "images alone"),
        (
            (
                lambda network, images: averaged(
                    network, images.flip(3), of=lambda _: network(images.flip(3))
                ),
            ),
            "mirrored images alone",
        ),
        ((lambda network, images: torch.zeros(5, 2),), "not the mean"),
        (
            (lambda *args: (torch.set_grad_enabled(False), averaged(*args, guard=nullcontext))[1],),
            "stays off",
        ),
    ),
]

RIGHT = [
    (session1.weights, (192_526, NETWORK), {}),
    (session1.receptive_field, (22, FEATURES), {}),
    (session1.receptive_field, (16, TWICE), {}),
    (session1.receptive_field, (6, nn.Sequential(nn.Conv2d(3, 8, 5), nn.MaxPool2d(2))), {}),
    (session1.dead_epochs, (24,), SCHEDULE),
    (session1.trains, (train,), {}),
    (session1.measures, (measure,), {}),
    (session1.needs_no_bias, bias_pair(), {}),
    (session1.within_budget, (SMALL, SMALL, 300_000, 0.5, 0.1), {}),
    (session1.within_budget, (functional(), SmallNet(activation="GELU"), 400_000, 0.5, 0.1), {}),
    (session1.finds_confusions, (two_worst,), {}),
    (session2.cycle_rate, (0.00835,), RATE),
    (session2.cycle, (cycle(),), CYCLE),
    (session2.cycle, (np.concatenate([np.linspace(0.1, 1, 120), np.linspace(1, 0, 120)]),), CYCLE),
    (session2.cycle, (np.interp(np.linspace(0, 24, 240), [0, 12, 24], [0.1, 1, 0]),), CYCLE),
    (session2.picked_rate, (0.005, RATES, LOSSES), {}),
    (session2.unnormalises, (unnormalise,), {}),
    (session2.crops, (windows,), {}),
    (session2.residual_block, (block(),), {}),
    (session2.residual_block, (block(Backwards),), {}),
    (session2.residual_block, (block(but(branch, between=nn.GELU)),), {}),
    (session2.residual_block, (block(but(branch, before=nn.ReLU)),), {}),
    (session2.residual_block, (block(but(branch, before=lambda: nn.Conv2d(8, 8, 1, bias=False))),), {}),
    (session2.residual_block, (block(but(branch, after=nn.ReLU)),), {}),  # as in the course's own network
    (session2.smooths_labels, (smoothed,), {}),
    (session2.seed_by_seed, (interval,), {}),
    (session2.seed_by_seed, (lambda *rows: np.array(interval(*rows)),), {}),
    (session2.averages_flips, (averaged,), {}),
    (session2.averages_flips, (averaged_by_a_copy,), {}),
    (session2.averages_flips, (averaged_on_its_device,), {}),
]


@pytest.mark.parametrize(("check", "answers", "task", "says", "secret"), WRONG)
def test_a_wrong_answer_is_told_why_and_not_what_is_right(check, answers, task, says, secret):
    text = message(check, *answers, **task)
    assert says in text
    assert "\n" not in text
    assert not re.search(secret, text)


@pytest.mark.parametrize(("check", "answers", "task"), RIGHT, ids=lambda part: getattr(part, "__name__", ""))
def test_a_right_answer_prints_one_line(check, answers, task, capsys):
    check(*answers, **task)
    assert re.fullmatch("correct: .*\n", capsys.readouterr().out)


def test_a_function_may_have_no_name(capsys):
    session1.trains(functools.partial(train))
    assert capsys.readouterr().out.startswith("correct: ")


def test_a_notebook_shows_one_line_in_place_of_a_traceback():
    assert self_check.NotYet("look there")._render_traceback_() == ["not yet: look there"]


# --- The answers that the checks work out are those that torch gives.


def test_the_receptive_field_is_what_gradients_reach():
    features = SmallNet(batch_norm=False, conv_dropout=0).features
    smooth = [nn.AvgPool2d(2) if isinstance(layer, nn.MaxPool2d) else layer for layer in features]
    for layer in smooth:
        if isinstance(layer, nn.Conv2d):
            nn.init.constant_(layer.weight, 0.01)
            nn.init.zeros_(layer.bias)
    image = torch.ones(1, 3, 32, 32, requires_grad=True)
    nn.Sequential(*smooth)(image)[0, 0, 2, 2].backward()
    session1.receptive_field(int((image.grad[0, 0] != 0).any(0).sum()), features)


def test_dead_epochs_are_those_in_which_sgd_does_not_move_the_weight():
    dead = 0
    for epoch in range(120):
        weight = nn.Parameter(torch.tensor([0.01]))
        weight.grad = torch.ones(1)
        torch.optim.SGD([weight], lr=0.05 * 0.2 ** (epoch // 8)).step()
        dead += bool(weight == torch.tensor([0.01]))
    session1.dead_epochs(dead, **SCHEDULE)


def test_the_network_without_biases_does_the_same():
    bare, bare_norm, conv, norm = (layer.eval() for layer in bias_pair())
    x = torch.rand(2, 3, 8, 8)
    assert torch.allclose(bare_norm(bare(x)), norm(conv(x)), atol=1e-6)
