"""The way to CIFAR: whatever a server, a disk or a file does, the end is verified data or one clear error."""

import dataclasses
import functools
import io
import os
import pickle
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import cifar_server
import numpy as np
import pytest
from cifar_server import FaultyServer, small_cifar

from course_utils import data
from course_utils.datasets import cifar, download

SMALL = small_cifar()
NAME, FOLDER = "cifar-10-python.tar.gz", "cifar-10-batches-py"
PART, HALF = f"{NAME}.part", len(SMALL.archive) // 2


@pytest.fixture(autouse=True)
def loopback_only(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.delenv("COURSE_CIFAR_URL", raising=False)


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    with FaultyServer(SMALL.archive) as server:
        yield server


@pytest.fixture
def get(monkeypatch, tmp_path):
    """Fetch the small CIFAR-10 from these mirrors. The limits are generous: this machine may be busy."""

    def get(*mirrors, small=SMALL, root=tmp_path, timeout=20.0, min_rate=1000.0) -> cifar.Arrays:
        small.install(*mirrors, patch=monkeypatch.setattr)
        monkeypatch.setattr(download, "TIMEOUT", timeout)
        monkeypatch.setattr(cifar, "MIN_RATE", min_rate)
        return cifar.load_arrays("cifar10", root)

    return get


def assert_verified(arrays: cifar.Arrays, expected: cifar.Arrays = SMALL.arrays) -> None:
    assert arrays.keys() == expected.keys()
    for key in expected:
        np.testing.assert_array_equal(arrays[key], expected[key])


def files(folder: Path) -> list[str]:
    """What is in the folder, but for the empty file by which processes wait for each other: it stays."""
    lock = folder / ".cifar10.lock"
    return sorted(file.name for file in folder.iterdir() if file != lock or file.stat().st_size)


# --- On this computer.


def test_it_is_fetched_once_and_then_read(get, server, tmp_path, capsys):
    assert_verified(get(server.url("good")))
    assert capsys.readouterr().out.splitlines() == [
        "cifar10: fetching it, or waiting for another process that does",
        f"{NAME}: asking 127.0.0.1:{server.server_port}",
        f"cifar10: from 127.0.0.1:{server.server_port}, kept as cifar10.npz",
    ]
    assert files(tmp_path) == ["cifar10.npz"]
    assert_verified(get(server.url("good")))
    assert capsys.readouterr().out == "cifar10: from cifar10.npz\n"
    assert len(server.requests) == 1


def unpack(folder: Path) -> None:
    with io.BytesIO(SMALL.archive) as file, cifar_server.tarfile.open(fileobj=file) as tar:
        tar.extractall(folder, **({"filter": "data"} if hasattr(tar, "extraction_filter") else {}))


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """This process cannot write to the folder, even if it is run by root."""
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    temporary = Path(tempfile.gettempdir()).resolve()
    folders = [one for one in (folder, *folder.parents) if temporary in one.parents]
    for one in folders:
        one.chmod(0o555)
    try:
        os.seteuid(65534) if root else None  # nobody
        yield
    finally:
        os.seteuid(0) if root else None
        for one in folders:
            one.chmod(0o755)


needs_permissions = pytest.mark.skipif(sys.platform == "win32", reason="permissions are others there")


@needs_permissions
@pytest.mark.parametrize("writable", [True, False])
@pytest.mark.parametrize("left", [FOLDER, NAME, "cifar10.npz"])
def test_what_is_there_is_used_even_where_nothing_can_be_written(get, tmp_path, capsys, left, writable):
    if left == FOLDER:
        unpack(tmp_path)
    elif left == NAME:
        (tmp_path / NAME).write_bytes(SMALL.archive)
    else:
        np.savez(tmp_path / left, **SMALL.arrays)
    if writable:
        assert_verified(get())
        assert files(tmp_path) == sorted({left, "cifar10.npz"})
    else:
        with read_only(tmp_path):
            assert_verified(get())
        assert os.listdir(tmp_path) == [left], "not even a lock"
    assert capsys.readouterr().out == f"cifar10: from {left}\n"


@pytest.mark.parametrize(
    ("left", "reason"),
    [
        (f"{FOLDER}/data_batch_1", f"{FOLDER}: torchvision says: Dataset not found or corrupted"),
        (NAME, f"{NAME}: wrong bytes: MD5 "),
        (f"{NAME}/a_folder", f"{NAME}: not there, or not to be read"),
    ],
)
def test_what_is_damaged_is_left_in_place_for_the_next_source(get, tmp_path, monkeypatch, left, reason):
    """Nor is it unpickled: what is in the file would make another."""
    monkeypatch.chdir(tmp_path)
    unpack(tmp_path)
    shutil.rmtree(tmp_path / FOLDER) if left.startswith(NAME) else None
    (tmp_path / left).parent.mkdir(exist_ok=True)
    (tmp_path / left).write_bytes(harm := b"cos\nsystem\n(S'touch evil'\ntR.")
    with pytest.raises(cifar.FetchError, match=reason):
        get("http://127.0.0.1:1/x")
    assert (tmp_path / left).read_bytes() == harm
    assert not (tmp_path / "evil").exists()


# --- Servers with faults. What it takes to see that one is too slow are a second, and a rate that it has not.

FAULTS = {
    "unavailable": "answered 503",
    "wrong": "wrong bytes: MD5 ",
    "short": "offers 1000 bytes, expected ",
    "truncated": f"closed the connection after {HALF:,} of ",
    "reset": "the connection broke: ",
    "stalled": "the connection broke: timed out",
    "silent": "no connection: ",
    "trickling": "no connection: no header came within 1 s",
    "continuing": "no connection: ",
    "garbage": "no connection: ",
    "slow": "too slow: ",
    "endless": "offers None bytes, expected ",
    "page": "answered with a web page",
    "unasked": "answered with the part bytes 5-",
    "circle": "answered with one redirect after another",
    "local": "leads to file:///etc/hostname: expected an address that begins with https://",
    "ftp": "leads to ftp://127.0.0.1",
    "malformed": "no connection: Invalid IPv6",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_server_is_given_up_for_the_next(get, server, tmp_path, capsys, fault):
    impatient = fault in ("stalled", "silent", "trickling", "continuing", "slow")
    limits = {"timeout": 1.0, "min_rate": 1e6} if impatient else {}
    assert_verified(get(server.url(fault), server.url("good"), **limits))
    assert f"cifar10: 127.0.0.1:{server.server_port}: {FAULTS[fault]}" in capsys.readouterr().out
    assert files(tmp_path) == ["cifar10.npz"]


def test_an_address_that_leads_nowhere_is_given_up_for_the_next(get, server):
    nowhere = "no address", "file:///etc/hostname", "http://127.0.0.1:1/x", "http://[::1/x"
    assert_verified(get(*nowhere, server.url("good")))


def test_a_server_that_never_accepts_is_given_up_for_the_next(get, server):
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        assert_verified(get(f"http://127.0.0.1:{full.getsockname()[1]}/x", server.url("good"), timeout=1.0))
        for one in waiting:
            one.close()


def test_a_redirect_is_followed_whatever_comes_with_it(get, server):
    assert_verified(get(server.url("redirected")))


def test_the_last_mirror_may_be_slow_but_not_the_others(get, server, capsys):
    """The same server, too slow by half: given up where there is another, endured where not."""
    limit = {"timeout": 0.7, "min_rate": 2 * len(SMALL.archive)}
    with pytest.raises(cifar.FetchError, match="too slow"):
        get(server.url("slowish"), server.url("unavailable"), **limit)
    assert_verified(get(server.url("slowish"), **limit))


def test_the_schools_mirror_is_asked_first(get, server, monkeypatch):
    monkeypatch.setenv("COURSE_CIFAR_URL", server.url("good,ranges").rpartition("/")[0] + "/")
    assert_verified(get(server.url("good")))
    assert [fault for fault, _ in server.requests] == ["good,ranges"]


def test_where_nothing_helps_one_error_says_what_to_do(get, server, tmp_path):
    with pytest.raises(cifar.FetchError) as error:
        get(server.url("unavailable"), server.url("truncated"))
    said = ["\n  cifar10.npz: not there\n", f"{FOLDER}: not there\n", "answered 503", "closed the connection"]
    said += [f"going on from the 0 MB in {PART}", "COURSE_CIFAR_URL", str(tmp_path), server.url("truncated")]
    assert [text for text in said if text not in str(error.value)] == []


# --- Interrupted downloads.


@pytest.mark.parametrize("fault", ["truncated", "reset"])
@pytest.mark.parametrize("ranges", ["", ",ranges"])
def test_a_broken_download_goes_on_where_the_server_allows_it(get, server, fault, ranges):
    assert_verified(get(server.url(f"{fault},once{ranges}")))
    assert [asked for _, asked in server.requests] == [None, f"bytes={HALF}-"]


def test_what_a_stalled_mirror_sent_is_continued_by_the_next_or_the_next_time(get, server, tmp_path):
    with pytest.raises(cifar.FetchError):
        get(server.url("stalled,ranges"), timeout=0.5)
    assert 0 < (have := (tmp_path / PART).stat().st_size) < len(SMALL.archive)
    assert_verified(get(server.url("elsewhere"), server.url("good,ranges")))
    assert server.requests[2:] == [("elsewhere", f"bytes={have}-"), ("good,ranges", f"bytes={have}-")]
    assert files(tmp_path) == ["cifar10.npz"]


def test_a_mirror_that_begins_anew_loses_nothing_that_came_before(get, server, tmp_path):
    (tmp_path / PART).write_bytes(arrived := SMALL.archive[: int(0.95 * len(SMALL.archive))])
    with pytest.raises(cifar.FetchError):
        get(server.url("stalled"), timeout=0.5)
    assert (tmp_path / PART).read_bytes() == arrived
    assert_verified(get(server.url("good")))


@pytest.mark.parametrize("fault", ["good,ranges", "good", "lies"])
@pytest.mark.parametrize("left", [b"other bytes", bytes(len(SMALL.archive) + 1)])
def test_a_wrong_beginning_is_thrown_away(get, server, tmp_path, fault, left):
    (tmp_path / PART).write_bytes(left)
    assert_verified(get(server.url(fault)))
    assert files(tmp_path) == ["cifar10.npz"]


# --- Processes: killed, and two at once.


@contextmanager
def process(tmp_path: Path, mirror: str, stage: str = "") -> Iterator[subprocess.Popen]:
    job = tmp_path / f"job-{time.monotonic_ns()}"
    job.write_bytes(pickle.dumps((SMALL, mirror, tmp_path / "root", stage, 20.0, 1000.0)))
    command = [sys.executable, "-W", "error", cifar_server.__file__, str(job)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        try:
            yield child
        finally:
            child.kill()


@pytest.mark.parametrize("stage", ["download", "save"])
def test_a_killed_process_leaves_nothing_under_the_final_name(get, server, tmp_path, stage):
    root, fault = tmp_path / "root", "stalled,once,ranges" if stage == "download" else "good,ranges"
    with process(tmp_path, server.url(fault), stage) as child:
        while stage == "download" and sum(file.stat().st_size for file in root.glob(PART)) < HALF / 2:
            assert child.poll() is None, child.stderr.read()
            time.sleep(0.02)
        assert stage == "download" or "stopped\n" in iter(child.stdout.readline, ""), child.stderr.read()
    assert not (root / "cifar10.npz").exists()
    asked, have = len(server.requests), (root / PART).stat().st_size
    assert_verified(get(server.url(fault), root=root))
    assert files(root) == ["cifar10.npz"]
    again = [(fault, f"bytes={have}-")] if stage == "download" else []
    assert server.requests[asked:] == again, "what had come is not fetched again"


def test_one_process_waits_for_another_and_takes_over_when_that_is_killed(get, server, tmp_path):
    with process(tmp_path, server.url("stalled,once,ranges")) as one:
        while not server.requests:
            assert one.poll() is None, one.stderr.read()
            time.sleep(0.02)
        with process(tmp_path, server.url("good,ranges")) as two:
            assert "waiting for another process" in two.stdout.readline()
            time.sleep(0.5)
            assert len(server.requests) == 1
            one.kill()
            out, error = two.communicate(timeout=60)
    assert (error, out.splitlines()[-1][-19:]) == ("", "kept as cifar10.npz")
    assert [fault for fault, _ in server.requests] == ["stalled,once,ranges", "good,ranges"]
    assert_verified(get(root=tmp_path / "root"))


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a terminal to test with")
def test_a_terminal_gets_a_bar_with_bytes_rate_and_time(get, server, monkeypatch):
    import termios

    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (24, 100))
    with os.fdopen(theirs, "w") as terminal, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", terminal)
        shown_anyway = functools.partial(download.tqdm, disable=False)  # TQDM_DISABLE is set for the kernels
        patch.setattr(download, "tqdm", shown_anyway)
        get(server.url("slowish"))
    shown = b""
    with suppress(OSError):  # Linux says so when the other end is closed
        while piece := os.read(ours, 10_000):
            shown += piece
    os.close(ours)
    assert re.search(rf"/{len(SMALL.archive) / 1000:.0f}k \[\d\d:\d\d<\d\d:\d\d,".encode(), shown)
    assert b"kB/s]" in shown


# --- Disks.


def test_too_little_space_is_said_before_the_download(get, server, monkeypatch, tmp_path):
    usage = shutil.disk_usage(tmp_path)._replace(free=100_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(
        cifar.FetchError, match=r"cannot be stored in .* needed, 0 MB are free\. Make room, or"
    ):
        get(server.url("good"))
    assert server.requests == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's full device")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # NumPy 2.1 leaves a zip open
@pytest.mark.parametrize("name", [PART, "cifar10.npz.part"])
def test_a_disk_that_fills_up_is_one_clear_error(get, server, tmp_path, name):
    (tmp_path / name).symlink_to("/dev/full")
    with pytest.raises(cifar.FetchError, match=r"cannot be stored in .*No space left.* set COURSE_DATA"):
        get(server.url("good"))


@needs_permissions
def test_a_place_that_cannot_be_written_to_is_one_clear_error(get, server, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(cifar.FetchError, match="cannot be stored in"):
        get(server.url("good"), root=tmp_path / "file")
    with read_only(tmp_path), pytest.raises(cifar.FetchError, match=r"Permission denied.* set COURSE_DATA"):
        get(server.url("good"))
    assert server.requests == []


# --- Only CIFAR is CIFAR.


def test_another_data_set_with_the_right_md5_is_not_kept(get, server, tmp_path, monkeypatch):
    get(server.url("good"))
    (tmp_path / "cifar10.npz").unlink()
    other = dataclasses.replace(SMALL, arrays=SMALL.arrays | {"y_test": SMALL.arrays["y_test"][::-1]})
    with pytest.raises(cifar.FetchError, match="the SHA-256 of its test images and labels is "):
        get(server.url("good"), small=other)
    assert files(tmp_path) == []


def test_the_fingerprint_knows_the_pairs_and_not_their_order():
    images, labels = SMALL.arrays["x_train"], SMALL.arrays["y_train"]
    whole = cifar.fingerprint(images, labels)
    order = np.random.default_rng(1).permutation(40)
    assert cifar.fingerprint(images[order], labels[order]) == whole
    assert cifar.fingerprint(images[order], labels) != whole
    twice = np.array([0, 0, *range(2, 40)]), np.array([1, 1, *range(2, 40)])
    assert len({whole, *(cifar.fingerprint(images[one], labels[one]) for one in twice)}) == 3


def changed(key: str, change) -> dict:
    return SMALL.arrays | {key: change(SMALL.arrays[key])}


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        (changed("x_test", lambda x: x ^ (np.arange(x.size) == 5000).reshape(x.shape)), "SHA-256 of its test"),
        (changed("y_train", lambda y: y[[1, 0, *range(2, 40)]]), "SHA-256 of its train"),
        (changed("x_train", lambda x: x[:-1]), r"x_train is uint8 \(39, 32, 32, 3\), expected .*\(40, 32, 32, 3\)"),
        (changed("x_test", lambda x: x / np.float32(255)), "x_test is float32 "),
        (changed("y_test", lambda y: y[:, None]), r"y_test is uint8 \(10, 1\), expected "),
        (changed("y_test", lambda y: y.astype(object)), "y_test is object "),
        ({key: SMALL.arrays[key] for key in ("x_train", "y_train", "x_test")}, "no item named 'y_test.npy'"),
    ],
)  # fmt: skip
def test_an_npz_with_other_contents_is_refused_and_left(get, tmp_path, arrays, reason):
    path = tmp_path / "cifar10.npz"
    np.savez(path, **arrays)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=rf"cifar10\.npz is not .*: .*{reason}.*course_utils fetch cifar10"):
        get("http://127.0.0.1:1/x")
    assert (path.read_bytes(), files(tmp_path)) == (before, ["cifar10.npz"])


def test_labels_of_any_integer_type_are_the_same(get, tmp_path):
    np.savez_compressed(tmp_path / "cifar10.npz", **changed("y_train", lambda y: y.astype(np.int64)))
    assert_verified(get())


@pytest.mark.parametrize("declared", [(40_000_000, 32, 32, 3), (40, 32, 32, 3)])
def test_an_npz_that_is_larger_than_it_should_be_is_not_unpacked(get, tmp_path, declared):
    """By its header, or by zeros behind what the header says: 200 MB in a file of 0.2 MB."""
    import tracemalloc

    with zipfile.ZipFile(tmp_path / "cifar10.npz", "w", zipfile.ZIP_DEFLATED) as npz:
        for key, array in SMALL.arrays.items():
            with npz.open(f"{key}.npy", "w", force_zip64=True) as member:
                shape = declared if key == "x_train" else array.shape
                header = {"descr": array.dtype.str, "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(member, header)
                member.write(bytes(200_000_000) if key == "x_train" else array.tobytes())
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"cifar10\.npz is not the cifar10"):
        get()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6


def test_wherever_the_npz_is_damaged_it_is_one_error_or_the_true_arrays(get, tmp_path):
    """A bit is flipped at each place where the file says what is where: errors of every kind come of it."""
    path = tmp_path / "cifar10.npz"
    np.savez(path, **SMALL.arrays)
    whole, refused = path.read_bytes(), 0
    directory = whole.index(b"PK\x01\x02")
    for place in [*range(0, 180), *range(directory, len(whole))]:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ (1 << place % 8)]) + whole[place + 1 :])
        try:
            assert_verified(get())
        except ValueError as error:
            assert ": ." not in str(error), f"byte {place}: no reason"
            refused += 1
    assert refused > 150
    path.write_bytes(whole[:70_000])
    with pytest.raises(ValueError, match="not a zip file"):
        get()


def test_a_machine_short_of_memory_does_not_make_the_file_damaged(get, tmp_path, monkeypatch):
    def short(*_, **__):
        raise MemoryError("none left")

    np.savez(tmp_path / "cifar10.npz", **SMALL.arrays)
    monkeypatch.setattr(np.lib.format, "read_array", short)
    with pytest.raises(MemoryError, match="none left"):
        get()


# --- By name.


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_comes_as_two_image_sets(monkeypatch, tmp_path, name):
    small = small_cifar(name)
    with FaultyServer(small.archive) as server:
        small.install(server.url("good"), patch=monkeypatch.setattr)
        monkeypatch.setenv("COURSE_DATA", str(tmp_path / "kept"))
        cifar.fetch([name])
    train, test = data.load(name)
    assert (train.name, test.name, train.classes) == (f"{name} train", f"{name} test", cifar.CLASSES[name])
    assert len(set(train.classes)) == {"cifar10": 10, "cifar100": 100}[name]
    np.testing.assert_array_equal(train.images, small.arrays["x_train"])
    np.testing.assert_array_equal(test.labels, small.arrays["y_test"])
    assert cifar.fingerprint(test.images, test.labels) == cifar.SOURCES[name].fingerprints["test"]


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match="data set 'cifar', expected one of cifar10, cifar100, shapes10"):
        data.load("cifar")
    with pytest.raises(ValueError, match="nothing to fetch for 'shapes10', expected one of cifar10, cifar"):
        cifar.fetch(["cifar10", "shapes10"])


def test_the_data_folder_and_a_tilde(get, monkeypatch, tmp_path):
    monkeypatch.delenv("COURSE_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    assert cifar.data_folder() == cifar.CHECKOUT / "data"  # the notebooks' own folder has no data folder
    assert (cifar.CHECKOUT / "pyproject.toml").exists()
    (tmp_path / "data").mkdir()
    assert str(cifar.data_folder()) == "data"
    monkeypatch.setenv("COURSE_DATA", "mine")  # one folder, wherever the command and the notebooks run
    assert cifar.data_folder() == cifar.CHECKOUT / "mine"
    monkeypatch.setenv("COURSE_DATA", "~/mine")
    monkeypatch.setenv("USERPROFILE" if sys.platform == "win32" else "HOME", str(tmp_path))
    assert cifar.data_folder() == tmp_path / "mine"
    np.savez(tmp_path / "cifar10.npz", **SMALL.arrays)
    assert_verified(get(root="~"))
    assert files(tmp_path) == ["cifar10.npz", "data"], "and no folder of that name"


@pytest.mark.parametrize(("name", "n_classes"), [("cifar10", 10), ("cifar100", 100)])
def test_the_real_cifar_is_verified(name, n_classes):
    if not (cifar.data_folder() / f"{name}.npz").exists():
        pytest.skip(f"no {name}.npz in the data folder")
    train, test = data.load(name)
    assert (len(train), len(test)) == (50_000, 10_000)
    assert set(np.bincount(train.labels)) == {50_000 // n_classes}
    mean, std = data.channel_stats(train)
    np.testing.assert_allclose((mean, std), cifar.STATS[name], atol=6e-5)
