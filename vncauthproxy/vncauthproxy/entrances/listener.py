"""Listening, and accepting within limits."""

import asyncio
import contextlib
import errno
import ipaddress
import logging
import socket
from collections import Counter
from collections.abc import Awaitable, Callable

from snf_ganeti.errors import NodeError, SnfError
from vncauthproxy.connections.stream import Stream, closing
from vncauthproxy.instances.targets import parse_address
from vncauthproxy.proxy import Proxy

_BACKLOG = 1024
_RETRY_SECONDS = 0.2
_FULL = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

Serve = Callable[[Stream, str], Awaitable[None]]
"""Serves one connection, from an address."""

log = logging.getLogger(__name__)


def open_listener(address: str, port: int) -> socket.socket:
    """A TCP socket that listens; on "::" for IPv4, too. Raises NodeError."""
    version = ipaddress.ip_address(address).version
    family = socket.AF_INET6 if version == 6 else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(address != "::"))
        listener.bind((address, port))
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise NodeError(f"can't listen on {address} port {port}: {error.strerror}") from None
    return listener


class Acceptor:
    """Serves each connection in a task of its own; a bug in one is no other's."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self._tasks: set[asyncio.Task[None]] = set()
        self._by_address: Counter[str] = Counter()

    async def accept(self, listener: socket.socket, serve: Serve) -> None:
        """Until it is cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, peer = await loop.sock_accept(listener)
            except OSError as error:
                if error.errno in _FULL:
                    log.warning("no connection can be accepted: %s", error.strerror)
                    await asyncio.sleep(_RETRY_SECONDS)
                continue
            address = str(parse_address(str(peer[0])))
            if self._is_too_many(address):
                self._proxy.metrics.dropped.inc()
                connection.close()
                await asyncio.sleep(0)
                continue
            self.start(self._serve(connection, address, serve))

    def start(self, work: Awaitable[None]) -> None:
        """Do it in a task that `close` knows."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _is_too_many(self, address: str) -> bool:
        """Those of an address that are sessions don't count: many users can share one."""
        limits, open_here = self._proxy.settings.limits, self._by_address[address]
        if len(self._tasks) >= limits.connections:
            return True
        if open_here < limits.handshakes_per_address:
            return False
        running = self._proxy.sessions.running.values()
        known = sum(1 for session in running if session.address == address)
        return open_here - known >= limits.handshakes_per_address

    async def _serve(self, connection: socket.socket, address: str, serve: Serve) -> None:
        self._proxy.metrics.connections.inc()
        self._by_address[address] += 1
        try:
            with contextlib.suppress(TimeoutError, OSError), closing(Stream(connection)) as stream:
                await serve(stream, address)
        except SnfError as error:
            log.debug("connection from %s: %s", address, error)
        except Exception:
            log.exception("this is a bug; connection from %s", address)
        finally:
            connection.close()
            self._proxy.metrics.connections.dec()
            self._by_address[address] -= 1
            if not self._by_address[address]:
                del self._by_address[address]

    async def close(self, seconds: float) -> None:
        """Give all connections a time to end, then end them."""
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=seconds)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
