"""Which of several brokers is tried. A mock stands for the connection: nothing is sent."""

import asyncio
from itertools import pairwise

import pytest

from snf_ganeti_eventd.settings import AmqpSettings
from snf_ganeti_eventd.transport import TransportError
from snf_ganeti_eventd.transport.amqp import AmqpTransport

HOSTS = ("one", "two", "three")


def open_often(monkeypatch: pytest.MonkeyPatch, hosts: tuple[str, ...], *dead: str) -> list[str]:
    """Open a transport again and again; gives the hosts that it asked, in order."""
    asked: list[str] = []

    async def connect(transport: AmqpTransport, host: str) -> None:
        asked.append(host)
        if host in dead:
            raise OSError("refused")

    async def repeat() -> None:
        transport = AmqpTransport(AmqpSettings(hosts=hosts))
        for _ in range(50):
            await transport.open()

    monkeypatch.setattr(AmqpTransport, "_connect", connect)
    asyncio.run(repeat())
    return asked


def test_the_host_that_was_left_is_not_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = open_often(monkeypatch, HOSTS)
    assert set(asked) == set(HOSTS)
    assert all(left != taken for left, taken in pairwise(asked))


def test_the_only_host_that_answers_is_taken_again(monkeypatch: pytest.MonkeyPatch) -> None:
    assert open_often(monkeypatch, HOSTS, "one", "two").count("three") == 50
    assert open_often(monkeypatch, ("one",)) == ["one"] * 50


def test_no_host_that_answers_is_named_with_each_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TransportError, match=r"^no broker: (?=.*one: refused)(?=.*two: refused)"):
        open_often(monkeypatch, ("one", "two"), "one", "two")
