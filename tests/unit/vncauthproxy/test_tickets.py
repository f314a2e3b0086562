"""Tickets in memory: once, in time, by both handles, and nothing to read in the store."""

import asyncio
import time
from dataclasses import replace

import pytest

from vncauthproxy import tickets
from vncauthproxy.instances.targets import Target
from vncauthproxy.protocol.vnc_auth import make_response
from vncauthproxy.stores.ticket_stores import MemoryStore
from vncauthproxy.tickets import Grant, TicketRefused

GRANT = Grant(
    session="0123456789abcdef",
    user="alice",
    name="web1",
    target=Target(instance="web1"),
    password="backend secret",
    until=time.time() + 1000,
)


def test_ticket_opens_its_grant_once() -> None:
    async def go() -> None:
        store = MemoryStore()
        ticket = (await tickets.issue(store, GRANT, 60)).encode()
        assert await tickets.find(store, ticket) == GRANT
        assert await tickets.find(store, ticket) == GRANT  # to look is not to take
        assert await store.take(GRANT.uid)
        assert not await store.take(GRANT.uid)
        with pytest.raises(TicketRefused, match="used already"):
            await tickets.find(store, ticket)

    asyncio.run(go())


def test_viewers_handle_is_the_answer_to_the_stores_challenge() -> None:
    async def go() -> None:
        store = MemoryStore()
        ticket = await tickets.issue(store, GRANT, 60)
        typed = ticket[:8].encode()  # all that VNC authentication takes of it
        handle = make_response(typed, await store.challenge())
        assert await tickets.find(store, handle) == GRANT
        assert await store.take(GRANT.uid)
        with pytest.raises(TicketRefused, match="used already"):
            await tickets.find(store, ticket.encode())

    asyncio.run(go())


def test_of_many_who_take_a_ticket_one_gets_it() -> None:
    async def go() -> None:
        store = MemoryStore()
        await tickets.issue(store, GRANT, 60)
        takes = await asyncio.gather(*(store.take(GRANT.uid) for _ in range(100)))
        assert takes.count(True) == 1

    asyncio.run(go())


def test_guesses_are_refused_and_use_up_nothing() -> None:
    async def go() -> None:
        store = MemoryStore()
        ticket = (await tickets.issue(store, GRANT, 60)).encode()
        for guess in (b"", b"x", ticket[:-1], ticket + b"x", ticket.lower(), b"x" * (1 << 20)):
            with pytest.raises(TicketRefused, match="not valid"):
                await tickets.find(store, guess)
        assert await tickets.find(store, ticket) == GRANT

    asyncio.run(go())


def test_expired_ticket_opens_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async def go() -> None:
        store = MemoryStore()
        ticket = (await tickets.issue(store, GRANT, 60)).encode()
        later = time.monotonic() + 61
        monkeypatch.setattr(time, "monotonic", lambda: later)
        with pytest.raises(TicketRefused, match="has expired"):
            await tickets.find(store, ticket)
        assert not await store.take(GRANT.uid)
        await tickets.issue(store, replace(GRANT, session="f" * 16), 60)
        assert len(store._kept) == 2  # what expired was forgotten

    asyncio.run(go())


def test_ticket_to_resume_with_is_another_one() -> None:
    async def go() -> None:
        store = MemoryStore()
        first = (await tickets.issue(store, GRANT, 60)).encode()
        assert await store.take(GRANT.uid)
        again, ticket = await tickets.reissue(store, GRANT)
        assert again.session == GRANT.session
        with pytest.raises(TicketRefused, match="used already"):
            await tickets.find(store, first)
        assert (await tickets.find(store, ticket.encode())).resumed == 1

    asyncio.run(go())


def test_store_holds_no_ticket_and_no_password() -> None:
    async def go() -> None:
        store = MemoryStore()
        ticket = await tickets.issue(store, GRANT, 60)
        held = repr(store.__dict__)
        for secret in (ticket, ticket[:8], GRANT.password, "alice"):
            assert secret not in held
        assert GRANT.password not in repr(GRANT)

    asyncio.run(go())
