"""Your own pictures: what a file becomes, what a folder of them becomes, and that nothing is left out in silence."""

import os
import sys
import warnings
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from course_utils import data
from course_utils.datasets import shapes
from course_utils.datasets.pictures import EXTENSIONS, MAX_PIXELS, drawn, read_picture

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 128, 0), (0, 0, 255), (255, 255, 255)


def striped(*colours) -> Image.Image:
    """Upright stripes of 100×100 pixels from left to right."""
    picture = Image.new("RGB", (100 * len(colours), 100))
    for place, colour in enumerate(colours):
        picture.paste(colour, (100 * place, 0, 100 * place + 100, 100))
    return picture


def save(picture: Image.Image, path: Path, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, **options)
    return path


# --- One picture.


def test_a_wide_picture_is_cut_to_its_middle_and_one_of_the_right_size_is_taken_as_it_is(tmp_path):
    picture = read_picture(save(striped(RED, GREEN, BLUE), tmp_path / "wide.png"))
    assert picture.flags.writeable  # a reader may paint on it
    assert (picture.shape, picture.dtype) == ((32, 32, 3), np.uint8)
    assert (picture[:, 2:-2] == GREEN).all()  # at the edges, the resampling looks a little over the cut
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    np.testing.assert_array_equal(read_picture(save(Image.fromarray(noise), tmp_path / "noise.png")), noise)


@pytest.mark.parametrize(
    ("mode", "colour", "seen"),
    [
        ("1", 1, 255), ("L", 128, 128), ("P", 128, 128), ("RGB", (128,) * 3, 128), ("RGBA", (128, 128, 128, 255), 128),
        ("LA", (128, 255), 128), ("LA", (128, 0), 255), ("RGBA", (9, 9, 9, 0), 255), ("CMYK", (0, 0, 0, 127), 128),
        ("I;16", 128 * 256 + 99, 128), ("I", 128 * 256, 128),
    ],
)  # fmt: skip
def test_every_kind_of_picture_can_be_read_and_what_is_transparent_is_white(tmp_path, mode, colour, seen):
    picture = Image.new(mode, (50, 40), colour)
    if mode == "P":
        picture.putpalette([level for level in range(256) for _ in "rgb"])
    path = save(picture, tmp_path / ("picture.tif" if mode in ("CMYK", "I") else "picture.png"))
    assert (read_picture(path) == seen).all()


def test_a_palette_with_a_transparent_colour_is_white_there(tmp_path):
    picture = striped(RED, RED).quantize(2)
    path = save(picture, tmp_path / "palette.png", transparency=b"\x00\x00")
    assert (read_picture(path) == WHITE).all()
    assert (read_picture(save(picture, tmp_path / "palette.gif", transparency=0)) == WHITE).all()


@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photograph_is_turned_upright_as_pillow_turns_it(tmp_path, orientation, grey):
    from PIL import ImageOps

    quarters = Image.new("RGB", (64, 64), RED)
    quarters.paste(GREEN, (32, 0, 64, 32))
    quarters.paste(BLUE, (0, 32, 32, 64))
    if grey:
        quarters = Image.fromarray(np.asarray(quarters.convert("L"), np.uint16) * 256)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(quarters, tmp_path / "photo.png", exif=exif)
    with Image.open(path) as stored:
        upright = np.asarray(ImageOps.exif_transpose(stored))[::2, ::2]
    expected = np.repeat(upright[..., None] // 256, 3, axis=2) if grey else upright
    inside = np.ix_(np.r_[2:13, 19:30], np.r_[2:13, 19:30])
    np.testing.assert_array_equal(read_picture(path)[inside], expected[inside])


@pytest.mark.parametrize("highest", [4000, 16000])
def test_twelve_or_fourteen_bits_in_sixteen_are_not_shown_as_black(tmp_path, highest):
    path = save(Image.fromarray(np.full((40, 40), highest, np.uint16)), tmp_path / "scan.png")
    with pytest.raises(ValueError, match=f"come up to {highest} of 65,535, as if it had fewer bits"):
        read_picture(path)


BEYOND, NONE = b"Exif\0\0II*\0\xff\xff\xff\xff", b"x"  # an offset beyond the end, and no EXIF at all
AS_TEXT = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x02\0\0\0\x04abc\0\0\0\0\0"


@pytest.mark.parametrize("exif", [BEYOND, AS_TEXT, NONE])
def test_a_good_photograph_with_odd_metadata_is_read_as_it_is_stored(tmp_path, exif):
    path = save(striped(GREEN), tmp_path / "photo.jpg", exif=exif, quality=95)
    assert abs(read_picture(path)[16, 16].astype(int) - GREEN).max() < 12


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 40\n%%EndComments\nshowpage\n%%EOF\n"
DECLARED = (MAX_PIXELS // 5000 + 1, 5000)  # a few kB that say that they are gigabytes


def cut(path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    whole = save(Image.fromarray(noise), path).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


BROKEN = {
    "text": lambda path: path.write_text("no picture"),
    "empty": lambda path: path.touch(),
    "missing": lambda path: None,
    "folder": lambda path: path.mkdir(),
    "PostScript": lambda path: path.write_bytes(POSTSCRIPT),
    "cut": cut,
    "huge": lambda path: Image.new("1", DECLARED).save(path),
    "floats": lambda path: Image.new("F", (40, 40)).save(path, "TIFF"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_what_cannot_be_read_is_named(tmp_path, monkeypatch, how):
    """Without warnings, and without another program: Pillow would ask Ghostscript for PostScript."""
    monkeypatch.setattr("subprocess.check_call", lambda *_, **__: pytest.fail("started another program"))
    path = tmp_path / "photo.png"
    BROKEN[how](path)
    with pytest.raises(ValueError, match=r"photo\.png cannot be read as a picture: .") as error:
        read_picture(path)
    assert how != "huge" or "expected at most 64 million" in str(error.value)


def test_drawn_pictures_are_of_the_data_set_that_a_network_knows():
    for name in data.N_CLASSES:
        np.testing.assert_array_equal(drawn(name), drawn(name))
    assert (drawn("cifar10")[-1] == (70, 130, 180)).all()  # the sea
    assert (drawn("cifar100")[0, 0] == (34, 139, 34)).all()  # the sunflower's meadow
    images, labels = shapes.draw(100, seed=2)
    heart = images[labels == shapes.CLASSES.index("ringed heart")][0]
    np.testing.assert_array_equal(drawn("shapes10"), heart)


# --- A folder of pictures.


@pytest.fixture
def add(tmp_path):
    """Saves pictures of these grey levels as `pets/<place>`, no two alike but for `same`."""
    made = count()

    def add(*places, level=99, same=False):
        return [save(picture(level, 0 if same else next(made)), tmp_path / "pets" / p) for p in places]

    def picture(level, number):
        image = Image.new("L", (40, 40), level)
        for bit in range(8):  # squares that JPEG leaves as they are
            image.paste(level + 1 - 2 * (number >> bit & 1), (5 * bit, 30, 5 * bit + 5, 40))
        return image

    return add


def test_a_folder_becomes_a_training_and_a_test_set(add, tmp_path, capsys):
    add("train/dog/1.png", "train/cat/1.PNG", "train/cat/2024/may/2.jpg", "test/dog/1.webp", "test/cat/1.tif")
    add("test/dog/2.gif", level=7)
    train, test = data.from_folder(str(tmp_path / "pets"))
    assert train.classes == test.classes == ("cat", "dog")
    assert (train.labels.tolist(), test.labels.tolist()) == ([0, 0, 1], [0, 1, 1])
    assert (train.name, test.name) == ("pets train", "pets test")
    assert [image[0, 0, 0] for image in test.images] == [99, 99, 7]
    assert capsys.readouterr().out == "pets: 2 classes, 3 pictures in train, 3 pictures in test\n"


@pytest.mark.parametrize("end", sorted(set(EXTENSIONS) - {".avifs"}))
def test_every_format_of_the_list_is_read(add, tmp_path, end, capsys):
    add(*(f"train/{name}/1.png" for name in "ab"), *(f"test/{name}/1{end}" for name in "ab"))
    _, test = data.from_folder(tmp_path / "pets")
    assert len(test) == 2
    assert abs(test.images.astype(int) - 99).max() < 5
    assert "left out" not in capsys.readouterr().out


def test_what_is_left_out_is_counted_and_named(add, tmp_path, capsys):
    add(*(f"{part}/1.png" for part in ("train/cat", "train/dog", "test/cat", "test/dog", "extra/cat")))
    add("train/loose.png")
    cat = tmp_path / "pets/train/cat"
    for name in ("IMG_1.HEIC", "IMG_2.heic", ".DS_Store", "._1.png", "Thumbs.db", "README"):
        (cat / name).write_bytes(b"\0\0\0\x24ftypheic")
    (cat / "empty.png").touch()
    cut(cat / "cut.png")
    (tmp_path / "pets/train/__MACOSX/cat").mkdir(parents=True)
    if hasattr(os, "mkfifo"):
        os.mkfifo(cat / "pipe.png")  # whoever opens it waits for ever
        (cat / "loop").symlink_to(cat)
        (cat / "nowhere.png").symlink_to(cat / "nowhere.png")
        (tmp_path / "pets/train/dog/all").symlink_to(tmp_path / "pets", target_is_directory=True)
    train, _ = data.from_folder(tmp_path / "pets")
    said = capsys.readouterr().out
    listed = (
        "2 .heic in train/cat, 2 hidden in train/cat, 1 .db in train/cat, 1 without extension in train/cat, "
        "1 unreadable (train/cat/empty.png: cannot identify image file, "
        "1 unreadable (train/cat/cut.png: image file is truncated, 1 .png in train, 1 folder extra"
    )
    links = ", 1 link back in train/cat, 1 link back in train/dog, 2 .png in train/cat"  # a pipe, a link to itself
    for what in (listed + links * hasattr(os, "mkfifo")).split(", "):
        assert what in said.replace(os.sep, "/")
    assert said.count("\n") == 1
    assert train.labels.tolist().count(0) == 1


def test_a_link_to_a_folder_is_followed_once(add, tmp_path):
    add("train/cat/1.png", "test/cat/1.png", "test/dog/1.png")
    add("elsewhere/1.png", "elsewhere/2.png")
    real = tmp_path / "pets/elsewhere"
    try:
        (tmp_path / "pets/train/dog").symlink_to(real, target_is_directory=True)
    except OSError:
        pytest.skip("needs symbolic links")
    (real / "again").symlink_to(real, target_is_directory=True)
    train, _ = data.from_folder(tmp_path / "pets")
    assert train.labels.tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    ("layout", "said"),
    [
        (("train", "val"), "10 pictures in train, 4 pictures in val\n"),
        (("Training", "valid"), "10 pictures in Training, 4 pictures in valid\n"),
        (("train", "test", "validation"), "4 pictures in test; left out: 1 folder validation\n"),
        (("training_set", "test_set"), "10 pictures in training_set, 4 pictures in test_set\n"),
        (("train", "tests"), "10 pictures in train, 4 pictures in tests\n"),
        (("train",), "no test part, so 2 of 10 pictures are set aside for it\n"),
        ((".",), "10 pictures in pets\npets: no test part, so 2 of 10 pictures are set aside for it\n"),
    ],
)
def test_other_layouts_are_understood_and_said(add, tmp_path, capsys, layout, said):
    for level, (part, n) in enumerate(zip(layout, (5, 2, 1), strict=False)):
        for i in range(n):
            add(f"{part}/cat/{i}.png", f"{part}/dog/{i}.png", level=40 * level + i)
    train, test = data.from_folder(tmp_path / "pets")
    assert capsys.readouterr().out.endswith(said)
    assert (len(train), len(test)) == ((10, 4) if len(layout) > 1 else (8, 2))
    assert np.bincount(test.labels).tolist() == [len(test) // 2] * 2
    np.testing.assert_array_equal(test.images, data.from_folder(tmp_path / "pets")[1].images)


def test_a_test_part_without_labels_leaves_its_place_to_val(add, tmp_path, capsys):
    """As Kaggle hands out its data."""
    for i in range(5):
        add(f"train/cat/{i}.png", f"train/dog/{i}.png", f"test/{i}.png", level=i)
    add("val/cat/1.png", "val/dog/1.png", level=90)
    train, test = data.from_folder(tmp_path / "pets")
    assert (len(train), len(test)) == (10, 2)
    assert capsys.readouterr().out.endswith("2 pictures in val; left out: 1 folder test\n")
    add("test/unknown/1.png")  # as others ship test pictures, in a folder of no class
    data.from_folder(tmp_path / "pets")
    assert capsys.readouterr().out.endswith("2 pictures in val; left out: 1 folder test\n")


@pytest.mark.parametrize(
    ("places", "message"),
    [
        ([], "expected a folder of pictures, found none at .*pets"),
        (["train/1.png"], "expected a folder of pictures for each class in .*train, found no folders"),
        (["train/1.png", "test1/1.png"], "expected a folder of pictures for each class in .*train, found no folders"),
        (["pets/cat/1.png", "pets/dog/1.png"], "found one class, pets: is this one folder too high"),
        (["test/cat/1.png", "test/dog/1.png"], "expected a folder .*train, found only test"),
        (["train/a/1.png", "train/b/1.heic"], "expected pictures of every class .*, found none of b; left out: 1 .h"),
        (["train/a/1.png", "train/b/1.png", "test/c/1.png"], "expected the classes of train, found also c"),
        (["seg_train/a/1.png", "seg_test/a/1.png"], "parts in .* to be called train and test, found seg_test, seg_t"),
        (["traindata/a/1.png", "testdata/a/1.png"], "parts in .* to be called train and test, found testdata, traind"),
        (["trainA/a/1.png", "testA/a/1.png"], "parts in .* to be called train and test, found testA, trainA"),
        (["train/a/1.png", "train/b/1.png", "train/b/2.png"], "expected a folder .*test, or at least three pictures"),
    ],
)  # fmt: skip
def test_a_folder_that_does_not_fit_is_refused(add, tmp_path, places, message):
    for place in places:
        add(place.replace("heic", "png"))[0].rename(tmp_path / "pets" / place)
    with pytest.raises(ValueError, match=message):
        data.from_folder(tmp_path / "pets")


def test_a_file_that_the_system_left_does_not_make_classes_of_parts(add, tmp_path):
    add("seg_train/a/1.png", "seg_test/a/1.png")
    for name in (".DS_Store", "._1.png"):
        (tmp_path / "pets" / "seg_train" / name).write_text("")
    with pytest.raises(ValueError, match="parts in .* to be called train and test, found seg_test, seg_t"):
        data.from_folder(tmp_path / "pets")


@pytest.mark.parametrize("third", ["car", "valley", "tester"])
def test_train_may_be_a_class(add, tmp_path, monkeypatch, capsys, third):
    """CIFAR-100 has one; as a part, it would have folders of its own, or stand alone."""
    add(*(f"{name}/{i}.png" for name in ("bus", third, "train") for i in range(5)))
    monkeypatch.chdir(tmp_path / "pets")
    train, test = data.from_folder(".")
    assert train.classes == tuple(sorted(("bus", third, "train"))) and len(train) + len(test) == 15
    assert capsys.readouterr().out.startswith("pets: 3 classes, 15 pictures in pets\n")


def test_parts_inside_the_classes_are_not_trained_on_as_one(add, tmp_path):
    add(*(f"{name}/{part}/1.png" for name in ("cat", "dog") for part in ("Train", "test")))
    with pytest.raises(ValueError, match="cat: expected Train and test above the classes, found them in one"):
        data.from_folder(tmp_path / "pets")


@pytest.mark.parametrize("name", ["__other__", "__v1.0__"])
def test_a_folder_that_looks_hidden_is_said_to_be_left_out(add, tmp_path, capsys, name):
    add("train/cat/1.png", "train/dog/1.png", f"train/{name}/1.png", "test/cat/2.png", "test/dog/2.png")
    data.from_folder(tmp_path / "pets")
    assert f"left out: 1 {name} in train" in capsys.readouterr().out


def test_copies_among_the_training_pictures_are_counted(add, tmp_path, capsys):
    add("train/cat/1.png", "train/cat/1 (1).png", same=True)
    add("train/dog/2.png", "test/cat/3.png", "test/dog/3.png", level=7)
    data.from_folder(tmp_path / "pets")
    assert "pets: 1 of 3 training pictures are copies of others" in capsys.readouterr().out


@pytest.mark.parametrize("copies", [0, 2])
def test_test_pictures_that_are_training_pictures_are_counted(add, tmp_path, copies, capsys):
    add("train/cat/1.png", "train/dog/1.png", same=copies > 0)
    add("test/cat/1.png", "test/dog/1.png", same=copies > 0)
    data.from_folder(tmp_path / "pets")
    said = capsys.readouterr().out
    assert ("pets: 2 of 2 test pictures are training pictures, too" in said) == (copies > 0)


@pytest.mark.parametrize(
    ("one", "other"),
    [("train/Ka\u0308fer/1.png", "train/K\u00e4fer/1.png"), ("train/b/1.png", "Train/b/1.png")],
)
def test_two_folders_of_one_name_are_refused(add, tmp_path, one, other):
    add("train/a/1.png", one, other)
    if len(list((tmp_path / "pets").rglob("1.png"))) < 3:
        pytest.skip("one folder in this file system")
    with pytest.raises(ValueError, match="are one name here: merge the two"):
        data.from_folder(tmp_path / "pets")


def test_letters_of_both_sizes_are_classes(add, tmp_path):
    add(*(f"{name}/{i}.png" for name in "aA" for i in range(5)))
    if len(list((tmp_path / "pets").iterdir())) < 2:
        pytest.skip("one folder in this file system")
    assert data.from_folder(tmp_path / "pets")[0].classes == ("A", "a")


@pytest.mark.parametrize("test_part", [True, False])
def test_a_class_without_a_test_picture_is_named_in_one_warning(add, tmp_path, test_part):
    add(*(f"train/cat/{i}.png" for i in range(5)), "train/$5/1.png")
    if test_part:
        add("test/cat/1.png")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        _, test = data.from_folder(tmp_path / "pets")
    assert [str(one.message) for one in caught] == ["pets: no test picture of $5"]
    assert (test.classes, test.labels.tolist()) == (("$5", "cat"), [1])


def test_a_class_has_one_name_however_its_accent_is_spelt(add, tmp_path):
    add("train/K\u00e4fer/1.png", "train/cat/1.png", "test/Ka\u0308fer/1.png", "test/cat/1.png")
    train, test = data.from_folder(tmp_path / "pets")
    assert train.classes == test.classes == ("K\u00e4fer", "cat")
    assert test.labels.tolist() == [0, 1]


def test_a_tilde_is_the_home(add, tmp_path, monkeypatch):
    monkeypatch.setenv("USERPROFILE" if sys.platform == "win32" else "HOME", str(tmp_path))
    add("train/a/1.png", "train/b/1.png", "test/a/1.png", "test/b/1.png")
    assert len(data.from_folder("~/pets")[0]) == 2
    assert read_picture("~/pets/train/a/1.png")[0, 0, 0] == 99


def test_a_locked_folder_beside_the_parts_is_left_out(add, tmp_path, monkeypatch, capsys):
    add(*(f"{part}/{name}/1.png" for part in ("train", "test") for name in ("cat", "dog")))
    (tmp_path / "pets/lost+found").mkdir()
    read = Path.iterdir

    def locked(folder):
        if folder.name == "lost+found":  # as on a disk's root
            raise PermissionError(13, "Permission denied")
        return read(folder)

    monkeypatch.setattr(Path, "iterdir", locked)
    data.from_folder(tmp_path / "pets")
    assert "left out: 1 folder lost+found" in capsys.readouterr().out
