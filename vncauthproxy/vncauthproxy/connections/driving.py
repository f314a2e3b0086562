"""Handshakes meet I/O: on a stream, byte by needed byte, or with a client's messages."""

import contextlib
import ssl
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from vncauthproxy.connections.stream import ConnectionEnded, Stream
from vncauthproxy.protocol.handshake import Check, Handshake, Proof, StartTls
from vncauthproxy.protocol.rfb import ProtocolError

Result = TypeVar("Result")
Checker = Callable[[Proof], Awaitable[str | None]]
"""Gives the reason why a proof is not good, or nothing."""


class Messages(Protocol):
    """What brings bytes as they come: a WebSocket."""

    async def read(self) -> bytes: ...
    async def write(self, data: bytes) -> None: ...


async def drive(
    stream: Stream,
    handshake: Handshake[Result],
    *,
    make_tls: Callable[[bool], ssl.SSLContext] | None = None,
    host: str | None = None,
    check: Checker | None = None,
) -> Result:
    """Run a handshake, reading no byte beyond it.

    make_tls: is told whether to do without certificates. host: whom to expect there.
    Raises SnfError; what a refused client should read was sent then.
    """
    try:
        while True:
            await _send_output(stream, handshake)
            if handshake.needs:
                handshake.receive(await stream.read_exactly(handshake.needs))
            elif isinstance(handshake.pending, StartTls) and make_tls:
                await stream.start_tls(make_tls(handshake.pending.anonymous), host=host)
                handshake.answer()
            elif isinstance(handshake.pending, Check) and check:
                handshake.answer(await check(handshake.pending.proof))
            else:
                break
    except ProtocolError:
        with contextlib.suppress(ConnectionEnded):
            await _send_output(stream, handshake)
        raise
    assert handshake.result is not None
    return handshake.result


async def drive_messages(
    client: Messages, handshake: Handshake[Result], check: Checker | None = None
) -> bytes:
    """Run a handshake without TLS of its own; gives what came after it. Raises SnfError."""
    try:
        while True:
            await _send_output(client, handshake)
            if isinstance(handshake.pending, Check) and check:
                handshake.answer(await check(handshake.pending.proof))
            elif handshake.done:
                return handshake.take_unread()
            else:
                data = await client.read()
                if not data:
                    raise ConnectionEnded("the client left in the middle of the handshake")
                handshake.receive(data)
    except ProtocolError:
        with contextlib.suppress(ConnectionEnded):
            await _send_output(client, handshake)
        raise


async def _send_output(to: Stream | Messages, handshake: Handshake[Result]) -> None:
    output = handshake.take_output()
    if output:
        await to.write(output)
