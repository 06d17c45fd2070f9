"""The self-checks of Session 1's exercises; `self_check.py` says how they work."""

import copy
import functools
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from course_utils.exercises.self_check import compare, drawn, refuse, result_of, self_check
from course_utils.models import SmallNet, count_parameters

FROM = "(from course_utils.models import layer_table)"


@self_check
def weights(answer: int, network: SmallNet) -> str:
    """The number of weights of `network`, counted by hand."""
    right = count_parameters(network)
    biases = sum(p.numel() for name, p in network.named_parameters() if name.endswith("bias"))
    shifts = sum(layer.num_features for layer in network.modules() if isinstance(layer, nn.BatchNorm2d))
    first, last = network.head[1], network.head[-1]
    flat = first.weight.numel()
    too_many_classes = (100 - last.out_features) * (last.in_features + 1)
    mistakes = {
        "the biases are missing: a layer has one for each channel or value that comes out": right - biases,
        "the biases of the convolutions and of the dense layers are missing": right - biases + shifts,
        "batch normalisation is missing: it learns two numbers a channel": right - 2 * shifts,
        "you counted the running mean and variance: they are measured, not learned": right + 2 * shifts,
        "the last dense layer is missing": right - count_parameters(last),
        "the last dense layer is for a hundred classes: how many are there here?": right + too_many_classes,
        "the first dense layer gets fewer values: does the last stage pool as well?": right + 3 * flat,
        "the first dense layer gets more values: how often is the picture halved?": right - 3 * flat // 4,
    }
    otherwise = f"not this number: which row of layer_table(network) differs from yours? {FROM}"
    compare(answer, right, otherwise, mistakes)
    return f"{right:,} weights, {count_parameters(first) / right:.0%} of them in the first dense layer"


@self_check
def receptive_field(answer: int, features: nn.Sequential) -> str:
    """The side, in pixels, of the square of the picture that one value at the end of `features` can see."""
    side, distance, last_pool, late, convolutions = 1, 1, 0, 1, 1
    for layer in features:
        if isinstance(layer, nn.Conv2d):
            more = layer.kernel_size[0] - 1
            side, late, convolutions = side + more * distance, late + more * distance, convolutions + more
        elif isinstance(layer, nn.MaxPool2d):
            last_pool, side, distance = distance, side + distance, 2 * distance
            late += distance
    mistakes = {
        "the pooling is missing: after it, a step to the next value is two pixels wide": convolutions,
        "that is before the last pooling, which looks at neighbours as well": side - last_pool,
        "a pooling adds the distance that neighbours have before it, not after it": late,
        "that is how far apart neighbours are at the end, not how much one of them sees": distance,
        "not quite the whole picture: add up what each layer contributes": 32,
    }
    compare(answer, side, "not this side: write down the distance of neighbours before each layer", mistakes)
    return f"{side} × {side} pixels of 32 × 32"


@self_check
def dead_epochs(answer: int, epochs: int, lr: float, step_epochs: int, gamma: float) -> str:
    """How many epochs of a step schedule have a rate so low that float32 rounds it away from a weight of 0.01."""
    rates = lr * gamma ** (np.arange(epochs) // step_epochs)
    half_a_gap = {weight: np.spacing(np.float32(weight)) / 2 for weight in (0.01, 1)}
    dead = int((rates < half_a_gap[0.01]).sum())
    too_soon = int((rates < 0.01 * np.finfo(np.float32).eps).sum())
    alive = epochs - dead
    mistakes = {
        "one too many: count from the first dead epoch to the last, both included": dead + 1,
        "one too few: count from the first dead epoch to the last, both included": dead - 1,
        "that is how many epochs are alive": alive,
        "that is the number of the first dead epoch; how many are there from it to the end?": alive + 1,
        "that is the number of drops: each comes after several epochs": alive // step_epochs,
        "none in float64, which float32 becomes when it meets it: make the rates float32, too": 0,
        "that is for a weight of 1; the weight here is 0.01": int((rates < half_a_gap[1]).sum()),
        "not so soon: what is the gap from 0.01 to the next float32, and what is rounded to nothing?": too_soon,
    }
    compare(answer, dead, "not this many: plot the rates on a log scale, with the threshold", mistakes)
    return f"{dead} of {epochs} epochs do nothing"


@self_check
def trains(train: Callable) -> str:
    """Whether `train(network, loader, loss_fn, optimizer, scheduler, epochs)` trains, and returns each epoch's loss."""
    losses, weights = trial(train)
    two = isinstance(losses, list) and len(losses) == 2
    refuse(not two, f"expected a list of one loss for each of 2 epochs, found {losses!r:.60}")
    refuse(any(isinstance(loss, Tensor) for loss in losses), "a loss is a tensor: make a plain number of it")
    right_losses, right_weights = trial(loop)
    mistakes = {
        "the gradients pile up: each step needs those of its own batch alone": mistaken(forget=False)[1],
        "batch normalisation is in eval mode while you train": mistaken(mode=False)[1],
        "the rate never changes: the schedule has to move, too": mistaken(moves="never")[1],
        "the rate changes once per epoch: this schedule counts batches": mistaken(moves="epoch")[1],
        "softmax comes twice: this loss takes logits": trial(loop, loss_fn=on_probabilities)[1],
        "that is another loss than the one that was passed in": trial(loop, loss_fn=nn.CrossEntropyLoss())[1],
        "the weights have not moved: are the gradients still there when they are used?": trial()[1],
    }
    otherwise = "the weights differ: check the mode, what the loss gets, and what follows it, in which order"
    compare(weights, right_weights, otherwise, mistakes)
    small = "that is the mean of the batches' means: the last batch is smaller, and should count less"
    otherwise = "the weights are right, the losses are not: expected the mean over all pictures of the epoch"
    for found, right, unweighted in zip(losses, right_losses, mistaken(weigh=False)[0], strict=True):
        compare(found, right, otherwise, {small: unweighted})
    once, _ = trial(train, epochs=1)
    refuse(len(once) != 1, "asked for one epoch, it trains for more: `epochs` says how many")
    return "the weights and the losses are those of plain gradient descent"


SMOOTHED = nn.CrossEntropyLoss(label_smoothing=0.3)  # not the loss that everybody has at hand


def on_probabilities(logits: Tensor, labels: Tensor) -> Tensor:
    return SMOOTHED(logits.softmax(1), labels)


def trial(train: Callable = lambda *_: [], epochs: int = 2, loss_fn=SMOOTHED) -> tuple[list[float], Tensor]:
    """What `train` returns for epochs of three batches, the last a small one, and the weights that it leaves."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 3), nn.BatchNorm1d(3)).eval()
    with torch.no_grad():
        network[1].weight.copy_(drawn(3, 12))
        network[1].bias.zero_()
    batches = list(zip(drawn(10, 3, 2, 2).split(4), torch.arange(10).remainder(3).split(4), strict=True))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.7**step)
    losses = result_of(train, network, batches, loss_fn, optimizer, schedule, epochs)
    return losses, nn.utils.parameters_to_vector(network.parameters()).detach()


def mistaken(**how) -> tuple[list[float], Tensor]:
    return trial(functools.partial(loop, **how))


def loop(
    network, loader, loss_fn, optimizer, schedule, epochs, forget=True, mode=True, moves="batch", weigh=True
):
    """A training loop that is right as it stands, and wrong by its last arguments."""
    losses = []
    for _ in range(epochs):
        network.train(mode)
        found = []
        for images, labels in loader:
            loss = loss_fn(network(images), labels)
            loss.backward()
            optimizer.step()
            if forget:
                optimizer.zero_grad()
            if moves == "batch":
                schedule.step()
            found += [loss.item()] * (len(labels) if weigh else 1)
        if moves == "epoch":
            schedule.step()
        losses.append(float(np.mean(found)))
    return losses


class Watched(nn.Sequential):
    """Two logits from an image's first value through batch normalisation, and a note of how it was called.

    Where first values are positive, eval mode answers class 0; train mode compares images, and answers 1 for some.
    """

    def __init__(self, graphs: list):
        super().__init__(nn.Flatten(), nn.Linear(12, 2, bias=False), nn.BatchNorm1d(2))
        with torch.no_grad():
            self[1].weight.zero_()[0, 0] = 1
        self.graphs = graphs  # for each question, whether autograd was on; shared with copies

    def __deepcopy__(self, memo) -> "Watched":
        return Watched(self.graphs).train(self.training)

    def forward(self, images: Tensor) -> Tensor:
        self.graphs.append(torch.is_grad_enabled())
        return super().forward(images)


@self_check
def measures(accuracy: Callable[[nn.Module, Tensor, Tensor], float]) -> str:
    """Whether `accuracy(network, images, labels)` measures in eval mode, and leaves the network as it found it."""
    images = torch.arange(1.0, 11.0)[:, None, None, None].expand(10, 3, 2, 2)
    labels = torch.tensor([0] * 8 + [1] * 2)
    share = "expected a share between 0 and 1, found a"
    scales = {f"{share} percentage": 80.0, f"{share} count": 8.0}
    modes = {True: "train", False: "eval"}
    for mode in modes:
        network = Watched(graphs=[]).train(mode)
        before = copy.deepcopy(network.state_dict())
        found = result_of(accuracy, network, images, labels)
        moved = any(not before[name].equal(value.cpu()) for name, value in network.state_dict().items())
        refuse(moved, "measuring has moved the running statistics: batch normalisation is in train mode")
        compare(found, 0.8, "the share is wrong: compare the largest logit's place with the label", scales)
        refuse(any(network.graphs), "autograd prepares a backward pass that never comes: turn it off")
        came_and_leaves = f"came in {modes[mode]} mode and leaves in {modes[network.training]} mode"
        refuse(network.training != mode, f"the network {came_and_leaves}: put back what you found")
        layers = any(layer.training != mode for layer in network.modules())
        refuse(layers, f"the network {came_and_leaves}, but its layers do not: each has a mode of its own")
    return "measured in eval mode, and the network is left as it was found"


@self_check
def needs_no_bias(bare: nn.Conv2d, bare_norm: nn.BatchNorm2d, conv: nn.Conv2d, norm: nn.BatchNorm2d) -> str:
    """Whether `bare` (without a bias) and `bare_norm` do in eval mode what `conv` and `norm` do."""
    lost = conv.bias is None or not conv.bias.any()
    again = "run the cell that makes it again, and then"
    refuse(lost, f"`conv` itself has lost its bias: {again} build a new one, or work on a copy")
    refuse(bare_norm is norm, f"`bare_norm` is `norm` itself, which must not change: {again} build a new one")
    shared = bare_norm.running_mean.data_ptr() == norm.running_mean.data_ptr()
    same = "has the running mean of `norm` itself, and changes it there"
    refuse(shared, f"`bare_norm` {same}: {again} copy the values")
    refuse(bare.bias is not None, "the new convolution still has a bias")
    refuse(not torch.equal(bare.weight, conv.weight), "the convolution's weights were not copied")
    followed = bare_norm.running_mean.requires_grad
    refuse(followed, "autograd follows the running mean, as if it were learned: set it under torch.no_grad()")
    for name in ("weight", "bias", "running_var"):
        copied = torch.equal(getattr(bare_norm, name), getattr(norm, name))
        refuse(not copied, f"{name} of the batch normalisation was not copied, or need not change")
    mistakes = {
        "the running mean is the old one: it was measured with the bias in it": norm.running_mean,
        "the running mean has moved the wrong way": norm.running_mean + conv.bias,
        "the running mean lost what it had measured: only the bias has to leave it": -conv.bias,
    }
    right = norm.running_mean - conv.bias
    hint = "what was it a mean of? Think of what eval mode does with it"
    compare(bare_norm.running_mean, right, f"the running mean is off: {hint}", mistakes)
    pairs, x = (nn.Sequential(conv, norm), nn.Sequential(bare, bare_norm)), drawn(2, 3, 8, 8)
    with torch.no_grad():
        expected, found = (copy.deepcopy(pair).eval()(x) for pair in pairs)
    advice = "is all else as in `conv` and `norm`?"
    compare(found, expected, f"the weights are right, but the output differs: {advice}", {}, advice)
    return f"the same output with {len(conv.bias)} weights fewer"


@self_check
def within_budget(network: nn.Module, start: nn.Module, budget: int, accuracy: float, to_beat: float) -> str:
    """Whether `network` classifies (N, 3, 32, 32) in 100 classes, fits the budget, and beats `start` fairly."""
    with torch.no_grad():
        shape = tuple(copy.deepcopy(network).cpu().eval()(torch.zeros(2, 3, 32, 32)).shape)
    refuse(shape != (2, 100), f"expected 100 logits a picture, found the shape {shape} for two pictures")
    over = count_parameters(network) - budget
    refuse(over > 0, f"{over:,} weights over the budget: which row of layer_table takes the most? {FROM}")
    other = activations(network) - activations(start)
    refuse(other, "another activation than the starting network's: the gain would not be the budget's alone")
    gain = accuracy - to_beat
    refuse(gain <= 0, "no better than the starting network: is the budget where features are found?")
    refuse(gain < 0.10, "better by less than ten points, which another seed might do as well")
    return "within the budget, and at least ten points better with this seed"


def activations(network: nn.Module) -> set[str]:
    kinds = {type(layer) for layer in network.modules()}
    return {kind.__name__ for kind in kinds if kind.__module__ == "torch.nn.modules.activation"}


@self_check
def finds_confusions(two_worst: Callable[[np.ndarray], list[tuple[int, int]]]) -> str:
    """Whether `two_worst(confusion)` gives the (true, predicted) pairs of the two commonest mistakes, worst first."""
    matrix = np.array([[50, 7, 2, 0], [1, 60, 4, 8], [12, 3, 5, 1], [0, 9, 5, 40]])
    found = result_of(two_worst, matrix)
    answer = list(found) if np.iterable(found) else []
    refuse(len(answer) != 2, f"expected two pairs, found {len(answer)}")
    shapes, advice = set(map(np.shape, answer)), "np.unravel_index makes them of a flat matrix's places"
    refuse(shapes != {(2,)}, f"expected pairs (true, predicted): {advice}")
    pairs, right = [tuple(int(k) for k in pair) for pair in answer], [(2, 0), (3, 1)]
    refuse(any(one == other for one, other in pairs), "the diagonal is what went right: leave it out")
    mistakes = {
        "these are two rows and two columns: zip makes pairs of them": list(zip(*right, strict=True)),
        "the right pairs, but the commoner mistake comes first": right[::-1],
        "true and predicted are swapped: a row is a true class": [pair[::-1] for pair in right],
    }
    compare(pairs, right, "not the commonest mistakes: try it on a small matrix of your own", mistakes)
    crowded = np.array([[20, 9, 8, 0], [1, 2, 0, 1], [0, 5, 9, 0], [0, 1, 0, 3]])
    for matrix, right in ((crowded, [(0, 1), (0, 2)]), (crowded.T.copy(), [(1, 0), (2, 0)])):
        pairs = [tuple(int(k) for k in pair) for pair in result_of(two_worst, matrix)]
        refuse(pairs != right, "the commonest two may share a class: compare the counts of the whole matrix")
    tied = np.array([[9, 0, 0, 0, 0], [0, 9, 4, 0, 0], [0, 1, 9, 0, 0], [0, 0, 2, 9, 4], [0, 0, 0, 0, 9]])
    pairs = sorted(tuple(int(k) for k in pair) for pair in result_of(two_worst, tied))
    refuse(pairs != [(1, 2), (3, 4)], "two mistakes may be equally common, and there may be five classes")
    return "the two commonest mistakes, the worst first"
