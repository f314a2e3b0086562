"""Where tickets are kept: in this process, or in a Redis that several proxies share."""

import secrets
import time
from dataclasses import dataclass
from typing import Any

from snf_ganeti.errors import NodeError
from vncauthproxy.protocol.rfb import CHALLENGE_SIZE
from vncauthproxy.stores.redis_client import PREFIX, asked
from vncauthproxy.tickets import Entry, find_session

CAPACITY = 200_000
"""Tickets in memory; beyond, none is issued until some expired."""


@dataclass(frozen=True)
class _Kept:
    uid: str
    sealed: bytes
    until: float


@dataclass(frozen=True)
class _Live:
    """A session's only ticket that is good."""

    uid: str
    until: float


class MemoryStore:
    def __init__(self) -> None:
        self._challenge = secrets.token_bytes(CHALLENGE_SIZE)
        self._kept: dict[str, _Kept] = {}
        self._live: dict[str, _Live] = {}
        self._swept = 0.0

    async def challenge(self) -> bytes:
        return self._challenge

    async def put(self, uid: str, entries: dict[str, bytes], lifetime: float) -> None:
        now = time.monotonic()
        self._sweep(now)
        if len(self._live) >= CAPACITY:
            raise NodeError("there are too many tickets that nobody used", hint="try again later")
        until = now + lifetime
        self._live[find_session(uid)] = _Live(uid, until)
        self._kept.update({name: _Kept(uid, sealed, until) for name, sealed in entries.items()})

    async def find(self, name: str) -> Entry | None:
        kept = self._kept.get(name)
        if kept is None or kept.until <= time.monotonic():
            return None
        return Entry(kept.uid, kept.sealed, self._is_live(kept.uid))

    async def take(self, uid: str) -> bool:
        return self._is_live(uid) and await self.revoke(find_session(uid))

    async def revoke(self, session: str) -> bool:
        live = self._live.pop(session, None)
        return live is not None and live.until > time.monotonic()

    async def shorten(self, session: str, seconds: float) -> None:
        live, until = self._live.get(session), time.monotonic() + seconds
        if live and live.until > until:
            self._live[session] = _Live(live.uid, until)

    def _is_live(self, uid: str) -> bool:
        live = self._live.get(find_session(uid))
        return live is not None and live.uid == uid and live.until > time.monotonic()

    def _sweep(self, now: float) -> None:
        """Forget what has expired, at most once a second."""
        if now - self._swept < 1:
            return
        self._swept = now
        self._kept = {name: kept for name, kept in self._kept.items() if kept.until > now}
        self._live = {session: live for session, live in self._live.items() if live.until > now}


def make_live_key(session: str) -> str:
    """Where Redis has the uid of a session's only ticket that is good."""
    return f"{PREFIX}live:{session}"


class RedisStore:
    """A ticket is taken by the script that gives its session a seat; see `redis_registry`."""

    def __init__(self, client: Any) -> None:
        self._redis = client

    @asked
    async def challenge(self) -> bytes:
        fresh = secrets.token_bytes(CHALLENGE_SIZE)
        await self._redis.set(f"{PREFIX}challenge", fresh, nx=True)
        return bytes(await self._redis.get(f"{PREFIX}challenge"))

    @asked
    async def put(self, uid: str, entries: dict[str, bytes], lifetime: float) -> None:
        milliseconds = max(1, int(lifetime * 1000))
        async with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.set(make_live_key(find_session(uid)), uid, px=milliseconds)
            for name, sealed in entries.items():
                value = uid.encode() + b"\n" + sealed
                pipeline.set(f"{PREFIX}ticket:{name}", value, px=milliseconds)
            await pipeline.execute()

    @asked
    async def find(self, name: str) -> Entry | None:
        value = await self._redis.get(f"{PREFIX}ticket:{name}")
        if value is None:
            return None
        uid, _, sealed = bytes(value).partition(b"\n")
        live = await self._redis.get(make_live_key(find_session(uid.decode())))
        return Entry(uid.decode(), sealed, live == uid)

    @asked
    async def revoke(self, session: str) -> bool:
        return bool(await self._redis.delete(make_live_key(session)))
