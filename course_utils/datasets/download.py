"""One file from one web server: continued where an earlier try ended, and given up where the server is too slow.

Built on urllib, because pooch cannot resume, and requests waits for ever for a header that trickles, for the end of
`100 Continue`, and for the body of a redirect.
"""

import http.client
import socket
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urljoin

from tqdm import tqdm

TIMEOUT = 15.0  # seconds


class Unavailable(Exception):
    """This source does not give what is asked of it; the text is the reason."""


def download(url: str, part: Path, size: int, min_rate: float) -> None:
    """Append to `part` what it lacks of a file of `size` bytes. Raises Unavailable if this server does not give it.

    The whole header must come within `TIMEOUT` seconds, and then `min_rate` bytes a second, on average over as long.
    What a server sends again, because it cannot begin in the middle, is passed over: nothing that came before is lost.
    """
    have = part.stat().st_size if part.exists() else 0
    if have >= size:
        return  # an earlier process was stopped before it could use it
    with _open(url, have) as response:
        _check(response, have, size)
        again = 0 if response.status == 206 else have
        # Bytes, rate and time left where somebody is looking, in a terminal or a notebook, and nothing in a log file.
        looking = getattr(sys.stdout, "isatty", lambda: False)() or "ipykernel" in type(sys.stdout).__module__
        shown = {"unit": "B", "unit_scale": True, "leave": False, "file": sys.stdout}
        shown |= {} if looking else {"disable": True}  # and not where TQDM_DISABLE says so
        with part.open("ab") as file, tqdm(desc=part.stem, total=size, initial=have, **shown) as bar:
            for received in _chunks(response, min_rate):
                bar.update(file.write(received[again:]))
                again = max(again - len(received), 0)
    if (have := part.stat().st_size) < size:
        raise Unavailable(f"closed the connection after {have:,} of {size:,} bytes")


def _open(url: str, start: int) -> http.client.HTTPResponse:
    """The answer of this server, or of the one that it redirects to, asked for the bytes from `start` on."""
    # urllib's own opener follows to ftp:// and reads whatever comes with a redirect.
    opener = urllib.request.OpenerDirector()
    opener.add_handler(urllib.request.ProxyHandler())
    opener.add_handler(_Handler())
    headers = {"User-Agent": "course_utils"} | ({"Range": f"bytes={start}-"} if start else {})
    for _ in range(5):
        if not url.startswith(("http://", "https://")):
            raise Unavailable(f"leads to {url}: expected an address that begins with https:// or http://")
        try:
            response = opener.open(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
            if response.status not in (301, 302, 303, 307, 308):
                return response
            response.close()
            url = urljoin(url, response.headers.get("Location", ""))
        except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: not an address
            raise Unavailable(f"no connection: {getattr(error, 'reason', error)}") from None
    raise Unavailable("answered with one redirect after another")


class _Connection(http.client.HTTPConnection):
    def getresponse(self) -> http.client.HTTPResponse:
        """As ever, but the timeout is for the whole header: the socket's own begins anew with every byte."""
        timer, started = threading.Timer(TIMEOUT, self.sock.shutdown, (socket.SHUT_RDWR,)), time.monotonic()
        timer.start()
        try:
            return super().getresponse()
        finally:
            timer.cancel()
            # By a clock, and not by whether the timer is done: it may still be about to say so.
            if time.monotonic() - started >= TIMEOUT:
                raise TimeoutError(f"no header came within {TIMEOUT:g} s")


class _SecureConnection(http.client.HTTPSConnection, _Connection):
    pass


class _Handler(urllib.request.HTTPHandler, urllib.request.HTTPSHandler):
    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_Connection, request)

    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_SecureConnection, request)


def _check(response: http.client.HTTPResponse, have: int, size: int) -> None:
    """Raises Unavailable unless this answer is the whole of `size` bytes, or what is missing after the first `have`."""
    if response.status not in (200, 206):
        raise Unavailable(f"answered {response.status} {response.reason}")
    if response.headers.get_content_type() == "text/html":
        raise Unavailable("answered with a web page, as networks do that want you to log in first")
    part, expected = response.headers.get("Content-Range"), f"bytes {have}-{size - 1}/{size}"
    if response.status == 206 and (not have or part != expected):
        raise Unavailable(f"answered with the part {part}, expected {expected}")
    missing = size - have if response.status == 206 else size
    if response.length != missing:
        raise Unavailable(f"offers {response.length} bytes, expected {missing}")


def _chunks(response: http.client.HTTPResponse, min_rate: float) -> Iterator[bytes]:
    """The body as it comes. Raises Unavailable as soon as it comes too slowly."""
    since, count = time.monotonic(), 0
    while True:
        try:
            chunk = response.read1(1 << 16)
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(f"the connection broke: {error}") from None
        if not chunk:
            return
        yield chunk
        count += len(chunk)
        if (seconds := time.monotonic() - since) > TIMEOUT:
            if count < min_rate * seconds:
                rates = f"{count / seconds / 1000:,.0f} kB/s, expected at least {min_rate / 1000:,.0f}"
                raise Unavailable(f"too slow: {rates}")
            since, count = time.monotonic(), 0
