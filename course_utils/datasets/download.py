"""One file from one web server: continued where an earlier try ended, and given up where the server is too slow.

Built on urllib, because requests and pooch (which cannot resume) limit each read of the socket, not the whole: a header
that trickles, or `100 Continue` without end, keeps them for ever.
"""

import http.client
import shutil
import socket
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urljoin

from tqdm import tqdm

TIMEOUT = 15.0  # seconds


class Unavailable(Exception):
    """This source does not give what is asked of it; the text is the reason."""


def download(url: str, part: Path, size: int, min_rate: float) -> None:
    """Append to `part` what it lacks of a file of `size` bytes. Raises Unavailable if this server does not give it.

    The header must come within `TIMEOUT` seconds, and after it `min_rate` bytes a second on average over as long. What
    a server sends again, because it cannot begin in the middle, is passed over: nothing that came before is lost.
    """
    have = part.stat().st_size if part.exists() else 0
    if have >= size:
        return  # an earlier process was stopped before it could use it
    with _open(url, have) as response:
        _check(response, have, size)
        again = 0 if response.status == 206 else have
        with part.open("ab") as file, _bar(part.stem, size, have) as bar:
            for received in _chunks(response, min_rate):
                chunk = received[again:]
                again -= len(received) - len(chunk)
                have += file.write(chunk)
                bar.update(len(chunk))
                if have > size:
                    raise Unavailable(f"sends more than the {size:,} bytes expected")
    if have < size:
        raise Unavailable(f"closed the connection after {have:,} of {size:,} bytes")


def check_space(folder: Path, needed: int) -> None:
    """Raises OSError if the disk of this folder has less than `needed` bytes free."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(f"{needed / 1e6:,.0f} MB are needed in {folder}, which has {free / 1e6:,.0f} MB free")


def _open(url: str, start: int) -> http.client.HTTPResponse:
    """The answer of this server, or of the one that it redirects to, asked for the bytes from `start` on."""
    opener = (
        urllib.request.OpenerDirector()
    )  # urllib's own follows to ftp:// and reads whatever comes with a redirect
    opener.add_handler(urllib.request.ProxyHandler())
    opener.add_handler(_Handler())
    headers = {"User-Agent": "course_utils"} | ({"Range": f"bytes={start}-"} if start else {})
    for _ in range(5):
        if not url.startswith(("http://", "https://")):
            raise Unavailable(f"leads to {url}: expected an address that begins with https:// or http://")
        try:
            response = opener.open(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
        except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: not an address
            raise Unavailable(f"no connection: {getattr(error, 'reason', error)}") from None
        if response.status not in (301, 302, 303, 307, 308):
            return response
        response.close()
        url = urljoin(url, response.headers.get("Location", ""))
    raise Unavailable("answered with one redirect after another")


def _check(response: http.client.HTTPResponse, have: int, size: int) -> None:
    """Raises Unavailable unless this answer may bring what is missing after the first `have` of `size` bytes."""
    if response.status not in (200, 206):
        raise Unavailable(f"answered {response.status} {response.reason}")
    if response.headers.get_content_type() == "text/html":
        raise Unavailable("answered with a web page, as networks do that want you to log in first")
    part, expected = response.headers.get("Content-Range"), f"bytes {have}-{size - 1}/{size}"
    if response.status == 206 and (not have or part != expected):
        raise Unavailable(f"answered with the part {part!r}, expected {expected!r}")
    offered = have + response.length if response.status == 206 and response.length else response.length
    if offered not in (None, size):
        raise Unavailable(f"offers {offered:,} bytes, expected {size:,}")


def _chunks(response: http.client.HTTPResponse, min_rate: float) -> Iterator[bytes]:
    while True:
        missing = min_rate * TIMEOUT
        with _deadline(response.socket, f"too slow: less than {missing / 1000:,.0f} kB in {TIMEOUT:g} s"):
            while missing > 0:
                try:
                    chunk = response.read1(1 << 16)
                except (OSError, http.client.HTTPException) as error:
                    raise Unavailable(f"the connection broke: {error}") from None
                if not chunk:
                    return
                missing -= len(chunk)
                yield chunk


@contextmanager
def _deadline(connected: socket.socket, reason: str) -> Iterator[None]:
    """After `TIMEOUT` seconds, shut the socket, so that whatever waits for it ends, and raise Unavailable.

    The socket's own time limit is no such limit: it begins anew with every byte that trickles in.
    """
    over = threading.Event()

    def shut() -> None:
        over.set()
        with suppress(OSError):
            connected.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(TIMEOUT, shut)
    timer.start()
    try:
        yield
    except (OSError, http.client.HTTPException, Unavailable):
        if not over.is_set():
            raise
    finally:
        timer.cancel()
    if over.is_set():
        raise Unavailable(reason)


class _Connection(http.client.HTTPConnection):
    """Its header has a deadline, and the answer keeps the socket at hand for those of the body."""

    def getresponse(self) -> http.client.HTTPResponse:
        connected = self.sock
        with _deadline(connected, f"no header came within {TIMEOUT:g} s"):
            response = super().getresponse()
            response.socket = connected
        return response


class _SecureConnection(http.client.HTTPSConnection, _Connection):
    pass


class _Handler(urllib.request.HTTPHandler, urllib.request.HTTPSHandler):
    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_Connection, request)

    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_SecureConnection, request)


def _bar(name: str, size: int, done: int) -> tqdm:
    """Bytes, rate and time left where somebody is looking, in a terminal or a notebook, and nothing in a log file."""
    looking = sys.stdout.isatty() or "ipykernel" in type(sys.stdout).__module__
    options = {"unit": "B", "unit_scale": True, "file": sys.stdout, "leave": False, "disable": not looking}
    return tqdm(desc=name, total=size, initial=done, **options)
