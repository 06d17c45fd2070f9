"""For test_fetch.py: small archives in CIFAR's own format, and a web server on loopback with every fault we thought of.

Run as a script, it is a process that fetches `cifar10` and can be made to wait at a given stage, to be killed there.
"""

import gzip
import hashlib
import io
import os
import pickle
import socket
import struct
import sys
import tarfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np

from course_utils.datasets import cifar as fetch

# --- Archives.


def python2_pickle(value: object) -> bytes:
    """As Python 2 and the NumPy of 2009 wrote it: byte strings, and a dtype with 0 and 1 for its flags."""
    return b"\x80\x02" + _opcodes(value) + b"."


def _opcodes(value: object) -> bytes:
    match value:
        case dict():
            return b"}(" + b"".join(_opcodes(k) + _opcodes(v) for k, v in value.items()) + b"u"
        case list():
            return b"](" + b"".join(map(_opcodes, value)) + b"e"
        case bytes():
            return b"T" + struct.pack("<i", len(value)) + value
        case int():
            return b"J" + struct.pack("<i", value)
        case np.ndarray():
            empty = (
                b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(J\0\0\0\0t"
                + _opcodes(b"b")
                + b"tR"
            )
            dtype = b"cnumpy\ndtype\n(" + _opcodes(b"u1") + _opcodes(0) + _opcodes(1) + b"tR"
            dtype += (
                b"("
                + _opcodes(3)
                + _opcodes(b"|")
                + b"NNN"
                + _opcodes(-1)
                + _opcodes(-1)
                + _opcodes(0)
                + b"tb"
            )
            shape = b"(" + b"".join(map(_opcodes, value.shape)) + b"t"
            return empty + b"(" + _opcodes(1) + shape + dtype + b"I00\n" + _opcodes(value.tobytes()) + b"tb"
    raise TypeError(type(value))


def small_cifar(
    name: str = "cifar10", extra: tuple = (), **replaced: bytes
) -> tuple[fetch.Source, bytes, dict]:
    """A data set of 40 + 8 noise images: its row of the table (without mirrors), its archive and its arrays.

    `extra` are (TarInfo, content) to add to the archive, `replaced` are other contents for its files by name; both get
    the right checksums, as they would have if somebody had found a second file with the same MD5.
    """
    real = fetch.SOURCES[name]
    rng = np.random.default_rng(0)
    classes = [b"class_%d" % i for i in range(4)]
    files, arrays = {}, {"classes": np.array([c.decode() for c in classes])}
    for split, names, n in (("train", real.train, 40), ("test", real.test, 8)):
        images = rng.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)
        labels = rng.permutation(np.arange(n) % 4).astype(np.uint8)
        arrays |= {f"x_{split}": images, f"y_{split}": labels}
        for file, part in zip(names, np.split(np.arange(n), len(names)), strict=True):
            planes = images[part].transpose(0, 3, 1, 2).reshape(len(part), -1)
            files[file] = python2_pickle({b"data": planes, real.label_key: labels[part].tolist()})
    files |= {file: python2_pickle({real.class_key: classes}) for file in real.meta}
    files |= replaced
    archive = tar_gz(real.folder, files, extra)
    source = fetch.Source(
        archive=real.archive, size=len(archive), md5=md5(archive), mirrors=(), folder=real.folder,
        train={f: md5(files[f]) for f in real.train},
        test={f: md5(files[f]) for f in real.test},
        meta={f: md5(files[f]) for f in real.meta},
        label_key=real.label_key, class_key=real.class_key,
        fingerprints=fetch.fingerprints(arrays), n_train=40, n_test=8,
    )  # fmt: skip
    return source, archive, arrays


def tar_gz(folder: str, files: dict[str, bytes], extra: tuple = ()) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for file, content in files.items():
            member = tarfile.TarInfo(f"{folder}/{file}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        for member, content in extra:
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return gzip.compress(out.getvalue(), compresslevel=1, mtime=0)


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


# --- The server.


class FaultyServer(ThreadingHTTPServer):
    """Serves one archive at `/<fault>/<anything>`; the faults are the methods of `_Handler` of that name.

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
        if "once" in options and not first:
            kind = "good"
        getattr(self, kind)()

    def log_message(self, *_: object) -> None:
        """Not on the tests' stderr."""

    def head(self, length: int | None = None) -> bytes:
        """Send status and headers; return the bytes that should follow."""
        body, start = self.server.archive, 0
        if self.ranges and self.headers["Range"]:
            start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        else:
            self.send_response(200)
        if self.ranges:
            self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(len(body) - start if length is None else length))
        self.end_headers()
        return body[start:]

    def good(self) -> None:
        self.wfile.write(self.head())

    def slowish(self) -> None:
        """A second for the whole."""
        body = self.head()
        for i in range(10):
            self.wfile.write(body[i * len(body) // 10 : (i + 1) * len(body) // 10])
            time.sleep(0.1)

    def unavailable(self) -> None:
        self.send_error(503)

    def missing(self) -> None:
        self.send_error(404)

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

    def garbage(self) -> None:
        self.wfile.write(b"\0\1\2 this is not HTTP\r\n\r\n")

    def slow(self) -> None:
        body = self.head()
        for i in range(0, len(body), 1000):
            self.wfile.write(body[i : i + 1000])
            if self.server.over.wait(0.05):
                return

    def endless(self) -> None:
        self.send_response(200)
        self.end_headers()
        while not self.server.over.is_set():
            self.wfile.write(bytes(100_000))

    def page(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.end_headers()
        self.wfile.write(b"<h1>Welcome to the school's network</h1>")

    def redirected(self) -> None:
        self.send_response(302)
        self.send_header("Location", self.server.url("good"))
        self.end_headers()

    def circle(self) -> None:
        self.send_response(302)
        self.send_header("Location", self.server.url("circle"))
        self.end_headers()

    def local(self) -> None:
        """A redirect to a file of the student's own computer."""
        self.send_response(302)
        self.send_header("Location", "file:///etc/hostname")
        self.end_headers()


# --- The process.


def main(job: str) -> None:
    """Fetch with the table in the pickle file `job`; stop for good at its stage, having said so."""
    source, root, stage, timeout = pickle.loads(Path(job).read_bytes())
    fetch.SOURCES["cifar10"] = source

    def stop(*_: object, **__: object) -> None:
        print("stopped", flush=True)
        time.sleep(60)

    def half_a_save(file: io.BufferedWriter, **_: object) -> None:
        file.write(b"PK\3\4 half")
        file.flush()
        stop()

    if stage == "unpack":
        fetch._Unpickler.load = stop
    elif stage == "save":
        np.savez = half_a_save
    elif stage == "rename":
        os.replace = stop
    fetch.load_arrays("cifar10", Path(root), timeout=timeout, min_rate=1000)


if __name__ == "__main__":
    main(sys.argv[1])
