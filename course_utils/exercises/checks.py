"""Self-checks for the exercises: they say what is wrong and where to look, never the answer.

A right answer prints one line that begins with "correct:". A wrong one raises `NotYet`, whose message is
also one line. Raising is for the student's sake: the notebook shows it in red, and "Run All" stops at
the first exercise that still needs work. It is for the course's sake, too: a solution that no longer
holds cannot go unnoticed when the notebooks are tested.

Each check knows the wrong answers that are likely and has a message for each. What is expected is
worked out from the task, so that a check goes on being right when the task's numbers are changed.
"""

import copy
import functools
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from course_utils.models import SmallNet, count_parameters


class NotYet(AssertionError):
    """An answer is not right yet; the message says what is wrong and where to look."""

    def _render_traceback_(self) -> list[str]:
        """IPython shows these lines in place of a traceback, which would only lead into this module."""
        return [f"not yet: {self}"]


def self_check(check: Callable[..., str]) -> Callable[..., None]:
    """Make a check of a function that raises `NotYet` or returns what to say about a right answer."""

    @functools.wraps(check)
    def checked(*args, **task) -> None:
        if any(arg is ... for arg in args):
            raise NotYet("there is no answer yet: write one in place of the three dots")
        print("correct:", check(*args, **task))

    return checked


def same(answer: float, right: float) -> bool:
    return bool(np.isclose(answer, right, rtol=1e-3 if isinstance(right, float) else 0, atol=0))


def compare(answer: float, right: float, mistakes: dict[float, str], otherwise: str) -> None:
    """Raise `NotYet` unless `answer` is `right`: with the message of a known mistake, or with `otherwise`.

    Integers have to agree exactly, other numbers to one part in a thousand.
    """
    try:
        answer = float(answer)
    except (TypeError, ValueError):
        raise NotYet(f"expected a number, found {type(answer).__name__}") from None
    if same(answer, right):
        return
    raise NotYet(next((text for wrong, text in mistakes.items() if same(answer, wrong)), otherwise))


def result_of(function: Callable, *args):
    """What the student's function returns, which has to be something."""
    result = function(*args)
    if result is None or result is ...:
        raise NotYet(f"{function.__name__} returns nothing yet")
    return result


def expect_tensor(found, shape: tuple[int, ...], dtype: torch.dtype, advice: str) -> None:
    if not isinstance(found, Tensor):
        raise NotYet(f"expected a torch tensor, found {type(found).__name__}")
    if tuple(found.shape) != tuple(shape):
        raise NotYet(f"expected the shape {tuple(shape)}, found {tuple(found.shape)}: {advice}")
    if found.dtype != dtype:
        raise NotYet(f"expected {dtype}, found {found.dtype}")


def random_images(n: int, height: int, width: int) -> Tensor:
    """uint8 (n, height, width, 3), the same ones every time."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, height, width, 3), dtype=torch.uint8, generator=generator)


# --- Session 1.


@self_check
def weights(answer: int, network: SmallNet) -> str:
    """The number of weights of `network`, counted by hand."""
    right = count_parameters(network)
    biases = sum(p.numel() for name, p in network.named_parameters() if name.endswith("bias"))
    norms = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    in_norms = sum(2 * norm.num_features for norm in norms)
    first, last = network.head[1], network.head[-1]
    flat = first.weight.numel()
    shifts = in_norms // 2
    mistakes = {
        right
        - biases: "the biases are missing: every layer has one for each channel or value that comes out",
        right - biases + shifts: "the biases of the convolutions and of the dense layers are missing",
        right - in_norms: "batch normalisation is missing: it learns two numbers a channel",
        right + in_norms: "you counted the running mean and variance: they are measured, not learned",
        right - count_parameters(last): "the last dense layer is missing",
        right + 3 * flat: "the first dense layer gets fewer values: does the last stage pool as well?",
        right - 3 * flat // 4: "the first dense layer gets more values: how often is the picture halved?",
    }
    compare(
        answer, right, mistakes, "not this number: print layer_table(network) and find the row that differs"
    )
    return f"{right:,} weights, {count_parameters(first) / right:.0%} of them in the first dense layer"


@self_check
def receptive_field(answer: int, features: nn.Sequential) -> str:
    """The side, in pixels, of the square of the picture that one value at the end of `features` can see."""
    side, distance, last_pool, late, convolutions = 1, 1, 0, 1, 1
    for layer in features:
        if isinstance(layer, nn.Conv2d):
            side, late, convolutions = side + 2 * distance, late + 2 * distance, convolutions + 2
        elif isinstance(layer, nn.MaxPool2d):
            last_pool = distance
            side, distance = side + distance, 2 * distance
            late += distance
    mistakes = {
        convolutions: "the pooling is missing: after it, a step to the next value is two pixels wide",
        side - last_pool: "that is before the last pooling, which looks at neighbours as well",
        late: "a pooling adds the distance that neighbours have before it, not after it",
        distance: "that is how far apart neighbours are at the end, not how much one of them sees",
        32: "not quite the whole picture: add up what each layer contributes",
    }
    compare(answer, side, mistakes, "not this side: write down the distance of neighbours before each layer")
    return f"{side} × {side} pixels of 32 × 32"


@self_check
def dead_epochs(answer: int, epochs: int, lr: float, step_epochs: int, gamma: float) -> str:
    """How many epochs of a step schedule have a rate so low that float32 rounds it away from a weight of 0.01."""
    rates = lr * gamma ** (np.arange(epochs) // step_epochs)
    half_a_gap = {weight: np.spacing(np.float32(weight)) / 2 for weight in (0.01, 1)}
    dead = int((rates < half_a_gap[0.01]).sum())
    too_soon = int((rates < 0.01 * torch.finfo(torch.float32).eps).sum())
    alive = epochs - dead
    mistakes = {
        dead + 1: "one too many: count the epochs from the first dead one to the last, both included",
        dead - 1: "one too few: count the epochs from the first dead one to the last, both included",
        alive: "that is how many epochs are alive",
        alive + 1: "that is the number of the first dead epoch; how many are there from it to the end?",
        alive // step_epochs: "that is the number of drops: each comes after several epochs",
        int((rates < half_a_gap[1]).sum()): "that is for a weight of 1; the weight here is 0.01",
        too_soon: "not so soon: look at the gap between 0.01 and the next float32, and at what rounding does to less",
    }
    compare(
        answer, dead, mistakes, "not this many: plot the rates on a logarithmic scale, with the threshold"
    )
    return f"{dead} of {epochs} epochs do nothing"


@self_check
def flips(flip_batch: Callable[[Tensor, Tensor], Tensor]) -> str:
    """Whether `flip_batch(images, mask)` mirrors the masked ones of uint8 (N, H, W, 3) images, and no others."""
    images, mask = random_images(6, 4, 5), torch.tensor([True, False, True, True, False, False])
    given = images.clone()
    found = result_of(flip_batch, given, mask)
    expect_tensor(found, images.shape, torch.uint8, "all images come back, mirrored or not")
    if not torch.equal(given, images):
        raise NotYet("the images that were passed in have changed: work on a copy")

    def flipped(axis: int, which: Tensor) -> Tensor:
        return torch.where(which[:, None, None, None], images.flip(axis), images)

    right = flipped(2, mask)
    everywhere, nowhere = torch.ones_like(mask), torch.zeros_like(mask)
    mistakes = [
        (flipped(1, mask), "the images stand on their heads: look again at the order of the axes"),
        (flipped(3, mask), "the colours are swapped: look again at the order of the axes"),
        (flipped(2, ~mask), "the wrong ones are mirrored: the mask says which to mirror"),
        (flipped(2, everywhere), "all images are mirrored, the mask is ignored"),
        (flipped(2, nowhere), "no image is mirrored: has the result been assigned to anything?"),
    ]
    compare_tensors(found, right, mistakes, "some pixels differ: compare one image with the loop's")
    return "mirrored where the mask says so, and the input is as it was"


def compare_tensors(found: Tensor, right: Tensor, mistakes: list[tuple[Tensor, str]], otherwise: str) -> None:
    """As `compare`, for tensors of one shape and dtype."""

    def alike(one: Tensor, other: Tensor) -> bool:
        return torch.allclose(one.float(), other.float(), rtol=1e-4, atol=1e-5)

    if not alike(found, right):
        raise NotYet(next((text for wrong, text in mistakes if alike(found, wrong)), otherwise))


class Watched(nn.Sequential):
    """Two logits from an image's first value through batch normalisation, and a note of how it was called.

    On images whose first values are all positive, eval mode answers class 0 for each. Train mode
    compares them with their own mean, and answers class 1 for some.
    """

    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(12, 2, bias=False), nn.BatchNorm1d(2))
        with torch.no_grad():
            self[1].weight.zero_()[0, 0] = 1
        self.graph = False

    def forward(self, images: Tensor) -> Tensor:
        self.graph |= torch.is_grad_enabled()
        return super().forward(images)


@self_check
def measures(accuracy: Callable[[nn.Module, Tensor, Tensor], float]) -> str:
    """Whether `accuracy(network, images, labels)` measures in eval mode, and leaves the network as it found it."""
    images = torch.arange(1.0, 11.0)[:, None, None, None].expand(10, 3, 2, 2)
    labels = torch.tensor([0] * 8 + [1] * 2)
    for mode in (True, False):
        network = Watched().train(mode)
        before = copy.deepcopy(network.state_dict())
        found = float(result_of(accuracy, network, images, labels))
        if any(not torch.equal(before[name], value) for name, value in network.state_dict().items()):
            raise NotYet("measuring has moved the running statistics: batch normalisation is in train mode")
        if same(found, 8.0) or same(found, 80.0):
            raise NotYet("expected a share between 0 and 1, found a count or a percentage")
        if not same(found, 0.8):
            raise NotYet("the share is wrong: compare the largest logit's place with the label")
        if network.graph:
            raise NotYet("autograd takes notes for a backward pass that never comes: forbid it")
        if network.training and not mode:
            raise NotYet("the network came in eval mode and leaves in train mode: put back what you found")
        if mode and not network.training:
            raise NotYet("the network leaves in eval mode: the next epoch would be trained that way")
    return "measured in eval mode, and the network is left as it was found"


@self_check
def needs_no_bias(bare: nn.Conv2d, bare_norm: nn.BatchNorm2d, conv: nn.Conv2d, norm: nn.BatchNorm2d) -> str:
    """Whether `bare` (without a bias) and `bare_norm` do in eval mode what `conv` and `norm` do."""
    if bare.bias is not None:
        raise NotYet("the new convolution still has a bias")
    if not torch.equal(bare.weight, conv.weight):
        raise NotYet("the convolution's weights were not copied")
    for name in ("weight", "bias", "running_var"):
        if not torch.equal(getattr(bare_norm, name), getattr(norm, name)):
            raise NotYet(f"{name} of the batch normalisation was not copied, or need not change")
    mistakes = [
        (norm.running_mean, "the running mean is the old one: it was measured with the bias in it"),
        (norm.running_mean + conv.bias, "the running mean has moved the wrong way"),
        (-conv.bias, "the running mean lost what it had measured: only the bias has to leave it"),
    ]
    right = norm.running_mean - conv.bias
    compare_tensors(
        bare_norm.running_mean, right, mistakes, "the running mean is off: what was it a mean of?"
    )
    x = torch.rand(2, conv.in_channels, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, found = (
            copy.deepcopy(pair).eval()(x)
            for pair in (nn.Sequential(conv, norm), nn.Sequential(bare, bare_norm))
        )
    if found.shape != expected.shape:
        raise NotYet(
            f"from {shape(x)} the new pair makes {shape(found)}, the old one {shape(expected)}: "
            "is all else as in `conv`?"
        )
    if not torch.allclose(found, expected, atol=1e-4):
        raise NotYet("the weights are right, and the output is another: is all else as in `conv` and `norm`?")
    return f"the same output with {len(conv.bias)} weights fewer"


@self_check
def within_budget(network: nn.Module, budget: int, accuracy: float, to_beat: float) -> str:
    """Whether `network` classifies (N, 3, 32, 32) in 100 classes, fits the budget, and beats another accuracy."""
    with torch.no_grad():
        logits = copy.deepcopy(network).cpu().eval()(torch.zeros(2, 3, 32, 32))
    if tuple(logits.shape) != (2, 100):
        raise NotYet(f"expected 100 logits a picture, found the shape {tuple(logits.shape)} for two pictures")
    found = count_parameters(network)
    if found > budget:
        first = "the first dense layer" if isinstance(network, SmallNet) else "the largest layer"
        raise NotYet(f"{found - budget:,} weights over the budget: see what {first} takes of it")
    if accuracy <= to_beat:
        raise NotYet("no better than the starting network: is the budget where the seeing is done?")
    if accuracy < to_beat + 0.15:
        raise NotYet("better by less than fifteen points, which another seed might do as well")
    return "within the budget, and better than the starting network"


@self_check
def finds_confusions(two_worst: Callable[[np.ndarray], list[tuple[int, int]]]) -> str:
    """Whether `two_worst(confusion)` gives the (true, predicted) pairs of the two commonest mistakes, worst first."""
    matrix = np.array([[50, 9, 2, 0], [1, 60, 4, 8], [12, 3, 70, 1], [0, 7, 5, 40]])
    given = matrix.copy()
    answer = list(result_of(two_worst, given))
    if not np.array_equal(given, matrix):
        raise NotYet("the matrix that was passed in has changed: work on a copy")
    if len(answer) != 2:
        raise NotYet(f"expected two pairs, found {len(answer)}")
    if any(np.shape(pair) != (2,) for pair in answer):
        raise NotYet(
            "expected pairs (true, predicted): np.unravel_index makes them of a place in the flat matrix"
        )
    pairs = [tuple(int(k) for k in pair) for pair in answer]
    if any(true == predicted for true, predicted in pairs):
        raise NotYet("the diagonal is what went right: leave it out")
    right = [(2, 0), (0, 1)]
    if pairs == right[::-1]:
        raise NotYet("the right pairs, but the commoner mistake comes first")
    if pairs == [pair[::-1] for pair in right]:
        raise NotYet("true and predicted are swapped: a row is a true class")
    if pairs != right:
        raise NotYet("not the commonest mistakes: try it on a small matrix of your own")
    return "the two commonest mistakes, the worst first"


# --- Session 2.


@self_check
def cycle_rate(answer: float, epoch: int, epochs: int, lr_min: float, lr_max: float, peak_epoch: int) -> str:
    """The rate with which `epoch` (the first is 1) of a linear cycle begins, somewhere behind its peak."""

    def falling(gone: float, end: float = lr_min, peak: float = peak_epoch) -> float:
        return float(lr_max + (gone - peak) / (epochs - peak) * (end - lr_max))

    down = (epoch - 1 - peak_epoch) / (epochs - peak_epoch)
    mistakes = {
        falling(epoch): "one epoch late: when epoch 1 begins, no epoch is over yet",
        falling(epoch - 2): "one epoch early: when epoch 1 begins, no epoch is over yet",
        falling(epoch - 1, end=0.0): "this cycle does not go down to zero",
        falling(epoch - 1, peak=0): "this falls from the first epoch on; how long is the way down?",
        float(lr_max * (epochs - epoch + 1) / epochs): "this falls from the first epoch on, and to zero",
        float(lr_max * (lr_min / lr_max) ** down): "that is a straight line on a logarithmic scale only",
        float(
            lr_min + (lr_max - lr_min) * down
        ): "that is how far it has come down: subtract it from the top",
    }
    compare(answer, falling(epoch - 1), mistakes, "not this rate: sketch the line from the peak to the end")
    return f"epoch {epoch} begins at {falling(epoch - 1):g}"


@self_check
def cycle(
    rates: np.ndarray, epochs: int, steps_per_epoch: int, lr_min: float, lr_max: float, peak_epoch: int
) -> str:
    """Whether `rates`, one a step, are a linear cycle with its peak where it should be and its end at zero."""
    rates, steps = np.asarray(rates, dtype=float), epochs * steps_per_epoch
    if rates.shape != (steps,):
        hint = ": a rate a step, not one an epoch" if rates.shape == (epochs,) else ""
        raise NotYet(f"expected {steps} rates, found {rates.shape}{hint}")
    if not same(rates.max(), float(lr_max)):
        raise NotYet(f"the highest rate should be {lr_max:g}, found {rates.max():g}")
    found = rates.argmax() / steps_per_epoch
    if found != peak_epoch:
        raise NotYet(f"the peak should be reached after {peak_epoch} epochs, found it after {found:g}")
    if not same(rates[0], float(lr_min)):
        raise NotYet(f"the first rate should be {lr_min:g}, found {rates[0]:g}")
    peak = peak_epoch * steps_per_epoch
    last_step = lr_max / (steps - peak)
    if rates[-1] > 1.5 * last_step:
        raise NotYet(f"the last rate is {rates[-1]:.2g}: this cycle should go on down to zero")
    lines = np.interp(np.arange(steps), [0, peak, steps], [lr_min, lr_max, 0])
    if np.abs(rates - lines).max() > 2 * max(last_step, lr_max / peak):
        raise NotYet("the corners are right, but between them the rate should go in straight lines: plot it")
    return f"up for {peak_epoch} epochs, down to zero in the other {epochs - peak_epoch}"


@self_check
def picked_rate(answer: float, rates: np.ndarray, losses: np.ndarray) -> str:
    """Whether a rate picked from a range test lies in the middle of where the loss falls."""
    try:
        answer = float(answer)
    except (TypeError, ValueError):
        raise NotYet(f"expected a rate, found {type(answer).__name__}") from None
    lowest = rates[int(np.argmin(losses))]
    learning = rates[losses < losses[0] - 0.25 * (losses[0] - losses.min())][0]
    if not rates[0] <= answer <= rates[-1]:
        raise NotYet(
            f"expected a rate from the curve's axis, {rates[0]:g} to {rates[-1]:g}, found {answer:g}"
        )
    if answer > 1.5 * lowest:
        raise NotYet("up there the loss is rising already")
    if answer > lowest / 2.5:
        raise NotYet("at the lowest point the loss is about to rise: keep a distance")
    if answer < learning:
        raise NotYet("at this rate the loss has hardly begun to fall: training would crawl")
    return "a rate at which the loss falls fast, well away from where it rises"


@self_check
def unnormalises(unnormalise: Callable[[Tensor, Tensor, Tensor], Tensor]) -> str:
    """Whether `unnormalise(batch, mean, std)` gives the pixels back: float (N, 3, H, W) to uint8 (N, H, W, 3)."""
    images = random_images(2, 5, 4)
    mean, std = torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.2, 0.25, 0.3])
    batch = ((images.double() / 255 - mean) / std).float().permute(0, 3, 1, 2)
    given = batch.clone()
    found = result_of(unnormalise, given, mean, std)
    if not torch.equal(given, batch):
        raise NotYet("the batch that was passed in has changed: work on a copy")
    if isinstance(found, Tensor) and found.dtype.is_floating_point and found.max() < 2:
        raise NotYet("the values are still on the scale of [0, 1]: pixels go up to 255")
    expect_tensor(found, images.shape, torch.uint8, "uint8 images have their channels last")
    difference = (found.int() - images.int()).abs()
    if difference.max() == 1:
        raise NotYet("some pixels are off by one: converting to uint8 cuts the fraction off")
    if (found <= 1).all():
        raise NotYet("all pixels are 0 or 1: pixels go up to 255")
    if difference.any():
        raise NotYet("the pixels differ: normalising subtracts, then divides; undo the last thing first")
    return "every pixel is back"


@self_check
def crops(crop_batch: Callable[[Tensor, Tensor, Tensor, int], Tensor]) -> str:
    """Whether `crop_batch(padded, top, left, size)` cuts each image's own window out of uint8 (N, H, W, 3)."""
    padded, size = random_images(3, 10, 10), 6
    top, left = torch.tensor([0, 3, 4]), torch.tensor([4, 1, 2])
    found = result_of(crop_batch, padded, top, left, size)
    expect_tensor(found, (3, size, size, 3), torch.uint8, "one window an image, channels last")

    def windows(top: Tensor, left: Tensor) -> Tensor:
        places = zip(padded, top.tolist(), left.tolist(), strict=True)
        return torch.stack([image[y : y + size, x : x + size] for image, y, x in places])

    right = windows(top, left)
    mistakes = [
        (windows(left, top), "top and left are swapped: rows come before columns"),
        (windows(top[:1].expand(3), left[:1].expand(3)), "every image gets the first one's window"),
        (windows(0 * top, 0 * left), "every window starts in the corner: add top and left"),
        (right.transpose(1, 2), "rows and columns are exchanged: which index broadcasts along which axis?"),
    ]
    compare_tensors(found, right, mistakes, "some pixels differ: compare the first image with a slice of it")
    return "each image has its own window"


@self_check
def residual_block(block: Callable[[int, int, int], nn.Module]) -> str:
    """Whether `block(c_in, c_out, stride)` returns shortcut(x) + branch(x), with a 1×1 shortcut where shapes differ."""
    x = torch.randn(2, 8, 6, 6, generator=torch.Generator().manual_seed(0))
    for c_out, stride in ((16, 2), (8, 1), (16, 1), (8, 2)):
        network = block(8, c_out, stride).eval()
        for name in ("branch", "shortcut"):
            if not isinstance(getattr(network, name, None), nn.Module):
                raise NotYet(f"the block has no layers in self.{name} yet")
        with torch.no_grad():
            branch, shortcut = network.branch(x), network.shortcut(x)
            if tuple(branch.shape) != (2, c_out, 6 // stride, 6 // stride):
                raise NotYet(f"block(8, {c_out}, {stride}): the branch turns 8×6×6 into {shape(branch)}")
            if branch.shape != shortcut.shape:
                raise NotYet(
                    f"block(8, {c_out}, {stride}): the branch gives {shape(branch)}, the shortcut "
                    f"{shape(shortcut)}; shapes must agree before they are added"
                )
            check_sum(result_of(network.forward, x), branch, shortcut)
        check_shortcut(count_parameters(network.shortcut), 8, c_out, stride)
        check_branch(network.branch, x)
    return "shapes agree, and the way around the branch is as short as it can be"


def shape(x: Tensor) -> str:
    return "×".join(map(str, x.shape[1:]))


def check_sum(found: Tensor, branch: Tensor, shortcut: Tensor) -> None:
    mistakes = [
        (branch, "forward returns the branch alone: nothing goes around it"),
        (shortcut, "forward returns the shortcut alone"),
        ((branch + shortcut).relu(), "the sum is cut off at zero: leave the way around free of a ReLU"),
    ]
    if found.shape != branch.shape:
        raise NotYet("forward should add the two: its result has another shape than they have")
    compare_tensors(found, branch + shortcut, mistakes, "forward does not return the sum of the two")


def check_shortcut(found: int, c_in: int, c_out: int, stride: int) -> None:
    """`found` weights: none where nothing changes, else those of a 1×1 convolution, with or without bias and BN."""
    stays = c_in == c_out and stride == 1
    if stays and found:
        raise NotYet("where the shape stays, the shortcut should be x itself: it needs no weights")
    if not stays and found > c_in * c_out + 3 * c_out:
        raise NotYet("the shortcut is more than a 1×1 convolution: that is a second branch")


def check_branch(branch: nn.Module, x: Tensor) -> None:
    """Two 3×3 convolutions, two normalisations, and between them something that is not linear."""
    layers = list(branch.modules())
    convolutions = sum(isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3) for layer in layers)
    norms = sum(isinstance(layer, nn.BatchNorm2d) for layer in layers)
    if (convolutions, norms) != (2, 2):
        raise NotYet(
            "the branch should have two 3×3 convolutions and two batch normalisations, found "
            f"{convolutions} and {norms}"
        )
    with torch.no_grad():
        bend = branch(x) + branch(-x) - 2 * branch(0 * x)
    if bend.abs().max() < 1e-5:
        raise NotYet("the branch is linear: what belongs between its two convolutions?")


@self_check
def smooths_labels(smoothed: Callable[[Tensor, Tensor, float], Tensor]) -> str:
    """Whether `smoothed(logits, labels, smoothing)` is cross entropy with smoothed labels, averaged over the batch."""
    logits = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)) * 3
    labels, smoothing = torch.tensor([0, 1, 2, 3, 0, 1]), 0.2
    found = result_of(smoothed, logits, labels, smoothing)
    if isinstance(found, Tensor) and found.numel() > 1:
        raise NotYet(f"expected one number, found the shape {tuple(found.shape)}: average over the batch")

    def loss(logits: Tensor, smoothing: float = smoothing, **how) -> float:
        return float(nn.functional.cross_entropy(logits, labels, label_smoothing=smoothing, **how))

    n_classes = logits.shape[1]
    others_only = smoothing * n_classes / (n_classes - 1)
    mistakes = {
        loss(logits, smoothing=0.0): "that is the loss without smoothing",
        loss(logits, smoothing=others_only): "spread the share over all classes, the true one included",
        loss(logits.softmax(1)): "softmax comes twice: the functions that take logits contain it",
        loss(logits, reduction="sum"): "that is the batch's sum: divide by the number of pictures",
        loss(logits) / n_classes: "sum over the classes, average over the pictures only",
        -loss(logits): "the sign: the logarithm of a probability is negative, a loss is not",
    }
    compare(
        found, loss(logits), mistakes, "not this value: print the target of one picture; it must sum to 1"
    )
    return "the same as nn.CrossEntropyLoss"


class Lopsided(nn.Module):
    """Logits (N, 2) from the top left and the bottom right pixel: not the same for a mirrored image."""

    def __init__(self):
        super().__init__()
        self.asked = []  # (in train mode, autograd takes notes) of each question, shared with copies

    def __deepcopy__(self, memo) -> "Lopsided":
        twin = Lopsided().train(self.training)
        twin.asked = self.asked
        return twin

    def forward(self, images: Tensor) -> Tensor:
        self.asked.append((self.training, torch.is_grad_enabled()))
        return torch.stack([images[:, 0, 0, 0], images[:, 0, -1, -1] ** 2], dim=1)


@self_check
def averages_flips(flip_averaged: Callable[[nn.Module, Tensor], Tensor]) -> str:
    """Whether `flip_averaged(network, images)` is the mean of the logits for images (N, 3, H, W) and mirrored ones."""
    images = torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    network = Lopsided().train()
    found = result_of(flip_averaged, network, images)
    if any(training for training, _ in network.asked):
        raise NotYet("the network is asked in train mode: its answers hang on the rest of the batch")
    if any(graph for _, graph in network.asked):
        raise NotYet("autograd takes notes for a backward pass that never comes: forbid it")
    expect_tensor(found, (5, 2), torch.float32, "one row of logits an image")
    once, mirrored, upside_down, recoloured = (
        network(version) for version in (images, images.flip(3), images.flip(2), images.flip(1))
    )
    mistakes = [
        (once, "that is the answer to the images alone"),
        (mirrored, "that is the answer to the mirrored images alone"),
        (once + mirrored, "that is the sum of the two: its softmax would be far too sure"),
        ((once + upside_down) / 2, "the images stand on their heads: channels come first here"),
        ((once + recoloured) / 2, "the colours are swapped: the last axis goes from left to right"),
        ((once.softmax(1) + mirrored.softmax(1)) / 2, "those are probabilities: average the logits"),
    ]
    compare_tensors(found, (once + mirrored) / 2, mistakes, "not the mean of the two answers")
    return "the mean of the answers to a picture and to its mirror image"
