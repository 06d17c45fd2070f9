"""Parameter counts, layer order, output shapes, and what a frozen backbone means."""

import contextlib
import io
import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from course_utils import models
from course_utils.lab import bench
from course_utils.models import CustomResNet, SmallNet, TransferNet, count_parameters, layer_table

# The published summary of the assignment's network.
RESNET_LAYERS = [
    ("Conv2d", 1_792),
    ("BatchNorm2d", 128),
    ("Conv2d", 73_856),
    ("BatchNorm2d", 256),
    ("Conv2d", 147_584),
    ("BatchNorm2d", 256),
    ("Conv2d", 147_584),
    ("BatchNorm2d", 256),
    ("Conv2d", 295_168),
    ("BatchNorm2d", 512),
    ("Conv2d", 1_180_160),
    ("BatchNorm2d", 1_024),
    ("Conv2d", 2_359_808),
    ("BatchNorm2d", 1_024),
    ("Conv2d", 2_359_808),
    ("BatchNorm2d", 1_024),
    ("Linear", 5_130),
]


BATCH_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def quiet_summary(model: nn.Module) -> str:
    from torchsummary import summary

    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        summary(model, (3, 32, 32), device="cpu")
    return text.getvalue()


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (SmallNet(), 996_376),
        (SmallNet(hidden=200), 523_596),
        (SmallNet(widths=(32, 64), hidden=200), 859_084),
        (SmallNet(conv_dropout=0, dense_dropout=0), 996_376),
        (SmallNet(batch_norm=False), 995_928),
        (SmallNet(separable=True), 915_416),
        (CustomResNet(), 6_575_370),
        (CustomResNet(bias=False), 6_573_130),
        (CustomResNet(n_classes=100, widths=(24, 48, 96, 192), bias=False), 944_380),
        (CustomResNet(n_classes=100, widths=(32, 64, 96, 160), bias=False, residual2=True), 931_332),
    ],
)
def test_parameter_counts(model, expected):
    assert count_parameters(model) == count_parameters(model, trainable=True) == expected


def test_resnet_layers_in_published_order():
    assert layer_table(CustomResNet()) == RESNET_LAYERS


def test_torchsummary_prints_the_assignments_table():
    text = quiet_summary(CustomResNet())
    assert "Total params: 6,575,370" in text
    assert "Input size (MB): 0.01" in text
    assert "Forward/backward pass size (MB): 7.38" in text
    assert "Params size (MB): 25.08" in text
    assert "ResidualStage" not in text, "only layers, no containers"
    assert "Total params: 996,376" in quiet_summary(SmallNet())


@pytest.mark.parametrize(
    ("model", "n_classes"),
    [
        (SmallNet(), 100),
        (SmallNet(widths=(32, 64), hidden=200, n_classes=7), 7),
        (SmallNet(widths=(8, 8, 8, 8), activation="GELU"), 100),
        (CustomResNet(widths=(8, 16, 16, 32)), 10),
        (CustomResNet(widths=(8, 16, 16, 32), skip=False, n_classes=3), 3),
    ],
)
def test_logits_have_one_column_a_class(model, n_classes):
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, n_classes)


def test_skip_adds_the_input_back():
    torch.manual_seed(0)
    model = CustomResNet(widths=(4, 8, 8, 16), residual2=True).eval()
    for branch in (model.residual1, model.residual2, model.residual3):
        branch[-2].weight.data.zero_()  # the branch now returns zero: only its input is left
    images = torch.rand(2, 3, 32, 32)
    straight = model.pool(model.layer3(model.layer2(model.layer1(model.prep(images)))))
    torch.testing.assert_close(model.features(images), straight)
    model.skip = False
    assert not torch.allclose(model.features(images), straight)


def test_logit_scale_scales_logits():
    torch.manual_seed(0)
    model = CustomResNet(widths=(4, 8, 8, 16)).eval()
    images = torch.rand(2, 3, 32, 32)
    full = model(images)
    model.logit_scale = 0.125
    torch.testing.assert_close(model(images), full / 8)


def test_separable_convolutions_have_a_filter_a_channel_and_then_mix_them():
    first, *rest = [layer for layer in SmallNet(separable=True).features if isinstance(layer, nn.Conv2d)]
    assert (first.in_channels, first.kernel_size, first.groups) == (3, (3, 3), 1)
    shapes = [(c.in_channels, c.out_channels, c.kernel_size, c.groups) for c in rest]
    assert shapes == [
        (32, 32, (3, 3), 32),
        (32, 64, (1, 1), 1),
        (64, 64, (3, 3), 64),
        (64, 128, (1, 1), 1),
    ]


def test_names_of_the_kept_weights_stay():
    """What earlier runs have saved must go on fitting: the networks' tensors keep their names and shapes."""
    assert list(SmallNet().state_dict()) == [
        f"features.{5 * stage + layer}.{name}"
        for stage in range(3)
        for layer, names in enumerate([("weight", "bias"), BATCH_NORM])
        for name in names
    ] + ["head.1.weight", "head.1.bias", "head.4.weight", "head.4.bias"]


def test_unknown_activation_names_the_place_to_look():
    with pytest.raises(ValueError, match=r"torch\.nn"):
        SmallNet(activation="Rellu")


@pytest.mark.parametrize("p", [0.1, 0.2, 0.5])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_dropout_keeps_expectation_and_share(p, memory_format):
    torch.manual_seed(0)
    x = torch.ones(16, 8, 32, 32).contiguous(memory_format=memory_format)
    y = models.Dropout(p)(x)
    assert y.stride() == x.stride()
    assert float((y == 0).float().mean()) == pytest.approx(p, abs=0.005)
    assert float(y.mean()) == pytest.approx(1, abs=0.01)
    assert len(y.unique()) == 2


def test_dropout_masks_are_independent_of_position_and_step():
    torch.manual_seed(0)
    x, layer = torch.ones(64, 4, 16, 16), models.Dropout(0.5)
    first, second = layer(x) > 0, layer(x) > 0
    assert float((first == second).float().mean()) == pytest.approx(0.5, abs=0.01)
    assert float((first[:, :, 1:] == first[:, :, :-1]).float().mean()) == pytest.approx(0.5, abs=0.01)


def test_dropout_rests_in_eval_mode_and_repeats_with_a_seed():
    layer, x = models.Dropout(0.5), torch.rand(3, 7, 5)  # odd sizes, three axes
    assert layer.eval()(x) is x
    layer.train()
    torch.manual_seed(1)
    first = layer(x)
    torch.manual_seed(1)
    assert torch.equal(first, layer(x))


def test_dropout_gradient_passes_where_the_value_did():
    torch.manual_seed(0)
    x = torch.ones(1000, requires_grad=True)
    y = models.Dropout(0.5)(x)
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())


def test_dropout_refuses_a_probability_of_one():
    for p in (1.0, 0.999):  # a byte cannot tell the second from the first
        with pytest.raises(ValueError, match=rf"\[0, 255/256\].*{p}"):
            models.Dropout(p)


def test_transfer_net_counts():
    net = TransferNet(100, backbone=models.resnet18_backbone())
    assert count_parameters(net) == 11_227_812
    assert count_parameters(net, trainable=True) == 51_300


def test_frozen_backbone_stays_frozen_in_train_mode():
    torch.manual_seed(0)
    net = TransferNet(5, backbone=models.headless(SmallNet()), n_features=420)
    before = {name: tensor.clone() for name, tensor in net.backbone.state_dict().items()}
    optimizer = torch.optim.SGD(net.head.parameters(), lr=0.1)
    net.train()
    assert net.head.training
    nn.functional.cross_entropy(net(torch.rand(8, 3, 32, 32)), torch.arange(8) % 5).backward()
    optimizer.step()
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.backbone.state_dict().items())


def test_moving_norm_moves_statistics_and_no_weight():
    torch.manual_seed(0)
    net = TransferNet(5, backbone=models.headless(SmallNet()), n_features=420, moving_norm=True).train()
    before = {name: tensor.clone() for name, tensor in net.backbone.state_dict().items()}
    net(torch.rand(8, 3, 32, 32)).sum().backward()
    assert not any(p.requires_grad for p in net.backbone.parameters())
    moved = {n for n, tensor in net.backbone.state_dict().items() if not torch.equal(tensor, before[n])}
    assert moved == {name for name, _ in net.backbone.named_buffers()}
    net.eval()
    assert not any(layer.training for layer in net.modules())


@pytest.mark.parametrize(
    ("model", "features"), [(SmallNet(), 420), (CustomResNet(widths=(8, 8, 8, 32), logit_scale=0.5), 32)]
)
def test_headless_returns_features_and_leaves_the_model(model, features):
    model.eval()
    images = torch.rand(2, 3, 32, 32)
    logits = model(images)
    assert models.headless(model)(images).shape == (2, features)
    assert torch.equal(model(images), logits)


def test_missing_pretrained_weights_say_what_to_do(monkeypatch):
    from torchvision.models import ResNet18_Weights

    def offline(self, *args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(ResNet18_Weights, "get_state_dict", offline)
    with pytest.raises(RuntimeError, match=r"no route to host.*Download https://.*checkpoints"):
        TransferNet(100)


def test_pretrained_weights_cannot_run_code(tmp_path, monkeypatch):
    """A file that lies where torch keeps fetched weights is not checked again: it might be anybody's."""

    class Trap:
        def __reduce__(self):
            return Path.touch, (tmp_path / "it ran",)

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    torch.save({"conv1.weight": Trap()}, tmp_path / "checkpoints/resnet18-f37072fd.pth")
    with pytest.raises(RuntimeError, match=r"resnet18-f37072fd\.pth is damaged.*delete it") as caught:
        TransferNet(100)
    assert isinstance(caught.value.__cause__, pickle.UnpicklingError)
    assert "weights_only" in str(caught.value.__cause__)
    assert not (tmp_path / "it ran").exists()


@pytest.mark.parametrize("content", [b"", b"<html>sign in to the network", b"PK\x03\x04 cut off"])
def test_a_stored_file_that_is_no_weights_is_named(tmp_path, monkeypatch, content):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/resnet18-f37072fd.pth").write_bytes(content)
    with pytest.raises(RuntimeError, match=r"resnet18-f37072fd\.pth is damaged.*delete it"):
        TransferNet(100)


def test_smallnet_is_the_source_network_whatever_the_place_of_its_relu():
    """Outputs and gradients agree with the source's order of layers, of which the benchmark has a copy."""
    torch.manual_seed(0)
    ours, source = SmallNet(conv_dropout=0, dense_dropout=0), bench.source_smallnet(conv_dropout=0)
    source[-2].p = 0.0
    source.load_state_dict(
        dict(zip(source.state_dict(), ours.state_dict().values(), strict=True))  # same order of weights
    )
    images = torch.rand(8, 3, 32, 32)
    a, b = ours(images), source(images)
    torch.testing.assert_close(a, b, rtol=0, atol=1e-6)
    a.square().sum().backward()
    b.square().sum().backward()
    for p, q in zip(ours.parameters(), source.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-3, atol=1e-4)
