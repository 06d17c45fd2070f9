"""The self-checks of Session 2's exercises; `self_check.py` says how they work."""

from collections.abc import Callable
from contextlib import suppress

import numpy as np
import torch
from scipy import stats
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from course_utils.exercises.self_check import alike, compare, drawn, number, refuse, result_of, self_check
from course_utils.models import count_parameters


@self_check
def cycle_rate(answer: float, epoch: int, epochs: int, lr_min: float, lr_max: float, peak_epoch: int) -> str:
    """The rate with which `epoch` (the first is 1) of a linear cycle begins, somewhere behind its peak."""

    def falling(gone: float, end: float = lr_min, peak: float = peak_epoch) -> float:
        return float(lr_max + (gone - peak) / (epochs - peak) * (end - lr_max))

    down, over = (epoch - 1 - peak_epoch) / (epochs - peak_epoch), epoch - 1
    fallen = (lr_max - lr_min) * down
    mistakes = {
        "one epoch late: when epoch 1 begins, no epoch is over yet": falling(over + 1),
        "one epoch early: when epoch 1 begins, no epoch is over yet": falling(over - 1),
        "this cycle does not go down to zero": falling(over, end=0.0),
        "this falls from the first epoch on; how long is the way down?": falling(over, peak=0),
        "this falls from the first epoch on, and to zero": falling(over, end=0.0, peak=0),
        "that is a straight line on a logarithmic scale only": float(lr_max * (lr_min / lr_max) ** down),
        "that is how far it has come down: subtract it from the top": fallen,
        "how far it has come down is added to the lowest rate: subtract it from the top": lr_min + fallen,
    }
    compare(answer, falling(over), "not this rate: sketch the line from the peak to the end", mistakes)
    return f"epoch {epoch} begins at {falling(over):g}"


@self_check
def cycle(rates, epochs: int, steps_per_epoch: int, lr_min: float, lr_max: float, peak_epoch: int) -> str:
    """Whether `rates`, one a step, are a linear cycle with its peak where it should be and its end at zero."""
    rates, steps = np.asarray(rates, dtype=float), epochs * steps_per_epoch
    hint = ": a rate a step, not one an epoch" if rates.shape == (epochs,) else ""
    refuse(rates.shape != (steps,), f"expected {steps} rates, found {rates.shape}{hint}")
    top, found = rates.max(), rates.argmax() / steps_per_epoch
    peak = peak_epoch * steps_per_epoch
    last_step = lr_max / (steps - peak)
    wrong = not lr_max - last_step < top < 1.001 * lr_max
    refuse(wrong, f"the highest rate should be {lr_max:g}, found {top:g}")
    off = abs(found - peak_epoch) * steps_per_epoch  # a line with both its ends is one step late or early
    refuse(off > 1.5, f"the peak should come after {peak_epoch} epochs, found it after {found:g}")
    refuse(not alike(rates[0], lr_min), f"the first rate should be {lr_min:g}, found {rates[0]:g}")
    refuse(rates[-1] > 1.5 * last_step, f"the last rate is {rates[-1]:.2g}: this cycle goes down to zero")
    lines = np.interp(np.arange(steps), [0, peak, steps], [lr_min, lr_max, 0])
    curved = np.abs(rates - lines).max() > 2 * max(last_step, lr_max / peak)
    refuse(curved, "the corners are right, but between them the rate should go in straight lines: plot it")
    return f"up for {peak_epoch} epochs, down to zero in the other {epochs - peak_epoch}"


@self_check
def picked_rate(answer: float, rates: np.ndarray, losses: np.ndarray) -> str:
    """Whether a rate picked from a range test lies in the middle of where the loss falls."""
    answer, lowest = number(answer), rates[int(np.argmin(losses))]
    begun = rates[losses < losses[0] - 0.25 * (losses[0] - losses.min())][0]
    axis = f"expected a rate from the curve's axis, {rates[0]:g} to {rates[-1]:g}"
    refuse(not rates[0] <= answer <= rates[-1], f"{axis}, found {answer:g}")
    refuse(answer > 1.5 * lowest, "up there the loss is rising already")
    refuse(answer > lowest / 2.5, "too near the lowest point, where the loss soon rises: keep a distance")
    crawls = "the loss has hardly begun to fall, by less than a quarter: training would crawl"
    refuse(answer < begun, f"up to this rate {crawls}")
    return "a rate at which the loss falls fast, well away from where it rises"


@self_check
def unnormalises(unnormalise: Callable[[Tensor, Tensor, Tensor], Tensor]) -> str:
    """Whether `unnormalise(batch, mean, std)` gives the pixels back: float (N, 3, H, W) to uint8 (N, H, W, 3)."""
    images = drawn(2, 5, 4, 3, dtype=torch.uint8)
    mean, std = torch.tensor([[0.5, 0.4, 0.3], [0.2, 0.25, 0.3]])
    batch = ((images.double() / 255 - mean) / std).float().permute(0, 3, 1, 2)
    found = result_of(unnormalise, batch, mean, std)
    unit_scale = isinstance(found, Tensor) and found.max() < 2
    refuse(unit_scale, "the values are still on the scale of [0, 1]: pixels go up to 255")
    close = isinstance(found, Tensor) and found.shape == images.shape
    close = close and (found.int() - images.int()).abs().max() == 1
    cut = {"some pixels are off by one: converting to uint8 cuts the fraction off": found} if close else {}
    otherwise = "the pixels differ: normalising subtracts, then divides; undo the last thing first"
    compare(found, images, otherwise, cut, "uint8 images have their channels last")
    return "every pixel is back"


@self_check
def crops(crop_batch: Callable[[Tensor, Tensor, Tensor, int], Tensor]) -> str:
    """Whether `crop_batch(padded, top, left, size)` cuts each image's own window out of uint8 (N, H, W, 3)."""
    padded, size = drawn(3, 10, 10, 3, dtype=torch.uint8), 6
    top, left = torch.tensor([0, 3, 4]), torch.tensor([4, 1, 2])

    def windows(top: Tensor, left: Tensor) -> Tensor:
        places = zip(padded, top.tolist(), left.tolist(), strict=True)
        return torch.stack([image[y : y + size, x : x + size] for image, y, x in places])

    right = windows(top, left)
    mistakes = {
        "top and left are swapped: rows come before columns": windows(left, top),
        "every image gets the first one's window": windows(top[:1].expand(3), left[:1].expand(3)),
        "every window starts in the corner: add top and left": windows(0 * top, 0 * left),
        "rows and columns are exchanged: which index goes along which axis?": right.transpose(1, 2),
    }
    otherwise = "some pixels differ: compare the first image with a slice of it"
    found = result_of(crop_batch, padded, top, left, size)
    compare(found, right, otherwise, mistakes, "one window an image, channels last")
    with Counted() as counted:
        crop_batch(padded.repeat(20, 1, 1, 1), top.repeat(20), left.repeat(20), size)
    refuse(counted.calls >= 60, "the windows are right, but cut one by one: index all images at once")
    return "each image has its own window"


class Counted(TorchFunctionMode):
    """Counts the calls of torch: a loop over images makes some for each of them."""

    def __init__(self):
        super().__init__()
        self.calls, self.functions = 0, set()

    def __torch_function__(self, function, types, args=(), kwargs=None):
        self.calls += 1
        self.functions.add(function)
        return function(*args, **(kwargs or {}))


@self_check
def residual_block(block: Callable[[int, int, int], nn.Module]) -> str:
    """Whether `block(c_in, c_out, stride)` returns shortcut(x) + branch(x), with a 1×1 shortcut where shapes differ."""
    for c_out, stride in ((16, 2), (8, 1), (16, 1), (8, 2), (4, 1)):
        network = block(8, c_out, stride).eval()
        for name in ("branch", "shortcut"):
            missing = not isinstance(getattr(network, name, None), nn.Module)
            refuse(missing, f"the block has no layers in self.{name} yet")
        with torch.no_grad():
            check_sum(network, drawn(2, 8, 6, 6), (c_out, 6 // stride), f"block(8, {c_out}, {stride})")
        extra, stays = count_parameters(network.shortcut), (c_out, stride) == (8, 1)
        refuse(stays and extra > 0, "where the shape stays, the shortcut is x itself: it needs no weights")
        wide = any(getattr(one, "kernel_size", None) == (3, 3) for one in network.shortcut.modules())
        most = 11 * c_out  # 8 weights, a bias and a norm's two for each channel that comes out
        refuse(wide or extra > most, "the shortcut is more than a 1×1 convolution: that is a second branch")
        first = check_branch(network.branch)
        biased = any(isinstance(one, nn.Conv2d) and one.bias is not None for one in network.modules())
        refuse(biased, "a convolution has a bias: the task asks for all of them without")
        refuse(first.stride != (stride, stride), "the first of the two convolutions is to take the stride")
    return "shapes agree, and the way around the branch is as short as it can be"


def check_sum(network: nn.Module, x: Tensor, right: tuple[int, int], what: str) -> None:
    branch, shortcut = network.branch(x), network.shortcut(x)
    turns, gives = ("×".join(map(str, out.shape[1:])) for out in (branch, shortcut))
    refuse(branch.shape[1:3] != right, f"{what}: the branch turns 8×6×6 into {turns}")
    shapes = f"{what}: the branch gives {turns}, the shortcut {gives}"
    refuse(branch.shape != shortcut.shape, f"{shapes}; shapes must agree before they are added")
    refuse((shortcut >= 0).all(), "the shortcut ends in a ReLU: leave the way around free of it")
    mistakes = {
        "forward returns the branch alone: nothing goes around it": branch,
        "forward returns the shortcut alone": shortcut,
        "the sum is cut off at zero: leave the way around free of a ReLU": (branch + shortcut).relu(),
    }
    found, otherwise = result_of(network.forward, x), "forward does not return the sum of the two"
    compare(found, branch + shortcut, otherwise, mistakes, "forward should add the two")


def check_branch(branch: nn.Module) -> nn.Conv2d:
    """Its first 3×3 convolution, if it has two of them, two normalisations, and something between that bends."""
    layers = [*branch.modules()]
    convolutions = [one for one in layers if isinstance(one, nn.Conv2d) and one.kernel_size == (3, 3)]
    found = len(convolutions), sum(isinstance(one, nn.BatchNorm2d) for one in layers)
    expected = "the branch should have two 3×3 convolutions and two batch normalisations"
    refuse(found != (2, 2), f"{expected}, found {found[0]} and {found[1]}")
    calls, x = [], drawn(2, 8, 6, 6).abs()  # a ReLU before the first convolution lets all of it pass
    watched = convolutions + [one for one in layers if isinstance(one, nn.BatchNorm2d)]
    hooks = [one.register_forward_pre_hook(lambda one, args: calls.append((one, args[0]))) for one in watched]
    with torch.no_grad():
        for values in (x, x.flip(0), (x + x.flip(0)) / 2):
            branch(values)
    for hook in hooks:
        hook.remove()
    given = [x for layer, x in calls if layer in convolutions]
    one, other, middle = given[1::2]  # what the second convolution is given
    straight = (one + other - 2 * middle).abs().max() < 1e-5
    refuse(straight, "nothing bends the values between the two convolutions: what belongs there?")
    first, second = [place for place, (layer, _) in enumerate(calls) if layer in convolutions][:2]
    refuse(second != first + 2, "one batch normalisation belongs between the convolutions, one after them")
    return calls[first][0]


@self_check
def smooths_labels(smoothed: Callable[[Tensor, Tensor, float], Tensor]) -> str:
    """Whether `smoothed(logits, labels, smoothing)` is cross entropy with smoothed labels, averaged over the batch."""
    logits, labels, smoothing = 3 * drawn(6, 4), torch.tensor([0, 1, 2, 0, 0, 1]), 0.2  # no 3 in this batch
    with Counted() as counted:
        found = result_of(smoothed, logits, labels, smoothing)
    refuse(nn.functional.cross_entropy in counted.functions, "that is torch's own: the task is to write it")
    shape = tuple(found.shape) if isinstance(found, Tensor) else ()
    refuse(shape != (), f"expected one number, found a tensor of shape {shape}: average over the batch")

    def loss(logits: Tensor, smoothing: float = smoothing, **how) -> float:
        return float(nn.functional.cross_entropy(logits, labels, label_smoothing=smoothing, **how))

    mistakes = {
        "that is the loss without smoothing": loss(logits, smoothing=0.0),
        "spread the share over all classes, the true one included": loss(logits, smoothing=0.2 * 4 / 3),
        "softmax comes twice: the functions that take logits contain it": loss(logits.softmax(1)),
        "that is the batch's sum: divide by the number of pictures": loss(logits, reduction="sum"),
        "sum over the classes, average over the pictures only": loss(logits) / 4,
        "the sign: the logarithm of a probability is negative, a loss is not": -loss(logits),
    }
    otherwise = "not this value: print the target of one picture; it must sum to 1"
    compare(found, loss(logits), otherwise, mistakes)
    again = None
    with suppress(RuntimeError):  # as NumPy gives for a tensor with a gradient
        again = smoothed(logits.clone().requires_grad_(), labels, smoothing)
    learns = isinstance(again, Tensor) and again.requires_grad
    sure = 100 * drawn(6, 7)
    unlike = "not so with another smoothing and large logits: is there a number in it, or an overflow?"
    compare(result_of(smoothed, sure, labels, 0.05), loss(sure, 0.05), unlike, {})
    refuse(not learns, "the value is right, but no gradient leads back to the logits: nothing learns from it")
    return "the same as nn.CrossEntropyLoss"


@self_check
def seed_by_seed(interval: Callable[[np.ndarray, np.ndarray], tuple[float, float]]) -> str:
    """Whether `interval(changed, baseline)` has both ends of the 95 % interval of the mean difference of n pairs."""
    changed, baseline = np.array([53.4, 52.1, 54.0, 52.9]), np.array([51.1, 50.9, 50.3, 50.2])
    found = result_of(interval, changed, baseline)
    answer = torch.tensor([number(end) for end in (found if np.iterable(found) else ())], dtype=torch.float64)
    refuse(len(answer) != 2, "expected two numbers, the lower and the upper end")

    def ends(spread: float, factor: float = stats.t.ppf(0.975, 3), n: int = 4) -> Tensor:
        half = factor * spread / n**0.5
        return torch.tensor([one + (changed - baseline).mean() for one in (-half, half)], dtype=torch.float64)

    spread, rows = (changed - baseline).std(ddof=1), np.hypot(changed.std(ddof=1), baseline.std(ddof=1))
    one_sided = stats.t.ppf(0.95, 3)
    mistakes = {
        "that is where single runs lie: the mean of n of them varies less": ends(spread, n=1),
        "the standard deviation has n in its denominator: look for ddof": ends((changed - baseline).std()),
        "that factor is for many runs: with few it is larger": ends(spread, 1.96),
        "that factor is for another number of runs: n pairs leave n - 1": ends(spread, stats.t.ppf(0.975, 4)),
        "that leaves 5 % above the interval: 2.5 % on either side are meant": ends(spread, one_sided),
        "that factor is for three pairs: is there a number in it?": ends(spread, stats.t.ppf(0.975, 2)),
        "that is for three pairs: is there a number in it?": ends(spread, stats.t.ppf(0.975, 2), n=3),
        "each row's own spread: take the differences first": ends(rows),
        "the upper end comes first": ends(spread).flip(0),
        "the wrong way round: a change for the better is positive": -ends(spread).flip(0),
    }
    otherwise = "not this interval: print the differences, their mean and their spread"
    compare(answer, ends(spread), otherwise, mistakes)
    return "narrower for differences that agree, wider for few"


class Lopsided(nn.Module):
    """Logits (N, 2) from the top left and the bottom right pixel: not the same for a mirrored image."""

    def __init__(self, asked: list):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))  # has a device, as any network's weights have
        self.asked = asked  # (in train mode, autograd takes notes) of each question, shared with copies

    def __deepcopy__(self, memo) -> "Lopsided":
        return Lopsided(self.asked).train(self.training)

    def forward(self, images: Tensor) -> Tensor:
        self.asked.append((self.training, torch.is_grad_enabled()))
        return torch.stack([images[:, 0, 0, 0], images[:, 0, -1, -1] ** 2], dim=1)


@self_check
def averages_flips(flip_averaged: Callable[[nn.Module, Tensor], Tensor]) -> str:
    """Whether `flip_averaged(network, images)` is the mean of the logits for images (N, 3, H, W) and mirrored ones."""
    images, network = drawn(5, 3, 4, 4), Lopsided(asked=[])
    found = result_of(flip_averaged, network, images)
    training = any(training for training, _ in network.asked)
    refuse(training, "the network is asked in train mode: its answers depend on the rest of the batch")
    graph = any(graph for _, graph in network.asked)
    refuse(graph, "autograd prepares a backward pass that never comes: turn it off")
    once, mirrored, upside_down, recoloured = map(network, (images, *(images.flip(k) for k in (3, 2, 1))))
    mistakes = {
        "that is the answer to the images alone": once,
        "that is the answer to the mirrored images alone": mirrored,
        "that is the sum of the two: its softmax would be far too sure": once + mirrored,
        "the images stand on their heads: channels come first here": (once + upside_down) / 2,
        "the colours are swapped: the last axis goes from left to right": (once + recoloured) / 2,
        "those are probabilities: average the logits": (once.softmax(1) + mirrored.softmax(1)) / 2,
    }
    right, otherwise = (once + mirrored) / 2, "not the mean of the two answers"
    compare(found, right, otherwise, mistakes, "one row of logits an image")
    return "the mean of the answers to a picture and to its mirror image"
