"""A network that is shown single pictures sees them as it saw its training pictures."""

import numpy as np
import pytest
import torch
from torch import nn

from course_utils import data, training
from course_utils.data import BatchLoader, ImageSet
from course_utils.datasets.cifar import CLASSES, STATS
from course_utils.datasets.pictures import drawn
from course_utils.exercises.first_batch import TrainingWarning
from course_utils.lab import pictures, records, runs
from course_utils.models import CustomResNet, SmallNet


@pytest.fixture(scope="module")
def network():
    """Ten classes, told apart by the mean colour alone."""
    torch.manual_seed(0)
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 10))


def test_a_picture_is_seen_as_the_training_pictures_were(network):
    images, labels = data.shapes.draw(8, seed=5)
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)
    image_set = ImageSet(images, labels // 10, data.shapes.SHAPES, "eight")
    expected, _ = training.predict(network, BatchLoader(image_set, 8, mean=mean, std=std))
    viewer = pictures.Viewer("a test", network, "shapes10", data.shapes.SHAPES, mean, std)
    found = np.stack([viewer.probabilities(image) for image in images])
    np.testing.assert_allclose(found, expected, atol=0.01)  # bfloat16 rounds
    assert np.abs(found - expected.mean(0)).max() > 0.02  # the pictures differ by more than that


def test_a_picture_of_another_kind_or_scale_is_not_shown_in_silence(network):
    picture = drawn("cifar10")
    viewer = pictures.Viewer("a test", network, "cifar10", CLASSES["cifar10"])
    for wrong in (picture / 255, np.dstack([picture, picture[..., :1]])):
        with pytest.raises(ValueError, match=r"a test: expected images uint8 \(n, height, width, 3\), found"):
            viewer.probabilities(wrong)
    images, labels = data.shapes.draw(8, seed=5)
    normalised = BatchLoader(
        ImageSet(images, labels // 10, CLASSES["cifar10"], "eight"), 8, mean=(0.4,) * 3, std=(0.2,) * 3
    )
    trained = nn.Sequential(*network)
    training.train_epoch(
        trained, normalised, nn.CrossEntropyLoss(), torch.optim.SGD(trained.parameters(), 0.0)
    )
    with pytest.warns(TrainingWarning, match="training and measuring normalise differently"):
        pictures.Viewer("a test", trained, "cifar10", CLASSES["cifar10"]).probabilities(picture)


def test_the_top_classes_come_likeliest_first(network):
    viewer = pictures.Viewer("a test", network, "cifar10", CLASSES["cifar10"])
    picture = drawn("cifar10")
    probabilities = viewer.probabilities(picture)
    names, values = zip(*viewer.top_classes(picture, k=3), strict=True)
    assert list(values) == sorted(probabilities.tolist(), reverse=True)[:3]
    assert list(names) == [viewer.classes[k] for k in np.argsort(-probabilities, kind="stable")[:3]]


def test_the_first_network_whose_weights_are_saved_looks_at_pictures_as_its_recipe_did(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "RECORDED", tmp_path)
    names = ("resnet-assignment", "smallnet-source")
    assert pictures.kept_viewer(*names) is None
    trained = SmallNet(100).eval()
    runs.save_half(trained, records.weights_of("smallnet-source", 0))
    viewer, ship = pictures.kept_viewer(*names), drawn("cifar10")
    own = pictures.Viewer("", trained, "cifar100", CLASSES["cifar100"])
    assert (viewer.data, viewer.classes) == (own.data, own.classes)
    np.testing.assert_allclose(viewer.probabilities(ship), own.probabilities(ship), atol=0.01)
    runs.save_half(CustomResNet(), records.weights_of("resnet-assignment", 0))
    viewer = pictures.kept_viewer(*names)
    assert "resnet-assignment" in viewer.name
    assert (viewer.mean, viewer.std) == STATS["cifar10"], "it was trained on normalised pictures"
