"""Images of a web server that misbehaves: the standard library's, on loopback."""

import http.server
import re
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from snf_ganeti.errors import InputError, SnfError
from snf_image_host.settings import Settings
from snf_image_host.sources import open_source
from snf_image_host.sources.http import make_public_url

BODY = bytes(range(256)) * 4096
ETAG = '"v1"'


class Web(http.server.ThreadingHTTPServer):
    """Answers each request by the next of `answers`; the last one again and again."""

    daemon_threads = True

    def handle_error(self, request: object, address: object) -> None:
        """A client that leaves early is what some tests are about."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: list[Callable[[Handler], None]] = []
        self.ranges: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/images/debian.raw"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Web
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.server.ranges.append(self.headers.get("Range"))
        answers = self.server.answers
        (answers.pop(0) if len(answers) > 1 else answers[0])(self)

    def log_message(self, format: str, *arguments: object) -> None:
        pass

    def begin(self, status: int, **headers: object) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def cut(self) -> None:
        self.close_connection = True


def whole(handler: Handler) -> None:
    handler.begin(200, Content_Length=len(BODY), ETag=ETAG)
    handler.wfile.write(BODY)


def cut_at(count: int, **headers: object) -> Callable[[Handler], None]:
    def answer(handler: Handler) -> None:
        handler.begin(200, **{"Content_Length": len(BODY), "ETag": ETAG, **headers})
        handler.wfile.write(BODY[:count])
        handler.cut()

    return answer


def rest(handler: Handler) -> None:
    """What a server does that knows ranges."""
    match = re.fullmatch(r"bytes=(\d+)-", handler.headers["Range"])
    assert match
    assert handler.headers["If-Range"] == ETAG
    start = int(match[1])
    where = f"bytes {start}-{len(BODY) - 1}/{len(BODY)}"
    handler.begin(206, Content_Length=len(BODY) - start, Content_Range=where, ETag=ETAG)
    handler.wfile.write(BODY[start:])


def refuse(status: int) -> Callable[[Handler], None]:
    def answer(handler: Handler) -> None:
        handler.begin(status, Content_Length=5, Content_Type="text/html")
        handler.wfile.write(b"sorry")

    return answer


def redirect(location: str) -> Callable[[Handler], None]:
    return lambda handler: handler.begin(302, Location=location, Content_Length=0)


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("snf_image_host.sources.http._PAUSE", 0.0)


@pytest.fixture
def web() -> Iterator[Web]:
    with Web() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def fetch(url: str) -> bytes:
    got = bytearray()
    buffer = memoryview(bytearray(100_000))
    with open_source(url, Settings()) as source:
        while count := source.read_into(buffer):
            got += buffer[:count]
    return bytes(got)


def test_an_image_is_fetched_with_its_size_known(web: Web) -> None:
    web.answers = [whole]
    with open_source(web.url, Settings()) as source:
        assert source.size == len(BODY)
        assert source.descriptor is None
    assert fetch(web.url) == BODY


def test_a_chunked_answer_has_no_size_and_an_end(web: Web) -> None:
    def chunked(handler: Handler) -> None:
        handler.begin(200, Transfer_Encoding="chunked")
        for at in range(0, len(BODY), 50_000):
            part = BODY[at : at + 50_000]
            handler.wfile.write(b"%x\r\n%b\r\n" % (len(part), part))
        handler.wfile.write(b"0\r\n\r\n")

    web.answers = [chunked]
    with open_source(web.url, Settings()) as source:
        assert source.size is None
    assert fetch(web.url) == BODY


def test_a_broken_connection_is_taken_up_where_it_broke(web: Web) -> None:
    web.answers = [cut_at(300_000), rest]
    assert fetch(web.url) == BODY
    assert web.ranges == [None, "bytes=300000-"]


def test_a_server_without_ranges_is_read_again_from_its_start(web: Web) -> None:
    web.answers = [cut_at(300_000), cut_at(200_000), whole]
    assert fetch(web.url) == BODY


def test_a_server_that_is_busy_is_asked_again(web: Web) -> None:
    web.answers = [refuse(503), refuse(500), whole]
    assert fetch(web.url) == BODY


def test_what_never_ends_well_ends(web: Web) -> None:
    web.answers = [cut_at(1000)]
    with pytest.raises(InputError, match="5 times, at byte 1000"):
        fetch(web.url)


def test_an_image_that_changed_meanwhile_is_not_mixed(web: Web) -> None:
    web.answers = [cut_at(300_000), cut_at(len(BODY), ETag='"v2"')]
    with pytest.raises(InputError, match="still the same"):
        fetch(web.url)


def test_without_a_validator_nothing_is_resumed(web: Web) -> None:
    web.answers = [cut_at(300_000, ETag='W/"weak"'), whole]
    with pytest.raises(InputError, match="still the same"):
        fetch(web.url)


def test_a_range_from_elsewhere_is_refused(web: Web) -> None:
    def wrong(handler: Handler) -> None:
        where = f"bytes 5-{len(BODY) - 1}/{len(BODY)}"
        handler.begin(206, Content_Length=len(BODY) - 5, Content_Range=where, ETag=ETAG)
        handler.wfile.write(BODY[5:])

    web.answers = [cut_at(300_000), wrong]
    with pytest.raises(InputError, match="does not go on"):
        fetch(web.url)


def test_an_answer_whose_end_can_not_be_told_is_refused(web: Web) -> None:
    def endless(handler: Handler) -> None:
        handler.begin(200, Connection="close")
        handler.wfile.write(BODY)
        handler.cut()

    web.answers = [endless]
    with pytest.raises(InputError, match="how long it is"):
        fetch(web.url)


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_an_error_page_is_no_image(web: Web, status: int) -> None:
    web.answers = [refuse(status)]
    with pytest.raises(InputError, match=f"answered {status}"):
        fetch(web.url)


def test_a_web_page_is_no_image(web: Web) -> None:
    web.answers = [cut_at(len(BODY), Content_Type="text/html; charset=utf-8")]
    with pytest.raises(InputError, match="is a web page"):
        fetch(web.url)


def test_redirects_are_followed_but_not_for_ever(web: Web) -> None:
    web.answers = [redirect("/a"), redirect("/b"), whole]
    assert fetch(web.url) == BODY
    web.answers = [redirect("/again")]
    with pytest.raises(InputError, match="more than 5 redirects"):
        fetch(web.url)


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://127.0.0.1/x", "http://[::1"])
def test_a_redirect_to_another_kind_of_place_is_refused(web: Web, location: str) -> None:
    web.answers = [redirect(location)]
    with pytest.raises(SnfError, match="image http://127"):
        fetch(web.url)


def test_a_server_that_is_silent_meets_the_deadline(
    web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = threading.Event()
    monkeypatch.setattr("snf_image_host.sources.http._TIMEOUTS", (5.0, 0.2))
    web.answers = [lambda handler: bool(silent.wait(30))]  # type: ignore[list-item]
    try:
        with pytest.raises(InputError, match="took too long"):
            fetch(web.url)
    finally:
        silent.set()


def test_a_server_that_trickles_meets_the_deadline(
    web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = threading.Event()
    monkeypatch.setattr("snf_image_host.sources.http._RATE_INTERVAL", 0.3)

    def trickle(handler: Handler) -> None:
        handler.begin(200, Content_Length=len(BODY), ETag=ETAG)
        while not done.wait(0.05):
            handler.wfile.write(b"x")

    web.answers = [trickle]
    try:
        with pytest.raises(SnfError, match="64 KiB took longer"):
            fetch(web.url)
    finally:
        done.set()


def test_nobody_listens() -> None:
    with Web() as gone:
        url = gone.url
    with pytest.raises(InputError, match="Connection refused"):
        fetch(url)


def test_a_certificate_that_nobody_signed_is_refused(web: Web, tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    (tmp_path / "pem").write_text(CERTIFICATE)
    context.load_cert_chain(tmp_path / "pem")
    web.socket = context.wrap_socket(web.socket, server_side=True)
    web.answers = [whole]
    with pytest.raises(InputError, match="certificate"):
        fetch(web.url.replace("http:", "https:"))


@pytest.mark.parametrize("url", ["http://", "http:///x", "http://[::1/x", "http://h:port/x"])
def test_a_url_that_is_none(url: str) -> None:
    with pytest.raises(InputError, match="URL is none"):
        fetch(url)


def test_messages_show_no_secret_of_a_url() -> None:
    url = "HTTPS://user:s3cret@Example.org:8443/a/b?token=s3cret"
    assert make_public_url(url) == "https://example.org:8443/a/b"


CERTIFICATE = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgdogaelDXJYL8o1L8
d2mJ4uzgq6QqrwD6ZMh3FncyFcOhRANCAASSU3VOpH5O0CmCuL/nrOjEYSuZ9PnP
AV8Pm27fUv/PucHe14qDmfnZlT9gdZ7RYW1x0imEjHrPrgIau6mkJA6i
-----END PRIVATE KEY-----
-----BEGIN CERTIFICATE-----
MIIBfjCCASWgAwIBAgIUb7Q76HU7HprO/zGz+HySsmDEw0wwCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJMTI3LjAuMC4xMCAXDTI2MTEyNDIyMjQwOFoYDzIxMjYxMDMx
MjIyNDA4WjAUMRIwEAYDVQQDDAkxMjcuMC4wLjEwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAASSU3VOpH5O0CmCuL/nrOjEYSuZ9PnPAV8Pm27fUv/PucHe14qDmfnZ
lT9gdZ7RYW1x0imEjHrPrgIau6mkJA6io1MwUTAdBgNVHQ4EFgQUoWlzSpZyrzNk
JSrpSMyrsO795M8wHwYDVR0jBBgwFoAUoWlzSpZyrzNkJSrpSMyrsO795M8wDwYD
VR0TAQH/BAUwAwEB/zAKBggqhkjOPQQDAgNHADBEAiBmphYG/88ulNSjeBLMOG0K
rvsyVzVjC6pIKaspxnKW3AIgNvDO8qk/FHLa4zCIlLPOpdA8mcxofm0O+4vgPeZU
nfc=
-----END CERTIFICATE-----
"""
