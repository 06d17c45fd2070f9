"""A folder of pictures as arrays: which pictures it has, in which classes, to train and to test."""

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from course_utils.datasets.pictures import EXTENSIONS, SIZE, read_picture

TRAIN = ("train", "training", "train_set", "training_set")
TEST = ("test", "tests", "testing", "test_set", "testing_set")
VALIDATION = ("val", "valid", "validation", "val_set", "validation_set")
PARTS = TRAIN + TEST + VALIDATION
# In the name of a folder that is no class; "valley" and "tester" are classes.
PART = re.compile(r"(?<![a-z])(train|test|val)(ing|s|id|idation)?(set|data|images|pictures|[ab])?(?![a-z])")

Part = tuple[np.ndarray, np.ndarray]  # images uint8 (n, 32, 32, 3), labels int64 (n,)


def read(root: Path) -> tuple[tuple[str, ...], Part, Part | None]:
    """The classes of `root/train/<class>/…`, by name, the pictures there, and those of `root/test/<class>/…` if any.

    Folders inside a class belong to it. Without `train`, or if it has no folders and there are others that are no
    parts, the folders of `root` itself are the classes. `val` stands in for a `test` that is missing or has no classes,
    and is left out otherwise: the lessons set a validation part of their own aside. Prints what is read, and what is
    left out: other formats and folders, hidden files, files that cannot be read.

    Raises ValueError if there are fewer than two classes, a class has no pictures, `test` has a class of its own, or
    two folders would have one name.
    """
    root = Path(os.path.abspath(root))  # which has a name, even if given as "."
    if not root.is_dir():
        raise ValueError(f"expected a folder of pictures, found none at {root}")
    folders = _by_name(root, lambda name: name.lower() if name.lower() in PARTS else name)
    named = [[folders[n] for n in names if n in folders] for names in (TRAIN, TEST, VALIDATION)]
    train, test, val = (next(iter(found), None) for found in named)
    hints = {found[1] for n in folders if (found := PART.search(n.lower()))}
    if train and len(folders) > 1 and hints == {"train"} and not _folders(train):
        train = None  # one of several classes, as in CIFAR-100
    if not train and (test or val):
        raise ValueError(f"expected a folder {root / 'train'}, found only {', '.join(sorted(folders))}")
    inside = (entry for folder in folders.values() for entry in folder.iterdir() if entry.name[0] != ".")
    if not train and len(hints) > 1 and not any(entry.suffix.lower() in EXTENSIONS for entry in inside):
        found = f"found {', '.join(sorted(folders))}"
        raise ValueError(f"expected the parts in {root} to be called train and test, {found}")
    parts = [part for part in (test, val) if part and _folders(part)] or [test or val]
    # The first with classes, and rather with those of train: others call all of their test pictures "unknown".
    tested = next((one for one in parts if one and {*_classes(one)} <= {*_classes(train)}), parts[0])
    used = [folder for folder in (train or root, tested) if folder]
    left_out = Counter(f"folder {f.name}" for f in folders.values() if train and f not in used)
    classes = _check_classes(*used)
    parts = [_read_part(folder, classes, root, left_out) for folder in used]
    told = [f"{len(labels)} pictures in {one.name}" for one, (_, labels) in zip(used, parts, strict=True)]
    said = [f"{n} {what}" for what, n in left_out.most_common(20)] + ["and others"] * (len(left_out) > 20)
    said = f"; left out: {', '.join(said)}" if said else ""
    print(f"{root.name}: {len(classes)} classes, {', '.join(told)}{said}")
    if missing := [classes[label] for label in range(len(classes)) if label not in parts[0][1]]:
        found = f"none of {', '.join(missing)}{said}"
        raise ValueError(f"expected pictures of every class in {used[0]}, found {found}")
    return classes, parts[0], parts[1] if len(parts) > 1 and len(parts[1][1]) else None


def _folders(folder: Path) -> list[Path]:
    """The folders that somebody made on purpose: not .cache, __MACOSX, __pycache__."""
    return sorted(one for one in folder.iterdir() if one.is_dir() and not one.name.startswith((".", "__")))


def _classes(part: Path) -> dict[str, Path]:
    """Folders by class name. Systems spell é as one character or as two; here it is one."""
    return _by_name(part, lambda name: unicodedata.normalize("NFC", name))


def _by_name(folder: Path, spelt: Callable[[str], str]) -> dict[str, Path]:
    found = {}
    for one in _folders(folder):
        if (other := found.setdefault(spelt(one.name), one)) != one:
            raise ValueError(f"{folder}: {other.name!r} and {one.name!r} are one name here: merge the two")
    return found


def _check_classes(train: Path, test: Path | None = None) -> tuple[str, ...]:
    classes = tuple(sorted(_classes(train)))
    if len(classes) < 2:
        found = f"one class, {classes[0]}: is this one folder too high?" if classes else "no folders"
        raise ValueError(f"expected a folder of pictures for each class in {train}, found {found}")
    if test and (unknown := _classes(test).keys() - set(classes)):
        raise ValueError(f"{test}: expected the classes of train, found also {', '.join(sorted(unknown))}")
    return classes


def _read_part(part: Path, classes: tuple[str, ...], root: Path, left_out: Counter[str]) -> Part:
    images, labels, folders = [], [], _classes(part)
    rest = (e for e in part.iterdir() if e not in folders.values())
    left_out.update(f"{(not e.is_dir() and e.suffix) or e.name} in {part.name}" for e in rest)
    for label, name in enumerate(classes):
        seen = {root.resolve(), part.resolve()}
        found = list(_pictures(folders[name], root, seen, left_out)) if name in folders else []
        images += found
        labels += [label] * len(found)
    return np.array(images, np.uint8).reshape(-1, SIZE, SIZE, 3), np.array(labels, dtype=np.int64)


def _pictures(folder: Path, root: Path, seen: set[Path], left_out: Counter[str]) -> Iterator[np.ndarray]:
    """The pictures in a folder and those below. `seen` are the folders before it, to which a link may lead back."""
    where = folder.relative_to(root)
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        left_out[f"folder {where} ({error.strerror})"] += 1
        return
    seen.add(folder.resolve())
    if len(parts := [entry.name for entry in entries if entry.is_dir() and entry.name.lower() in PARTS]) > 1:
        raise ValueError(f"{folder}: expected {' and '.join(parts)} above the classes, found them in one")
    for entry in entries:
        end = entry.suffix.lower()
        if entry.name.startswith((".", "__")):
            left_out[f"hidden in {where}"] += 1
        elif entry.is_dir() and entry.resolve() in seen:
            left_out[f"link back in {where}"] += 1
        elif entry.is_dir():
            yield from _pictures(entry, root, seen, left_out)
        elif end not in EXTENSIONS or not entry.is_file():
            left_out[f"{end or 'without extension'} in {where}"] += 1
        else:
            try:
                yield read_picture(entry)
            except ValueError as error:
                reason = str(error).partition("as a picture: ")[2].partition(" '")[0]  # without the path
                left_out[f"unreadable ({where / entry.name}: {reason})"] += 1


def tell_copies(name: str, train: np.ndarray, test: np.ndarray) -> None:
    """Print how many images of `train` repeat another, and how many of `test` are among them, to the last pixel."""
    known = {image.tobytes() for image in train}
    if n := len(train) - len(known):
        print(f"{name}: {n} of {len(train)} training pictures are copies of others: delete the copies")
    if n := sum(image.tobytes() in known for image in test):
        print(f"{name}: {n} of {len(test)} test pictures are training pictures, too: delete the copies")
