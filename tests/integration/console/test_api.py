"""The API for controllers, and what it does to sessions."""

import http.client
import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from testbed.console import Proxy
from testbed.console_client import WebSocketClient, open_console, paint
from testbed.deadline import wait_for
from testbed.drawing import GREEN
from testbed.rfb_client import RfbClient
from testbed.wire import ADDRESS

SECONDS = 120.0
IsDeafTo = Callable[[RfbClient], bool]


def test_only_controllers_may_ask(checked: Proxy, folder: Path) -> None:
    for method, path in (("POST", "/tickets"), ("GET", "/sessions"), ("GET", "/metrics")):
        assert checked.ask(method, path, {}, token="")[0] == 401
        assert checked.ask(method, path, {}, token="wrong")[0] == 401
    shown = ((folder / "client-cert.pem", folder / "client-key.pem"),)
    assert checked.ask("GET", "/sessions", token="", certificates=shown)[0] == 200
    server = ((folder / "server-cert.pem", folder / "server-key.pem"),)
    assert checked.ask("GET", "/sessions", token="", certificates=server)[0] == 401
    foreign = ((folder / "foreign-cert.pem", folder / "foreign-key.pem"),)
    with pytest.raises((OSError, http.client.HTTPException)):  # TLS itself ends
        checked.ask("GET", "/sessions", token="", certificates=foreign)


def test_the_api_document_is_true(checked: Proxy, green: None) -> None:
    """Each answer of each operation is one that the document describes."""
    from jsonschema import Draft202012Validator

    status, document = checked.ask("GET", "/openapi.json", token="")
    assert status == 200
    ticket = checked.order()
    client = open_console(checked, ticket)
    session = f"/sessions/{ticket['session']}"
    target = {"host": "127.0.0.1", "port": 5901}
    calls: list[tuple[str, str, str, object, str | None, int]] = [
        ("POST", "/tickets", "/tickets", {"user": "a", "target": target}, None, 201),
        ("POST", "/tickets", "/tickets", {}, "", 401),
        ("POST", "/tickets", "/tickets", b" " * 70_000, None, 413),
        ("POST", "/tickets", "/tickets", {"user": ""}, None, 422),
        ("POST", "/tickets", "/tickets", b"{", None, 422),
        ("GET", "/sessions", "/sessions", None, None, 200),
        ("GET", "/sessions", "/sessions", None, "", 401),
        ("PATCH", "/sessions/{id}", session, {"view_only": False}, None, 200),
        ("PATCH", "/sessions/{id}", session, {"view_only": 1}, None, 422),
        ("PATCH", "/sessions/{id}", session, {"view_only": False}, "", 401),
        ("PATCH", "/sessions/{id}", "/sessions/" + "0" * 16, {"view_only": True}, None, 404),
        ("DELETE", "/sessions/{id}", session, None, "", 401),
        ("DELETE", "/sessions/{id}", session, None, None, 204),
        ("DELETE", "/sessions/{id}", "/sessions/" + "0" * 16, None, None, 404),
        ("GET", "/metrics", "/metrics", None, None, 200),
        ("GET", "/metrics", "/metrics", None, "", 401),
        ("GET", "/health", "/health", None, "", 200),
    ]
    for method, path, actual, body, token, expected in calls:
        status, answer = checked.ask(method, actual, body, token=token)
        assert status == expected, (method, actual, answer)
        responses = document["paths"][path][method.lower()]["responses"]
        response = responses[str(status)]
        if "$ref" in response:
            response = document["components"]["responses"][response["$ref"].rpartition("/")[2]]
        schema = response.get("content", {}).get("application/json", {}).get("schema")
        if schema:
            rooted = {**schema, "components": document["components"]}
            Draft202012Validator(rooted).validate(answer)
    assert client.connection.wait_for_close()[0] == 4003  # type: ignore[attr-defined]


def test_session_is_listed_switched_and_ended(
    checked: Proxy, green: None, is_deaf_to: IsDeafTo
) -> None:
    ticket = checked.order(user="bob")
    client = open_console(checked, ticket, words="console")
    assert client.read_colour() == GREEN
    (shown,) = (
        each
        for each in checked.ask("GET", "/sessions")[1]["sessions"]
        if each["session"] == ticket["session"]
    )
    assert (shown["user"], shown["kind"], shown["from"]) == ("bob", "browser", ADDRESS)
    path = f"/sessions/{ticket['session']}"

    assert checked.ask("PATCH", path, {"view_only": True})[1]["view_only"] is True
    assert is_deaf_to(client)
    assert checked.ask("PATCH", path, {"view_only": False})[0] == 200
    paint(client, "d")
    assert checked.ask("DELETE", path)[0] == 204
    socket_ = client.connection
    assert isinstance(socket_, WebSocketClient)
    assert socket_.wait_for_close() == (4003, "the controller ended the session")
    facts = [json.loads(text) for text in socket_.texts]
    assert [fact["view_only"] for fact in facts] == [False, True, False]
    line = checked.find_audit(ticket["session"])
    assert line["end"] == "the controller ended the session"
    assert line["bytes_in"] > 0 and line["bytes_out"] > 0 and line["seconds"] > 0


def test_view_only_ticket_takes_no_keys(checked: Proxy, green: None, is_deaf_to: IsDeafTo) -> None:
    client = open_console(checked, checked.order(view_only=True))
    assert client.read_colour() == GREEN
    assert is_deaf_to(client)
    assert not is_deaf_to(open_console(checked, checked.order()))  # such a key is heard


def ask_for_clipboard(client: RfbClient) -> None:
    """By the extension of QEMU and noVNC; the server answers with what it can do."""
    client.connection.send(struct.pack(">BxHiI", 2, 2, 0, 0xC0A1E5CE))


def read_clipboard(client: RfbClient) -> int:
    """The flags of a message of the server's clipboard, which comes next."""
    assert client.connection.receive(4)[0] == 3
    (size,) = struct.unpack(">i", client.connection.receive(4))
    (flags,) = struct.unpack(">I", client.connection.receive(-size)[:4])
    return int(flags)


def test_clipboard_passes_either_way_or_neither(checked: Proxy, green: None) -> None:
    """QEMU hands text that one client cut to the others that ask for it."""
    text = struct.pack(">BxxxI", 6, 5) + b"hello"
    sender, receiver = (open_console(checked, checked.order(user=user)) for user in ("a", "b"))
    barred = open_console(checked, checked.order(user="c", clipboard=False))
    for client in (sender, receiver, barred):
        ask_for_clipboard(client)
    for client in (sender, receiver):
        assert read_clipboard(client) & 1 << 24  # what it can do
    barred.connection.send(text)
    for client in (sender, receiver, barred):
        assert client.read_colour() == GREEN  # and nothing before it
    sender.connection.send(text)
    assert sender.read_colour() == GREEN
    assert read_clipboard(receiver) & 1 << 27  # there is some
    for _ in range(5):
        assert barred.read_colour() == GREEN


def test_limit_of_a_user_uses_up_no_ticket(checked: Proxy, sharing: Proxy, green: None) -> None:
    sharing.wait_for_sessions(0)
    tickets = [sharing.order(user="eve") for _ in range(5)]
    clients = [open_console(sharing, ticket) for ticket in tickets]
    ticket = sharing.order(user="eve")
    code, said = WebSocketClient(sharing.open_tls(), ticket["ticket"]).wait_for_close()
    assert code == 4001 and "too many consoles" in said
    first = clients[0].connection
    assert isinstance(first, WebSocketClient)
    first.tls.close()
    # The other proxy sees what is in Redis, where the places are.
    gone = tickets[0]["session"]
    wait_for("its end", lambda: gone not in checked.find_sessions(), SECONDS)
    assert open_console(sharing, ticket).read_colour() == GREEN


def test_metrics_count_sessions(checked: Proxy, green: None) -> None:
    client = open_console(checked, checked.order())
    status, text = checked.ask("GET", "/metrics")
    assert status == 200
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if line[0] != "#")
    assert float(values['vncauthproxy_sessions{kind="browser"}']) >= 1
    assert float(values["vncauthproxy_tickets_total"]) >= 1
    assert client.read_colour() == GREEN


def test_who_resumes_a_session_has_its_rules(
    checked: Proxy, green: None, is_deaf_to: IsDeafTo
) -> None:
    """View-only as it was switched to, and the ticket from before is worthless."""
    ticket = checked.order()
    client = open_console(checked, ticket, words="console")
    checked.ask("PATCH", f"/sessions/{ticket['session']}", {"view_only": True})
    assert client.read_colour() == GREEN
    socket_ = client.connection
    assert isinstance(socket_, WebSocketClient)
    old, new = (json.loads(text)["resume"] for text in socket_.texts)
    socket_.close()
    assert WebSocketClient(checked.open_tls(), old).wait_for_close()[0] == 4001
    again = open_console(checked, {"ticket": new}, words="console")
    assert again.read_colour() == GREEN
    assert is_deaf_to(again)
    checked.ask("DELETE", f"/sessions/{ticket['session']}")
