"""Two proxies behind one name, with one Redis: each knows and rules the sessions of both."""

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from testbed.console import Proxy, running_proxy
from testbed.console_client import WebSocketClient, open_console, paint
from testbed.deadline import wait_for
from testbed.drawing import GREEN
from testbed.ganeti import Cluster
from testbed.machine import Machine
from testbed.rfb_client import RfbClient
from testbed.vnc_servers import SOCKET
from testbed.wire import ADDRESS

SECONDS = 120.0
AskRedis = Callable[..., list[str]]
IsDeafTo = Callable[[RfbClient], bool]
UNIX = {"unix": SOCKET}


def get_socket(client: RfbClient) -> WebSocketClient:
    assert isinstance(client.connection, WebSocketClient)
    return client.connection


def test_session_is_listed_switched_and_ended_by_the_other_proxy(
    checked: Proxy, sharing: Proxy, green: None, is_deaf_to: IsDeafTo
) -> None:
    ticket = checked.order(user="bob")
    client = open_console(checked, ticket, words="console")
    assert client.read_colour() == GREEN
    session, path = ticket["session"], f"/sessions/{ticket['session']}"
    shown = sharing.find_sessions()[session]
    assert shown.keys() == checked.find_sessions()[session].keys()
    assert (shown["user"], shown["from"]) == ("bob", ADDRESS)
    assert shown["proxy"].endswith(f":{checked.port}")

    status, shown = sharing.ask("PATCH", path, {"view_only": True})
    assert (status, shown["view_only"]) == (200, True)
    assert is_deaf_to(client)
    assert sharing.ask("PATCH", path, {"view_only": False})[0] == 200
    paint(client, "d")

    assert sharing.ask("DELETE", path)[0] == 204
    socket = get_socket(client)
    assert socket.wait_for_close() == (4003, "the controller ended the session")
    facts = [json.loads(text) for text in socket.texts]
    assert [fact["view_only"] for fact in facts] == [False, True, False]
    wait_for("its end", lambda: session not in sharing.find_sessions(), SECONDS)
    for method, body in (("DELETE", None), ("PATCH", {"view_only": True})):
        assert sharing.ask(method, path, body)[0] == 404
    again = WebSocketClient(sharing.open_tls(), facts[-1]["resume"])
    assert again.wait_for_close()[0] == 4001


def test_unused_ticket_is_revoked_by_the_other_proxy(checked: Proxy, sharing: Proxy) -> None:
    ticket = checked.order()
    assert sharing.ask("DELETE", f"/sessions/{ticket['session']}")[0] == 204
    assert WebSocketClient(checked.open_tls(), ticket["ticket"]).wait_for_close()[0] == 4001


@pytest.mark.parametrize(("limit", "same_user"), [(5, True), (8, False)])
def test_limits_hold_across_proxies(
    checked: Proxy, sharing: Proxy, green: None, limit: int, same_user: bool
) -> None:
    """Of a user and of an instance; a ticket that a limit refuses is not used up."""
    wait_for("earlier consoles' ends", lambda: not find_consoles(UNIX, checked, sharing), SECONDS)
    users = ["mallory" if same_user else f"user{number}" for number in range(limit)]
    clients = [
        open_console(proxy, proxy.order(user=user, target=UNIX))
        for user, proxy in zip(users, (checked, sharing) * limit, strict=False)
    ]
    ticket = sharing.order(user="mallory", target=UNIX)
    code, said = WebSocketClient(sharing.open_tls(), ticket["ticket"]).wait_for_close()
    assert code == 4001 and "too many consoles" in said
    get_socket(clients[0]).close()  # the other proxy's

    def is_let_in() -> bool:
        try:
            clients.append(open_console(sharing, ticket))
        except EOFError:
            return False
        return True

    wait_for("a place", is_let_in, SECONDS)
    for client in clients:
        get_socket(client).close()


def find_consoles(target: dict[str, str], *proxies: Proxy) -> list[str]:
    """The sessions with a target that take a place: a proxy lists its own that run, and those of
    the others that Redis has."""
    (name,) = target.values()
    shown = [each for proxy in proxies for each in proxy.find_sessions().items()]
    return [session for session, facts in shown if name in facts["instance"]]


def test_session_goes_on_at_the_other_proxy(checked: Proxy, sharing: Proxy, green: None) -> None:
    """Where it was it ends, though nobody closed it there; and it is one session."""
    ticket = checked.order(user="carol")
    client = open_console(checked, ticket, words="console")
    assert client.read_colour() == GREEN
    before = get_socket(client)
    (resume,) = (json.loads(text)["resume"] for text in before.texts)
    again = open_console(sharing, {"ticket": resume}, words="console")
    assert again.read_colour() == GREEN
    assert before.wait_for_close() == (4003, "the session goes on in another window")
    line = checked.find_audit(ticket["session"])
    assert line["end"] == "the session goes on in another window"
    shown = checked.find_sessions()[ticket["session"]]
    assert shown["proxy"].endswith(f":{sharing.port}")

    # The end of the first is no end of the second: it can be resumed again, where it began.
    after = get_socket(again)
    resume = json.loads(after.texts[-1])["resume"]
    after.close()
    third = open_console(checked, {"ticket": resume}, words="console")
    assert third.read_colour() == GREEN
    assert sharing.ask("DELETE", f"/sessions/{ticket['session']}")[0] == 204
    assert get_socket(third).wait_for_close() == (4003, "the controller ended the session")


def test_sessions_are_known_again_after_redis_forgot_them(
    checked: Proxy, sharing: Proxy, green: None, ask_redis: AskRedis
) -> None:
    """As when a proxy was cut off from Redis for longer than it keeps them."""
    ticket = checked.order()
    client = open_console(checked, ticket)
    assert client.read_colour() == GREEN
    assert ask_redis("DEL", f"vncauthproxy:session:{ticket['session']}") == ["1"]
    wait_for("its return", lambda: ticket["session"] in sharing.find_sessions(), SECONDS)
    assert client.read_colour() == GREEN
    assert sharing.ask("DELETE", f"/sessions/{ticket['session']}")[0] == 204


@contextlib.contextmanager
def silenced(server: subprocess.Popen[bytes]) -> Iterator[None]:
    """A server that takes connections and answers nothing, for the block."""
    server.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        server.send_signal(signal.SIGCONT)


def test_session_ends_while_redis_does_not_answer(
    checked: Proxy, green: None, redis: subprocess.Popen[bytes], ask_redis: AskRedis
) -> None:
    """It goes on meanwhile, too; and its ticket to resume with is worthless in the end."""
    ticket = checked.order()
    client = open_console(checked, ticket, words="console")
    assert client.read_colour() == GREEN
    (resume,) = (json.loads(text)["resume"] for text in get_socket(client).texts)
    with silenced(redis):
        assert client.read_colour() == GREEN
        status, answer = checked.ask("DELETE", f"/sessions/{ticket['session']}")
        assert status == 503 and "Redis can't be asked" in answer["error"]
        assert get_socket(client).wait_for_close() == (4003, "the controller ended the session")
    wait_for("its end", lambda: ticket["session"] not in checked.find_sessions(), SECONDS)
    live = f"vncauthproxy:live:{ticket['session']}"
    wait_for("the end of its ticket", lambda: ask_redis("EXISTS", live) == ["0"], SECONDS)
    assert WebSocketClient(checked.open_tls(), resume).wait_for_close()[0] == 4001


def test_proxy_that_died_leaves_nothing(
    cluster: Cluster,
    node: Machine,
    folder: Path,
    checked: Proxy,
    green: None,
    ask_redis: AskRedis,
) -> None:
    settings = f'[tickets]\nredis = "redis://{ADDRESS}:6390"\n'
    connect = cluster.bed.wire.connect
    with running_proxy(node, connect, folder, "dying", 8446, settings) as dying:
        ticket = dying.order(user="dave")
        client = open_console(dying, ticket)
        assert client.read_colour() == GREEN
        session = ticket["session"]
        assert session in checked.find_sessions()
        os.kill(dying.pid, signal.SIGKILL)
        status, answer = checked.ask("DELETE", f"/sessions/{session}")
        assert status == 503 and "does not answer" in answer["error"]
        wait_for("its end", lambda: session not in checked.find_sessions(), SECONDS)
    assert checked.ask("DELETE", f"/sessions/{session}")[0] == 404

    def find_left() -> list[str]:
        sets = ask_redis("KEYS", "vncauthproxy:sessions*")
        members = [word for key in sets for word in ask_redis("ZRANGE", key, "0", "-1")]
        names = ask_redis("KEYS", f"*{session}*") + ask_redis("KEYS", "vncauthproxy:to:*8446*")
        return names + [member for member in members if member == session]

    wait_for("an empty Redis", lambda: not find_left(), SECONDS, explain=lambda: str(find_left()))
