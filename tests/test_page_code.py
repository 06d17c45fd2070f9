"""Code that a page shows without running it: it must do what the page says."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from course_utils import schedules

BOOK = Path(__file__).resolve().parent.parent / "book"


def block(page: str, words: str) -> str:
    """The block of Python on `page` that has `words`."""
    blocks = re.findall(r"```python\n(.*?)```", (BOOK / page).read_text(encoding="utf-8"), flags=re.S)
    [found] = [code for code in blocks if words in code]
    return found


class Watched(nn.Sequential):
    """A network that notes for each batch whether it is in train mode."""

    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(3072, 2))
        self.modes = []

    def forward(self, images):
        self.modes.append(self.training)
        return super().forward(images)


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    """A folder `pictures` with 200 dark and 200 bright pictures to train on, and eight to validate."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for part, count in (("train", 200), ("val", 4)):
        for label, darkest in (("bright", 128), ("dark", 0)):
            folder = Path("pictures", part, label)
            folder.mkdir(parents=True)
            for k in range(count):
                pixels = rng.integers(darkest, darkest + 128, (40, 36, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{k}.png")


def test_the_loop_in_pytorchs_own_parts_trains_in_train_mode_and_learns(pictures, capsys):
    network = Watched()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.001)
    schedule = torch.optim.lr_scheduler.ConstantLR(optimizer, 1)
    loss_fn = nn.CrossEntropyLoss()
    code = block("recipe.md", "ImageFolder").replace("num_workers=2", "num_workers=0")  # not what is tested
    given = {"network": network, "optimizer": optimizer, "schedule": schedule, "loss_fn": loss_fn}
    exec(code, given | {"epochs": 2})
    assert network.modes == 2 * [True, True, True, True, False], (
        "four batches of 128, then those of validation"
    )
    assert capsys.readouterr().out.endswith("epoch 2: 100.0%\n")


def test_pytorchs_one_cycle_is_ours():
    weights, epochs, loader = [torch.zeros(1, requires_grad=True)], 10, range(50)
    theirs, ours = (torch.optim.SGD(weights, lr=0.1) for _ in range(2))
    given = {"torch": torch, "optimizer": theirs, "epochs": epochs, "loader": loader}
    exec(block("session2/one_cycle.md", "OneCycleLR("), given)
    cycle = schedules.one_cycle(ours, epochs, len(loader), 0.01, 0.1, epochs / 5, lr_end=0)
    for _ in range(epochs * len(loader) - 1):
        assert theirs.param_groups[0]["lr"] == pytest.approx(ours.param_groups[0]["lr"], abs=0.001)
        for optimizer, schedule in ((theirs, given["schedule"]), (ours, cycle)):
            optimizer.step()
            schedule.step()


def test_the_pretrained_network_gets_a_new_last_layer_and_two_rates(monkeypatch):
    import torchvision
    from torchvision.transforms import v2

    fetched = []
    plain = torchvision.models.resnet18
    monkeypatch.setattr(torchvision.models, "resnet18", lambda weights: fetched.append(weights) or plain())
    given = {"torch": torch, "v2": v2}
    exec(block("recipe.md", "resnet18("), given)
    assert fetched == [torchvision.models.ResNet18_Weights.DEFAULT]
    pictures = [given[name](Image.new("RGB", (300, 260))) for name in ("shown", "as_it_is")]
    assert given["network"](torch.stack(pictures)).shape == (2, 10)
    rates = {id(p): group["lr"] for group in given["optimizer"].param_groups for p in group["params"]}
    for name, weights in given["network"].named_parameters():
        assert rates[id(weights)] == (0.03 if name in ("fc.weight", "fc.bias") else 0.003), name
