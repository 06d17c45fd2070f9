"""The pictures of CIFAR on the pages: stored as their words say, by the recorded weights, and shown once each."""

import base64
import json
import re
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from course_utils.authoring import curves, live
from course_utils.authoring import gallery as maker
from course_utils.data import ImageSet
from course_utils.datasets.cifar import CLASSES
from course_utils.lab import gallery, recipes, records, runs, tables

BOOK = Path(__file__).resolve().parent.parent / "book"
WORDS = gallery.words()
ALL_BYTES, KNOBS_BYTES, KNOBS_LINES = 800_000, 300_000, 250


def captions(name: str) -> list[str]:
    return [caption for group in WORDS[name]["groups"] for caption in group["captions"]]


def test_every_figure_is_stored_and_small():
    assert set(WORDS) == set(maker.FIGURES) == {path.stem for path in gallery.folder().iterdir()}
    assert sum(path.stat().st_size for path in gallery.folder().iterdir()) < ALL_BYTES


@pytest.mark.parametrize("name", WORDS)
def test_a_stored_image_has_a_place_for_each_caption(name):
    with Image.open(gallery.path_of(name)) as image:
        width, height = image.size
    assert width == gallery.ACROSS * 32
    assert height == -(-len(captions(name)) // gallery.ACROSS) * 32


@pytest.mark.parametrize("name", WORDS)
def test_a_figure_is_described_and_made_from_the_recorded_weights(name):
    assert len(WORDS[name]["alt"]) > 60
    for recipe, weights in WORDS[name]["networks"].items():
        assert weights == records.of_recipe(recipe)[0]["weights"], "run `python -m course_utils gallery`"


@pytest.mark.parametrize("name", WORDS)
def test_a_page_shows_it_between_two_sentences(name):
    pages = [path.read_text(encoding="utf-8") for path in BOOK.rglob("*.md")]
    (page,) = [text for text in pages if f'gallery.show("{name}")' in text]
    before, after = re.split(rf'```\{{code-cell\}}[^`]*gallery\.show\("{name}"\)\n```', page)
    assert re.search(r"[.:]\)?\n\n$", before)
    assert re.match(r"\n\n[A-Z*(]", after)


def test_every_class_is_shown():
    for data in ("cifar10", "cifar100"):
        shown = {caption.replace(" ", "_") for caption in captions(f"classes-{data}")}
        assert shown == set(CLASSES[data])


@pytest.mark.parametrize("data", ["cifar10", "cifar100"])
def test_pairs_are_counted_as_the_confusion_matrix_has_them(data):
    for group in WORDS[f"pairs-{data}"]["groups"]:
        recipe, true, said, count = re.match(r"(\S+): (.+) → (.+) \((\d+) of", group["title"]).groups()
        row, column = (CLASSES[data].index(name.replace(" ", "_")) for name in (true, said))
        assert tables.examined(recipe)["confusion"][row, column] == int(count)


def test_a_figure_as_html(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "RECORDED", tmp_path)
    gallery.folder().mkdir()
    pictures = np.random.default_rng(0).integers(0, 256, (18, 32, 32, 3), dtype=np.uint8)
    maker.save(list(pictures), gallery.path_of("some"))
    with Image.open(gallery.path_of("some")) as image:
        stored = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(stored[32:64, 32:64], pictures[17], "pixel for pixel")
    groups = [
        {"title": title, "captions": ["a\n<b>"] * 9, "columns": 8, "narrow": 4} for title in ("one", "")
    ]
    words = {"some": {"alt": 'a "picture"', "data": "cifar10", "beside": 1, "groups": groups}}
    gallery.words_path().write_text(json.dumps(words))
    shown = gallery.show("some")
    assert shown.count("<li>") == 18
    assert "--x: 1; --y: 1" in shown and shown.count("<p>") == 1
    assert "a<br/>&lt;b&gt;" in shown and 'aria-label="a &quot;picture&quot;"' in shown


@pytest.fixture
def answers():
    """Six pictures of two classes; the network is wrong about the second and, more surely, about the last."""
    images = np.arange(6, dtype=np.uint8)[:, None, None, None].repeat(32, 1).repeat(32, 2).repeat(3, 3)
    test = ImageSet(images, np.array([0, 0, 0, 1, 1, 1]), ("oak_tree", "sea"), "six")
    of_sea = np.array([0.1, 0.6, 0.004, 0.9, 0.999, 0.02], np.float32)
    return maker.Answers(test, np.stack([1 - of_sea, of_sea], axis=1))


def shown(group: maker.Group) -> list[int]:
    return [int(picture[0, 0, 0]) for picture in group.pictures]


def test_the_surest_mistakes_come_first(answers, monkeypatch):
    monkeypatch.setattr(maker, "answers", lambda name, root: answers)
    (group,) = maker.mistakes(("smallnet-source",), None).groups
    assert shown(group) == [5, 1]
    assert group.captions == ["sea\nsaid: oak tree\n98 %", "oak tree\nsaid: sea\n60 %"]
    (first, *_) = maker.pairs_of("smallnet-source", None, n=1)
    assert (first.title, shown(first)) == ("smallnet-source: oak tree → sea (1 of 3)", [1])


def test_the_easiest_and_the_hardest_of_a_class(answers):
    group = maker.extremes_of(answers, 1, each=1)
    assert (group.title, shown(group)) == ("sea: 2 of 3 right", [4, 5])
    assert group.captions == ["> 99 %", "2 %\nsaid: oak tree"]


def test_the_curves_of_the_page_are_those_of_the_records():
    stored = (BOOK / "_static" / "knobs_data.js").read_text(encoding="utf-8")
    assert stored == curves.script(), "run `python -m course_utils curves`"
    assert len(stored) < KNOBS_BYTES
    runs = json.loads(stored.removeprefix("window.RUNS = ").removesuffix(";\n"))
    (recorded, *_) = records.of_recipe("smallnet-source")
    last = recorded["history"]["validation_accuracy"][-1]
    assert runs["smallnet-source"]["other"][0][-1] == pytest.approx(100 * last, abs=0.051)
    assert runs["resnet-fast"]["other"] == [], "it held nothing out"


@pytest.mark.parametrize("name", live.NETWORKS)
def test_the_page_has_the_recorded_weights(name):
    def numbers(text):
        return zlib.decompress(base64.b64decode(text))

    script = (curves.STATIC / f"network_{name}.js").read_text(encoding="utf-8")
    stored = re.search(rf'LIVE\.weights\["{name}"\] = "([^"]+)"', script)[1]
    made = live.packed(runs.trained_network(recipes.get(name)))
    assert numbers(stored) == numbers(made), "run `python -m course_utils live`"


def test_a_page_without_a_picture_of_its_own_is_not_written(monkeypatch):
    test = ImageSet(np.zeros((2, 32, 32, 3), np.uint8), np.array([0, 1]), ("sunflower", "tiger"), "two")
    never_tiger = torch.tensor([[9.0, 0.0], [9.0, 0.0]])
    monkeypatch.setattr(live, "PICTURES", "sunflower, tiger > sunflower")
    assert live.choose(test, never_tiger, torch.tensor([[9.0, 0.0], [0.0, 9.0]])) == [0, 1]
    with pytest.raises(
        ValueError, match="of the class tiger that smallnet-best calls sunflower and budgetnet"
    ):
        live.choose(test, never_tiger, never_tiger)


def test_the_knobs_are_short_enough_to_read():
    script = (BOOK / "_static" / "turn_the_knobs.js").read_text(encoding="utf-8")
    assert len(script.splitlines()) <= KNOBS_LINES
