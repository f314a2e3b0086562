"""Where tickets are kept: in this process, or in a Redis that several proxies share."""

import asyncio
import contextlib
import functools
import secrets
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import redis.asyncio
from redis.exceptions import RedisError

from snf_ganeti.errors import NodeError
from vncauthproxy.rfb import CHALLENGE_SIZE
from vncauthproxy.tickets import Entry, Store

CAPACITY = 200_000
"""Tickets in memory; beyond, none is issued until some expired."""
_REDIS_SECONDS = 5.0
_PREFIX = "vncauthproxy:"


@dataclass(frozen=True)
class _Kept:
    uid: str
    sealed: bytes
    until: float


class MemoryStore:
    def __init__(self) -> None:
        self._challenge = secrets.token_bytes(CHALLENGE_SIZE)
        self._kept: dict[str, _Kept] = {}
        self._live: dict[str, float] = {}
        self._swept = 0.0

    async def challenge(self) -> bytes:
        return self._challenge

    async def put(self, uid: str, entries: dict[str, bytes], lifetime: float) -> None:
        now = time.monotonic()
        self._sweep(now)
        if len(self._live) >= CAPACITY:
            raise NodeError("there are too many tickets that nobody used", hint="try again later")
        until = now + lifetime
        self._live[uid] = until
        self._kept.update({name: _Kept(uid, sealed, until) for name, sealed in entries.items()})

    async def find(self, name: str) -> Entry | None:
        kept = self._kept.get(name)
        if kept is None or kept.until <= time.monotonic():
            return None
        return Entry(kept.uid, kept.sealed, kept.uid in self._live)

    async def take(self, uid: str) -> bool:
        until = self._live.pop(uid, 0.0)
        return until > time.monotonic()

    async def close(self) -> None:
        pass

    def _sweep(self, now: float) -> None:
        """Forget what has expired, at most once a second."""
        if now - self._swept < 1:
            return
        self._swept = now
        self._kept = {name: kept for name, kept in self._kept.items() if kept.until > now}
        self._live = {uid: until for uid, until in self._live.items() if until > now}


Parameters = ParamSpec("Parameters")
Answer = TypeVar("Answer")
Question = Callable[Parameters, Coroutine[Any, Any, Answer]]


def _asked(question: Question[Parameters, Answer]) -> Question[Parameters, Answer]:
    """A question to Redis, asked in a task of its own.

    redis-py's time limits cancel the task that asks and don't take it back, after which no
    `asyncio.timeout` of that task works any more (Python 3.11).
    """

    @functools.wraps(question)
    async def ask(*arguments: Parameters.args, **named: Parameters.kwargs) -> Answer:
        try:
            return await asyncio.create_task(question(*arguments, **named))
        except (RedisError, OSError, TimeoutError) as error:
            # The text of an error can hold the URL and with it a password.
            raise NodeError(f"Redis can't be asked: {type(error).__name__}") from None

    return ask


class RedisStore:
    """`take` is Redis's DEL, which tells how many keys it removed: one caller reads 1."""

    def __init__(self, url: str, ca: Path | None) -> None:
        options = {"ssl_ca_certs": str(ca)} if ca else {}
        self._redis = redis.asyncio.Redis.from_url(
            url,
            socket_timeout=_REDIS_SECONDS,
            socket_connect_timeout=_REDIS_SECONDS,
            health_check_interval=30,
            **options,
        )

    @_asked
    async def challenge(self) -> bytes:
        fresh = secrets.token_bytes(CHALLENGE_SIZE)
        await self._redis.set(f"{_PREFIX}challenge", fresh, nx=True)
        return bytes(await self._redis.get(f"{_PREFIX}challenge"))

    @_asked
    async def put(self, uid: str, entries: dict[str, bytes], lifetime: float) -> None:
        milliseconds = max(1, int(lifetime * 1000))
        async with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.set(f"{_PREFIX}live:{uid}", b"1", px=milliseconds)
            for name, sealed in entries.items():
                value = uid.encode() + b"\n" + sealed
                pipeline.set(f"{_PREFIX}ticket:{name}", value, px=milliseconds)
            await pipeline.execute()

    @_asked
    async def find(self, name: str) -> Entry | None:
        value = await self._redis.get(f"{_PREFIX}ticket:{name}")
        if value is None:
            return None
        uid, _, sealed = bytes(value).partition(b"\n")
        live = await self._redis.exists(f"{_PREFIX}live:{uid.decode()}")
        return Entry(uid.decode(), sealed, bool(live))

    @_asked
    async def take(self, uid: str) -> bool:
        return bool(await self._redis.delete(f"{_PREFIX}live:{uid}") == 1)

    async def close(self) -> None:
        with contextlib.suppress(RedisError, OSError):
            await self._redis.close()


def make_store(url: str, ca: Path | None = None) -> Store:
    if url:
        return RedisStore(url, ca)
    return MemoryStore()
