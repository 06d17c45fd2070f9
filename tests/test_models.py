"""Networks by their published tables, a dropout whose expectations are exact, and weights in files."""

import contextlib
import hashlib
import io
import json
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from course_utils import data, models
from course_utils.exercises.first_batch import unwrap
from course_utils.lab import files
from course_utils.models import CustomResNet, SmallNet, TransferNet, count_parameters, layer_table

# The weights of the assignment's network, layer by layer, as its published summary has them.
CONVOLUTIONS = [1_792, 73_856, 147_584, 147_584, 295_168, 1_180_160, 2_359_808, 2_359_808]
BATCH_NORMS = [128, 256, 256, 256, 512, 1_024, 1_024, 1_024]
RECORDED = Path(models.__file__).parent / "lab" / "recorded"


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


@pytest.mark.parametrize("dropout", [0, 0.01])
def test_resnet_layers_in_published_order(dropout):
    pairs = zip(CONVOLUTIONS, BATCH_NORMS, strict=True)
    rows = [row for conv, norm in pairs for row in (("Conv2d", conv), ("BatchNorm2d", norm))]
    assert layer_table(CustomResNet(dropout=dropout)) == [*rows, ("Linear", 5_130)]


def test_torchsummary_prints_the_assignments_table():
    text = quiet_summary(CustomResNet())
    assert "Total params: 6,575,370" in text
    assert "Input size (MB): 0.01" in text
    assert "Forward/backward pass size (MB): 7.38" in text
    assert "Params size (MB): 25.08" in text
    kinds = set(re.findall(r"^ +(\w+)-\d+ ", text, re.MULTILINE))
    layers = {"Conv2d", "BatchNorm2d", "ReLU", "Dropout2d", "MaxPool2d", "Flatten", "Linear"}
    assert kinds == layers, "only layers, no containers"
    assert "Total params: 996,376" in quiet_summary(SmallNet())


def test_skip_adds_the_input_back_and_logits_are_scaled():
    torch.manual_seed(0)
    model = CustomResNet(widths=(4, 8, 8, 16), residual2=True).eval()
    for branch in (model.residual1, model.residual2, model.residual3):
        branch[-2].weight.data.zero_()  # the branch now returns zero: only its input is left
    images = torch.rand(2, 3, 32, 32)
    straight = model.pool(model.layer3(model.layer2(model.layer1(model.prep(images)))))
    torch.testing.assert_close(model.features(images), straight)
    model.skip = False
    assert not torch.allclose(model.features(images), straight)
    full, model.logit_scale = model(images), 0.125
    torch.testing.assert_close(model(images), full / 8)


def test_a_small_start_of_the_last_layer_has_the_first_logits_of_scaled_ones():
    images, logits = torch.rand(2, 3, 32, 32), []
    for scale, start in ((0.125, 1.0), (1.0, 0.125), (0.125, 8.0)):
        torch.manual_seed(0)
        model = CustomResNet(widths=(4, 8, 8, 16), logit_scale=scale, head_scale=start).eval()
        logits.append(model(images))
    torch.testing.assert_close(logits[0], logits[1])
    torch.testing.assert_close(8 * logits[0], logits[2])


def test_separable_convolutions_have_a_filter_a_channel_and_then_mix_them():
    first, *rest = [layer for layer in SmallNet(separable=True).features if isinstance(layer, nn.Conv2d)]
    assert (first.in_channels, first.kernel_size, first.groups) == (3, (3, 3), 1)
    shapes = [(c.in_channels, c.out_channels, *c.kernel_size, c.groups) for c in rest]
    assert shapes == [(32, 32, 3, 3, 32), (32, 64, 1, 1, 1), (64, 64, 3, 3, 64), (64, 128, 1, 1, 1)]


def test_unknown_activation_names_the_place_to_look():
    with pytest.raises(ValueError, match=r"unknown activation 'Rellu': use the name of a torch\.nn layer"):
        SmallNet(activation="Rellu")
    with pytest.raises(ValueError, match="use the name of a"):
        SmallNet(activation=nn.GELU)


def test_the_networks_dropout_stands_in_eight_places_and_changes_no_name():
    model = CustomResNet(widths=(4, 8, 8, 16), dropout=0.01)
    assert list(model.state_dict()) == list(CustomResNet(widths=(4, 8, 8, 16)).state_dict())
    calls = []
    for layer in model.modules():
        if isinstance(layer, (nn.ReLU, nn.Dropout2d)):
            layer.register_forward_hook(lambda layer, *_: calls.append(type(layer)))
    model(torch.rand(2, 3, 32, 32))
    assert calls == [nn.ReLU, nn.Dropout2d] * 8
    assert quiet_summary(model).count("Dropout2d") == 8


def test_smallnet_is_the_source_network_though_its_relu_comes_after_the_pooling():
    """Outputs and gradients agree with the order Conv · BN · ReLU · Dropout · MaxPool."""
    torch.manual_seed(0)
    model = SmallNet(10, widths=(8, 16), hidden=16).eval()  # dropout rests
    images = torch.rand(8, 3, 32, 32)
    x = images
    for layer in model.features:
        if isinstance(layer, (nn.Conv2d, nn.BatchNorm2d)):
            x = layer(x)
        if isinstance(layer, nn.BatchNorm2d):
            x = nn.functional.max_pool2d(x.relu(), 2)
    logits, expected = model(images), model.head(x)
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-6)
    gradients = [torch.autograd.grad(y.square().sum(), list(model.parameters())) for y in (logits, expected)]
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("model", [SmallNet(), CustomResNet(), TransferNet(5, models.resnet18_backbone())])
def test_networks_are_built_in_channels_last(model):
    convolutions = [p for p in model.parameters() if p.ndim == 4 and p.shape[2] > 1]
    assert convolutions and all(p.is_contiguous(memory_format=torch.channels_last) for p in convolutions)


# --- Dropout.


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("p", [0.1, 0.2, 0.5])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_dropout_keeps_expectation_and_share(p, memory_format, dtype):
    """Of values and of gradients alike; bfloat16 holds 1.113 as 1.109, which alone would be 0.3 % off."""
    torch.manual_seed(0)
    x = torch.rand(64, 16, 32, 32).add(0.5).to(dtype).contiguous(memory_format=memory_format).requires_grad_()
    y = models.Dropout(p)(x)
    upstream = torch.rand_like(x).detach() + 0.5
    y.backward(upstream)
    kept, assumed = float((y != 0).double().mean()), 1 - round(256 * p) / 256
    assert y.stride() == x.stride() and y.dtype == dtype
    assert kept == pytest.approx(1 - p, abs=0.005)
    for out, into in ((y, x), (x.grad, upstream)):
        factor = float(out.detach().double().sum() / into.detach().double()[y != 0].sum())
        assert factor * assumed == pytest.approx(1, abs=5e-4), "of what survives"
    assert torch.equal(x.grad == 0, y == 0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_dropout_of_a_constant_is_that_constant_on_average(dtype, monkeypatch):
    """Worked out over all 256 draws, not drawn: there is no chance in it."""
    every = torch.arange(256, dtype=torch.uint8).view(torch.int64)
    monkeypatch.setattr(torch.Tensor, "random_", lambda draws, *_: draws.copy_(every))
    for threshold in range(256):
        mask = models.keep_mask(torch.ones(256, dtype=dtype), threshold).double()
        assert mask.mean() == 1 and (mask == 0).sum() == threshold
        assert len(mask.unique()) <= 3


def digest(tensors):
    return hashlib.sha256(b"".join(t.contiguous().numpy().tobytes() for t in tensors)).hexdigest()[:12]


def test_random_numbers_are_those_of_the_recorded_runs():
    """Dropout's values in float32 and the networks' first weights, bit by bit."""
    torch.manual_seed(0)
    layer, x = models.Dropout(0.1), torch.ones(4, 8, 16, 16)  # torch.randn rounds as the processor does
    assert digest([layer(x)]) == "dcfb339b1476"
    torch.manual_seed(0)
    assert digest(SmallNet().state_dict().values()) == "874a489c4df0"
    assert digest(CustomResNet().state_dict().values()) == "6fd0fa4d7d29"
    assert digest(SmallNet(activation="GELU", separable=True).state_dict().values()) == "b775cf84b0bf"


def test_dropout_masks_are_independent_of_position_and_step():
    torch.manual_seed(0)
    x, layer = torch.ones(64, 4, 16, 16), models.Dropout(0.5)
    first, second = layer(x) > 0, layer(x) > 0
    assert float((first == second).float().mean()) == pytest.approx(0.5, abs=0.01)
    assert float((first[:, :, 1:] == first[:, :, :-1]).float().mean()) == pytest.approx(0.5, abs=0.01)


def test_dropout_rests_in_eval_mode_takes_odd_sizes_and_refuses_a_probability_of_one():
    layer, x = models.Dropout(0.5), torch.rand(3, 7, 5)
    assert layer.eval()(x) is x
    layer.train()
    torch.manual_seed(1)
    first = layer(x)
    torch.manual_seed(1)
    assert torch.equal(first, layer(x))
    for p in (1.0, 0.999):  # a byte cannot tell the second from the first
        with pytest.raises(ValueError, match=rf"\[0, 255/256\].*{p}"):
            models.Dropout(p)


# --- Transfer.


def test_transfer_net_counts():
    net = TransferNet(100, backbone=models.resnet18_backbone())
    assert count_parameters(net) == 11_227_812
    assert count_parameters(net, trainable=True) == 51_300


def test_frozen_backbone_stays_frozen_in_train_mode():
    torch.manual_seed(0)
    net = TransferNet(5, backbone=models.headless(SmallNet()), n_features=420)
    before = {name: tensor.clone() for name, tensor in net.backbone.state_dict().items()}
    optimizer = torch.optim.SGD(net.head.parameters(), lr=0.1)
    net(torch.rand(8, 3, 32, 32))  # fresh, before anybody has called `train`
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


def test_headless_knows_a_network_of_ones_own_with_the_head_of_smallnet():
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.features, self.head = SmallNet().features, SmallNet().head

        def forward(self, images):
            return self.head(self.features(images))

    assert models.headless(Network())(torch.rand(2, 3, 32, 32)).shape == (2, 420)


def test_two_networks_on_one_backbone_leave_each_other_alone():
    backbone = models.headless(SmallNet())
    frozen = TransferNet(3, backbone, n_features=420)
    tuned = TransferNet(3, backbone, n_features=420, frozen=False)
    assert not any(weight.requires_grad for weight in frozen.backbone.parameters())
    assert all(weight.requires_grad for weight in [*backbone.parameters(), *tuned.backbone.parameters()])


def test_headless_refuses_a_network_whose_last_layer_it_does_not_know():
    with pytest.raises(ValueError, match="a last layer called head, found Sequential"):
        models.headless(nn.Sequential(nn.Flatten(), nn.Linear(3072, 10)))


def test_missing_pretrained_weights_say_what_to_do(monkeypatch, tmp_path):
    from torchvision.models import ResNet18_Weights

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))

    for error in (OSError("no route to host"), RuntimeError("invalid hash value")):

        def fails(self, *args, error=error, **kwargs):
            raise error

        monkeypatch.setattr(ResNet18_Weights, "get_state_dict", fails)
        with pytest.raises(RuntimeError, match=rf"fetched \({error}\)\. Download https://.*checkpoints"):
            TransferNet(100)


@pytest.mark.parametrize("content", [b"", b"<html>sign in to the network", b"PK\x03\x04 cut off", None])
def test_stored_weights_that_are_not_the_published_ones_are_named_and_not_run(tmp_path, monkeypatch, content):
    """A file that lies where torch keeps fetched weights might be anybody's, even one that loads."""

    class Trap:
        def __reduce__(self):
            return Path.touch, (tmp_path / "it ran",)

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    stored = tmp_path / "checkpoints/resnet18-f37072fd.pth"
    if content is None:
        torch.save({"conv1.weight": Trap()}, stored)
    else:
        stored.write_bytes(content)
    with pytest.raises(RuntimeError, match=r"resnet18-f37072fd\.pth is damaged.*delete it"):
        TransferNet(100)
    assert not (tmp_path / "it ran").exists()


# --- Weights in files.


def small():
    return SmallNet(10, widths=(4, 8), hidden=8)


def same(a, b):
    states = unwrap(a).state_dict(), unwrap(b).state_dict()
    return all(torch.equal(x, y) for x, y in zip(*(s.values() for s in states), strict=True))


@pytest.mark.parametrize("path", sorted(RECORDED.glob("*/seed0.pt")), ids=lambda path: path.parent.name)
def test_recorded_weights_fit_their_networks(path):
    recipe = json.loads(path.with_suffix(".json").read_text())["recipe"]
    network, n_classes = getattr(models, recipe["network"]), data.N_CLASSES[recipe["data"]]
    files.load_weights(network(n_classes=n_classes, **recipe["network_args"]), path)


def compiled():
    """As its features compiled by themselves leave names: features._orig_mod.0.weight."""
    model = small()
    model.features = torch.compile(model.features)
    return model


def ones():
    """With a part that is called module, as nobody forbids."""
    return nn.ModuleDict({"module": nn.Linear(3, 3)})


@pytest.mark.parametrize(
    ("saved", "loaded"),
    [
        (small, small),
        (lambda: torch.compile(small()), small),
        (lambda: nn.DataParallel(small()), small),
        (lambda: torch.compile(nn.DataParallel(small())), small),
        (small, lambda: nn.DataParallel(small())),
        (compiled, small),
        (small, compiled),
        (ones, ones),
    ],
)
@pytest.mark.parametrize("zipped", [None, True, False])
def test_weights_survive_a_round_trip_whatever_is_wrapped_around_them(tmp_path, saved, loaded, zipped):
    """Saved by us, or by others in torch's present format, or in the one before it."""
    one, other, path = saved(), loaded(), tmp_path / "deep" / "weights.pt"
    path.parent.mkdir()
    if zipped is None:
        files.save_weights(one, path)
        assert saved is not ones or list(torch.load(path)) == list(one.state_dict()), "can be loaded by hand"
    else:
        torch.save(one.state_dict(), path, _use_new_zipfile_serialization=zipped)
    files.load_weights(other, path)
    assert same(one, other)
    assert [p.name for p in path.parent.iterdir()] == ["weights.pt"]


def test_the_file_is_torchs_own_with_its_digest(tmp_path):
    path = tmp_path / "w.pt"
    digest = files.write_tensors({"a": torch.arange(5), "b": [1.5, None]}, path)
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert torch.load(path)["b"] == [1.5, None]
    with pytest.raises(FileNotFoundError):
        files.read_tensors(tmp_path / "none.pt")


def test_no_flipped_bit_goes_unnoticed(tmp_path):
    """Not in the archive's directory either, which says where each tensor begins."""
    path = tmp_path / "weights.pt"
    files.save_weights(small(), path)
    whole = path.read_bytes()
    for place in [*range(0, len(whole) - 71, 97), *range(len(whole) - 400, len(whole) - 71), len(whole) - 1]:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        with pytest.raises(files.Damaged, match=r"weights\.pt is damaged, its checksum is wrong"):
            files.load_weights(small(), path)


def test_damage_to_a_file_without_a_digest_is_seen_in_its_tensors(tmp_path):
    path = tmp_path / "weights.pt"
    torch.save({"weight": torch.ones(1000)}, path)
    content = bytearray(path.read_bytes())
    content[content.index(torch.ones(1000).numpy().tobytes()) + 2000] ^= 9
    path.write_bytes(content)
    assert not torch.equal(torch.load(path)["weight"], torch.ones(1000)), "torch reads it"
    with pytest.raises(files.Damaged):
        files.read_tensors(path)


BYTES = (b"", b"version https://git-lfs", b"PK\x03\x04 cut")


@pytest.mark.parametrize("content", [*BYTES, print, torch.ones(3), [torch.ones(3)], None])
def test_a_file_that_is_no_weights_is_named_and_not_run(tmp_path, content):
    path = tmp_path / "weights.pt"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(files.Damaged, match=r"weights\.pt is .*no file of plain weights"):
        files.load_weights(small(), path)


def test_what_does_not_fit_is_refused_and_what_could_not_be_read_back_is_not_written(tmp_path):
    files.save_weights(SmallNet(hidden=200), tmp_path / "weights.pt")
    message = r"head\.1\.weight is expected as \(420, 2048\), found \(200, 2048\)"
    with pytest.raises(ValueError, match=message):
        files.load_weights(SmallNet(), tmp_path / "weights.pt")
    for value in (object(), {1, 2}, Path("x"), torch.float32, b"bytes", 1 + 2j):
        with pytest.raises(ValueError, match=r"found the value\['a'\]\[0\], a "):
            files.write_tensors({"a": [value]}, tmp_path / "w.pt")
    assert [path.name for path in tmp_path.iterdir()] == ["weights.pt"]
