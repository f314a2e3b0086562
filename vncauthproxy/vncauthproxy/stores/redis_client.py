"""The Redis that several proxies share: how it is reached and asked."""

import asyncio
import functools
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import redis.asyncio
from redis.exceptions import RedisError

from snf_ganeti.errors import NodeError

PREFIX = "vncauthproxy:"
ANSWER_SECONDS = 5.0
"""How long Redis has for an answer; a question that waits for something must be shorter."""

_CONNECTIONS = 16
"""To Redis, at most; who comes when all are busy waits. They are never given back."""

Parameters = ParamSpec("Parameters")
Answer = TypeVar("Answer")
Question = Callable[Parameters, Coroutine[Any, Any, Answer]]


def connect(url: str, ca: Path | None) -> Any:
    """A `redis.asyncio.Redis`, which connects when it is asked; its types change by release."""
    options = {"ssl_ca_certs": str(ca)} if ca else {}
    pool = redis.asyncio.BlockingConnectionPool.from_url(
        url,
        max_connections=_CONNECTIONS,
        timeout=ANSWER_SECONDS,
        socket_timeout=ANSWER_SECONDS,
        socket_connect_timeout=ANSWER_SECONDS,
        health_check_interval=30,
        **options,
    )
    return redis.asyncio.Redis(connection_pool=pool)


def asked(question: Question[Parameters, Answer]) -> Question[Parameters, Answer]:
    """A question to Redis, asked in a task of its own; it raises NodeError.

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
