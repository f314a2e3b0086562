"""Images of a web server, `http://` and `https://`: RFC 9110, ranges by its section 14.

The server and the way to it are not trusted: redirects are bounded and don't leave TLS, a
certificate that does not verify ends the fetch, a page that tells of an error is no image,
each read has a deadline. A connection that breaks is taken up where it broke, if the server
can tell that the image is still the same.
"""

import contextlib
import http.client
import logging
import re
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import requests
import urllib3

from snf_ganeti.errors import DeadlineError, InputError
from snf_image_helper.protocol import clean_text
from snf_image_host.settings import Settings

log = logging.getLogger(__name__)

_REDIRECTS = 5
_ATTEMPTS = 5
"""Attempts in a row that may bring nothing new."""
_PAUSE = 0.5
"""Seconds before the second attempt; doubled before each further one."""
_TIMEOUTS = (15.0, 60.0)
"""Seconds to connect, and between two packets."""
_RATE_INTERVAL = 60.0
_RATE_LIMIT = 64 << 10
"""Bytes that must come in each interval, of seconds."""
_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-\d{1,19}/(\d{1,19})")
_LENGTH = re.compile(r"\d{1,19}")
_RETRIED = frozenset({408, 429, 500, 502, 503, 504})
_HEADERS = {"Accept-Encoding": "identity", "User-Agent": "snf-image"}
_BROKEN = (OSError, http.client.HTTPException, urllib3.exceptions.HTTPError)
_TIMED_OUT = (TimeoutError, requests.Timeout, urllib3.exceptions.TimeoutError)


class _Interrupted(Exception):
    """Why an attempt ended, and the next may succeed."""


class HttpSource:
    """The body of one resource, across as many connections as it takes."""

    descriptor = None

    def __init__(self, url: str) -> None:
        self.name = f"image {make_public_url(url)}"
        self.size: int | None = None
        self._url = url
        self._session = _make_session(url)
        self._response: requests.Response | None = None
        self._validator = ""
        self._position = 0
        self._failures = 0
        self._mark = (time.monotonic(), 0)

    def open(self) -> None:
        """Ask for the image. Raises InputError."""
        while self._response is None:
            with self._retrying():
                self._start()

    def close(self) -> None:
        self._session.close()

    def read_into(self, buffer: memoryview) -> int:
        while True:
            self.open()
            with self._retrying():
                return self._read(buffer)

    def _read(self, buffer: memoryview) -> int:
        assert self._response is not None
        try:
            data = _find_body(self._response).read1(len(buffer))
        except _BROKEN as error:
            raise _Interrupted(f"the connection broke: {_explain(error)}") from None
        if not data and self.size is not None and self._position < self.size:
            raise _Interrupted("the server closed the connection")
        buffer[: len(data)] = data
        self._position += len(data)
        if data:
            self._failures = 0
        self._require_rate()
        return len(data)

    def _require_rate(self) -> None:
        now, (since, position) = time.monotonic(), self._mark
        if now - since > _RATE_INTERVAL:
            if self._position - position < _RATE_LIMIT:
                raise DeadlineError(f"{self.name}: reading {_RATE_LIMIT >> 10} KiB", now - since)
            self._mark = (now, self._position)

    @contextlib.contextmanager
    def _retrying(self) -> Iterator[None]:
        """What interrupts the block is survived, until there were too many of it."""
        try:
            yield
        except _Interrupted as reason:
            self._response = None
            self._failures += 1
            if self._failures >= _ATTEMPTS:
                raise InputError(
                    f"{self.name} can't be fetched: {reason}, {_ATTEMPTS} times, at byte "
                    f"{self._position}"
                ) from None
            log.info("%s: %s; trying again", self.name, reason)
            time.sleep(_PAUSE * 2 ** (self._failures - 1))

    def _start(self) -> None:
        """Ask for what is still missing."""
        response = self._request()
        if response.status_code in _RETRIED:
            raise _Interrupted(f"the server answered {response.status_code}")
        if self._position:
            self._resume(response)
        else:
            self._begin(response)
        self._response = response

    def _request(self) -> requests.Response:
        headers = dict(_HEADERS)
        if self._position:
            headers |= {"Range": f"bytes={self._position}-", "If-Range": self._validator}
        try:
            return self._session.get(self._url, headers=headers, stream=True, timeout=_TIMEOUTS)
        except requests.exceptions.SSLError as error:
            raise InputError(
                f"{self.name} can't be fetched: {_explain(error)}",
                hint="the server's certificate must be one that this node trusts",
            ) from None
        except requests.TooManyRedirects:
            raise InputError(
                f"{self.name} leads through more than {_REDIRECTS} redirects"
            ) from None
        except requests.exceptions.InvalidSchema:
            raise InputError(f"{self.name} leads to something that is not the web") from None
        except ValueError:  # InvalidURL is one, and what urllib says is, too
            raise InputError(f"{self.name} leads to a URL that is none") from None
        except requests.RequestException as error:
            raise _Interrupted(_explain(error)) from None

    def _begin(self, response: requests.Response) -> None:
        if response.status_code != http.HTTPStatus.OK:
            raise InputError(
                f"{self.name} can't be fetched: the server answered {response.status_code} "
                f"{clean_text(response.reason or '')}"
            )
        kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if kind in ("text/html", "application/xhtml+xml"):
            raise InputError(f"{self.name} is a web page", hint="give the URL of the image itself")
        length = response.headers.get("Content-Length", "")
        if _LENGTH.fullmatch(length):
            self.size = int(length)
        elif "chunked" not in response.headers.get("Transfer-Encoding", "").lower():
            raise InputError(
                f"{self.name}: the server does not say how long it is, so that its end could not "
                "be told from a broken connection"
            )
        self._validator = _find_validator(response)

    def _resume(self, response: requests.Response) -> None:
        """Raises InputError unless the same image goes on where it broke."""
        if not self._validator or _find_validator(response) not in ("", self._validator):
            raise InputError(
                f"{self.name} broke after {self._position} bytes, and the server can't tell that "
                "it is still the same"
            )
        if response.status_code == http.HTTPStatus.OK:
            self._skip(response)
            return
        match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if (
            response.status_code != http.HTTPStatus.PARTIAL_CONTENT
            or not match
            or int(match[1]) != self._position
            or self.size not in (None, int(match[2]))
        ):
            raise InputError(
                f"{self.name} broke after {self._position} bytes, and the server does not go on "
                f"from there: it answered {response.status_code}"
            )

    def _skip(self, response: requests.Response) -> None:
        """A server without ranges starts anew; what is known already is read again."""
        missing = self._position
        body = _find_body(response)
        try:
            while missing and (data := body.read1(min(missing, 1 << 20))):
                missing -= len(data)
        except _BROKEN as error:
            raise _Interrupted(f"the connection broke: {_explain(error)}") from None
        if missing:
            raise _Interrupted("the server closed the connection")


@contextlib.contextmanager
def open_http_source(url: str, settings: Settings) -> Iterator[HttpSource]:
    """Raises InputError: there is no such image, or no way to it that can be trusted."""
    try:
        source = HttpSource(url)
    except ValueError as error:
        raise InputError(f"the image's URL is none: {error}") from None
    try:
        source.open()
        yield source
    finally:
        source.close()


def make_public_url(url: str) -> str:
    """A URL without what may be secret: user, password, query. Raises ValueError."""
    parts = urlsplit(url)
    if not parts.hostname:
        raise ValueError("it names no server")
    port = f":{parts.port}" if parts.port else ""
    return clean_text(f"{parts.scheme.lower()}://{parts.hostname}{port}{parts.path}")


def _make_session(url: str) -> requests.Session:
    """A session that takes nothing of the environment; an https URL never leads to http."""
    session = requests.Session()
    session.trust_env = False
    session.max_redirects = _REDIRECTS
    if url.lower().startswith("https:"):
        del session.adapters["http://"]
    return session


def _find_body(response: requests.Response) -> http.client.HTTPResponse:
    """What gives bytes as soon as there are some; urllib3's own reads wait for all of them."""
    body: http.client.HTTPResponse = response.raw._original_response
    return body


def _find_validator(response: requests.Response) -> str:
    """What If-Range takes: an ETag that is not weak, or else a date."""
    etag: str = response.headers.get("ETag", "")
    return etag if etag.startswith('"') else str(response.headers.get("Last-Modified", ""))


def _explain(error: BaseException) -> str:
    """The first cause that the system or TLS has words for; never the URL."""
    chain = list(_unwrap(error))
    for each in chain:
        if isinstance(each, OSError) and each.strerror:
            return clean_text(each.strerror)
    if any(isinstance(each, _TIMED_OUT) for each in chain):
        return "it took too long"
    return "the server can't be reached"


def _unwrap(error: BaseException) -> Iterator[BaseException]:
    """An error of the libraries, and those that it wraps."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        causes = (getattr(seen, "reason", None), *seen.args, seen.__cause__, seen.__context__)
        seen = next((each for each in causes if isinstance(each, BaseException)), None)
