"""Tickets: once, in time, for whom they are, and through several proxies."""

import os
import threading
import time
from collections.abc import Callable

from testbed.console import Proxy
from testbed.console_client import WebSocketClient, open_console
from testbed.deadline import wait_for
from testbed.drawing import GREEN
from testbed.wire import ADDRESS

SECONDS = 120.0
SOAK = bool(os.environ.get("SNF_SOAK"))
RACES = 1000 if SOAK else 50


def test_ticket_is_good_once_and_the_user_is_told(checked: Proxy, green: None) -> None:
    ticket = checked.order()
    client = open_console(checked, ticket)
    assert client.read_colour() == GREEN
    again = WebSocketClient(checked.open_tls(), ticket["ticket"])
    assert again.wait_for_close() == (4001, "this link was used already; ask for a new one")
    assert client.read_colour() == GREEN  # undisturbed


def test_two_proxies_and_one_redis_give_a_ticket_to_one_client(
    checked: Proxy, sharing: Proxy
) -> None:
    """Four clients race for each ticket, two through each proxy."""
    for round_ in range(RACES):
        ticket = checked.order(user=f"racer{round_}")
        start = threading.Barrier(4)
        results: list[int] = []

        def race(proxy: Proxy, word: str, start: threading.Barrier, results: list[int]) -> None:
            tls = proxy.open_tls()
            start.wait(SECONDS)
            client = WebSocketClient(tls, word)
            try:
                client.receive(12)
                results.append(1)
            except EOFError:
                assert client.closed and client.closed[0] == 4001, client.closed
                results.append(0)
            tls.close()

        runners = [
            threading.Thread(target=race, args=(proxy, ticket["ticket"], start, results))
            for proxy in (checked, sharing) * 2
        ]
        for runner in runners:
            runner.start()
        for runner in runners:
            runner.join(SECONDS)
        assert sorted(results) == [0, 0, 0, 1], round_


def test_wrong_guesses_use_up_nothing(checked: Proxy, green: None) -> None:
    ticket = checked.order()
    for guess in (ticket["ticket"][:-1], ticket["ticket"].swapcase(), "x", "a" * 4000):
        code, said = WebSocketClient(checked.open_tls(), guess).wait_for_close()
        assert code == 4001 and "not valid" in said
    assert open_console(checked, ticket).read_colour() == GREEN


def test_expired_ticket_opens_nothing(checked: Proxy) -> None:
    ticket = checked.order(lifetime=0.2)
    until = time.monotonic() + 0.5
    wait_for("its end", lambda: time.monotonic() > until, SECONDS)
    code, said = WebSocketClient(checked.open_tls(), ticket["ticket"]).wait_for_close()
    assert code == 4001 and "has expired" in said


def test_revoked_ticket_opens_nothing(checked: Proxy) -> None:
    ticket = checked.order()
    assert checked.ask("DELETE", f"/sessions/{ticket['session']}")[0] == 204
    assert WebSocketClient(checked.open_tls(), ticket["ticket"]).wait_for_close()[0] == 4001
    assert checked.ask("DELETE", f"/sessions/{ticket['session']}")[0] == 404


def test_ticket_is_bound_to_origin_and_address(checked: Proxy, green: None) -> None:
    ticket = checked.order(origin="https://panel.example", address=ADDRESS)
    for origin in (checked.url, "https://evil.example", "null"):
        headers = f"Origin: {origin}\r\n"
        refused = WebSocketClient(checked.open_tls(), ticket["ticket"], headers=headers)
        assert refused.wait_for_close()[0] == 4001
    headers = "Origin: https://panel.example\r\n"
    assert open_console(checked, ticket, headers=headers).read_colour() == GREEN

    other = checked.order(address="192.0.2.7")
    code, said = WebSocketClient(checked.open_tls(), other["ticket"]).wait_for_close()
    assert code == 4001 and "another address" in said


def test_redis_holds_no_ticket(checked: Proxy, ask_redis: Callable[..., list[str]]) -> None:
    ticket = checked.order(password="backend-secret")
    keys = ask_redis("KEYS", "vncauthproxy:*")
    assert len(keys) >= 3
    held = " ".join([*keys, *ask_redis("MGET", *keys)])
    for secret in (ticket["ticket"], ticket["ticket"][:8], "backend-secret", "alice"):
        assert secret not in held
