"""The ladder to CIFAR: whatever a server, a disk or an archive does, the end is verified data or one clear error."""

import dataclasses
import errno
import os
import pickle
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import cifar_server
import numpy as np
import pytest
from cifar_server import FaultyServer, small_cifar

from course_utils.datasets import cifar as fetch

SOURCE, ARCHIVE, ARRAYS = small_cifar()
PART = f"{SOURCE.archive}.part"


@pytest.fixture(autouse=True)
def loopback_only(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    with FaultyServer(ARCHIVE) as server:
        yield server


@pytest.fixture
def get(monkeypatch, tmp_path):
    """Fetch the small CIFAR-10 from these mirrors. The limits are generous: this machine may be busy."""

    def get(*mirrors: str, source: fetch.Source = SOURCE, root: Path = tmp_path, **options) -> fetch.Arrays:
        monkeypatch.setitem(fetch.SOURCES, "cifar10", dataclasses.replace(source, mirrors=mirrors))
        return fetch.load_arrays("cifar10", root, **({"timeout": 20.0} | options))

    return get


def assert_verified(arrays: fetch.Arrays) -> None:
    assert arrays.keys() == ARRAYS.keys()
    for key, expected in ARRAYS.items():
        np.testing.assert_array_equal(arrays[key], expected)


def files(folder: Path) -> list[str]:
    """What is in the folder, but for the empty file by which processes wait for each other: it stays."""
    lock = folder / ".cifar10.lock"
    return sorted(file.name for file in folder.iterdir() if file != lock or file.stat().st_size)


# --- The ladder, when all is well.


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_the_table_agrees_with_torchvision(name):
    from torchvision import datasets

    theirs, ours = getattr(datasets, name.upper()), fetch.SOURCES[name]
    assert (ours.archive, ours.md5, ours.folder) == (theirs.filename, theirs.tgz_md5, theirs.base_folder)
    assert list(ours.train.items()) == [tuple(row) for row in theirs.train_list]
    assert list(ours.test.items()) == [tuple(row) for row in theirs.test_list]
    assert ours.meta == {theirs.meta["filename"]: theirs.meta["md5"]}
    assert ours.class_key.decode() == theirs.meta["key"]
    assert ours.mirrors[-1] == theirs.url


def test_it_is_fetched_once_and_then_read(get, server, tmp_path, capsys):
    assert_verified(get(server.url("good")))
    assert capsys.readouterr().out.splitlines()[-1] == (
        f"cifar10: from 127.0.0.1:{server.server_port}, kept as cifar10.npz"
    )
    assert files(tmp_path) == ["cifar10.npz"]
    assert_verified(get(server.url("good")))
    assert capsys.readouterr().out == "cifar10: from cifar10.npz\n"
    assert len(server.requests) == 1


def test_cifar100_has_its_own_names(monkeypatch, tmp_path):
    source, archive, arrays = small_cifar("cifar100")
    with FaultyServer(archive) as server:
        monkeypatch.setitem(
            fetch.SOURCES, "cifar100", dataclasses.replace(source, mirrors=(server.url("good"),))
        )
        found = fetch.load_arrays("cifar100", tmp_path)
    for key in fetch.KEYS:
        np.testing.assert_array_equal(found[key], arrays[key])


@pytest.mark.filterwarnings("ignore:dtype.*align")  # torchvision's unpickling, with some versions of NumPy
def test_a_torchvision_folder_is_read_as_torchvision_reads_it(get, monkeypatch, tmp_path, capsys):
    from torchvision.datasets import CIFAR10

    (tmp_path / SOURCE.archive).write_bytes(ARCHIVE)
    with tarfile.open(tmp_path / SOURCE.archive) as tar:
        tar.extractall(tmp_path, filter="data")
    (tmp_path / SOURCE.archive).unlink()
    monkeypatch.setattr(CIFAR10, "train_list", list(SOURCE.train.items()))
    monkeypatch.setattr(CIFAR10, "test_list", list(SOURCE.test.items()))
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": SOURCE.meta["batches.meta"]})
    arrays = get()
    assert "cifar10: from cifar-10-batches-py/, kept as cifar10.npz\n" in capsys.readouterr().out
    for split in ("train", "test"):
        theirs = CIFAR10(tmp_path, train=split == "train")
        np.testing.assert_array_equal(arrays[f"x_{split}"], theirs.data)
        np.testing.assert_array_equal(arrays[f"y_{split}"], theirs.targets)
        assert arrays["classes"].tolist() == theirs.classes


def test_an_archive_from_the_browser_is_used_and_kept(get, tmp_path):
    (tmp_path / SOURCE.archive).write_bytes(ARCHIVE)
    assert_verified(get())
    assert files(tmp_path) == [SOURCE.archive, "cifar10.npz"]


def test_an_archive_that_cannot_be_read_is_left_for_the_next_rung(get, server, tmp_path, capsys):
    (tmp_path / SOURCE.archive).mkdir()
    assert_verified(get(server.url("good")))
    assert f"{SOURCE.archive}: cannot be read: " in capsys.readouterr().out


def test_a_damaged_torchvision_folder_is_left_for_the_next_rung(get, server, tmp_path, capsys):
    folder = tmp_path / SOURCE.folder
    folder.mkdir()
    (folder / "data_batch_1").write_bytes(b"half a file")
    assert_verified(get(server.url("good")))
    assert "cifar-10-batches-py/: data_batch_1: MD5 " in capsys.readouterr().out
    assert (folder / "data_batch_1").read_bytes() == b"half a file"


def test_a_half_empty_torchvision_folder_is_left_for_the_next_rung(get, server, tmp_path, capsys):
    (tmp_path / SOURCE.folder).mkdir()
    assert_verified(get(server.url("good")))
    assert "cifar-10-batches-py/: data_batch_1: No such file" in capsys.readouterr().out


def test_the_schools_mirror_is_asked_first(get, server):
    school = server.url("good,ranges").rpartition("/")[0]
    assert_verified(get(server.url("good"), mirror=school))
    assert [fault for fault, _ in server.requests] == ["good,ranges"]


# --- Servers with faults. Each is tried alone, for one clear error and an untouched folder, and before a good one.

FAULTS = {
    "unavailable": "answered 503",
    "missing": "answered 404",
    "wrong": "wrong bytes: MD5 ",
    "short": r"offers 1,000 bytes, expected \d",
    "truncated": r"closed the connection after [\d,]+ of [\d,]+ bytes",
    "reset": "the connection broke: .*reset",
    "stalled": "stalled: nothing came for 1 s",
    "silent": "no connection: timed out",
    "garbage": "no connection: ",
    "slow": r"too slow: \d+ kB/s, expected at least \d",
    "endless": "sends more than the [0-9,]+ bytes expected",
    "page": "answered with a web page",
    "circle": "answered 302 .*infinite loop",
    "local": "answered 302 .*not allowed",
}


# What it takes to see that a server is too slow.
IMPATIENT = {fault: {"timeout": 1.0, "min_rate": 1e6} for fault in ("stalled", "silent", "slow")}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_server_ends_in_one_clear_error(get, server, tmp_path, fault):
    with pytest.raises(fetch.FetchError, match=f"127.0.0.1:[0-9]+: {FAULTS[fault]}") as error:
        get(server.url(fault), **IMPATIENT.get(fault, {}))
    for hint in ("Tried, in this order:", "cifar10.npz: not there", "What you can do:", "COURSE_CIFAR_URL"):
        assert hint in str(error.value)
    assert files(tmp_path) == []


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_server_is_given_up_for_the_next(get, server, tmp_path, fault):
    assert_verified(get(server.url(fault), server.url("good"), **IMPATIENT.get(fault, {})))
    assert files(tmp_path) == ["cifar10.npz"]


@pytest.mark.parametrize(
    "url", ["no address at all", "file:///etc/hostname", "http://127.0.0.1:1/x", "http://[::1/x"]
)
def test_an_address_that_leads_nowhere_is_given_up_for_the_next(get, server, url):
    assert_verified(get(url, server.url("good")))


def test_a_server_that_never_accepts_is_given_up_for_the_next(get, server):
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        assert_verified(get(f"http://127.0.0.1:{full.getsockname()[1]}/x", server.url("good"), timeout=1.0))
        for one in waiting:
            one.close()


def test_a_redirect_is_followed(get, server):
    assert_verified(get(server.url("redirected")))


def test_the_last_mirror_may_be_slow_but_not_the_others(get, server):
    """The same server, too slow by half: given up where there is another, endured where not."""
    limit = {"timeout": 0.7, "min_rate": 2 * len(ARCHIVE)}
    with pytest.raises(fetch.FetchError, match="too slow"):
        get(server.url("slowish"), server.url("missing"), **limit)
    assert_verified(get(server.url("slowish"), **limit))


# --- Interrupted downloads.


@pytest.mark.parametrize("fault", ["truncated", "reset"])
def test_a_broken_download_resumes_where_the_server_allows_it(get, server, fault):
    assert_verified(get(server.url(f"{fault},once,ranges")))
    assert [asked for _, asked in server.requests] == [None, f"bytes={len(ARCHIVE) // 2}-"]


@pytest.mark.parametrize("fault", ["truncated", "reset"])
def test_a_broken_download_restarts_where_it_does_not(get, server, fault):
    assert_verified(get(server.url(f"{fault},once")))
    assert [asked for _, asked in server.requests] == [None, None]


def test_what_a_stalled_mirror_sent_is_continued_by_the_next(get, server):
    assert_verified(get(server.url("stalled,ranges"), server.url("good,ranges"), timeout=1.0))
    assert server.requests[1] == ("good,ranges", f"bytes={len(ARCHIVE) // 2}-")


@pytest.mark.parametrize("mirrors", [["stalled"], ["stalled", "good"], ["stalled", "stalled,ranges"]])
def test_a_mirror_that_begins_anew_loses_nothing_that_came_before(get, server, tmp_path, mirrors):
    arrived = ARCHIVE[: int(0.95 * len(ARCHIVE))]
    (tmp_path / PART).write_bytes(arrived)
    addresses = [server.url(mirror) for mirror in mirrors]
    if "good" in mirrors:
        assert_verified(get(*addresses, timeout=1.0))
    else:
        with pytest.raises(fetch.FetchError, match="and the next try goes on from there"):
            get(*addresses, timeout=1.0)
        assert (tmp_path / PART).read_bytes().startswith(arrived)


def test_what_came_is_kept_for_the_next_try(get, server, tmp_path):
    with pytest.raises(fetch.FetchError, match=f"kept in {PART}, and the next try goes on from there"):
        get(server.url("stalled,ranges"), timeout=1.0)
    assert files(tmp_path) == [PART]
    assert_verified(get(server.url("good,ranges")))
    assert files(tmp_path) == ["cifar10.npz"]


@pytest.mark.parametrize("fault", ["good,ranges", "good", "lies"])
@pytest.mark.parametrize("left", [b"other bytes", bytes(len(ARCHIVE)), bytes(len(ARCHIVE) + 1)])
def test_a_wrong_beginning_is_thrown_away(get, server, tmp_path, fault, left):
    (tmp_path / PART).write_bytes(left)
    assert_verified(get(server.url(fault)))
    assert files(tmp_path) == ["cifar10.npz"]


def test_a_whole_download_that_was_not_unpacked_needs_no_server(get, server, tmp_path):
    (tmp_path / PART).write_bytes(ARCHIVE)
    assert_verified(get(server.url("good")))
    assert server.requests == []


# --- Processes: killed, and two at once.


@contextmanager
def process(
    tmp_path: Path, mirror: str, stage: str = "", timeout: float = 10.0
) -> Iterator[subprocess.Popen]:
    job = tmp_path / f"job-{time.monotonic_ns()}"
    source = dataclasses.replace(SOURCE, mirrors=(mirror,))
    job.write_bytes(pickle.dumps((source, str(tmp_path / "root"), stage, timeout)))
    command = [sys.executable, "-W", "error", cifar_server.__file__, str(job)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        try:
            yield child
        finally:
            child.kill()


def wait_for(condition) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("stage", ["download", "unpack", "save", "rename"])
def test_a_killed_process_leaves_nothing_under_the_final_name(get, server, tmp_path, stage):
    root = tmp_path / "root"
    mirror = server.url("stalled,once,ranges" if stage == "download" else "good,ranges")
    with process(tmp_path, mirror, stage) as child:
        if stage == "download":
            wait_for(lambda: (root / PART).exists() and (root / PART).stat().st_size == len(ARCHIVE) // 2)
        else:
            assert "stopped\n" in iter(child.stdout.readline, "")
        child.kill()
        child.wait()
    assert not (root / "cifar10.npz").exists()
    asked = len(server.requests)
    assert_verified(get(mirror, root=root))
    assert files(root) == ["cifar10.npz"]
    expected = [(mirror.split("/")[3], f"bytes={len(ARCHIVE) // 2}-")] if stage == "download" else []
    assert server.requests[asked:] == expected  # what had come is not fetched again


def test_two_processes_at_once_fetch_once(get, server, tmp_path):
    mirror = server.url("slowish")
    with process(tmp_path, mirror) as one, process(tmp_path, mirror) as two:
        outputs = sorted((child.communicate(timeout=30) for child in (one, two)), key=lambda o: len(o[0]))
    assert [error for _, error in outputs] == ["", ""]
    waited, fetched = (out.splitlines() for out, _ in outputs)
    assert waited == ["cifar10: waiting for another process that is fetching it", "cifar10: from cifar10.npz"]
    assert fetched[-1].endswith("kept as cifar10.npz")
    assert len(server.requests) == 1
    assert files(tmp_path / "root") == ["cifar10.npz"]
    assert_verified(get(root=tmp_path / "root"))


def test_the_one_who_waits_takes_over_from_the_one_who_is_killed(get, server, tmp_path):
    with process(tmp_path, server.url("stalled,once,ranges")) as one:
        wait_for(lambda: server.requests)
        with process(tmp_path, server.url("stalled,once,ranges")) as two:
            assert "waiting for another process" in two.stdout.readline()
            one.kill()
            out, error = two.communicate(timeout=30)
    assert (out.splitlines()[-1][-19:], error) == ("kept as cifar10.npz", "")
    assert_verified(get(root=tmp_path / "root"))


# --- What is printed.


def test_a_log_gets_lines_and_no_bar(server, tmp_path):
    with process(tmp_path, server.url("slowish")) as child:
        out, error = child.communicate(timeout=30)
    assert error == ""
    assert out.splitlines() == [
        "cifar10: cifar-10-batches-py/: not there",
        "cifar10: cifar-10-python.tar.gz: not there",
        f"cifar-10-python.tar.gz: asking 127.0.0.1:{server.server_port}",
        f"cifar10: from 127.0.0.1:{server.server_port}, kept as cifar10.npz",
    ]


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a terminal to test with")
def test_a_terminal_gets_a_bar_with_bytes_rate_and_time(get, server, monkeypatch):
    termios = pytest.importorskip("termios")
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    with os.fdopen(theirs, "w") as terminal, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", terminal)
        get(server.url("slowish"))
    shown = read_all(ours)
    assert f"/{len(ARCHIVE) / 1000:.0f}k [00:00<00:00," in shown
    assert "kB/s]" in shown


def read_all(terminal: int) -> str:
    pieces = []
    with suppress(OSError):  # Linux says so when the other end is closed
        while piece := os.read(terminal, 10_000):
            pieces.append(piece)
    os.close(terminal)
    return b"".join(pieces).decode()


# --- Disks.


def test_too_little_space_is_said_before_the_download(get, server, monkeypatch, tmp_path):
    usage = shutil.disk_usage(tmp_path)._replace(free=1_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    big = dataclasses.replace(SOURCE, size=170_000_000)
    (tmp_path / PART).write_bytes(b"what came before")
    with pytest.raises(
        fetch.FetchError, match=r"170 MB are needed in .*, which has 1 MB free\. Make room, or"
    ):
        get(server.url("good"), source=big)
    assert (server.requests, files(tmp_path)) == ([], [PART])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's full device")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # NumPy 2.1 leaves a zip open
@pytest.mark.parametrize("name", [PART, "cifar10.npz.part"])
def test_a_disk_that_fills_up_is_one_clear_error(get, server, tmp_path, name):
    (tmp_path / name).symlink_to("/dev/full")
    with pytest.raises(fetch.FetchError, match=r"cannot be stored in .*No space left.* MB free"):
        get(server.url("good"))
    assert files(tmp_path) == []


def test_a_download_that_cannot_be_renamed_is_kept(get, server, tmp_path, monkeypatch):
    """As on Windows, while a virus scanner reads the new file."""

    def refuse(*_):
        raise PermissionError(errno.EACCES, "The process cannot access the file")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(fetch.FetchError, match="cannot access the file"):
        get(server.url("good"))
    assert PART in files(tmp_path)
    monkeypatch.undo()
    assert_verified(get(server.url("missing")))


@contextmanager
def read_only_folder() -> Iterator[Path]:
    """A folder that this process cannot write to, even if it is run by root."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o555)
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    try:
        if root:
            os.seteuid(65534)  # nobody
        yield folder
    finally:
        if root:
            os.seteuid(0)
        folder.chmod(0o755)
        shutil.rmtree(folder)


@pytest.mark.skipif(sys.platform == "win32", reason="permissions are others there")
def test_a_read_only_folder_is_one_clear_error(get, server):
    with read_only_folder() as folder:
        with pytest.raises(
            fetch.FetchError, match=r"cannot be stored in .*Permission denied.*Set COURSE_DATA"
        ):
            get(server.url("good"), root=folder)
        assert files(folder) == []
    assert server.requests == []


def test_a_file_in_place_of_the_folder_is_one_clear_error(get, server, tmp_path):
    (tmp_path / "data").write_text("not a folder")
    with pytest.raises(fetch.FetchError, match="cannot be stored in"):
        get(server.url("good"), root=tmp_path / "data")


# --- Archives and pickles that mean harm. Their checksums are right: this is the second line of defence.


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info, b"harm" if kind == tarfile.REGTYPE else b""


@pytest.mark.parametrize(
    ("evil", "reason"),
    [
        (member("../evil"), "../evil lies outside"),
        (member("."), ". lies outside"),
        (member("/tmp/evil"), "/tmp/evil lies outside"),
        (member("elsewhere/evil"), "elsewhere/evil lies outside"),
        (member(f"{SOURCE.folder}/../../evil"), "lies outside"),
        (member(f"{SOURCE.folder}/evil", tarfile.SYMTYPE, "/etc/passwd"), "is a link or a device"),
        (member(f"{SOURCE.folder}/evil", tarfile.LNKTYPE, "../../etc/passwd"), "is a link or a device"),
        (member(f"{SOURCE.folder}/evil", tarfile.FIFOTYPE), "is a link or a device"),
    ],
)
def test_a_malicious_archive_is_refused(get, tmp_path, evil, reason):
    source, archive, _ = small_cifar(extra=(evil,))
    with FaultyServer(archive) as server, pytest.raises(fetch.FetchError, match=f"refused: .*{reason}"):
        get(server.url("good"), source=source)
    assert files(tmp_path) == []


class Harm:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    "harm",
    [Harm(os.system, "touch evil"), Harm(eval, "open('evil', 'w')"), Harm(getattr, "x", "y"), np.float64(1)],
    ids=["os.system", "eval", "getattr", "a NumPy scalar"],
)
@pytest.mark.parametrize("road", ["archive", "folder"])
def test_a_malicious_pickle_is_refused(get, monkeypatch, tmp_path, harm, road):
    monkeypatch.chdir(tmp_path)
    content = pickle.dumps({b"data": harm}, protocol=2)
    source, archive, _ = small_cifar(data_batch_1=content)
    if road == "archive":
        with (
            FaultyServer(archive) as server,
            pytest.raises(fetch.FetchError, match="refused: a pickle asks for"),
        ):
            get(server.url("good"), source=source)
        assert files(tmp_path) == []
    else:
        (tmp_path / SOURCE.folder).mkdir()
        (tmp_path / SOURCE.folder / "data_batch_1").write_bytes(content)
        with pytest.raises(fetch.FetchError, match="refused: a pickle asks for"):
            get(source=source)
        assert files(tmp_path) == [SOURCE.folder]


def test_no_pickle_is_read_before_its_md5_is_right(get, monkeypatch, tmp_path):
    monkeypatch.setattr(fetch._Unpickler, "load", lambda self: pytest.fail("unpickled"))
    (tmp_path / SOURCE.folder).mkdir()
    (tmp_path / SOURCE.folder / "data_batch_1").write_bytes(pickle.dumps("other"))
    (tmp_path / SOURCE.archive).write_bytes(b"other")
    with pytest.raises(fetch.FetchError, match=r"data_batch_1: MD5 .*\n.*: wrong bytes: MD5 "):
        get()


def test_nothing_is_kept_that_has_another_fingerprint(get, server, tmp_path):
    other = dataclasses.replace(SOURCE, fingerprints=SOURCE.fingerprints | {"train": "0" * 16})
    with pytest.raises(fetch.FetchError, match="the fingerprint of its train is "):
        get(server.url("good"), source=other)
    assert files(tmp_path) == []


def test_an_archive_without_one_of_the_batches_is_refused(get, tmp_path):
    archive = cifar_server.tar_gz(SOURCE.folder, {})
    source = dataclasses.replace(SOURCE, size=len(archive), md5=cifar_server.md5(archive))
    with (
        FaultyServer(archive) as server,
        pytest.raises(fetch.FetchError, match=r"data_batch_1, .*: not there"),
    ):
        get(server.url("good"), source=source)


# --- The .npz.


def test_the_fingerprint_does_not_depend_on_the_order():
    order = np.random.default_rng(1).permutation(40)
    shuffled = ARRAYS | {"x_train": ARRAYS["x_train"][order], "y_train": ARRAYS["y_train"][order]}
    assert fetch.fingerprints(shuffled) == SOURCE.fingerprints


def test_the_fingerprint_counts_repeated_images():
    """As a sum does; combined by exclusive or, two of the same would cancel, whatever they show."""
    twice_0, twice_1 = (np.array([0, 0, 5, 6]), np.array([1, 1, 5, 6]))
    one, other = (
        fetch.fingerprints(
            ARRAYS | {"x_train": ARRAYS["x_train"][places], "y_train": ARRAYS["y_train"][places]}
        )
        for places in (twice_0, twice_1)
    )
    assert one["train"] != other["train"]


def flip_a_bit(arrays):
    arrays["x_test"][3, 31, 31, 2] ^= 1


def swap_two_labels(arrays):
    y = arrays["y_train"]
    other = np.flatnonzero(y != y[0])[0]
    y[[0, other]] = y[[other, 0]]


def repeat_an_image(arrays):
    for key in ("x_train", "y_train"):
        arrays[key][1] = arrays[key][0]


def exchange_train_and_test(arrays):
    for a, b in (("x_train", "x_test"), ("y_train", "y_test")):
        arrays[a][0], arrays[b][0] = arrays[b][0].copy(), arrays[a][0].copy()


def rename_a_class(arrays):
    arrays["classes"][2] = "dog"


def drop_an_image(arrays):
    arrays["x_train"], arrays["y_train"] = arrays["x_train"][:-1], arrays["y_train"][:-1]


def use_floats(arrays):
    arrays["x_test"] = arrays["x_test"] / np.float32(255)


def use_a_column(arrays):
    arrays["y_test"] = arrays["y_test"][:, None]


def use_objects(arrays):
    arrays["classes"] = np.array(["cat", 1], dtype=object)


def use_one_word(arrays):
    arrays["classes"] = np.array("cat")


def forget_the_labels(arrays):
    del arrays["y_test"]


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (flip_a_bit, "fingerprint of its test is .*, expected "),
        (swap_two_labels, "fingerprint of its train is .*, expected "),
        (repeat_an_image, "fingerprint of its train is "),
        (exchange_train_and_test, "fingerprint of its train is "),
        (rename_a_class, "fingerprint of its classes is "),
        (drop_an_image, r"x_train is uint8 \(39, 32, 32, 3\), expected uint8 \(40, 32, 32, 3\)"),
        (use_floats, r"x_test is float32 .*, expected uint8"),
        (use_a_column, r"y_test is uint8 \(8, 1\), expected integers \(8,\)"),
        (use_objects, "Object arrays cannot be loaded"),
        (use_one_word, r"classes is <U3 \(\), expected a list of strings"),
        (forget_the_labels, "it has no y_test; found "),
    ],
)
def test_wrong_contents_of_the_npz_are_caught(get, tmp_path, damage, reason):
    arrays = {key: value.copy() for key, value in ARRAYS.items()}
    damage(arrays)
    check_damaged(get, tmp_path, reason, lambda path: np.savez(path, **arrays))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: os.truncate(path, 70_000), "no .npz file, or its end is missing"),
        (lambda path: path.write_bytes(b""), "no .npz file, or its end is missing"),
        (lambda path: path.write_bytes(pickle.dumps("harm")), "no .npz file"),
        (
            lambda path: path.write_bytes(
                path.read_bytes().replace(ARRAYS["x_train"][7].tobytes(), bytes(3072))
            ),
            "CRC",
        ),
    ],
    ids=["truncated", "empty", "a pickle", "flipped bytes"],
)
def test_a_damaged_npz_is_said_to_be_damaged(get, tmp_path, damage, reason):
    np.savez(tmp_path / "cifar10.npz", **ARRAYS)
    check_damaged(get, tmp_path, reason, damage)


def test_wherever_the_npz_is_damaged_it_is_one_error_or_the_true_arrays(get, tmp_path):
    """A bit is flipped at each place where the file says what is where: errors of every kind come of it."""
    path = tmp_path / "cifar10.npz"
    np.savez(path, **ARRAYS)
    whole = path.read_bytes()
    directory = whole.index(b"PK\x01\x02")
    refused = 0
    for place in [*range(180), *range(directory, len(whole))]:
        for bit in (1, 128):
            fetch._verified.clear()
            path.write_bytes(whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :])
            try:
                assert_verified(get())
            except ValueError as error:
                assert ": ." not in str(error), f"byte {place}: no reason"
                refused += 1
    assert refused > 200


def test_a_folder_in_place_of_the_npz_is_one_clear_error(get, tmp_path):
    (tmp_path / "cifar10.npz").mkdir()
    with pytest.raises(ValueError, match=r"cifar10\.npz is not .*(directory|denied).* makes it anew"):
        get()


def check_damaged(get, folder: Path, reason: str, damage) -> None:
    """It is one error that says what, where and what to do, and the file is left as it was."""
    path = folder / "cifar10.npz"
    damage(path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=rf"cifar10\.npz is not .*: .*{reason}.*course_utils fetch cifar10"):
        get()
    assert path.read_bytes() == before
    assert files(folder) == ["cifar10.npz"]


def test_a_file_is_verified_once_a_process_unless_it_changes(get, monkeypatch, tmp_path):
    path, count = tmp_path / "cifar10.npz", []
    np.savez(path, **ARRAYS)
    true = fetch.fingerprints
    monkeypatch.setattr(fetch, "fingerprints", lambda arrays: count.append(1) or true(arrays))
    get()
    get()
    assert len(count) == 1
    changed = ARRAYS | {"x_test": ARRAYS["x_test"] ^ 1}
    np.savez(path, **changed)
    with pytest.raises(ValueError, match="fingerprint"):
        get()
