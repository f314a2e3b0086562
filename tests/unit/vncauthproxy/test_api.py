"""Bodies of requests, and the page's files: what is taken and what is refused."""

from pathlib import Path

import pytest

from snf_ganeti.errors import InputError, SettingsError
from vncauthproxy import controllers, settings
from vncauthproxy.api import find_routes, parse_order
from vncauthproxy.connections.http_server import Request
from vncauthproxy.connections.websocket import find_ticket
from vncauthproxy.instances.targets import Target
from vncauthproxy.page import Page


def test_order_of_a_ticket() -> None:
    order = parse_order(
        b'{"instance": "web1", "user": "alice", "view_only": true, "lifetime": 5,'
        b' "origin": "https://panel.example", "address": "192.0.2.7", "password": "secret"}'
    )
    assert order.target == Target(instance="web1")
    assert order.view_only
    assert "secret" not in repr(order)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 60_000, "not JSON"),
        (b"[]", "not a JSON object"),
        (b'{"user": "a"}', "either instance or target"),
        (b'{"user": "a", "instance": "b", "target": {"unix": "/x"}}', "either instance or target"),
        (b'{"instance": "a"}', "user is missing"),
        (b'{"user": "a", "instance": "b", "viewonly": true}', "unknown key 'viewonly'"),
        (b'{"user": "a", "instance": "b", "view_only": 1}', "view_only must be bool"),
        (b'{"user": "a\\nb", "instance": "b"}', "user is too long or"),
        (b'{"user": "%s", "instance": "b"}' % (b"x" * 300), "user is too long"),
        (b'{"user": "a", "instance": "b", "lifetime": -1}', "lifetime must be"),
        (b'{"user": "a", "instance": "b", "lifetime": NaN}', "lifetime must be"),
        (b'{"user": "a", "instance": "b", "lifetime": Infinity}', "lifetime must be"),
        (b'{"user": "a", "instance": "b", "origin": "https://u:p@h"}', "origin must be"),
        (b'{"user": "a", "instance": "b", "origin": "panel"}', "origin must be"),
        (b'{"user": "a", "instance": "b", "address": "here"}', "address must be"),
        (b'{"user": "a", "target": {"host": "h", "port": 1, "x": 1}}', "target's 'x'"),
    ],
)
def test_orders_that_are_refused(body: bytes, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        parse_order(body)


def test_routes_are_found_by_path() -> None:
    assert set(find_routes("/sessions/0123456789abcdef")[0]) == {"DELETE", "PATCH"}
    assert find_routes("/sessions/0123456789abcdef")[1] == "0123456789abcdef"
    for path in ("/sessions/", "/sessions/x", "/sessions/{id}", "/tickets/", "//tickets"):
        assert not find_routes(path)[0], path


def test_page_serves_its_list_and_nothing_else(tmp_path: Path) -> None:
    for name in ("core/rfb.js", "vendor/pako/index.js", "secret.js", "core/.hidden"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    page = Page(settings.Page(novnc=tmp_path))
    index = page.find("/")
    assert index and b"<html" in index.body
    assert "script-src 'self'" in index.headers["Content-Security-Policy"]
    assert "unsafe" not in index.headers["Content-Security-Policy"]
    assert page.find("/novnc/core/rfb.js")
    for path in (
        *("/novnc/secret.js", "/novnc/core/../secret.js", "/../etc/passwd", "/novnc/", ""),
        *("/novnc/core/.hidden", "/console.js/", "//console.js", "/novnc/core"),
    ):
        assert page.find(path) is None, path


def ask(authorization: str = "", names: tuple[str, ...] = ()) -> Request:
    headers = {"authorization": authorization} if authorization else {}
    return Request("GET", "/sessions", "", headers, "192.0.2.1", names)


def test_controllers_are_known_by_token_or_certificate(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    chosen = settings.Controllers(tokens=path, client_names=("panel.example",))
    assert controllers.read(chosen).tokens == {}
    token = controllers.add_token(path, "panel")
    assert token not in path.read_text()
    known = controllers.read(chosen)
    assert known.identify(ask(f"Bearer {token}")) == "panel"
    assert known.identify(ask(f"bearer  {token} ")) == "panel"
    assert known.identify(ask(names=("panel.example",))) == "panel.example"
    for wrong in (
        "",
        "Bearer",
        "Bearer ",
        f"Basic {token}",
        f"Bearer {token}x",
        "Bearer " + "x" * 9999,
    ):
        assert known.identify(ask(wrong)) is None
    assert known.identify(ask(names=("other.example",))) is None


def test_line_of_the_tokens_file_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text("# fine\n\npanel plain-token\n")
    with pytest.raises(SettingsError, match=r"tokens:3: .*add-token"):
        controllers.read(settings.Controllers(tokens=path))


def test_ticket_is_one_of_the_offered_subprotocols() -> None:
    assert find_ticket("console, ticket.abc-_") == "abc-_"
    assert find_ticket("binary,ticket.abc") == "abc"
    for offered in ("", "binary", "ticket.", "ticket.a, ticket.b", "tickets.a"):
        assert find_ticket(offered) == ""
