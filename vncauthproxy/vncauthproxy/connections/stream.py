"""One TCP or UNIX connection in asyncio, in clear or in TLS, without asyncio's transports.

The socket is read and written by the task that wants to, so a side that does not read holds up
whoever writes to it, and nothing piles up in between. TLS is Python's own `SSLSocket`, straight
on the socket: it costs a third less than asyncio's, keeps no buffers while a session is idle,
and can start in the middle of a connection, since nothing is read that was not asked for.
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Iterator

from snf_ganeti.errors import SnfError

CHUNK = 1 << 16
_RECORD = 1 << 14
"""Bytes of a record of TLS, at most."""
_TURN = 1 << 19
"""Bytes after which a connection that never has to wait lets others have their turn."""
_TCP_USER_TIMEOUT = 18  # milliseconds; linux/tcp.h
_KEEPALIVE = {
    socket.TCP_KEEPIDLE: 60,
    socket.TCP_KEEPINTVL: 15,
    socket.TCP_KEEPCNT: 4,
    socket.TCP_NODELAY: 1,
    _TCP_USER_TIMEOUT: 120_000,
}


class ConnectionEnded(SnfError):
    """The other side is gone, or its TLS is not what it should be."""


class HungUp(ConnectionEnded):
    """The other side closed the connection, which is no more than the end of what it had to say."""


class Stream:
    """One task may read while another writes; writers take turns."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        if connection.family != socket.AF_UNIX:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in _KEEPALIVE.items():
                connection.setsockopt(socket.IPPROTO_TCP, option, value)
        self.socket = connection
        self.bytes_in = 0
        self.bytes_out = 0
        self.writing_since: float | None = None
        """Since when (the loop's clock) the other side has taken nothing of what is written."""
        self._loop = asyncio.get_running_loop()
        self._lock = asyncio.Lock()
        self._waiters: dict[bool, list[asyncio.Future[None]]] = {False: [], True: []}
        self._watched: set[bool] = set()
        self._turn = 0

    @property
    def tls(self) -> ssl.SSLSocket | None:
        return self.socket if isinstance(self.socket, ssl.SSLSocket) else None

    @property
    def is_writing(self) -> bool:
        return self._lock.locked()

    async def peek(self, seconds: float) -> bytes | None:
        """The next byte, not read yet; none at the end, None when none came in time.

        Before TLS only. A byte that came while this process was busy is seen, however late.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._peek_now() is None:
                    await self._wait(writable=False)
        return self._peek_now()

    def _peek_now(self) -> bytes | None:
        try:
            return self.socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return None
        except OSError as error:
            raise _explain(error) from None

    async def read(self, limit: int = CHUNK) -> bytes:
        """Some bytes, or none at the end. Raises ConnectionEnded.

        A reset is an end, too: who closes with something unread sends one, and whether something
        was is a matter of microseconds.
        """
        while True:
            try:
                data = self._read_records(limit) if self.tls else self.socket.recv(limit)
            except (BlockingIOError, ssl.SSLWantReadError):
                await self._wait(writable=False)
            except ssl.SSLWantWriteError:
                await self._wait(writable=True)
            except (ssl.SSLEOFError, ConnectionResetError):
                return b""
            except OSError as error:
                raise _explain(error) from None
            else:
                self.bytes_in += len(data)
                await self._count(len(data))
                return data

    def _read_records(self, limit: int) -> bytes:
        """What is there of TLS. One call gives one record at most; where that is full, and more
        is likely to have come, others are put to it."""
        data = self.socket.recv(min(limit, _RECORD))
        if len(data) < _RECORD or limit == _RECORD:
            return data
        records = [data]
        left = limit - len(data)
        with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLWantWriteError, ssl.SSLEOFError):
            while left and (data := self.socket.recv(min(left, _RECORD))):
                records.append(data)
                left -= len(data)
        return b"".join(records)

    async def read_exactly(self, size: int) -> bytes:
        """Raises ConnectionEnded when it ends before."""
        data = b""
        while len(data) < size:
            more = await self.read(min(size - len(data), CHUNK))
            if not more:
                raise ConnectionEnded("the connection ended in the middle of the handshake")
            data += more
        return data

    async def write(self, data: bytes) -> None:
        """Give all of it to the kernel, however long that takes. Raises HungUp, ConnectionEnded."""
        async with self._lock:
            view = memoryview(data)
            try:
                while view:
                    view = view[await self._write_some(view) :]
            finally:
                self.writing_since = None
        await self._count(len(data))

    async def _write_some(self, view: memoryview) -> int:
        while True:
            try:
                sent = self.socket.send(view)
            except (BlockingIOError, ssl.SSLWantWriteError):
                self.writing_since = self.writing_since or self._loop.time()
                await self._wait(writable=True)
            except ssl.SSLWantReadError:
                await self._wait(writable=False)
            except (BrokenPipeError, ConnectionResetError):
                raise HungUp("the other side closed the connection") from None
            except OSError as error:
                raise _explain(error) from None
            else:
                self.writing_since = None
                self.bytes_out += sent
                return sent

    async def start_tls(self, context: ssl.SSLContext, *, host: str | None = None) -> None:
        """Go on in TLS: as a server, or as a client of `host`. Raises ConnectionEnded."""
        try:
            self.socket = context.wrap_socket(
                self.socket,
                server_side=context.protocol == ssl.PROTOCOL_TLS_SERVER,
                server_hostname=host,
                do_handshake_on_connect=False,
            )
            await self._shake_hands(self.socket)
        except OSError as error:
            raise _explain(error) from None

    async def _shake_hands(self, tls: ssl.SSLSocket) -> None:
        while True:
            try:
                return tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._wait(writable=False)
            except ssl.SSLWantWriteError:
                await self._wait(writable=True)

    def close(self) -> None:
        """At once, whoever still waits for it."""
        for writable in list(self._watched):
            self._stop_waiting(writable)
            self._unwatch(writable)
        self.socket.close()

    async def close_gently(self, seconds: float) -> None:
        """After the other side has had time to read what was sent, since a close with unread
        input destroys it."""
        with contextlib.suppress(OSError, TimeoutError, ConnectionEnded):
            async with asyncio.timeout(seconds):
                if self.tls:
                    with contextlib.suppress(ssl.SSLError):
                        self.tls.unwrap()
                self.socket.shutdown(socket.SHUT_WR)
                while await self.read():
                    pass
        self.close()

    async def _wait(self, *, writable: bool) -> None:
        if self.socket.fileno() < 0:
            raise ConnectionEnded("the connection was closed")
        self._turn = 0
        future: asyncio.Future[None] = self._loop.create_future()
        self._waiters[writable].append(future)
        if writable not in self._watched:
            self._watched.add(writable)
            add = self._loop.add_writer if writable else self._loop.add_reader
            add(self.socket.fileno(), self._stop_waiting, writable)
        await future

    def _stop_waiting(self, writable: bool) -> None:
        """A socket is watched on as long as somebody waits for it each time: to stop and start
        costs more than to be told once in vain."""
        waiters, self._waiters[writable] = self._waiters[writable], []
        waiting = [future for future in waiters if not future.done()]
        for future in waiting:
            future.set_result(None)
        if not waiting:
            self._unwatch(writable)

    def _unwatch(self, writable: bool) -> None:
        self._watched.discard(writable)
        remove = self._loop.remove_writer if writable else self._loop.remove_reader
        remove(self.socket.fileno())

    async def _count(self, size: int) -> None:
        self._turn += size
        if self._turn > _TURN:
            self._turn = 0
            await asyncio.sleep(0)


def _explain(error: OSError) -> ConnectionEnded:
    if isinstance(error, ssl.SSLCertVerificationError):
        return ConnectionEnded(f"the certificate is not accepted: {error.verify_message}")
    if isinstance(error, ssl.SSLError):
        return ConnectionEnded(f"TLS failed: {error.reason or error}")
    return ConnectionEnded(f"the connection broke: {error.strerror or error}")


@contextlib.contextmanager
def closing(stream: Stream) -> Iterator[Stream]:
    try:
        yield stream
    finally:
        stream.close()
