"""What the first batch and the parts of a run give away: each mistake is said in one line, at no cost."""

import functools
import itertools
import math
import re
import warnings
from dataclasses import replace

import albumentations as A
import numpy as np
import pytest
import torch
from albumentations.pytorch import ToTensorV2
from test_training import Learned, same_weights, sgd, tiny_net, tiny_run, tiny_set
from torch import nn
from torch._dynamo.exc import TorchDynamoException
from torch.optim import lr_scheduler
from torch.optim.lr_scheduler import ChainedScheduler, SequentialLR
from torch.utils.checkpoint import checkpoint
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)
from torchvision.ops import FrozenBatchNorm2d
from torchvision.transforms import v2

from course_utils import data, schedules, training, transforms
from course_utils.data import BatchLoader, PerImageDataset
from course_utils.exercises import first_batch, parts
from course_utils.exercises.first_batch import TrainingError, TrainingWarning
from course_utils.lab import checkpoints, files
from course_utils.models import CustomResNet, SmallNet, TransferNet, headless
from course_utils.transforms import Augment

cross_entropy = nn.functional.cross_entropy
PIXELS, LABELS = torch.rand(32, 3, 32, 32), torch.arange(32) % 3


def fit(loader, model=None, loss_fn=cross_entropy, validation=None, make=None, optimizer=None, epochs=1):
    """An epoch of `fit`, and the warnings it gave."""
    model = model or tiny_net()
    optimizer = optimizer or sgd(model, 0.01)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        scheduler = make and make(optimizer)
        training.fit(model, loader, validation, loss_fn, optimizer, scheduler, epochs=epochs, verbose=False)
    assert all(warning.category is TrainingWarning for warning in caught)
    return [str(warning.message) for warning in caught]


def shuffled(**options):
    return BatchLoader(tiny_set(), 16, shuffle=True, **options)


def sorted_set(n=96):
    images = tiny_set(n)
    return images.subset(np.argsort(images.labels, kind="stable"))


def batches(labels):
    """An image for each label, as loaders of every other kind give them: a list of batches of 16."""
    images, labels = torch.rand(len(labels), 3, 32, 32), torch.as_tensor(labels)
    return list(zip(images.split(16), labels.split(16), strict=True))


# --- Batches that no network of the course can take: the same line from every entrance.

ENTRANCES = {
    "fit": lambda model, loader, loss_fn: fit(loader, model, loss_fn),
    "fit's validation": lambda model, loader, loss_fn: fit(batches([0, 1, 2] * 16), model, loss_fn, loader),
    "validate_epoch": training.validate_epoch,
    "evaluate": lambda model, loader, loss_fn: training.evaluate(model, loader),
    "predict": lambda model, loader, loss_fn: training.predict(model, loader),
    "lr_range_test": lambda model, loader, loss_fn: schedules.lr_range_test(
        model, loader, loss_fn, sgd(model), 1e-6, 1e-2, steps=4
    ),
}
BIG, NAN = torch.rand(32, 3, 64, 64), torch.full_like(PIXELS, torch.nan)
WRONG_BATCHES = {
    "two tensors .* found a dict of .'img', 'label'.: .*collate_fn": {"img": PIXELS, "label": LABELS},
    "found a tuple of .'Tensor', 'Tensor', 'list'.": (PIXELS, LABELS, ["a.png"] * 32),
    "found a list of .'Tensor', 'list'.": [PIXELS, LABELS.tolist()],
    r"found a tuple of .'Tensor', 'int'.: if this is a dataset, DataLoader\(dataset": (PIXELS[0], 2),
    r"found a tuple of .'Tensor', 'int64'.: if this is a dataset, DataLoader\(": (PIXELS[0], np.int64(2)),
    r"found a tuple of .'Tensor', 'NoneType'.: let the loader's collate_fn": (PIXELS, None),
    r"found a tuple of .'ndarray', 'ndarray'.: torch.from_numpy makes": (PIXELS.numpy(), LABELS.numpy()),
    r"found a tuple of .'Tensor', 'tuple'.: labels are numbers of classes": (PIXELS, ("cat",) * 32),
    r"expected images \(n, channels, .* found \(32, 3072\) and \(32,\)": (PIXELS.flatten(1), LABELS),
    r"found \(3, 32, 32\) and \(\): if this is a dataset, DataLoader\(": (PIXELS[0], LABELS[2]),
    r"found \(32, 3, 32, 32\) and \(32, 3\): labels.argmax\(1\) of one-hot rows": (
        PIXELS,
        nn.functional.one_hot(LABELS),
    ),
    r"found \(32, 3, 32, 32\) and \(32, 1\): labels.squeeze\(1\)": (PIXELS, LABELS[:, None]),
    "the model's torch.float32, found torch.uint8 .*: divide by 255": ((255 * PIXELS).byte(), LABELS),
    r"found torch.float64 images: call \.float\(\)": (PIXELS.double(), LABELS),
    r"found images torch.float32 \(32, 1, 32, 32\).* grey .*expand": (PIXELS[:, :1], LABELS),
    r"found images torch.float32 \(32, 32, 32, 3\).* before height .*permute": (
        PIXELS.permute(0, 2, 3, 1),
        LABELS,
    ),
    r"found images torch.float32 \(32, 4, 32, 32\).* none is alpha": (torch.rand(32, 4, 32, 32), LABELS),
    r"found images torch.float32 \(32, 3, 64, 64\).* another size.* resize": (BIG, LABELS),
    "expected finite images, found NaN or infinity": (NAN, LABELS),
    "labels from 0 to 2, .* returns 3 logits, found 0 to 3: .*last layer": (PIXELS, LABELS + LABELS // 2),
    "found -1 to 2": (PIXELS, torch.where(LABELS > 0, LABELS, -1)),
    r"dtype int64, found torch.int32: call labels\.long\(\)": (PIXELS, LABELS.int()),
}


@pytest.mark.parametrize("entrance", ENTRANCES)
@pytest.mark.parametrize("message", WRONG_BATCHES)
def test_a_batch_that_does_not_fit(entrance, message):
    model = SmallNet(3, widths=(4, 8), hidden=8)
    with pytest.raises(TrainingError, match=message) as caught:
        ENTRANCES[entrance](model, [WRONG_BATCHES[message]], cross_entropy)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("entrance", ENTRANCES)
@pytest.mark.parametrize("outputs", [1, None])
def test_a_model_of_one_output(entrance, outputs):
    """One class, or a yes or no as one number: accuracy by argmax would be that of the first class alone."""
    last = nn.Linear(8, 1) if outputs else nn.Sequential(nn.Linear(8, 1), nn.Flatten(0))
    model = nn.Sequential(nn.Conv2d(3, 8, 32), nn.Flatten(), last)
    with pytest.raises(TrainingError, match="of two classes or more, found .*: .* one output per class"):
        ENTRANCES[entrance](model, [(PIXELS, LABELS * 0)], cross_entropy)


def test_a_model_of_several_outputs():
    class Several(nn.Sequential):
        def forward(self, x):
            return super().forward(x), x

    with pytest.raises(TrainingError, match="found a tuple: pick the tensor of logits"):
        fit(shuffled(), Several(tiny_net()))


def test_layers_that_learn_their_size_from_the_first_batch():
    model = nn.Sequential(nn.Flatten(), nn.LazyLinear(3))
    assert fit(shuffled(), model) == []


def test_autograd_that_is_off():
    with torch.no_grad(), pytest.raises(TrainingError, match=r"autograd is off.*set_grad_enabled\(True\)"):
        fit(shuffled())
    with torch.no_grad(), pytest.raises(TrainingError, match=r"a loss with a gradient.*no_grad\(\)"):
        training.train_epoch(model := tiny_net(), shuffled(), cross_entropy, sgd(model))


def test_a_network_that_stays_in_train_mode():
    class Stuck(nn.Sequential):
        def train(self, mode=True):
            return super().train(True)

    assert fit(shuffled(), model := Stuck(tiny_net()), validation=shuffled()) == []
    assert 0 <= training.evaluate(model, shuffled()) <= 1


def test_a_tensor_that_evaluation_has_left_in_the_model():
    class Scaled(nn.Sequential):
        def forward(self, x):
            if not hasattr(self, "scale"):
                self.scale = x.new_ones(1)
            return super().forward(x) * self.scale

    training.evaluate(model := Scaled(tiny_net()), shuffled())
    with pytest.raises(TrainingError, match="keeps a tensor from a call of evaluate"):
        fit(shuffled(), model)


def test_labels_of_later_batches():
    with pytest.raises(TrainingError, match="Target 7 is out of bounds"):
        fit(batches([0, 1] * 8 + [0, 7] * 8))
    last = tiny_set().subset(np.array([0, 1, 3, 4, 2]))  # two batches, and no label 2 in the first
    model = nn.Sequential(tiny_net()[:-1], nn.Linear(256, 2))
    with pytest.raises(TrainingError, match="from 0 to 1, .* found 0 to 2"):
        training.evaluate(model, BatchLoader(last, 3))


@pytest.mark.parametrize(
    ("loss_fn", "message"),
    [
        (nn.CrossEntropyLoss(weight=torch.ones(3, dtype=torch.float64)), r"the loss's weight .* \.float\(\)"),
        (nn.CrossEntropyLoss(reduction="none"), r'a loss of one number, found \(16,\): use reduction="mean"'),
        (lambda *given: cross_entropy(*given).item(), r"one number, found float.*no \.item\(\)"),
        (nn.CrossEntropyLoss(reduction="sum"), 'averaged over the batch, found a sum: use reduction="mean"'),
        (functools.partial(cross_entropy, reduction="sum"), "averaged over the batch, found a sum"),
        (lambda *given: cross_entropy(*given).detach(), "a loss with a gradient, found one without"),
        (nn.CrossEntropyLoss, r"made before it is called: nn\.CrossEntropyLoss\(\)"),
        (type("Focal", (nn.CrossEntropyLoss,), {}), r"made before it is called: Focal\(\)"),
    ],
)
def test_a_loss_that_cannot_be_trained_on(loss_fn, message):
    for entrance in ("fit", "lr_range_test"):
        with pytest.raises(TrainingError, match=message):
            ENTRANCES[entrance](tiny_net(), shuffled(), loss_fn)


def test_labels_that_a_loss_of_ones_own_cannot_take():
    with pytest.raises(TrainingError, match=r"labels have to be int64: call labels\.long\(\)"):
        fit([(PIXELS, LABELS.int())], loss_fn=lambda logits, labels: cross_entropy(logits, labels))


def test_errors_that_are_not_the_batchs(monkeypatch):
    class Undecided(nn.Sequential):
        def forward(self, x):
            return super().forward(x) if x > 0 else x

    with pytest.raises(TrainingError, match="ambiguous"):
        training.predict(Undecided(*tiny_net()), shuffled())
    with pytest.raises(ValueError, match="^unknown precision 'half'"):
        training.evaluate(tiny_net(), shuffled(), precision="half")

    compiled = torch.compile(tiny_net(), backend="eager")
    with pytest.raises(TrainingError, match="found images torch.float32 .32, 1, 32, 32."):
        training.evaluate(compiled, [(PIXELS[:, :1], LABELS)])

    def forward(*_):
        raise TorchDynamoException("no compiler")

    monkeypatch.setattr(nn.Sequential, "forward", forward)
    with pytest.raises(TorchDynamoException, match="^no compiler"):
        training.evaluate(tiny_net(), shuffled())


def test_a_generator_is_refused_before_its_first_epoch():
    class Restarting(list):
        def __iter__(self):
            self.left = super().__iter__()
            return self

        def __next__(self):
            return next(self.left)

    three = batches([0, 1, 2] * 16)
    once = (
        (pair for pair in three),
        iter(three),
        itertools.islice(three, 2),
        iter(DataLoader([1])),
        zip(three),
    )
    for given in once:
        with pytest.raises(TrainingError, match="a loader for 2 epochs, found a generator, .* in a list"):
            fit(shuffled(), validation=given, epochs=2)
    assert fit(pair for pair in three) == [], "enough for one"
    assert fit(Restarting(three), epochs=2) == []


OF_NUMBERS = [nn.MSELoss(), nn.L1Loss(), nn.BCEWithLogitsLoss(), nn.functional.mse_loss]


@pytest.mark.parametrize("loss_fn", OF_NUMBERS, ids=lambda one: getattr(one, "__name__", repr(one)))
def test_a_loss_of_numbers_is_refused_before_it_spreads_the_labels(loss_fn):
    with pytest.raises(
        TrainingError, match=r"(Loss|_loss) compares numbers, and labels are classes: take nn.Cross"
    ):
        fit([(PIXELS[:3], LABELS[:3])], loss_fn=loss_fn)  # as many images as classes


class OneHot(nn.Module):
    """A loss of one's own, with the loss that it uses as an attribute."""

    def __init__(self):
        super().__init__()
        self.func = nn.BCEWithLogitsLoss()

    def forward(self, logits, labels):
        return self.func(logits, nn.functional.one_hot(labels, 3).float())


class Ignoring(nn.Module):
    """A loss of one's own that leaves images out."""

    def __init__(self, ignore_index):
        super().__init__()
        self.ignore_index = ignore_index

    def forward(self, logits, labels):
        return cross_entropy(logits, labels, ignore_index=self.ignore_index)


class Uncertain(nn.Module):
    """A loss with a weight of the shape (1,), and so of that shape itself."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, logits, labels):
        return torch.exp(-self.weight) * cross_entropy(logits, labels) + self.weight / 2


def test_losses_of_ones_own_are_no_mistake():
    for loss_fn in (OneHot(), torch.compile(nn.CrossEntropyLoss(), backend="eager")):
        assert fit(shuffled(), loss_fn=loss_fn) == []
    loss_fn = Uncertain()
    for given in (loss_fn, loss_fn.forward):
        model = tiny_net()
        assert fit(shuffled(), model, given, optimizer=sgd(nn.ModuleList([model, loss_fn]), 0.01)) == []
    ignoring = [(PIXELS, torch.where(LABELS == 2, -1, LABELS))]
    for loss_fn in (nn.CrossEntropyLoss(ignore_index=-1), Ignoring(ignore_index=-1)):
        assert fit(ignoring, loss_fn=loss_fn) == []
    two_logits = nn.Sequential(tiny_net()[:-1], nn.Linear(256, 2))
    assert fit(shuffled(), two_logits, nn.CrossEntropyLoss(ignore_index=2)) == []
    with pytest.raises(TrainingError, match="from 0 to 2"):
        fit(ignoring)


@pytest.mark.parametrize(
    ("loss_fn", "says"),
    [
        (lambda labels, logits: cross_entropy(logits, labels), "called with .logits, labels."),
        (
            lambda logits, labels: nn.BCEWithLogitsLoss()(logits, nn.functional.one_hot(labels, 3)),
            "needs .float",
        ),
    ],
)
def test_slips_in_a_loss_of_ones_own_are_explained(loss_fn, says):
    with pytest.raises(TrainingError, match=says):
        fit(shuffled(), loss_fn=loss_fn)


def test_a_sigmoid_before_a_loss_that_has_one():
    [message] = fit(shuffled(), nn.Sequential(tiny_net(), nn.Sigmoid()), OneHot())
    assert "Sigmoid" in message


class Wrapper(torch.optim.Optimizer):
    """As Lookahead and its like are: another optimizer's groups, and a step of its own."""

    def __init__(self, base):
        self.base, self.param_groups, self.state, self.defaults = (
            base,
            base.param_groups,
            base.state,
            base.defaults,
        )

    def step(self, closure=None):
        return self.base.step(closure)

    def zero_grad(self, set_to_none=True):
        self.base.zero_grad(set_to_none)


def test_a_wrapped_optimizer_has_the_schedule_of_its_own():
    model = tiny_net()
    base = sgd(model, 0.01)
    scheduler = lr_scheduler.StepLR(base, 1)
    training.fit(model, shuffled(), None, cross_entropy, Wrapper(base), scheduler, epochs=2, verbose=False)
    with pytest.raises(
        TrainingError, match="LBFGS asks for the loss several times a step, .*: take SGD or AdamW"
    ):
        fit(shuffled(), model, optimizer=torch.optim.LBFGS(model.parameters()))


def test_a_warm_up_that_begins_with_nothing():
    [message] = fit(shuffled(), make=lambda o: lr_scheduler.LambdaLR(o, lambda k: min(1, k / 3)), epochs=4)
    assert "begins with a rate of 0, and the first epoch trains nothing: count from epoch + 1" in message
    assert (
        fit(shuffled(), make=lambda o: lr_scheduler.LambdaLR(o, lambda k: min(1, (k + 1) / 3)), epochs=4)
        == []
    )


def test_an_optimizer_that_was_loaded_has_no_schedule():
    model = tiny_net()
    first = sgd(model, 0.01)
    fit(shuffled(), model, optimizer=first, make=lambda o: lr_scheduler.StepLR(o, 1), epochs=2)
    second = sgd(model, 0.01)
    second.load_state_dict(first.state_dict())
    assert fit(shuffled(), model, optimizer=second, epochs=2) == []


class Twin(torch.utils.data.Dataset):
    """As torchvision's are: all pictures, and a transform of its own."""

    def __init__(self, change=None):
        self.data, self.change = tiny_set().images, change

    def __len__(self):
        return len(self.data)

    def __getitem__(self, k):
        image = torch.from_numpy(self.data[k]).permute(2, 0, 1) / 255
        return (self.change(image) if self.change else image), k % 3


def test_twin_datasets_hold_the_same_pictures():
    both = Twin(lambda image: image.flip(2)), Twin()
    [message] = fit(DataLoader(both[0], 16, shuffle=True), validation=DataLoader(both[1], 16))
    assert "the images that validate are those that train" in message
    apart = (DataLoader(Subset(one, range(k, 96, 2)), 16, shuffle=k == 0) for k, one in enumerate(both))
    assert fit(next(apart), validation=next(apart)) == []
    for one in both:
        one.data = list(one.data)  # arrays in a list are not compared
    loaders = (DataLoader(one, 16, shuffle=k == 0) for k, one in enumerate(both))
    assert fit(next(loaders), validation=next(loaders)) == []


def test_pixels_that_go_below_zero_in_training_alone():
    """The spread of `Normalize(0.5, 0.5)` is twice that of plain pixels, which chance could do as well."""
    plain = DataLoader(Twin(), 48, shuffle=True)
    model = tiny_net()
    assert fit(DataLoader(Twin(lambda image: 2 * image - 1), 48, shuffle=True), model) == []
    with pytest.warns(TrainingWarning, match="below zero in training or in measuring alone"):
        training.evaluate(model, plain)


def test_a_network_that_says_view_after_a_transpose():
    class Patches(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.head = nn.Conv2d(3, 8, 8, 8), nn.Linear(128, 3)

        def forward(self, x):
            return self.head(self.first(x).flatten(2).transpose(1, 2).view(len(x), -1))

    with pytest.raises(
        TrainingError, match="reshape: memory is in another order .*after a permute or a transpose"
    ):
        fit(batches(LABELS), Patches())


def test_averaged_weights_are_saved_as_the_networks(tmp_path):
    model = tiny_net()
    files.save_weights(torch.optim.swa_utils.AveragedModel(model), tmp_path / "averaged.pt")
    loaded = tiny_net()
    files.load_weights(loaded, tmp_path / "averaged.pt")
    assert same_weights(loaded, model)


def test_a_loader_whose_augmentation_is_switched_off_later():
    loader = shuffled(augment=Augment(padding=4))
    assert fit(loader, CustomResNet(3, widths=(4, 4, 4, 4))) == []
    loader.augment = None  # which would leave the border: images of 40×40
    with pytest.raises(TrainingError, match="augment was changed after it was made.*make a new BatchLoader"):
        fit(loader, CustomResNet(3, widths=(4, 4, 4, 4)))
    shrunk = shuffled()
    shrunk.store = shrunk.store[:, ::2, ::2]  # on purpose, for smaller images
    assert fit(shrunk, nn.Sequential(nn.Flatten(), nn.Linear(768, 3))) == []
    plain = shuffled()
    plain.augment = Augment(padding=0, flip=0.5, hole=0, hole_chance=0)  # which asks for no border
    assert fit(plain) == []


def test_a_model_that_forgets_to_return_and_one_whose_layers_do_not_fit():
    class Forgetful(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = tiny_net()

        def forward(self, x):
            self.net(x)

    with pytest.raises(
        TrainingError, match="found a NoneType: the model's forward returns nothing, so end it"
    ):
        fit(shuffled(), Forgetful())
    stages = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(3, 16, 3), nn.Flatten(), nn.LazyLinear(3))
    with pytest.raises(TrainingError, match="; a convolution takes as many channels as the layer before"):
        fit(shuffled(), stages)


def test_a_batch_of_one_for_batch_norm():
    model = nn.Sequential(nn.Flatten(), nn.Linear(3072, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))
    with pytest.raises(TrainingError, match="BatchNorm cannot train on one image, .*drop_last=True"):
        fit([(PIXELS, LABELS), (PIXELS[:1], LABELS[:1])], model)
    assert fit(BatchLoader(tiny_set(33), 16, shuffle=True), model) == []


def test_float64_is_as_good_in_a_loss_but_not_in_a_model_alone():
    assert fit(shuffled(), loss_fn=lambda logits, labels: cross_entropy(logits.double(), labels)) == []
    with pytest.raises(TrainingError, match="expected the model's torch.float64, found torch.float32"):
        fit(shuffled(), tiny_net().double())


def test_memory_that_is_short_is_no_mistake_in_the_batch():
    class Greedy(nn.Module):
        def forward(self, x):
            return torch.empty(2**50)

    with pytest.raises(RuntimeError, match="allocate"):  # a TrainingError would be a ValueError
        fit(shuffled(), nn.Sequential(tiny_net(), Greedy()))


def test_an_empty_loader_and_a_model_over_budget():
    for entrance in ENTRANCES.values():
        with pytest.raises(ValueError, match="the loader is empty"):
            entrance(tiny_net(), [], cross_entropy)
    with pytest.raises(TrainingError, match="996,376 trainable weights, over the budget of 500,000"):
        training.fit(SmallNet(), [], [], cross_entropy, None, epochs=1, max_parameters=500_000)


# --- Parts that do not belong together.


def test_an_optimizer_of_another_model(monkeypatch):
    model, old = tiny_net(), tiny_net()
    for run in (ENTRANCES["fit"], ENTRANCES["lr_range_test"]):
        monkeypatch.setitem(globals(), "sgd", lambda *_: torch.optim.SGD(old.parameters(), 0.1))
        with pytest.raises(TrainingError, match="0 of the model's 6 .*6 of an"):
            run(model, shuffled(), cross_entropy)
    monkeypatch.undo()
    optimizer = sgd(model)
    model[-1] = nn.Linear(256, 3)  # a new head, after the optimizer was made
    with pytest.raises(TrainingError, match="4 of the model's 6 trainable tensors, and 2 of another model"):
        fit(shuffled(), model, optimizer=optimizer)
    [message] = fit(shuffled(), model, optimizer=torch.optim.SGD(model[-1].parameters(), 0.1))
    assert "2 of the model's 6 trainable tensors" in message and "requires_grad_(False)" in message
    model[:-1].requires_grad_(False)
    assert fit(shuffled(), model, optimizer=torch.optim.SGD(model[-1].parameters(), 0.1)) == []


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda o: lr_scheduler.StepLR(sgd(tiny_net()), 1), "belongs to another optimizer"),
        (lambda o: lr_scheduler.ReduceLROnPlateau(o), "ReduceLROnPlateau .* expected a validation loader"),
        (lambda o: schedules.one_cycle(o, 2, 6, 0.01, 0.1, 1), "after 12 batches, .* to 18: .*checkpoint"),
        (lambda o: lr_scheduler.OneCycleLR(o, 0.1, 17), "ends after 17 batches, and this run would go to 18"),
        (lambda o: lr_scheduler.CosineAnnealingLR(o, 2), "ends after 2 epochs, and this run would go to 3"),
        (lambda o: lr_scheduler.PolynomialLR(o, 2), "ends after 2 epochs"),
        (
            lambda o: SequentialLR(o, [lr_scheduler.LinearLR(o), lr_scheduler.CosineAnnealingLR(o, 1)], [1]),
            "ends after 2 epochs",
        ),
        (lambda o: ChainedScheduler([lr_scheduler.CosineAnnealingLR(o, 2)]), "ends after 2 epochs"),
        (
            lambda o: ChainedScheduler([lr_scheduler.OneCycleLR(o, 0.1, 18)]),
            "a cycle inside a ChainedScheduler",
        ),
        (
            lambda o: SequentialLR(o, [lr_scheduler.LinearLR(o), lr_scheduler.CyclicLR(o, 0.01, 0.1)], [6]),
            "a cycle inside a SequentialLR would step once an epoch: .*per_batch = True",
        ),
        (
            lambda o: ChainedScheduler([schedules.one_cycle(o, 3, 6, 0.01, 0.1, 1)]),
            "a cycle inside a ChainedScheduler",
        ),
    ],
)
def test_a_schedule_that_does_not_fit(make, message):
    with pytest.raises(TrainingError, match=message):
        fit(shuffled(), make=make, epochs=3)


def test_a_schedule_that_has_come_to_its_end():
    model = tiny_net()
    optimizer = sgd(model)
    scheduler = schedules.one_cycle(optimizer, 2, 6, 0.01, 0.1, 1)
    fit(shuffled(), model, optimizer=optimizer, make=lambda _: scheduler, epochs=2)
    with pytest.raises(TrainingError, match="ends after 12 batches, and this run would go to 18"):
        fit(shuffled(), model, optimizer=optimizer, make=lambda _: scheduler, epochs=1)


@pytest.mark.parametrize("kind", [lr_scheduler.CosineAnnealingLR, lr_scheduler.PolynomialLR])
def test_a_new_schedule_over_an_old_optimizer(kind):
    model = tiny_net()
    optimizer = sgd(model, 0.01)
    parts = {"model": model, "optimizer": optimizer, "make": lambda o: kind(o, 2), "epochs": 2}
    assert fit(shuffled(), **parts) == []
    with pytest.raises(
        TrainingError, match="stays at the rate that another schedule left: make the optimizer anew"
    ):
        fit(shuffled(), **parts)
    assert fit(shuffled(), **parts | {"optimizer": sgd(model, 0.01)}) == []


def test_a_cosine_that_ends_above_zero_trains_there_as_well():
    assert fit(shuffled(), make=lambda o: lr_scheduler.CosineAnnealingLR(o, 2, eta_min=1e-4), epochs=3) == []


def test_a_function_of_the_step_that_counts_batches():
    def cycle(optimizer):
        return lr_scheduler.LambdaLR(optimizer, lambda k: float(np.interp(k, [0, 60, 72], [0.01, 1, 0.01])))

    def per_batch(optimizer):
        scheduler = cycle(optimizer)
        scheduler.per_batch = True
        return scheduler

    [message] = fit(BatchLoader(tiny_set(), 4, shuffle=True), make=cycle, epochs=3)
    assert (
        "LambdaLR steps by epochs, and hardly rises in 3: if it counts batches, set its per_batch" in message
    )
    table, rates = [0.1, 0.5, 1.0], iter([0.1, 0.5, 1.0, 1.0])
    for make in (
        per_batch,
        lambda o: lr_scheduler.LambdaLR(o, lambda k: 0.95**k),
        lambda o: lr_scheduler.LambdaLR(o, lambda k: min(1, (k + 1) / 20)),  # a long warm-up, begun
        lambda o: lr_scheduler.LambdaLR(o, lambda k: next(rates)),
        lambda o: lr_scheduler.LambdaLR(o, lambda k: min(1, (k + 1) / 3)),
        lambda o: lr_scheduler.LambdaLR(o, lambda k: table[min(k, 2)]),
        lambda o: lr_scheduler.LambdaLR(o, lambda k: {0: 0.1, 1: 0.5, 2: 1, 3: 1}[k]),
    ):
        assert fit(shuffled(), make=make, epochs=3) == []


@pytest.mark.parametrize(
    "share",
    [
        lambda k: float(np.interp(k, [0, 6, 24], [0.01, 1, 0.01])),
        lambda k: 1 - k / 24,
        lambda k: max(0.0, 1 - k / 24) ** 2,
        lambda k: 0.5 * (1 + np.cos(np.pi * k / 24)),
    ],
)
def test_a_function_of_the_step_that_falls_by_batches(share):
    [message] = fit(shuffled(), make=lambda o: lr_scheduler.LambdaLR(o, share), epochs=4)
    assert "LambdaLR steps by epochs, and comes down in 24, not in 4: if it counts batches" in message


@pytest.mark.parametrize(
    "share",
    [
        lambda k: 1 - k / 4,
        lambda k: 0.5 * (1 + np.cos(np.pi * k / 4)),
        lambda k: 0.5**k,
        lambda k: 0.86**k,
        lambda k: 0.1 ** (k // 3),
        lambda k: 1 / (1 + k),
        lambda k: 1.0 if k < 3 else 0.1,
        lambda k: 1.0,
        lambda k: 1 - k / 100,
        lambda k: 1 - k / 20,
        lambda k: max(0, 1 - k / 16),
        lambda k: 1.0 if k < 14 else 0.01,
    ],
)
def test_a_function_of_the_step_that_falls_by_epochs(share):
    """In a short trial of a long schedule, too."""
    assert fit(shuffled(), make=lambda o: lr_scheduler.LambdaLR(o, share), epochs=4) == []


def test_a_schedule_by_epochs_that_was_given_batches():
    [message] = fit(shuffled(), make=lambda o: lr_scheduler.StepLR(o, 5 * 6), epochs=2)
    assert "StepLR's 30 steps are epochs; the run has 2" in message and "len(loader)" in message
    for make in (
        lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 2 * 6),
        lambda o: lr_scheduler.MultiStepLR(o, [6, 2 * 6]),
        lambda o: lr_scheduler.LinearLR(o, total_iters=2 * 6),
        lambda o: SequentialLR(o, [lr_scheduler.LinearLR(o), lr_scheduler.ExponentialLR(o, 0.9)], [2 * 6]),
        lambda o: ChainedScheduler([lr_scheduler.StepLR(o, 2 * 6)]),
    ):
        [message] = fit(shuffled(), make=make, epochs=2)
        assert "12 steps are epochs; the run has 2: divide batches by len(loader)" in message
    ragged = BatchLoader(tiny_set(), 13, shuffle=True)  # eight batches, of which 96 // 13 counts seven
    [message] = fit(ragged, make=lambda o: lr_scheduler.CosineAnnealingLR(o, 2 * (96 // 13)), epochs=2)
    assert "14 steps are epochs; the run has 2: divide batches by len(loader)" in message
    assert fit(shuffled(), make=lambda o: lr_scheduler.StepLR(o, 5), epochs=2) == []
    assert fit(BatchLoader(tiny_set(), 96), make=lambda o: lr_scheduler.StepLR(o, 5), epochs=2) == []
    few = BatchLoader(tiny_set(), 32, shuffle=True)
    assert fit(few, make=lambda o: lr_scheduler.StepLR(o, 30), epochs=2) == [], "three batches prove nothing"


def cycle_of(epochs, batches, optimizer):
    return schedules.one_cycle(optimizer, epochs, batches, 0.01, 0.1, 0.5 * epochs)


def test_a_cycle_with_epochs_and_batches_the_wrong_way_round():
    [message] = fit(shuffled(), make=functools.partial(cycle_of, 6, 2), epochs=2)
    assert "made for 6 epochs of 2 batches, and the run has them the other way round" in message
    for counts in ((2, 6), (12, 1), (1, 12)):  # whoever counts otherwise has the right length, too
        make = functools.partial(cycle_of, *counts)
        assert fit(shuffled(), make=make, epochs=2) == []


def test_a_schedule_by_batches_that_was_given_images():
    for loader in (
        shuffled(),
        DataLoader(TensorDataset(torch.rand(96, 3, 32, 32), torch.arange(96) % 3), 16),
    ):
        [message] = fit(loader, make=lambda o: schedules.one_cycle(o, 2, 96, 0.01, 0.1, 1), epochs=2)
        assert "a step for each of 96 images; the run has 12 batches: use len(loader)" in message


def test_a_dataset_that_does_not_say_how_long_it_is():
    class Endless:
        def __getitem__(self, index):
            return torch.rand(3, 32, 32), index % 3

    loader = DataLoader(Endless(), batch_sampler=[range(16 * k, 16 * k + 16) for k in range(6)])
    assert fit(loader, make=lambda o: schedules.one_cycle(o, 2, 6, 0.01, 0.1, 1), epochs=2) == []


# --- What probably is not meant.


@pytest.mark.parametrize(
    "loss_fn", [cross_entropy, nn.CrossEntropyLoss(), functools.partial(cross_entropy, label_smoothing=0.1)]
)
def test_a_softmax_before_cross_entropy(loss_fn):
    [message] = fit(shuffled(), nn.Sequential(tiny_net(), nn.Softmax(1)), loss_fn)
    assert "returns probabilities" in message and "softmax" in message
    assert first_batch.are_probabilities(torch.randn(64, 100).softmax(1).bfloat16())
    of_another = functools.partial(lambda shares, labels: nn.functional.nll_loss(shares.log(), labels))
    assert fit(shuffled(), nn.Sequential(tiny_net(), nn.Softmax(1)), of_another) == []


def test_a_softmax_before_predict():
    model = nn.Sequential(tiny_net(), nn.Softmax(1))
    with pytest.warns(TrainingWarning, match="returns probabilities, but predict wants logits"):
        training.predict(model, BatchLoader(tiny_set(), 16))
    training.evaluate(model, shuffled())  # which asks for the largest alone


@pytest.mark.parametrize("last", [nn.Identity(), nn.Softmax(1)])
@pytest.mark.parametrize("loss_fn", [nn.NLLLoss(), nn.functional.nll_loss])
def test_likelihoods_of_what_are_no_logarithms(last, loss_fn):
    [message] = fit(shuffled(), nn.Sequential(tiny_net(), last), loss_fn)
    assert "NLLLoss wants logarithms of probabilities" in message
    assert fit(shuffled(), nn.Sequential(tiny_net(), nn.LogSoftmax(1)), loss_fn) == []


def test_saved_weights_know_what_they_were_trained_on(tmp_path):
    """Both lessons measure a network that was saved and loaded."""
    model, restored = tiny_net(), tiny_net()
    fit(shuffled(mean=(0.4, 0.4, 0.4), std=(0.2, 0.2, 0.2)), model)
    files.save_weights(model, tmp_path / "run.pt")
    files.load_weights(restored, tmp_path / "run.pt")
    with pytest.warns(TrainingWarning, match="measuring normalise differently"):
        training.evaluate(restored, BatchLoader(tiny_set(30), 10))


def test_folders_of_torchvision_know_their_classes():
    class Folder(TensorDataset):
        classes = ("cat", "dog", "fox")

    class Two(TensorDataset):
        classes = ("dog", "fox")

    two = Two(PIXELS, LABELS % 2)
    for part in (two, Subset(two, range(16))):
        [message] = fit(DataLoader(Folder(PIXELS, LABELS), 16, shuffle=True), validation=DataLoader(part, 16))
        assert "different classes, as 'cat' and 'dog': labels do not agree" in message
    Two.classes = ("cat", "dog", "fox", "None")
    [message] = fit(DataLoader(Folder(PIXELS, LABELS), 16, shuffle=True), validation=DataLoader(two, 16))
    assert "as None and 'None'" in message


@pytest.mark.parametrize("part", ["test", "validation"])
def test_training_on_what_is_to_measure(part):
    [message] = fit(BatchLoader(replace(tiny_set(), name=f"colours {part}"), 16, shuffle=True))
    assert f"the network is trained on 'colours {part}'" in message


def test_an_ensemble_in_a_list_does_not_hear_of_eval_mode():
    class Ensemble(nn.Module):
        def __init__(self, keep):
            super().__init__()
            self.models = keep([nn.Sequential(nn.Flatten(), nn.Linear(3072, 3), nn.BatchNorm1d(3))])
            self.bends = [nn.ReLU()]  # which does the same in every mode

        def forward(self, images):
            return sum(model(images) for model in self.models) / len(self.models)

    with pytest.warns(
        TrainingWarning, match="Ensemble has networks in a list, where eval mode does not reach"
    ):
        training.evaluate(Ensemble(list), BatchLoader(tiny_set(), 16))
    training.evaluate(Ensemble(nn.ModuleList), BatchLoader(tiny_set(), 16))
    deeper = Ensemble(lambda models: {"first": [(models[0],)]})
    deeper.models["all"] = deeper.models
    deeper.forward = lambda images: deeper.models["first"][0][0](images)
    with pytest.warns(TrainingWarning, match="Ensemble has networks in a list"):
        training.evaluate(deeper, BatchLoader(tiny_set(), 16))


def test_swapped_arguments_are_named():
    model = tiny_net()
    with pytest.raises(
        TrainingError, match="expected an optimizer, found a function: the order is model, two"
    ):
        training.fit(model, shuffled(), None, sgd(model), cross_entropy, epochs=1)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"model": SmallNet}, "expected a network first, as SmallNet.. makes one, found the class SmallNet"),
        ({"model": [tiny_net()]}, "expected a network first, .* found a list"),
        (
            {"scheduler": lambda optimizer: None},
            "expected a scheduler, made with the optimizer, found a function",
        ),
        ({"scheduler": lr_scheduler.StepLR}, "expected a scheduler, .* found the class StepLR"),
        (
            {"train_loader": tiny_set()},
            r"expected a loader of batches, found an ImageSet: BatchLoader\(image_set",
        ),
        ({"validation_loader": 3}, "expected a loader of batches, found an int"),
        (
            {"hooks": checkpoints.Checkpoint("run.pt")},
            "expected a list of hooks, found a Checkpoint: put it in",
        ),
        ({"hooks": [print]}, r"expected hooks with start\(run\) and after_epoch\(run\), found a builtin"),
        ({"hooks": [checkpoints.Checkpoint]}, "expected hooks with .* found the class Checkpoint"),
        ({"epochs": 0}, "expected a whole number of epochs, one or more, found 0"),
        ({"epochs": 1.5}, "expected a whole number of epochs, one or more, found 1.5"),
    ],
    ids=lambda part: next(iter(part)) if isinstance(part, dict) else "",
)
def test_another_thing_in_a_parts_place(wrong, said):
    model = tiny_net()
    loader = shuffled()
    given = {"model": model, "train_loader": loader, "validation_loader": None, "loss_fn": cross_entropy}
    with pytest.raises(TrainingError, match=said):
        training.fit(**given | {"optimizer": sgd(model), "epochs": 1} | wrong)
    assert loader.epoch == 0, "before the first batch"


def test_the_rate_that_a_schedule_has_left():
    model = tiny_net()
    optimizer = sgd(model, 0.05)
    lasting = {"model": model, "optimizer": optimizer, "epochs": 2}
    assert fit(shuffled(), make=lambda o: lr_scheduler.StepLR(o, 1, 0.1), **lasting) == []
    [message] = fit(shuffled(), make=lambda o: lr_scheduler.StepLR(o, 1, 0.1), **lasting)
    assert (
        "StepLR starts at the rate 0.0005, not at 0.05, with which the optimizer began: if that is" in message
    )
    assert fit(shuffled(), **lasting) == [], "a low rate may be meant"
    optimizer.param_groups[0]["lr"] = 0.0
    with pytest.raises(TrainingError, match="the optimizer's rate is 0, as after a schedule: make the"):
        fit(shuffled(), **lasting)
    for make in (
        lambda o: lr_scheduler.LinearLR(o, 0.1, total_iters=2),
        lambda o: lr_scheduler.MultiStepLR(o, [1]),
        lambda o: lr_scheduler.CosineAnnealingLR(o, 2),
        lambda o: lr_scheduler.ExponentialLR(o, 0.9),
        lambda o: lr_scheduler.LambdaLR(o, lambda epoch: 0.5**epoch),
    ):
        assert fit(shuffled(), make=make, epochs=2) == []


def test_schedulers_that_no_first_rate_can_be_asked_of():
    def with_another_group(optimizer):
        scheduler = lr_scheduler.StepLR(optimizer, 3)
        optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(1))], "lr": 0.1})
        return scheduler

    assert fit(shuffled(), make=with_another_group) == []
    assert fit(shuffled(), make=lambda o: lr_scheduler.LinearLR(o, 1.0, total_iters=0)) == []
    with pytest.raises(TrainingError, match="ends after 0 epochs"):
        fit(shuffled(), make=lambda o: lr_scheduler.PolynomialLR(o, 0))


def test_a_warm_up_in_a_hook_begins_at_zero():
    class WarmUp:
        def start(self, run):
            run.optimizer.param_groups[0]["lr"] = 0.01

        def after_epoch(self, run): ...

    model = tiny_net()
    options = {"epochs": 1, "hooks": [WarmUp()], "verbose": False}
    history = training.fit(model, shuffled(), None, cross_entropy, sgd(model, 0.0), **options)
    assert history.learning_rate == [0.01]


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ([1.0, torch.inf, 1.0], "NaN or inf"),
        ([0.0, 0.0, 0.0], "only zeros"),
        ([1.0, torch.nan, 1.0], "NaN or inf"),
    ],
)
def test_weights_of_classes_that_make_no_loss(bad, said):
    """One over the count of each class, where a class has no pictures."""
    for loss_fn in (
        nn.CrossEntropyLoss(weight=torch.tensor(bad)),
        functools.partial(cross_entropy, weight=torch.tensor(bad)),
    ):
        with pytest.raises(TrainingError, match=f"the weights of the classes hold {said}"):
            fit(shuffled(), loss_fn=loss_fn)
    assert fit(shuffled(), loss_fn=nn.CrossEntropyLoss(weight=torch.tensor([1.0, 0.0, 2.0]))) == []

    class Penalised(nn.Module):
        weight = torch.tensor(0.0)  # of a penalty, not of classes

        def forward(self, logits, labels):
            return cross_entropy(logits, labels) + self.weight * logits.square().mean()

    assert fit(shuffled(), loss_fn=Penalised()) == []


def test_validation_images_that_are_trained_on():
    whole = tiny_set()
    rest, held = data.split(whole, 0.25)
    assert fit(BatchLoader(rest, 16, shuffle=True), validation=BatchLoader(held, 16)) == []
    [message] = fit(BatchLoader(whole, 16, shuffle=True), validation=BatchLoader(held, 16))
    again = data.ImageSet(whole.images[:24].copy(), whole.labels[:24], whole.classes, "another name")
    [other] = fit(BatchLoader(whole, 16, shuffle=True), validation=BatchLoader(again, 16))
    assert "24 of 24 validation images are trained on" in other
    assert "24 of 24 validation images are trained on as well: train on the other part" in message
    few = data.take(whole, 12)  # the same ones, as both begin with the same shuffled images
    [message] = fit(BatchLoader(few, 6, shuffle=True), validation=BatchLoader(held, 16))
    assert "12 of 24 validation images are trained on as well" in message
    places = np.arange(len(whole))
    transform = transforms.per_image((0.4,) * 3, (0.2,) * 3, train=False)
    sampled = DataLoader(
        PerImageDataset(whole, transform), 16, sampler=SubsetRandomSampler(places[24:].tolist())
    )
    normalised = {"mean": (0.4,) * 3, "std": (0.2,) * 3}
    assert fit(sampled, validation=BatchLoader(whole.subset(places[:24]), 16, **normalised)) == []
    part = data.take(whole, 24)  # of the training images, by a slip, under their own name
    [message] = fit(BatchLoader(whole, 16, shuffle=True), validation=BatchLoader(part, 16))
    assert "24 of 24 validation images are trained on as well" in message


def test_a_part_of_the_test_set_is_still_the_test_set():
    rest, held = data.split(replace(tiny_set(), name="colours test"), 0.25)
    assert (rest.name, held.name) == ("colours test", "colours test validation")
    [message] = fit(BatchLoader(rest, 16, shuffle=True), validation=BatchLoader(held, 16))
    assert "the network is trained on 'colours test'" in message


def test_a_network_for_more_classes_than_there_are():
    wide = SmallNet(10, widths=(4, 8), hidden=8)
    said = "the model returns 10 logits, and the data have 3 classes: if it was made for these, give it n_classes=3"
    [message] = fit(shuffled(), wide, validation=BatchLoader(tiny_set(30), 10), epochs=2)
    assert message == said
    with pytest.warns(TrainingWarning, match=said):
        training.predict(SmallNet(10, widths=(4, 8), hidden=8), BatchLoader(tiny_set(30), 10))
    three = SmallNet(3, widths=(4, 8), hidden=8)
    assert fit(shuffled(), three, validation=BatchLoader(tiny_set(30), 10)) == []
    mapped = DataLoader(
        PerImageDataset(tiny_set(30), transforms.per_image((0.4,) * 3, (0.2,) * 3, train=False)),
        10,
        collate_fn=lambda pairs: (
            torch.stack([image for image, _ in pairs]),
            torch.tensor([3 * label for _, label in pairs]),
        ),
    )
    training.evaluate(SmallNet(10, widths=(4, 8), hidden=8), mapped)


def test_saved_weights_that_fit_another_network(tmp_path):
    """Shapes alone do not tell: it would answer at random, or nearly right."""
    settings, path = {"widths": (4, 8), "hidden": 8}, tmp_path / "some.pt"
    trained = SmallNet(3, **settings, activation="GELU")
    files.save_weights(trained, path)
    files.load_weights(SmallNet(3, **settings), path)  # the same start for another network
    fit(shuffled(), trained)
    files.save_weights(trained, path)
    said = (
        r"fit, but were saved from another .*: GELU.* there, ReLU.* here; if that is not meant, make it with"
    )
    with pytest.warns(TrainingWarning, match=said):
        files.load_weights(SmallNet(3, **settings), path)

    plain, closed = (CustomResNet(3, widths=(4, 8, 8, 8), skip=skip) for skip in (True, False))
    fit(shuffled(), closed)
    files.save_weights(closed, tmp_path / "closed.pt")
    dropping = CustomResNet(3, widths=(4, 8, 8, 8), dropout=0.05)  # has layers of its own for that
    fit(shuffled(), dropping)
    files.save_weights(dropping, tmp_path / "dropping.pt")
    files.load_weights(plain, tmp_path / "dropping.pt")
    with pytest.warns(TrainingWarning, match="another network: skip=False, .* there, skip=True, .* here"):
        files.load_weights(plain, tmp_path / "closed.pt")

    class Mine(SmallNet):
        pass

    for same in (Mine, SmallNet):
        again = same(3, **settings, activation="GELU", dense_dropout=0.5)
        again.best, again.features[1].momentum = 0.7, 0.3
        files.load_weights(again, path)
    files.load_weights(torch.compile(SmallNet(3, **settings, activation="GELU")), path)
    tuned = [
        TransferNet(3, backbone=headless(trained), n_features=8, frozen=frozen) for frozen in (True, False)
    ]
    fit(shuffled(), tuned[0], optimizer=sgd(tuned[0].head))
    files.save_weights(tuned[0], path)
    files.load_weights(tuned[1], path)


def test_everything_is_frozen():
    model = tiny_net().requires_grad_(False)
    with pytest.raises(TrainingError, match=r"no weight is trainable: call requires_grad_\(True\)"):
        fit(shuffled(), model)


def test_what_is_measured_is_each_image_once():
    dataset = PerImageDataset(tiny_set(), transforms.per_image((0.4,) * 3, (0.2,) * 3, train=False))
    for options, said in (
        ({"drop_last": True}, "drop_last leaves 26 out"),
        (
            {"sampler": WeightedRandomSampler([1.0] * 96, 96)},
            "a WeightedRandomSampler draws some of them twice",
        ),
        ({"sampler": RandomSampler(dataset, replacement=True)}, "a RandomSampler draws some of them twice"),
    ):
        with pytest.warns(TrainingWarning, match=f"what is measured is not each image once: {said}"):
            training.evaluate(tiny_net(), DataLoader(dataset, 35, **options))
    for options in ({}, {"shuffle": True}, {"sampler": SubsetRandomSampler(range(35))}):
        training.evaluate(tiny_net(), DataLoader(dataset, 35, **options))
    assert fit(DataLoader(dataset, 35, shuffle=True, drop_last=True)) == []
    training.evaluate(tiny_net(), DataLoader(dataset, 32, drop_last=True))

    class Batches(list):
        drop_last = True  # of somebody's own, without a batch_size

    training.evaluate(tiny_net(), Batches(batches([0, 1, 2] * 16)))


def test_a_loader_that_tells_its_scaling_in_another_way_is_not_asked():
    class Scaled(list):
        mean, std = (0.4, 0.4, 0.4), torch.full((3,), 0.2)

    model, loader = tiny_net(), Scaled(batches([0, 1, 2] * 16))
    assert fit(loader, model, validation=loader) == []


def test_a_collate_function_that_returns_nothing():
    with pytest.raises(
        TrainingError, match=r"two tensors .* found a NoneType .* let the loader's collate_fn"
    ):
        training.evaluate(tiny_net(), [None])


def test_a_schedule_that_fit_is_not_given():
    def forgotten(optimizer):
        schedules.one_cycle(optimizer, 2, 6, 0.001, 0.1, peak_epoch=1)

    [message] = fit(shuffled(), make=forgotten, epochs=2)
    assert (
        "a schedule was made for this optimizer, but fit was not given it and will not step it: the rate is 0.001"
        in message
    )
    assert fit(shuffled(), make=forgotten) == []  # as in a loop over epochs that steps it
    assert fit(shuffled(), epochs=2) == []


def test_validating_on_what_is_trained_on():
    images = tiny_set()
    loader = BatchLoader(images, 16, shuffle=True)
    [message] = fit(loader, validation=BatchLoader(images, 32))
    assert "the images that validate are those that train" in message
    assert fit(loader, validation=loader) == []  # as meant, to see whether it learns at all
    dataset = PerImageDataset(images, transforms.per_image((0.4,) * 3, (0.2,) * 3, train=False))
    halves = (SubsetRandomSampler(range(half, 96, 2)) for half in (0, 1))
    first, second = (DataLoader(dataset, 16, sampler=half) for half in halves)
    assert fit(first, validation=second) == []


def test_a_frozen_part_that_fit_would_put_back_into_train_mode():
    model = tiny_net()
    model[:4].requires_grad_(False).eval()
    optimizer = torch.optim.SGD(model[5].parameters(), lr=0.01)
    [message] = fit(shuffled(), model, optimizer=optimizer)
    assert "the averages of frozen batch norms move: TransferNet keeps them in eval mode" in message
    assert fit(shuffled(), model, optimizer=optimizer) == []  # in train mode, as somebody may want it
    transfer = TransferNet(3, headless(SmallNet(3, widths=(4, 8), hidden=8)), n_features=8)
    assert fit(shuffled(), transfer, optimizer=torch.optim.SGD(transfer.head.parameters(), lr=0.01)) == []


def test_a_norm_that_never_moves_is_not_in_question():
    model = nn.Sequential(FrozenBatchNorm2d(3).eval(), *tiny_net())
    assert fit(shuffled(), model, optimizer=torch.optim.SGD(model[1:].parameters(), lr=0.01)) == []


def test_pixels_that_are_nearly_black():
    [message] = fit([(PIXELS / 255, LABELS)])
    assert "the inputs stay below 0.0039: were pixels divided by 255 twice" in message


def test_pixels_that_hardly_differ():
    [message] = fit([((PIXELS - 125.3) / 63, LABELS)])
    assert "all the inputs are close to -2: were pixels in [0, 1] normalised as if they were bytes" in message
    assert fit([(0.5 + PIXELS / 100, LABELS)]) == [], "dull, but as they are"
    dull = tiny_set()
    dull = replace(dull, images=(dull.images // 128).astype(np.uint8))
    mean, std = data.channel_stats(dull)
    [message] = fit(BatchLoader(dull, 16, shuffle=True, mean=mean, std=std))
    assert "all pixels are 0 or 1: if they were floats, multiply by 255" in message


def test_a_function_of_the_step_that_returns_rates():
    def rates(per_batch, rate):
        def make(optimizer):
            scheduler = lr_scheduler.LambdaLR(optimizer, lambda step: 0.001)
            scheduler.per_batch = per_batch
            return scheduler

        model = tiny_net()
        return fit(shuffled(), model, make=make, optimizer=sgd(model, rate))

    for per_batch in (True, False):
        [message] = rates(per_batch, 0.01)
        assert "at most 0.001 of the optimizer's rate 0.01: it should return a share of that rate" in message
        assert rates(per_batch, 1.0) == [], "whose shares are rates"


def test_functions_of_the_step_that_are_asked_in_advance():
    """Shares for each group, one that is no number beyond the run, one that counts calls, a schedule of one's own."""

    class Counting:
        share = 1.0

        def __call__(self, step):
            self.share *= 0.999
            return self.share

    class Halving:
        def __init__(self, optimizer):
            self.groups = optimizer.param_groups

        def step(self):
            self.groups[0]["lr"] /= 2

    model = tiny_net()
    both = torch.optim.SGD([{"params": model[:3].parameters()}, {"params": model[3:].parameters()}], 0.1)
    shares = [lambda step: 0.01 * 0.9**step, lambda step: 0.9**step]
    assert fit(shuffled(), model, optimizer=both, make=lambda o: lr_scheduler.LambdaLR(o, shares)) == []
    assert fit(shuffled(), make=lambda o: lr_scheduler.LambdaLR(o, lambda step: np.sqrt(1 - step / 5))) == []
    assert fit(shuffled(), make=Halving) == []
    counting = Counting()

    def make(optimizer):
        scheduler = lr_scheduler.LambdaLR(optimizer, counting)
        scheduler.per_batch = True
        return scheduler

    assert fit(shuffled(), make=make) == []
    assert counting.share == pytest.approx(0.999**7), "once for the start, once for each of six batches"
    calls = []
    model = tiny_net()
    optimizer = sgd(model, 0.01)
    scheduler = lr_scheduler.LambdaLR(optimizer, lambda step: (calls.append(step), 0.9 ** len(calls))[1])
    fit(shuffled(), model, optimizer=optimizer, make=lambda _: scheduler)
    assert len(calls) < 20, "asked a few times, not a thousand"


def test_a_schedules_function_that_prints_is_not_asked_in_advance(capsys):
    def share(epoch):
        print("epoch", epoch)
        return 0.95**epoch

    fit(shuffled(), make=lambda optimizer: lr_scheduler.LambdaLR(optimizer, share), epochs=2)
    assert capsys.readouterr().out.count("epoch ") <= 3, "as torch asks"


def test_a_layer_called_double_has_nothing_to_do_with_numpy():
    class DoubleConv(nn.Sequential):
        def forward(self, x, skip):
            return super().forward(x + skip)

    with pytest.raises(TrainingError, match="missing 1 required positional argument: 'skip'") as said:
        fit(shuffled(), DoubleConv(tiny_net()))
    assert "NumPy" not in str(said.value)


def test_filters_out_of_numpy_are_of_another_dtype():
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 3, 1, bias=False).double(), nn.Flatten())
    with pytest.raises(TrainingError, match="want .float"):
        fit(shuffled(), network)


def test_a_run_that_a_hook_ends_may_have_infinitely_many_epochs():
    class Ends:
        def start(self, run):
            pass

        def after_epoch(self, run):
            run.epochs = len(run.history)

    model = tiny_net()
    found = training.fit(
        model,
        shuffled(),
        None,
        cross_entropy,
        sgd(model),
        epochs=math.inf,
        hooks=[Ends()],
        verbose=False,
    )
    assert len(found) == 1


def test_lazy_layers_draw_their_weights_when_they_are_first_asked():
    training.evaluate(nn.Sequential(nn.Flatten(), nn.LazyLinear(3)), BatchLoader(tiny_set(), 16))


def test_a_log_in_the_place_of_the_terminal(monkeypatch):
    class Log:
        write = flush = lambda *_: None

    monkeypatch.setattr("sys.stdout", Log())
    training.evaluate(tiny_net(), BatchLoader(tiny_set(30), 10))


@pytest.mark.parametrize("trained_on_bytes", [True, False])
def test_a_loader_of_torchs_that_normalises_differently(trained_on_bytes):
    """It does not say what it does to the pixels, so their spread has to."""
    images = tiny_set()
    mean, std = data.channel_stats(images)
    plain = TensorDataset(
        torch.from_numpy(images.images).permute(0, 3, 1, 2) / 255, torch.from_numpy(images.labels)
    )
    loaders = DataLoader(plain, 48), BatchLoader(tiny_set(), 48, mean=mean, std=std)
    first, second = loaders if trained_on_bytes else loaders[::-1]
    model = tiny_net()
    assert fit(first, model, validation=first if trained_on_bytes else None) == []
    said = (
        "the pixels spread by .*, those that trained the network by .*: if that is not meant, normalise both"
    )
    with pytest.warns(TrainingWarning, match=said):
        training.evaluate(model, second)
    training.evaluate(model, first)
    [message] = fit(first, model, validation=second, epochs=2)
    assert "normalise both alike" in message


def test_training_without_a_loader():
    with pytest.raises(TrainingError, match="expected a loader of batches, found a NoneType"):
        fit(None, make=lambda optimizer: lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=6))


def test_a_stream_of_batches_has_no_length_for_its_schedule():
    class Pictures(IterableDataset):
        def __iter__(self):
            yield from zip(PIXELS, LABELS, strict=True)

    loader = DataLoader(Pictures(), 16)
    assert fit(loader, make=lambda optimizer: schedules.one_cycle(optimizer, 1, 2, 0.01, 0.1, 0.5)) == []


def test_the_class_of_an_optimizer_is_none():
    with pytest.raises(TrainingError, match="expected an optimizer, found the class SGD"):
        fit(shuffled(), optimizer=torch.optim.SGD)


def test_a_loss_that_learns_may_have_an_argument_filled_in():
    model, loss_fn = tiny_net(), Learned()
    optimizer = torch.optim.SGD([*model.parameters(), loss_fn.scale], lr=0.01)
    assert fit(shuffled(), model, functools.partial(loss_fn), optimizer=optimizer) == []


@pytest.mark.parametrize("last", [nn.GELU(), nn.Tanh(), nn.LeakyReLU(inplace=True), nn.SiLU()], ids=repr)
def test_another_activation_at_the_end(last):
    [message] = fit(shuffled(), nn.Sequential(tiny_net(), last))
    assert message.lower().startswith(f"the model ends in a {type(last).__name__.lower()}, but")


def test_other_weights_know_nothing_of_the_training_before(tmp_path):
    scaled = {"mean": (0.4, 0.4, 0.4), "std": (0.2, 0.2, 0.2)}
    model = tiny_net()
    files.save_weights(model, tmp_path / "scaled.pt")
    assert fit(shuffled(), model) == []
    files.load_weights(model, tmp_path / "scaled.pt")
    training.evaluate(model, BatchLoader(tiny_set(30), 10, **scaled))


BACKBONE = {"mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}


def a_backbone(path=None):
    """A network trained on images that were normalised, without its last layer; saved and loaded again, or not."""
    trained = SmallNet(3, widths=(4, 8), hidden=8)
    assert fit(full_batches(**BACKBONE), trained) == []
    if path:
        files.save_weights(trained, path)
        trained = SmallNet(3, widths=(4, 8), hidden=8)
        files.load_weights(trained, path)
    return headless(trained)


def full_batches(**options):
    return BatchLoader(tiny_set(), 48, shuffle=True, **options)


class Scaled(list):
    """A loader of somebody's own, which says how it normalises."""

    def __init__(self, batches, mean, std):
        super().__init__(batches)
        self.mean, self.std = mean, std


def test_imagenets_backbone_gets_pixels_that_are_not_normalised(monkeypatch):
    from torchvision.models import ResNet18_Weights, resnet18

    weights = resnet18().state_dict()
    monkeypatch.setattr(ResNet18_Weights, "get_state_dict", lambda *args, **options: weights)
    transfer = TransferNet(3)
    [message] = fit(full_batches(), transfer)
    assert "those that trained its frozen part by 1: normalise images as for the network" in message
    assert fit(full_batches(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)), transfer) == []
    assert fit(full_batches(mean=(0.4, 0.4, 0.4), std=(0.9, 0.9, 0.9)), transfer) == [], "of dark pictures"
    grey = Scaled(
        full_batches(mean=(0.4, 0.4, 0.4), std=(0.9, 0.9, 0.9)), torch.tensor(0.4), torch.tensor(0.9)
    )
    assert fit(grey, transfer) == [], "one number for all channels"


@pytest.mark.parametrize("saved", [False, True])
def test_a_frozen_backbone_gets_images_normalised_in_another_way(saved, tmp_path):
    backbone = a_backbone(tmp_path / "trained.pt" if saved else None)
    own = {"mean": (0.45, 0.4, 0.4), "std": (0.2, 0.2, 0.2)}  # of other pictures
    transfer = TransferNet(3, backbone, n_features=8)
    assert fit(full_batches(**BACKBONE), transfer) == [] == fit(full_batches(**own), transfer)
    [message] = fit(full_batches(), transfer)
    assert "those that trained its frozen part by" in message
    plain = DataLoader(
        PerImageDataset(tiny_set(), v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, True)])), 48, True
    )
    assert len(fit(plain, transfer)) == 1


def test_a_backbone_that_adapts_may_get_other_images(tmp_path):
    backbone = a_backbone()
    for options in ({"frozen": False}, {"moving_norm": True}):
        assert fit(full_batches(), TransferNet(3, backbone, n_features=8, **options)) == []
    tuned = TransferNet(3, backbone, n_features=8, frozen=False)
    assert fit(full_batches(), tuned) == []
    again = TransferNet(3, tuned.backbone, n_features=8)
    assert fit(full_batches(), again) == []
    assert len(fit(full_batches(**BACKBONE), again)) == 1
    files.save_weights(again, tmp_path / "again.pt")
    files.load_weights(again, tmp_path / "again.pt")
    assert fit(full_batches(), again) == []
    files.load_state(again, tuned.state_dict(), "elsewhere")  # nothing is known of these
    assert fit(full_batches(), again) == [] == fit(full_batches(**BACKBONE), again)


def test_two_loaders_of_different_classes():
    turned = replace(tiny_set(30), classes=tiny_set().classes[::-1])
    [message] = fit(shuffled(), validation=BatchLoader(turned, 10))
    assert "different classes" in message and "labels do not agree" in message


def test_other_pictures_than_in_training():
    scaled = {"mean": (0.4, 0.4, 0.4), "std": (0.2, 0.2, 0.2)}
    model, plain = tiny_net(), BatchLoader(tiny_set(30), 10)
    assert fit(shuffled(**scaled), model) == []
    training.evaluate(model, BatchLoader(tiny_set(30), 10, **scaled))
    for measure in (training.evaluate, training.predict):
        fit(shuffled(**scaled), model)
        with pytest.warns(TrainingWarning, match="measuring normalise differently"):
            measure(model, plain)
    fit(shuffled(**scaled), model)
    with pytest.warns(TrainingWarning, match="measuring normalise differently"):
        training.evaluate(model, plain, six_views=True)
    with pytest.warns(TrainingWarning, match="measuring normalise differently"):
        training.train_epoch(other := tiny_net(), shuffled(**scaled), cross_entropy, sgd(other))
        training.evaluate(other, plain)
    assert fit(shuffled(), model) == [] == fit(shuffled(), model, validation=plain)
    for loader in (shuffled(), shuffled(**scaled)):  # trained on one set, and then on another
        training.train_epoch(model, loader, cross_entropy, sgd(model))
    training.evaluate(model, BatchLoader(tiny_set(30), 10, **scaled))
    rounded = {"mean": (0.4004, 0.3996, 0.4), "std": (0.2, 0.2004, 0.2)}
    training.evaluate(model, BatchLoader(tiny_set(30), 10, **rounded))
    assert not first_batch.AGREE["scaling"]([0.4] * 6, [0.4] * 4), "of a loader with other shapes"
    turned = replace(tiny_set(30), classes=[*tiny_set().classes[::-1]])
    with pytest.warns(TrainingWarning, match="have different classes"):
        training.evaluate(model, BatchLoader(turned, 10, **scaled))


def test_two_heads_on_one_trunk_are_two_networks():
    class Head(nn.Module):
        def __init__(self, trunk):
            super().__init__()
            self.model, self.last = trunk, nn.Linear(3, 3)

        def forward(self, x):
            return self.last(self.model(x))

    trunk, turned = tiny_net(), replace(tiny_set(), classes=tiny_set().classes[::-1])
    one, other = Head(trunk), Head(trunk)
    assert fit(shuffled(), one) == [] == fit(BatchLoader(turned, 16, shuffle=True), other)
    training.evaluate(one, BatchLoader(tiny_set(), 16))


@pytest.mark.parametrize("last", [nn.ReLU(), nn.Sigmoid()])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_an_activation_after_the_last_layer(last, precision):
    model = nn.Sequential(tiny_net(), last)
    with pytest.warns(
        TrainingWarning, match="the model ends in a (Relu|Sigmoid), but cross entropy wants logits"
    ):
        training.train_epoch(model, shuffled(), cross_entropy, sgd(model), precision=precision)
    positive = tiny_net()
    nn.init.constant_(positive[-1].bias, 100)
    assert fit(shuffled(), positive) == []


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("last", "loss_fn", "said"),
    [
        (
            nn.Softmax(1),
            lambda x, y: cross_entropy(x, y, label_smoothing=0.1),
            "a softmax comes before cross",
        ),
        (nn.Softmax(0), cross_entropy, "a softmax comes before cross"),
        (nn.Identity(), lambda x, y: cross_entropy(x.softmax(1), y), "a softmax comes before cross"),
        (nn.ReLU(), lambda x, y: cross_entropy(x.view(-1, 3), y), "model ends in a Relu"),
        (nn.ReLU(), lambda x, y: cross_entropy(x[..., None].squeeze(), y), "model ends in a Relu"),
        (nn.ReLU6(), cross_entropy, "model ends in a ReLU6"),
        (nn.Softplus(), cross_entropy, "model ends in a Softplus"),
        (nn.Hardswish(), cross_entropy, "model ends in a Hardswish"),
        (nn.Mish(), cross_entropy, "model ends in a Mish"),
        (nn.SELU(), cross_entropy, "model ends in a SELU or ELU"),
    ],
)
def test_what_a_loss_of_ones_own_hands_to_cross_entropy(last, loss_fn, said, precision):
    model = nn.Sequential(tiny_net(), last)
    with pytest.warns(TrainingWarning, match=said) as caught:
        training.train_epoch(model, shuffled(), loss_fn, sgd(model), precision=precision)
    assert len(caught) == 1


def logarithms(logits, labels):
    return logits.log_softmax(1)[range(len(labels)), labels]


@pytest.mark.parametrize(
    ("loss_fn", "said"),
    [
        (lambda x, y: -logarithms(x, y).sum(), "summed over the batch: take the mean over images"),
        (lambda x, y: logarithms(x, y).mean(), "of the wrong sign: put a minus before the logarithm"),
        (lambda x, y: cross_entropy(x, y) / len(y), "divided by the size of the batch once too often"),
        (
            lambda x, y: -(nn.functional.one_hot(y, 3) * x.log_softmax(1)).mean(),
            "averaged over classes as well",
        ),
    ],
)
def test_a_slip_in_a_cross_entropy_of_ones_own(loss_fn, said):
    model = tiny_net()
    nn.init.zeros_(model[-1].weight)  # a guess: of a network that is right by luck, a wrong sign is not seen
    [message] = fit(batches([0, 1, 2] * 5), model, loss_fn, optimizer=sgd(model, 1e-6))
    assert message.startswith(f"the loss looks like cross entropy {said}")


@pytest.mark.parametrize(("scale", "negated"), [(2, "entropy"), (0.57, "probability")])
def test_a_wrong_sign_is_told_from_a_missing_logarithm(scale, negated):
    """Minus a mean probability of 0.57 may equal minus the cross entropy, which a wrong sign soon makes larger."""
    logits, labels = torch.zeros(8, 10), torch.zeros(8, dtype=torch.int64)
    logits[:, 0] = math.log(9 * math.exp(-scale) / (1 - math.exp(-scale)))  # the cross entropy is `scale`
    loss = (
        -nn.functional.cross_entropy(logits, labels)
        if negated == "entropy"
        else -logits.softmax(1)[:, 0].mean()
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        first_batch.doubt_own_loss(float(loss), logits, labels)
    assert ["wrong sign" in str(one.message) for one in caught] == [True] * (negated == "entropy")


def test_a_first_loss_below_zero():
    def no_logarithm(logits, labels):
        return nn.functional.nll_loss(logits.softmax(1), labels)

    messages = fit(shuffled(), loss_fn=no_logarithm, epochs=2)
    assert set(messages) == {"the loss is below zero: is a logarithm missing, or a softmax before it?"}


def test_a_penalty_may_bring_a_loss_below_zero():
    """Pereyra et al. 2017, on networks that know the answer already."""

    class Sure(nn.Module):
        def __init__(self):
            super().__init__()
            self.size = nn.Parameter(torch.tensor(4.0))

        def forward(self, images):  # red, green or blue
            return self.size * nn.functional.one_hot(images.mean((2, 3)).argmax(1), 3)

    def penalised(logits, labels):
        p = logits.softmax(1)
        return cross_entropy(logits, labels) + 0.3 * (p * logits.log_softmax(1)).sum(1).mean()

    images = torch.eye(3)[LABELS][:, :, None, None].expand(-1, -1, 8, 8).contiguous()
    loader = [(images + 0.1 * torch.rand_like(images), LABELS)]
    model = Sure()
    assert penalised(model(loader[0][0]), LABELS) < 0
    assert fit(loader, model, penalised, epochs=2) == []


class SoftmaxToShow(SmallNet):
    def forward(self, images):
        logits = super().forward(images)
        return logits if self.training else logits.softmax(1)


def test_a_softmax_in_eval_mode_alone_is_told_once():
    model, validation = SoftmaxToShow(3, widths=(4, 8), hidden=8), BatchLoader(tiny_set(30), 10)
    [message] = fit(shuffled(), model, validation=validation, epochs=2)
    assert message.startswith("in training the model returned logits, and now probabilities: accuracies are")
    with pytest.warns(TrainingWarning) as caught:
        training.predict(model, validation)
    assert [str(one.message)[:34] for one in caught] == ["the model returns probabilities, bu"[:34]]


def test_batch_norm_without_running_averages():
    model = nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False), tiny_net())
    with pytest.warns(
        TrainingWarning, match="a batch norm of Sequential has no running averages, so an answer"
    ):
        training.evaluate(model, BatchLoader(tiny_set(), 10))


def test_a_loss_may_have_weights_that_train_beside_a_part_of_the_network():
    class Centres(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, logits, labels):
            return cross_entropy(self.scale * logits, labels)

    model, loss_fn = tiny_net(), Centres()
    held = [*model[-1].parameters(), loss_fn.scale]
    [message] = fit(shuffled(), model, loss_fn, optimizer=torch.optim.SGD(held, 0.01))
    assert "call requires_grad_(False) on the others" in message


@pytest.mark.parametrize("n_images", [1, 15])
def test_a_loss_of_ones_own_that_is_right(n_images):
    model = nn.Sequential(nn.Flatten(), nn.Linear(3072, 3))
    for loss_fn in (lambda x, y: -logarithms(x, y).mean(), lambda x, y: ((x - x.mean()) ** 2).mean()):
        assert fit(batches([1] * n_images), model, loss_fn) == []
    small = [(images, labels.int()) for images, labels in batches([1] * n_images)]
    assert fit(small, model, lambda x, y: cross_entropy(x, y.long())) == []
    with torch.no_grad():
        model[-1].bias += 1e4 * torch.eye(3)[1]
    assert fit(small, model, lambda x, y: cross_entropy(x, y.long())) == [], "a loss of zero has no sign"


def test_a_reshape_in_the_place_of_a_permute(shapes):
    images = shapes.subset(np.arange(64))
    pixels, labels = torch.from_numpy(images.images).float() / 255, torch.from_numpy(images.labels)
    model = SmallNet(10, widths=(4, 8), hidden=8)
    assert fit([(pixels.permute(0, 3, 1, 2), labels)], model) == []
    [message] = fit([(pixels.reshape(-1, 3, 32, 32), labels)], SmallNet(10, widths=(4, 8), hidden=8))
    assert "as after a reshape: use permute(0, 3, 1, 2)" in message


def test_a_view_that_mixes_images_up():
    model = nn.Sequential(nn.Unflatten(2, (4, 8)), nn.Flatten(2), nn.Flatten(0, 1), nn.Linear(1024, 3))
    with pytest.raises(
        TrainingError, match=r"expected logits \(16, n_classes\).* found \(48, 3\): .*x.flatten\(1\)"
    ):
        fit(batches([0, 1, 2] * 32), model)


def test_errors_on_the_way_back():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.branch, self.head = (
                nn.Conv2d(3, 4, 3),
                nn.Conv2d(4, 4, 3, padding=1),
                nn.Linear(4, 3),
            )

        def forward(self, x):
            x = self.conv(x).relu()
            r = self.branch(x)
            x += r
            return self.head(x.mean((2, 3)))

    with pytest.raises(TrainingError, match="x \\+= r changes .*: write x = x \\+ r"):
        fit(shuffled(), Block())
    running = [torch.zeros(())]

    def smoothed(logits, labels):
        running[0] = 0.9 * running[0] + 0.1 * cross_entropy(logits, labels)
        return running[0]

    with pytest.raises(TrainingError, match=r"running average does, needs .detach\(\)"):
        fit(shuffled(), loss_fn=smoothed)


def test_a_part_that_does_not_follow_mixed_precision():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.table = tiny_net(), torch.eye(3)

        def forward(self, x):
            return (
                torch.mm(self.net(x), self.table) if not torch.is_autocast_enabled("cpu") else self.mixed(x)
            )

        def mixed(self, x):
            out = torch.empty(len(x), 3)
            return torch.index_put(out, (torch.arange(len(x)),), self.net(x))

    model = Mixed()
    with pytest.raises(TrainingError, match='try precision="float32"'):
        training.train_epoch(model, shuffled(), cross_entropy, sgd(model), precision="bfloat16")


def test_a_loader_of_ones_own_gives_other_labels_than_it_holds():
    class FromOne(BatchLoader):
        def __iter__(self):
            yield from ((images, labels - 1) for images, labels in super().__iter__())

    images = tiny_set()
    shifted = replace(images, labels=images.labels + 1, classes=(*images.classes, "d"))
    assert fit(FromOne(shifted, 16, shuffle=True)) == []


def test_what_is_measured_by_swapped_arguments():
    for measure in (training.evaluate, training.predict):
        with pytest.raises(TrainingError, match="expected a network first, .* found a BatchLoader"):
            measure(shuffled(), tiny_net())
    model = tiny_net()
    with pytest.raises(TrainingError, match="found a function: the order is model, loader, loss, optimizer"):
        schedules.lr_range_test(model, shuffled(), shuffled(), cross_entropy, sgd(model))


def test_a_cycle_that_is_longer_than_the_run():
    def twice(optimizer):
        return schedules.one_cycle(optimizer, 4, 6, lr_min=0.001, lr_max=0.01, peak_epoch=2)

    [message] = fit(shuffled(), make=twice, epochs=2)
    assert message.startswith("the schedule is made for 24 batches, and the run has 12, so it ends before")
    assert fit(shuffled(), make=twice, epochs=4) == []


def test_loaders_of_torchs_own_over_the_same_images():
    images = TensorDataset(torch.rand(96, 3, 32, 32), torch.arange(96) % 3)
    said = "the images that validate are those that train"
    both = Subset(images, range(80)), Subset(Subset(images, range(20, 96)), range(20, 76))
    for train, validation in ((images, images), (images, both[1]), both):
        [message] = fit(DataLoader(train, 16, shuffle=True), validation=DataLoader(validation, 16))
        assert message.startswith(said)
    [message] = fit(DataLoader(Subset(images, range(16)), 16), validation=DataLoader(images, 16))
    assert message == "most images that train are among those that validate: see data.split"
    drawn = Subset(images, torch.randperm(96)[:50])
    [message] = fit(DataLoader(drawn, 16, shuffle=True), validation=DataLoader(drawn, 16))
    assert message.startswith(said)
    apart = Subset(images, range(80)), Subset(images, range(70, 96))  # ten of these 26
    assert fit(DataLoader(apart[0], 16, shuffle=True), validation=DataLoader(apart[1], 16)) == []
    parts_of = [
        DataLoader(images, 16, sampler=SubsetRandomSampler(range(*part))) for part in ((64,), (64, 96))
    ]
    assert fit(parts_of[0], validation=parts_of[1]) == []
    chosen = [
        BatchSampler(SubsetRandomSampler(range(*part)), 16, drop_last=False) for part in ((64,), (64, 96))
    ]
    listed = [[range(k, k + 16) for k in range(*part, 16)] for part in ((0, 64), (64, 96))]
    for first, second in (chosen, listed):
        loaders = [DataLoader(images, batch_sampler=sampler) for sampler in (first, second)]
        assert fit(loaders[0], validation=loaders[1]) == []
    per_image = [
        PerImageDataset(tiny_set(), transforms.per_image(*SCALE, train=train)) for train in (True, False)
    ]
    same = [Subset(per_image[0], range(64)), Subset(per_image[1], range(64, 96))]
    assert fit(DataLoader(same[0], 16, shuffle=True), validation=DataLoader(same[1], 16)) == []


SCALE = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


def test_layers_that_are_not_trained():
    class Listed(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers, self.last = [nn.Conv2d(3, 8, 32)], nn.Linear(8, 3)

        def forward(self, x):
            return self.last(self.layers[0](x).flatten(1))

    class Detached(nn.Sequential):
        def forward(self, x):
            with torch.no_grad():
                for layer in [*self][:-1]:
                    x = layer(x)
            return self[-1](x)

    class Checkpointed(nn.Sequential):
        def forward(self, x):
            first, *rest = self
            return nn.Sequential(*rest)(checkpoint(first, x.requires_grad_(), use_reentrant=True))

    [message] = fit(shuffled(), Listed())
    assert "2 tensors that are trained belong to no module: keep layers in nn.ModuleList" in message
    [message] = fit(shuffled(), Detached(*tiny_net()))
    assert "some trainable weights have no part in the first loss" in message
    with warnings.catch_warnings(action="ignore"):
        warnings.simplefilter("error", TrainingWarning)
        model = Checkpointed(*tiny_net())
        training.train_epoch(model, shuffled(), cross_entropy, sgd(model))
    frozen = Detached(*tiny_net())
    for layer in [*frozen][:-1]:
        layer.requires_grad_(False)
    assert fit(shuffled(), frozen) == [] == fit(shuffled(), loss_fn=Learned())
    assert fit(batches([0, 1, 2] * 16), torch.compile(tiny_net(), backend="eager")) == []


def test_dropout_that_does_not_know_eval_mode():
    class Functional(nn.Sequential):
        def forward(self, x):
            return super().forward(nn.functional.dropout(x, 0.5))

    model = Functional(*tiny_net())
    assert fit(shuffled(), model) == []
    with pytest.warns(
        TrainingWarning, match="Functional draws random numbers in eval mode: .*self.training"
    ) as said:
        training.evaluate(model, shuffled())
    assert len(said) == 1, "not once a batch"
    training.evaluate(nn.Sequential(tiny_net(), nn.Dropout(0.5)), shuffled())
    noisy = lambda logits, labels: cross_entropy(logits + torch.rand(()), labels)  # noqa: E731
    training.validate_epoch(tiny_net(), shuffled(), noisy)


def test_a_macs_random_numbers_are_known_as_well(monkeypatch):
    monkeypatch.setattr(torch.mps, "get_rng_state", lambda: torch.tensor([7]))
    assert first_batch.random_state(torch.device("mps")) == 7


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("MPS backend out of memory (MPS allocated: 8.00 GiB, max allowed: 9.07 GiB)"),
        torch.AcceleratorError("CUDA error: out of memory"),
        torch.AcceleratorError("CUDA error: an illegal memory access was encountered"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    ],
    ids=lambda error: str(error)[:25],
)
def test_a_devices_own_troubles_are_no_wrong_batch(error):
    class Large(nn.Sequential):
        def forward(self, x):
            raise error

    with pytest.raises(type(error), match=re.escape(str(error))) as raised:
        training.evaluate(Large(*tiny_net()), shuffled())
    assert not isinstance(raised.value, first_batch.TrainingError)


def test_names_that_other_loaders_use_for_methods():
    class Pipe(list):
        def shuffle(self, buffer): ...

        def augment(self, images): ...

    training.predict(tiny_net(), Pipe(batches([0, 1, 2] * 16)))
    training.evaluate(tiny_net(), BatchLoader(tiny_set(), 16, augment=Augment(0, 0.0, 0, 0.0)))


def test_measuring_augmented_or_shuffled_pictures():
    moved = BatchLoader(tiny_set(), 16, augment=Augment())
    transform = transforms.per_image((0.4, 0.4, 0.4), (0.2, 0.2, 0.2))
    for loader in (moved, DataLoader(PerImageDataset(tiny_set(), transform), 16)):
        with pytest.warns(TrainingWarning, match="images that are measured are augmented"):
            training.evaluate(tiny_net(), loader)
    flips = v2.Compose([v2.ToImage(), v2.RandomHorizontalFlip(), v2.ToDtype(torch.float32, scale=True)])
    subset = Subset(PerImageDataset(tiny_set(), transform), range(50))
    nested = v2.Compose([v2.Compose([flips])])
    layers = nn.Sequential(v2.ToImage(), v2.RandomHorizontalFlip(), v2.ToDtype(torch.float32, scale=True))
    for dataset in (subset, *(PerImageDataset(tiny_set(), one) for one in (flips, nested, layers))):
        with pytest.warns(TrainingWarning, match="images that are measured are augmented"):
            training.evaluate(tiny_net(), DataLoader(dataset, 16))
    flipped = PerImageDataset(tiny_set(), A.Compose([A.HorizontalFlip(p=0.5), A.Normalize(), ToTensorV2()]))
    assert first_batch.augments(DataLoader(flipped, 16))
    unchanged = PerImageDataset(tiny_set(), A.Compose([A.Normalize(), ToTensorV2()]))
    assert not first_batch.augments(DataLoader(unchanged, 16))
    still = transforms.per_image((0.4, 0.4, 0.4), (0.2, 0.2, 0.2), train=False)
    training.predict(tiny_net(), DataLoader(PerImageDataset(tiny_set(), still), 16))
    dataset = PerImageDataset(tiny_set(), still)
    some = SubsetRandomSampler(range(48))
    for loader in (
        shuffled(),
        DataLoader(dataset, 16, shuffle=True),
        DataLoader(dataset, 16, sampler=some),
        DataLoader(dataset, batch_sampler=BatchSampler(some, 16, drop_last=False)),
    ):
        with pytest.warns(TrainingWarning, match="answers come in a shuffled order"):
            training.predict(tiny_net(), loader)


@pytest.mark.parametrize("entrance", ENTRANCES)
def test_a_network_that_has_diverged_before(entrance):
    """Its logits are NaN whatever the learning rate now, and the largest of them is the first."""
    model = SmallNet(3, widths=(4, 8), hidden=8)
    nn.init.constant_(model.head[-1].weight, torch.nan)
    with pytest.raises(first_batch.Diverged, match="returns NaN: if it was trained before, make"):
        ENTRANCES[entrance](model, [(PIXELS, LABELS)], cross_entropy)


def test_a_sampler_knows_its_order():
    per_image = [(torch.rand(3, 32, 32), 0) for _ in range(96)]
    assert len(fit(DataLoader(per_image, 48))) == 1
    for options in (
        {"sampler": SubsetRandomSampler(range(96))},
        {"batch_sampler": [range(48), range(48, 96)]},
    ):
        assert (
            fit(DataLoader(per_image, **({"batch_size": 48} if "sampler" in options else {}), **options))
            == []
        )


def test_a_stream_has_no_order_to_lose():
    class Stream(IterableDataset):
        def __iter__(self):
            return ((torch.rand(3, 32, 32), int(k > 47)) for k in range(96))

        def __len__(self):
            return 96

    loader = DataLoader(Stream(), 64)
    assert fit(loader) == []
    training.predict(tiny_net(), loader)


def test_one_frequent_class_is_not_sorted():
    images = tiny_set(96)
    rare = replace(images, labels=(np.arange(96) > 94).astype(np.int64))
    assert fit(BatchLoader(rare, 48, shuffle=True)) == []
    per_image = [(torch.rand(3, 32, 32), int(label)) for label in rare.labels]
    assert fit(DataLoader(per_image, 48, shuffle=True)) == []
    assert len(fit(DataLoader(per_image, 96))) == 1


@pytest.mark.parametrize("size", [16, 20, 48])
def test_sorted_classes(size):
    """Whether the first batch holds one class, or one and the start of the next; a small one does not tell."""
    [message] = fit(BatchLoader(sorted_set(), size))
    assert f"sorted by class ({3 if size < 32 else 2} of them so far): give" in message
    assert first_batch.are_sorted(torch.arange(100)) is False
    assert fit(BatchLoader(sorted_set(12), 6)) == []

    class Mixed(BatchLoader):
        def __iter__(self):
            mixed = self.image_set.subset(np.random.default_rng(0).permutation(len(self.image_set)))
            return iter(BatchLoader(mixed, 16))

    assert fit(Mixed(sorted_set(), 16)) == [], "which stores them sorted and gives them mixed"


def test_raw_bytes_and_two_normalisations():
    [message] = fit(shuffled(std=(1 / 255,) * 3))
    assert "raw bytes" in message and "divide pixels by 255" in message
    with pytest.warns(TrainingWarning, match="raw bytes"):
        training.evaluate(tiny_net(), shuffled(std=(1 / 255,) * 3))
    scaled = {"mean": (0.4, 0.4, 0.4), "std": (0.2, 0.2, 0.2)}
    [message] = fit(shuffled(**scaled), validation=BatchLoader(tiny_set(30), 10))
    assert "normalise differently" in message
    assert fit(shuffled(**scaled), validation=BatchLoader(tiny_set(30), 10, **scaled)) == []


def test_more_threads_than_the_container_has_cpus(tmp_path, monkeypatch):
    cpus = parts.available_cpus(tmp_path / "not there")
    for content, expected in (("max 100000", cpus), ("50000 100000", 1), (f"{cpus * 9}00000 100000", cpus)):
        (tmp_path / "cpu.max").write_text(content + "\n")
        assert parts.available_cpus(tmp_path / "cpu.max") == expected
    monkeypatch.setattr(parts, "available_cpus", lambda: torch.get_num_threads() - 0.5)
    [message] = fit(shuffled())
    assert "torch.set_num_threads" in message


# --- And nothing else, at no cost.


@pytest.mark.parametrize(
    "call",
    [
        lambda *parts: training.fit(*parts[:2], None, *parts[2:], epochs=1, verbose=False),
        training.train_epoch,
        lambda *parts: schedules.lr_range_test(*parts, 1e-4, 1e-3, steps=2),
    ],
)
def test_a_warning_is_given_at_the_line_that_called(call):
    model = tiny_net()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call(model, BatchLoader(sorted_set(), 48), cross_entropy, sgd(model))
    assert "sorted by class" in str(caught[0].message)
    assert {warning.filename for warning in caught} == {__file__}


def test_so_is_one_about_measuring():
    """`predict` and `validate_epoch` are decorated by torch, whose frames lie between."""
    model, augmented = tiny_net(), BatchLoader(tiny_set(), 16, augment=Augment())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        training.predict(model, augmented)
        training.evaluate(model, augmented)
        training.validate_epoch(model, augmented, cross_entropy)
        training.fit(model, shuffled(), augmented, cross_entropy, sgd(model), epochs=1, verbose=False)
    assert ["augmented" in str(warning.message) for warning in caught] == 4 * [True]
    assert {warning.filename for warning in caught} == {__file__}


def test_healthy_runs_give_none():
    labels = np.random.default_rng(0).integers(0, 3, 96)
    for loader in (shuffled(), batches(labels), BatchLoader(tiny_set(), 4), BatchLoader(tiny_set(), 96)):
        assert fit(loader, validation=shuffled()) == []


def test_looking_changes_no_bit(monkeypatch):
    watched, curves = tiny_run()
    state = torch.get_rng_state()
    for module, name in (
        (first_batch, "check"),
        (first_batch, "check_loss"),
        (parts, "check"),
        (parts, "check_schedule"),
    ):
        monkeypatch.setattr(module, name, lambda *arguments: None)
    unwatched, same_curves = tiny_run()
    assert torch.equal(state, torch.get_rng_state())
    assert same_weights(watched, unwatched)
    assert curves.train_loss == same_curves.train_loss
    assert curves.validation_loss == same_curves.validation_loss
