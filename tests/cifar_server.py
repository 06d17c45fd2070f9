"""For test_cifar.py: small data sets in CIFAR's own format, and a web server on loopback with many faults.

Run as a script, it is a process that fetches `cifar10` and can be made to wait at a given stage, to be killed there.
"""

import gzip
import hashlib
import io
import pickle
import socket
import struct
import sys
import tarfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np

from course_utils.datasets import cifar, download


class OldType:
    """In a pickle, NumPy's type as the NumPy of 2009 wrote it, of which newer ones warn."""

    def __reduce__(self):
        return np.dtype, ("u1", 0, 1)


@dataclass
class Small:
    """A data set of 40 + 10 noise images."""

    name: str
    archive: bytes
    arrays: cifar.Arrays
    reader: dict[str, object]  # what torchvision has to know of it

    def install(self, *mirrors: str, patch: Callable[[object, str, object], None] = setattr) -> None:
        """Put it in the place of the real one."""
        of = self.arrays
        prints = {p: cifar.fingerprint(of[f"x_{p}"], of[f"y_{p}"]) for p in ("train", "test")}
        patch(cifar, "SHAPES", {key: value.shape for key, value in self.arrays.items()})
        patch(cifar, "SOURCES", cifar.SOURCES | {self.name: cifar.Source(len(self.archive), prints, mirrors)})
        for attribute, value in self.reader.items():
            patch(cifar._reader(self.name), attribute, value)


def small_cifar(name: str = "cifar10", **replaced: bytes) -> Small:
    """`replaced` are other contents for files of the archive, by name; they have the right MD5."""
    real, rng, arrays, files = cifar._reader(name), np.random.default_rng(0), {}, {}
    for part, listed, n in (("train", real.train_list, 40), ("test", real.test_list, 10)):
        images = rng.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)
        labels = rng.permutation(np.arange(n) % 10)
        arrays |= {f"x_{part}": images, f"y_{part}": labels.astype(np.uint8)}
        for (file, _), of in zip(listed, np.split(np.arange(n), len(listed)), strict=True):
            batch = {"data": images[of].transpose(0, 3, 1, 2).reshape(len(of), -1), "type": OldType()}
            batch["labels" if name == "cifar10" else "fine_labels"] = labels[of].tolist()
            files[file] = pickle.dumps(batch)
    files[real.meta["filename"]] = pickle.dumps({real.meta["key"]: list(cifar.CLASSES[name])})
    files |= replaced
    reader = {
        "train_list": [(file, md5(files[file])) for file, _ in real.train_list],
        "test_list": [(file, md5(files[file])) for file, _ in real.test_list],
        "meta": real.meta | {"md5": md5(files[real.meta["filename"]])},
    }
    archive = tar_gz(real.base_folder, files)
    return Small(name, archive, arrays, reader | {"tgz_md5": md5(archive)})


def tar_gz(folder: str, files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for file, content in files.items():
            member = tarfile.TarInfo(f"{folder}/{file}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return gzip.compress(out.getvalue(), compresslevel=1, mtime=0)


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


class FaultyServer(ThreadingHTTPServer):
    """Serves one archive at `/<fault>/<file>`; the faults are the methods of `_Handler` of that name.

    `requests` lists (fault, the Range asked for or None). Leave the `with` block and everything that stalls ends.
    """

    daemon_threads = True

    def __init__(self, archive: bytes):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.archive = archive
        self.requests: list[tuple[str, str | None]] = []
        self.over = threading.Event()
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def url(self, fault: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{fault}/cifar-10-python.tar.gz"

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, *_: object) -> None:
        """Clients that hang up are what the tests are about."""


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        fault = self.path.split("/")[1]
        first = fault not in [f for f, _ in self.server.requests]
        self.server.requests.append((fault, self.headers["Range"]))
        kind, *options = fault.split(",")
        self.ranges = "ranges" in options  # does the server continue where it is asked to?
        getattr(self, "good" if "once" in options and not first else kind)()

    def log_message(self, *_: object) -> None:
        """Not on the tests' stderr."""

    def head(self, length: int | None = None, part: str = "") -> bytes:
        """Send status and headers; return the bytes that should follow."""
        body, start = self.server.archive, 0
        if self.ranges and self.headers["Range"]:
            start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
            part = part or f"bytes {start}-{len(body) - 1}/{len(body)}"
        self.answer(206 if part else 200, **({"Content-Range": part} if part else {}),
                    **{"Content-Length": str(len(body) - start if length is None else length)})  # fmt: skip
        return body[start:]

    def answer(self, status: int, **headers: str) -> None:
        self.send_response(status)
        for name, value in ({"Content-Type": "application/octet-stream"} | headers).items():
            self.send_header(name, value)
        self.end_headers()

    def drip(self, content: bytes, pause: float, size: int = 1) -> None:
        for i in range(0, len(content), size):
            self.wfile.write(content[i : i + size])
            if self.server.over.wait(pause):
                return

    def good(self) -> None:
        self.wfile.write(self.head())

    def slowish(self) -> None:
        """A second for the whole."""
        body = self.head()
        self.drip(body, 0.1, -(-len(body) // 10))

    def slow(self) -> None:
        self.drip(self.head(), 0.05, 1000)

    def unavailable(self) -> None:
        self.send_error(503)

    def wrong(self) -> None:
        self.wfile.write(bytes(len(self.head())))

    def lies(self) -> None:
        """Says that it continues, and sends other bytes; sends the right ones when asked for the whole."""
        self.ranges = True
        body = self.head()
        self.wfile.write(bytes(len(body)) if self.headers["Range"] else body)

    def short(self) -> None:
        """A file at the mirror that was cut short."""
        self.wfile.write(self.head(length=1000)[:1000])

    def truncated(self) -> None:
        body = self.head()
        self.wfile.write(body[: len(body) // 2])

    def reset(self) -> None:
        self.truncated()
        self.wfile.flush()
        time.sleep(0.2)  # what is on its way shall arrive first
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()  # with this option: RST, not FIN

    def stalled(self) -> None:
        self.truncated()
        self.wfile.flush()
        self.server.over.wait(20)

    def silent(self) -> None:
        self.server.over.wait(20)

    def trickling(self) -> None:
        self.drip(b"HTTP/1.1 200 OK\r\nX-Slow: " + b"a" * 400, 0.05)

    def continuing(self) -> None:
        while not self.server.over.is_set():
            self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def garbage(self) -> None:
        self.wfile.write(b"\0\1\2 this is not HTTP\r\n\r\n")

    def endless(self) -> None:
        self.answer(200)
        while not self.server.over.is_set():
            self.wfile.write(bytes(100_000))

    def page(self) -> None:
        self.answer(200, **{"Content-Type": "text/html; charset=utf-8"})
        self.wfile.write(b"<h1>Welcome to the school's network</h1>")

    def unasked(self) -> None:
        """A part that nobody asked for."""
        size = len(self.server.archive)
        self.wfile.write(self.head(part=f"bytes 5-{size - 1}/{size}"))

    def elsewhere(self) -> None:
        """Asked to go on, it answers with another part."""
        self.ranges = True
        self.unasked()

    def redirected(self) -> None:
        """With a body that never ends, which nobody has to read."""
        self.answer(302, Location=self.server.url("good"))
        self.endless()

    def circle(self) -> None:
        self.answer(302, Location=self.server.url("circle"))

    def local(self) -> None:
        """A redirect to a file of the student's own computer."""
        self.answer(302, Location="file:///etc/hostname")

    def malformed(self) -> None:
        self.answer(302, Location="http://[::1/x")

    def ftp(self) -> None:
        self.answer(301, Location=f"ftp://127.0.0.1:{self.server.server_port}/good")


def main(job: str) -> None:
    """Fetch the data set in the pickle file `job`; stop for good at its stage, having said so."""
    small, mirror, root, stage, download.TIMEOUT, cifar.MIN_RATE = pickle.loads(Path(job).read_bytes())
    small.install(mirror)

    def half_a_save(file: io.BufferedWriter, **_: object) -> None:
        file.write(b"PK\3\4 half")
        file.flush()
        print("stopped", flush=True)
        time.sleep(60)

    if stage == "save":
        np.savez = half_a_save
    cifar.load_arrays("cifar10", root)


if __name__ == "__main__":
    sys.modules["cifar_server"] = sys.modules["__main__"]  # where the job's class is
    main(sys.argv[1])
