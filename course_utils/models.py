"""The networks of both sessions, and how to count their weights.

Read `SmallNet`, `CustomResNet`, `Sprint` and `TransferNet`; `Dropout`, at the end, is torch's, only faster on a CPU.
Every network takes float images (n, 3, 32, 32), scaled or normalised, and returns logits (n, n_classes): the softmax
belongs to the loss. What ablations change is an argument. All are in channels-last memory format, which is fastest.
"""

import copy
import hashlib
import math
from pathlib import Path

import torch
from torch import Tensor, nn


class SmallNet(nn.Module):
    """Session 1's network: convolution stages that halve the picture, then two dense layers.

    Each stage is Conv 3×3 · BatchNorm · Dropout · MaxPool 2 · activation. With the defaults it has exactly 996,376
    weights; `widths=(32, 64), hidden=200` is the project's first, of two stages. `separable` makes all
    convolutions but the first separable (Howard et al., "MobileNets", arXiv:1704.04861). The source has its ReLU
    before the pooling. After it, a ReLU has a quarter of the work and the same output, since it keeps the order of
    values. GELU does not (it falls before it rises), so pooling last would be a different network.
    """

    def __init__(
        self,
        n_classes: int = 100,
        widths: tuple[int, ...] = (32, 64, 128),
        hidden: int = 420,
        conv_dropout: float = 0.1,
        dense_dropout: float = 0.2,
        batch_norm: bool = True,
        activation: str = "ReLU",
        separable: bool = False,
    ):
        super().__init__()
        stages = []
        for c_in, c_out in zip((3, *widths), widths, strict=False):
            if separable and c_in > 3:  # a filter a channel, and then 1×1 to mix the channels
                stages += [nn.Conv2d(c_in, c_in, 3, padding=1, groups=c_in), nn.Conv2d(c_in, c_out, 1)]
            else:
                stages += [nn.Conv2d(c_in, c_out, 3, padding=1)]
            stages += [nn.BatchNorm2d(c_out)] if batch_norm else []
            stages += [Dropout(conv_dropout)] if conv_dropout else []
            stages += [nn.MaxPool2d(2), activation_layer(activation)]
        self.features = nn.Sequential(*stages)
        flat = widths[-1] * (32 // 2 ** len(widths)) ** 2
        self.head = nn.Sequential(
            nn.Flatten(),
            nn.Linear(flat, hidden),
            activation_layer(activation),
            Dropout(dense_dropout),
            nn.Linear(hidden, n_classes),
        )
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))


def activation_layer(name: str) -> nn.Module:
    if not isinstance(name, str) or not hasattr(nn, name):
        raise ValueError(f"unknown activation {name!r}: use the name of a torch.nn layer, e.g. 'GELU'")
    return getattr(nn, name)()


def conv_bn_relu(c_in: int, c_out: int, *, pool: bool = False, bias: bool = True) -> nn.Sequential:
    """Conv 3×3 · BatchNorm · ReLU; with `pool`, MaxPool 2 before BatchNorm keeps a quarter of the values."""
    conv = nn.Conv2d(c_in, c_out, 3, padding=1, bias=bias)
    pooling = [nn.MaxPool2d(2)] if pool else []
    return nn.Sequential(conv, *pooling, nn.BatchNorm2d(c_out), nn.ReLU())


def residual_branch(channels: int, *, dropout: float = 0.0, bias: bool = True) -> nn.Sequential:
    """R: two Conv · BN · ReLU that keep the shape, so that their output can be added to their input."""
    halves = [conv_bn_relu(channels, channels, bias=bias) for _ in range(2)]
    if dropout:  # in one place with the ReLU before it, so that the weights keep their names in saved files
        for half in halves:
            half[2] = nn.Sequential(half[2], nn.Dropout2d(dropout))
    return nn.Sequential(*halves[0], *halves[1])


class CustomResNet(nn.Module):
    """Session 2's network: layers 1 and 3 return X + R(X), 6,575,370 weights with the defaults.

    The sum gives gradients a way around R (He et al., "Deep residual learning for image recognition", CVPR 2016);
    `skip=False` closes it and returns R(X), with the same weights. `residual2` gives layer 2 a branch as well.
    `dropout` zeroes whole feature maps, after each layer and inside the branches (0.01 behind the assignment's log).
    `logit_scale` multiplies the logits, `head_scale` the head's initial weights: at 1/8 the first loss is a guess's.
    Source of the layout: D. Page, "How to train your ResNet", 2018.
    """

    def __init__(
        self,
        n_classes: int = 10,
        widths: tuple[int, int, int, int] = (64, 128, 256, 512),
        dropout: float = 0.0,
        bias: bool = True,
        skip: bool = True,
        residual2: bool = False,
        logit_scale: float = 1.0,
        head_scale: float = 1.0,
    ):
        super().__init__()
        c0, c1, c2, c3 = widths
        self.prep = conv_bn_relu(3, c0, bias=bias).append(nn.Dropout2d(dropout))
        self.layer1 = conv_bn_relu(c0, c1, pool=True, bias=bias).append(nn.Dropout2d(dropout))
        self.residual1 = residual_branch(c1, dropout=dropout, bias=bias)
        self.layer2 = conv_bn_relu(c1, c2, pool=True, bias=bias).append(nn.Dropout2d(dropout))
        self.residual2 = residual_branch(c2, dropout=dropout, bias=bias) if residual2 else None
        self.layer3 = conv_bn_relu(c2, c3, pool=True, bias=bias).append(nn.Dropout2d(dropout))
        self.residual3 = residual_branch(c3, dropout=dropout, bias=bias)
        self.pool = nn.Sequential(nn.MaxPool2d(4), nn.Flatten())
        self.head = nn.Linear(c3, n_classes)
        self.head.load_state_dict({name: head_scale * w for name, w in self.head.state_dict().items()})
        self.skip, self.logit_scale = skip, logit_scale
        self.to(memory_format=torch.channels_last)

    def features(self, images: Tensor) -> Tensor:
        """The values that the last layer classifies, (n, widths[-1])."""
        x = self.layer2(self.add_branch(self.residual1, self.layer1(self.prep(images))))
        if self.residual2 is not None:
            x = self.add_branch(self.residual2, x)
        x = self.add_branch(self.residual3, self.layer3(x))
        return self.pool(x)

    def add_branch(self, branch: nn.Module, x: Tensor) -> Tensor:
        return x + branch(x) if self.skip else branch(x)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images)) * self.logit_scale

    def extra_repr(self) -> str:
        return f"skip={self.skip}, logit_scale={self.logit_scale}"


class Sprint(nn.Module):
    """The network of "94 % in a coffee break": whitened patches, three stages; 1,972,792 weights.

    If `whitened`, the first layer's filters are not learned: `whiten` computes them. A stage is
    Conv 3×3 · MaxPool 2 · BN · activation · Conv 3×3 · BN · activation, without biases in front
    of BN or scales in it. With `identity` a convolution starts as a copy of its first inputs.
    `stem`: the width of a layer before the stages, if any. `residual`: stages end in X + R(X).
    Source: K. Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU", arXiv:2404.00498.
    """

    def __init__(
        self,
        n_classes: int = 10,
        widths: tuple[int, int, int] = (64, 256, 256),
        activation: str = "GELU",
        identity: bool = True,
        whitened: bool = True,
        stem: int = 0,
        residual: bool = False,
    ):
        super().__init__()
        self.whitened = whitened
        layers = [nn.Conv2d(3, 24, 2), activation_layer(activation)]
        layers += plain_conv(24, stem, activation) if stem else []
        for c_in, c_out in zip((stem or 24, *widths), widths, strict=False):
            layers += plain_conv(c_in, c_out, activation, pool=True)
            more = plain_conv(c_out, c_out, activation)
            layers += [Residual(*more, *plain_conv(c_out, c_out, activation))] if residual else more
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(widths[-1], n_classes, bias=False)
        nn.init.normal_(self.head.weight, std=1 / widths[-1])  # the first loss is that of a guess
        if identity:
            for filters in self.filters()[1:]:
                nn.init.dirac_(filters[: filters.shape[1]])
        self.to(memory_format=torch.channels_last)

    @property
    def patches(self) -> nn.Conv2d:
        """The first layer."""
        return self.features[0]

    def filters(self) -> list[nn.Parameter]:
        """The filters of all convolutions, those of the first layer first."""
        return [layer.weight for layer in self.modules() if isinstance(layer, nn.Conv2d)]

    @torch.no_grad()
    def whiten(self, images: Tensor) -> None:
        """Set the first layer: uncorrelated outputs of variance one on `images` (n, 3, H, W).

        Its filters are eigenvectors of the patches' covariance, scaled, and their negatives.
        """
        patches = nn.functional.unfold(images.cpu(), 2).transpose(1, 2).reshape(-1, 12).double()
        values, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
        filters = (vectors / (values + 5e-4).sqrt()).T.reshape(12, 3, 2, 2)  # 5e-4: the faintest are noise
        self.patches.weight.copy_(torch.cat([filters, -filters])).requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images).amax((2, 3)))


class Residual(nn.Sequential):
    """X + R(X), where R is the layers one after another."""

    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


def plain_conv(c_in: int, c_out: int, activation: str, *, pool: bool = False) -> list[nn.Module]:
    """Conv 3×3 · MaxPool 2 if `pool` · BN · activation, without bias and the norm's scale."""
    pooling = [nn.MaxPool2d(2)] if pool else []
    norm = nn.BatchNorm2d(c_out, eps=1e-12, momentum=0.4)  # its averages follow within ten steps
    norm.weight.requires_grad_(False)
    return [nn.Conv2d(c_in, c_out, 3, padding=1, bias=False), *pooling, norm, activation_layer(activation)]


class SixViews(nn.Module):
    """`model` on six views: an image, moved a pixel to two corners, and each of these mirrored.

    Returns the mean of the logits; a moved view counts half. This test-time augmentation costs
    six times the operations. Its accuracy is not that of one view: compare like with like. Source: as for `Sprint`.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        padded = nn.functional.pad(images, (1, 1, 1, 1), "reflect")
        moved = padded[..., :-2, :-2], padded[..., 2:, 2:]
        views = [self.model(view) + self.model(view.flip(3)) for view in (images, *moved)]
        return (2 * views[0] + views[1] + views[2]) / 8


class TransferNet(nn.Module):
    """A frozen backbone under a new, trainable linear head.

    The backbone's weights get no gradient, and it stays in eval mode even when the whole network is put into train
    mode: a frozen BatchNorm that went on moving its running statistics would not be frozen. `backbone` is any network
    that returns features (n, n_features), `headless(model)` for one that was trained here; it is copied. By default it
    is torchvision's ResNet-18 pretrained on ImageNet, 11,227,812 weights in all for 100 classes. `frozen=False` trains
    the copy too ("fine-tuning"). `moving_norm` leaves a frozen backbone in train mode, as plain `model.train()` would:
    its weights stay, but its BatchNorm adapts to the new data.
    Source: Yosinski et al., "How transferable are features in deep neural networks?", NeurIPS 2014.
    """

    def __init__(self, n_classes: int, backbone=None, n_features=512, frozen=True, moving_norm=False):
        super().__init__()
        self.backbone = pretrained_resnet18() if backbone is None else copy.deepcopy(backbone)
        self.moving = moving_norm or not frozen
        self.backbone.requires_grad_(not frozen)
        self.head = nn.Linear(n_features, n_classes)
        self.to(memory_format=torch.channels_last).train()  # which puts a frozen backbone into eval mode

    def train(self, mode: bool = True) -> "TransferNet":
        super().train(mode)
        self.backbone.train(mode and self.moving)
        return self

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.backbone(images))


def pretrained_resnet18() -> nn.Module:
    """torchvision's ResNet-18 with its ImageNet weights and no last layer: images in, 512 features out.

    Raises RuntimeError, saying what to do, where the weights are neither stored nor within reach, or are damaged.
    """
    from torchvision.models import (
        ResNet18_Weights,
    )  # here: torchvision is slow to import, and this seldom needed

    weights = ResNet18_Weights.DEFAULT
    stored = Path(torch.hub.get_dir(), "checkpoints", Path(weights.url).name)
    digest = stored.stem.rpartition("-")[2]  # torchvision names its files after the start of their SHA-256
    if stored.exists() and not hashlib.sha256(stored.read_bytes()).hexdigest().startswith(digest):
        raise RuntimeError(f"{stored} is damaged (no SHA-256 {digest}…): delete it, and it is fetched anew")
    try:
        state = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (OSError, RuntimeError) as error:
        raise RuntimeError(
            f"ResNet-18's pretrained weights could not be fetched ({error}). Download {weights.url} and put it "
            f"into {stored.parent}, or pass `backbone=resnet18_backbone()` to see what a random backbone is worth."
        ) from error
    backbone = resnet18_backbone()
    backbone.load_state_dict({k: v for k, v in state.items() if not k.startswith("fc.")})
    backbone._pixel_spread = 1.0  # `first_batch.IMAGENET`: it was trained on normalised images
    return backbone


def resnet18_backbone() -> nn.Module:
    """torchvision's ResNet-18 without its last layer, randomly initialised: 512 features an image."""
    from torchvision.models import resnet18

    backbone = resnet18(weights=None)
    backbone.fc = nn.Identity()
    return backbone


def headless(model: SmallNet | CustomResNet) -> nn.Module:
    """A copy of `model` without its last layer (`head`, or the last of a `head` in sequence): features (n, k)."""
    backbone = copy.deepcopy(model)
    if not hasattr(backbone, "head"):
        raise ValueError(f"expected a network with a last layer called head, found {type(model).__name__}")
    if isinstance(backbone.head, nn.Sequential):
        backbone.head[-1] = nn.Identity()
    else:
        backbone.head, backbone.logit_scale = nn.Identity(), 1.0
    return backbone


def count_parameters(model: nn.Module, trainable: bool = False) -> int:
    """The number of weights and biases in `model`, or only of those that training changes."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad or not trainable)


def layer_table(model: nn.Module) -> list[tuple[str, int]]:
    """(layer type, weights) of each layer that has weights of its own, in the order of definition."""
    rows = [(type(m).__name__, sum(p.numel() for p in m.parameters(recurse=False))) for m in model.modules()]
    return [row for row in rows if row[1]]


class Dropout(nn.Module):
    """Zero each activation with probability `p` while training, as `nn.Dropout` does, in less CPU time.

    `nn.Dropout` draws a random number per activation, which takes a CPU longer than all of SmallNet's convolutions.
    Here one byte decides, so `p` is rounded to 1/256 (0.1 to 0.1016); survivors are scaled by 1 / (1 - p) on average.
    Source: Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting", JMLR 2014.
    """

    def __init__(self, p: float = 0.5):
        super().__init__()
        if not 0 <= p <= 255 / 256:
            raise ValueError(f"dropout probability must be in [0, 255/256], found {p}")
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        if x.device.type != "cpu":  # a GPU draws its random numbers side by side: torch's own is best there
            return nn.functional.dropout(x, self.p)
        return x * keep_mask(x, round(256 * self.p))

    def extra_repr(self) -> str:
        return f"p={self.p}"


def keep_mask(x: Tensor, threshold: int) -> Tensor:
    """A mask in the dtype and memory order of `x`: 0 with probability `threshold` / 256, and 1 on average.

    In half precision, the scale may lie between two representable numbers: 1.113 between 1.109 and 1.117 in
    bfloat16. Then some of the 256 draws get the one and the rest the other, so that the average is exact.
    """
    words = torch.empty((x.numel() + 7) // 8, dtype=torch.int64, device=x.device)
    words.random_(-(2**63), None)  # all 64 bits: the default range leaves the sign bit, and so a byte, short
    draws, survivors = words.view(torch.uint8)[: x.numel()], 256 - threshold
    mask, scale = torch.empty(x.numel(), dtype=x.dtype, device=x.device), 256 / survivors
    torch.ge(draws, threshold, out=mask)  # compares and converts in one pass
    if x.element_size() > 2:
        mask.mul_(scale)
    else:
        step = torch.finfo(x.dtype).eps * 2 ** math.floor(math.log2(scale))  # from a number to the next
        lower = math.floor(scale / step) * step  # the last number that is not above the scale
        larger = round((256 - survivors * lower) / step)  # how many of the 256 draws get the next one
        mask.mul_(lower).add_(torch.gt(draws, 255 - larger), alpha=step)
    # The draws are independent, so their order is free: in the memory order of `x` the product is one straight pass.
    channels_last = x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)
    return mask.as_strided(x.shape, x.stride()) if channels_last else mask.view(x.shape)
