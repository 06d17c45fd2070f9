"""How a `Sprint` is trained: Muon for its filters, SGD for the rest, rates that fall to zero, small images at first.

`Muon` is momentum whose step on a matrix is made orthogonal. A layer's gradient is dominated by a few directions; Muon
gives all of them the same length; its author speculates that rare ones are then learned sooner.
Source: K. Jordan, "Muon: an optimizer for hidden layers in neural networks", 2024.
"""

import torch
from torch import Tensor, nn, optim
from torch.optim.lr_scheduler import LambdaLR

from course_utils.models import Sprint
from course_utils.training import Run

BIAS_EPOCHS = 3  # the first layer learns its bias in these, and nothing more afterwards


class Muon(optim.Optimizer):
    """SGD with Nesterov momentum. A group may set `orthogonal`, which makes its step orthogonal.

    Such a group holds filters, (n, …): the rows of a matrix, kept at a mean square length of one.
    A group's `weight_decay` is a part of the gradient, as in `torch.optim.SGD`.
    """

    def __init__(self, params, lr: float, momentum: float, weight_decay=0.0, orthogonal=False):
        rest = {"weight_decay": weight_decay, "orthogonal": orthogonal}
        super().__init__(params, {"lr": lr, "momentum": momentum} | rest)

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                if not self.state[p]:
                    self.state[p]["momentum"] = torch.zeros_like(p)
                gradient = p.grad.add(p, alpha=group["weight_decay"])
                momentum = self.state[p]["momentum"].mul_(group["momentum"]).add_(gradient)
                update = gradient.add_(momentum, alpha=group["momentum"])
                if group["orthogonal"]:
                    p.mul_(len(p) ** 0.5 / p.norm())
                    update = orthogonal(update.flatten(1)).view(p.shape)
                p.sub_(update, alpha=group["lr"])


def orthogonal(matrix: Tensor, steps: int = 3) -> Tensor:
    """Approximately the orthogonal matrix nearest to `matrix` (rows, columns).

    A Newton–Schulz iteration: an odd polynomial of a matrix acts on its singular values alone.
    Three steps of this one bring all from 0.02 to 1 to between 0.68 and 1.21.
    """
    x = matrix / (matrix.norm() + 1e-7)
    tall = len(x) > x.shape[1]
    x = x.T if tall else x
    # All steps multiply x from the left, by what its square decides, a much smaller matrix.
    square, factors = x @ x.T, torch.eye(len(x), dtype=x.dtype, device=x.device)
    for _ in range(steps):
        factor = 2.0315 * square @ square - 4.7750 * square
        factor.diagonal().add_(3.4445)
        square, factors = factor @ square @ factor, factor @ factors
    x = factors @ x
    return x.T if tall else x


def build_optimizer(
    model: Sprint, filters: float, biases: float, head: float, decay: float, muon: bool = True
) -> Muon:
    """The optimizer of a `Sprint`, given the rates of its filters, its biases and its head.

    `decay` is the weight decay times the rate at the start: what a first step without momentum would take away. It
    leaves out the filters, which Muon keeps at their length, unless SGD trains them as well (`muon=False`).
    """

    def sgd(weights: list[nn.Parameter], lr: float) -> dict:
        return {"params": weights, "lr": lr, "momentum": 0.85, "weight_decay": decay / lr}

    learned = [weight for weight in model.filters() if weight.requires_grad]
    norms = [layer.bias for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
    muons = {"params": learned, "lr": filters, "momentum": 0.6, "orthogonal": True}
    first = sgd([model.patches.bias], biases) | ({"epochs": BIAS_EPOCHS} if model.whitened else {})
    rest = [sgd(norms, biases), first, sgd([model.head.weight], head)]
    return Muon([muons if muon else sgd(learned, filters), *rest], lr=filters, momentum=0.6)


def hidden_by_muon(model: nn.Module, hidden: float, rest: float, decay: float) -> Muon:
    """The optimizer of any other network: Muon for the weights of all layers but the last, SGD for what is left.

    `hidden` and `rest` are their rates; `decay` is an ordinary weight decay of the rest, not times a rate as above.
    """
    *matrices, last = [weight for weight in model.parameters() if weight.ndim > 1]
    others = [last, *(weight for weight in model.parameters() if weight.ndim == 1)]
    muons = {"params": matrices, "lr": hidden, "momentum": 0.6, "orthogonal": True}
    return Muon([muons, {"params": others, "weight_decay": decay}], lr=rest, momentum=0.9)


def falling(optimizer: optim.Optimizer, epochs: int, steps_per_epoch: int) -> LambdaLR:
    """Every rate falls in a straight line to zero, in all `epochs`, or in as many as its group of weights names."""
    lengths = [group.get("epochs", epochs) * steps_per_epoch for group in optimizer.param_groups]
    scheduler = LambdaLR(optimizer, [lambda step, n=n: max(0.0, 1 - step / n) for n in lengths])
    scheduler.per_batch, scheduler.total_steps = True, epochs * steps_per_epoch  # for `fit`
    return scheduler


class FreezeFirstLayer:
    """A hook for `fit`: after `BIAS_EPOCHS` epochs nothing is computed for the bias of the first layer any more."""

    def after_epoch(self, run: Run) -> None:
        run.model.patches.bias.requires_grad_(len(run.history) < BIAS_EPOCHS)

    start = after_epoch


def shrink(images: Tensor, size: int) -> Tensor:
    """Images (n, 3, H, W) at `size` × `size` pixels, each a weighted mean of those that it covers."""
    return nn.functional.interpolate(images, size, mode="bilinear", antialias=True)
