"""What `fit` warns about: each mistake is seen, nothing else is, and watching changes no bit. Costs about 5 s."""

import functools
import warnings

import numpy as np
import pytest
import torch
from test_training import CountReads, same_weights, tiny_net, tiny_run, tiny_set
from torch import nn

from course_utils import training
from course_utils.exercises import first_batch as watch
from course_utils.lab import recipes, runs
from course_utils.data import BatchLoader
from course_utils.models import SmallNet
from course_utils.exercises.first_batch import TrainingWarning

cross_entropy = nn.functional.cross_entropy


def fit(loader, model=None, loss_fn=cross_entropy, validation=None):
    """An epoch of `fit`, and the warnings it gave."""
    model = model or tiny_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        training.fit(model, loader, validation, loss_fn, optimizer, epochs=1, verbose=False)
    assert all(warning.category is TrainingWarning for warning in caught)
    return [str(warning.message) for warning in caught]


def shuffled(**options):
    return BatchLoader(tiny_set(), 16, shuffle=True, **options)


def sorted_set(n=96):
    images = tiny_set(n)
    return images.subset(np.argsort(images.labels, kind="stable"))


def batches(n, labels):
    """`n` images each with its label, as loaders of every other kind give them: a list of batches of 16."""
    images = torch.rand(n, 3, 32, 32)
    return list(zip(images.split(16), torch.as_tensor(labels).split(16), strict=True))


# --- The mistakes


@pytest.mark.parametrize(
    "loss_fn", [cross_entropy, nn.CrossEntropyLoss(), functools.partial(cross_entropy, label_smoothing=0.1)]
)
def test_a_softmax_before_cross_entropy(loss_fn):
    [message] = fit(shuffled(), nn.Sequential(tiny_net(), nn.Softmax(1)), loss_fn)
    assert "returns probabilities" in message
    assert "last layer" in message


def test_probabilities_in_bfloat16_are_seen_too():
    logits = torch.randn(64, 100).softmax(1).bfloat16()
    assert watch.softmaxed(logits)
    assert watch.softmaxed(logits.double())


def test_a_softmax_under_another_loss_is_no_mistake():
    def own(probabilities, labels):
        return nn.functional.nll_loss(probabilities.log(), labels)

    assert fit(shuffled(), nn.Sequential(tiny_net(), nn.Softmax(1)), own) == []


@pytest.mark.parametrize("size", [16, 20, 48])
def test_sorted_classes(size):
    """Whether a batch holds one class, the end of one and the start of the next, or one and a half."""
    [message] = fit(BatchLoader(sorted_set(), size))
    assert "sorted by class" in message
    assert "shuffle=True" in message


def test_sorted_classes_in_another_order():
    labels = np.repeat([2, 0, 1], 20)
    assert "sorted by class (2 of them so far)" in fit(batches(60, labels))[0]


def test_raw_bytes():
    [message] = fit(shuffled(std=(1 / 255,) * 3))
    assert "raw bytes" in message
    assert "divide pixels by 255" in message


def test_a_validation_loader_that_normalises_differently():
    scaled = {"mean": (0.4, 0.4, 0.4), "std": (0.2, 0.2, 0.2)}
    [message] = fit(shuffled(**scaled), validation=BatchLoader(tiny_set(30), 10))
    assert "normalise differently" in message
    assert fit(shuffled(**scaled), validation=BatchLoader(tiny_set(30), 10, **scaled)) == []


def test_several_mistakes_are_several_warnings():
    model = nn.Sequential(tiny_net(), nn.Softmax(1))
    found = fit(BatchLoader(sorted_set(), 16, std=(1 / 255,) * 3), model)
    assert len(found) == 3


@pytest.mark.parametrize("label", [3, -1])
def test_labels_out_of_range_are_refused(label):
    labels = [0, 1, 2, label] * 12
    with pytest.raises(ValueError, match=r"labels from 0 to 2, as the model returns 3 logits, found .*last"):
        fit(batches(48, labels))


def test_labels_of_another_dtype_are_refused():
    with pytest.raises(ValueError, match=r"dtype int64, found torch.int32: call labels\.long\(\)"):
        fit(batches(48, np.arange(48, dtype=np.int32) % 3))


def test_a_second_batch_is_checked_for_its_labels_too():
    with pytest.raises(ValueError, match="found 0 to 7"):
        fit(batches(32, [0, 1] * 8 + [0, 7] * 8))


# --- And nothing else


def test_a_warning_is_given_once_at_the_line_that_called_fit():
    model = tiny_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with pytest.warns(TrainingWarning) as caught:
        training.fit(model, BatchLoader(sorted_set(), 16), None, cross_entropy, optimizer, epochs=2)
    assert [warning.filename for warning in caught] == [__file__]


def test_healthy_runs_give_none():
    labels = np.random.default_rng(0).integers(0, 3, 96)
    for loader in (shuffled(), batches(96, labels), BatchLoader(tiny_set(), 4), BatchLoader(tiny_set(), 96)):
        assert fit(loader, validation=shuffled()) == []


def test_few_labels_are_no_evidence():
    assert fit(BatchLoader(sorted_set(12), 6)) == []
    assert fit(BatchLoader(sorted_set(), 1)) == []


def test_labels_that_are_all_different_are_not_sorted():
    assert watch.sorted_by_class(torch.arange(100)) is None


@pytest.mark.parametrize("lesson", ["smallnet", "resnet"])
def test_the_lessons_give_none(lesson, capsys):
    recipe = lessons.for_lesson(lesson)
    loaders = runs.prepare(recipe, seed=0)
    model = runs.build_network(recipe, loaders.n_classes)
    watcher = watch.Watch(nn.CrossEntropyLoss(), loaders.train, loaders.validation)
    for _, (images, labels) in zip(range(watch.BATCHES), loaders.train, strict=False):
        watcher(images, model(images), labels)  # a warning would be an error here
    assert len(watcher.labels) == watch.BATCHES


# --- At no cost


def test_watching_changes_no_bit(monkeypatch):
    watched, curves = tiny_run()
    state = torch.get_rng_state()
    monkeypatch.setattr(watch, "Watch", lambda *arguments: None)
    unwatched, same_curves = tiny_run()
    assert torch.equal(state, torch.get_rng_state())
    assert same_weights(watched, unwatched)
    assert curves.train_loss == same_curves.train_loss
    assert curves.validation_loss == same_curves.validation_loss


def test_nothing_is_read_back_after_the_second_batch():
    model, reads = SmallNet(3, widths=(4, 4), hidden=8), []
    for n in (48, 480):
        watcher = watch.Watch(cross_entropy, None)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        with CountReads() as counted:
            training.train_epoch(
                model, list(BatchLoader(tiny_set(n), 16)), cross_entropy, optimizer, watcher=watcher
            )
        reads.append(len(counted.reads))
    assert reads[0] == reads[1]
