"""A console on a port of its own, as the predecessor's clients know it.

Unlike the predecessor's it is not used up by whoever connects first: a port scan, a wrong
password and a client that says nothing leave it to its owner, within its time.
"""

import asyncio
import contextlib
import random
import socket
import ssl
from collections.abc import Callable
from http import HTTPStatus

from snf_ganeti.errors import DeadlineError, InputError, NodeError, SnfError
from vncauthproxy.connections.driving import drive_messages
from vncauthproxy.connections.http_server import BadRequest, HttpConnection
from vncauthproxy.connections.stream import ConnectionEnded, Stream
from vncauthproxy.connections.websocket import WebSocket
from vncauthproxy.entrances.legacy_request import Forwarding
from vncauthproxy.entrances.listener import Acceptor, open_listener
from vncauthproxy.instances.backend import Backend
from vncauthproxy.protocol.handshake import Handshake, Proof, Response
from vncauthproxy.protocol.rfb import Security
from vncauthproxy.protocol.server_handshake import Offer, serve
from vncauthproxy.proxy import Proxy
from vncauthproxy.session import Client, End, Viewer
from vncauthproxy.tickets import Grant

_WRONG_PASSWORDS = 5
"""After so many a console is gone, so that nobody can try them all."""
_CLOSE_SECONDS = 1.0


class Ports:
    """The pool of ports for consoles; a port is in it again when its socket was closed."""

    def __init__(self, address: str, ports: range) -> None:
        self._address = address
        self._ports = ports

    def open(self, wanted: int) -> socket.socket:
        """A listening socket on a port of the pool. Raises InputError, NodeError."""
        if wanted and wanted not in self._ports:
            raise InputError(f"port {wanted} is not one of the pool")
        candidates = [wanted] if wanted else random.sample(self._ports, len(self._ports))
        for port in candidates:
            with contextlib.suppress(NodeError):
                return open_listener(self._address, port)
        raise NodeError(f"port {wanted} is taken" if wanted else "no port of the pool is free")


class Console:
    """A port with a console behind it, until its client came or its time is up."""

    def __init__(
        self,
        proxy: Proxy,
        grant: Grant,
        asked: Forwarding,
        backend: Backend,
        make_tls: Callable[[], ssl.SSLContext],
    ) -> None:
        self._proxy, self._grant, self._asked = proxy, grant, asked
        self._backend, self._make_tls = backend, make_tls
        self._wrong = 0
        self._admitted: asyncio.Future[tuple[Client, bytes, str]] = asyncio.Future()
        self._ended = asyncio.Event()

    async def wait(self, listener: socket.socket, stack: contextlib.ExitStack) -> None:
        """stack: holds the listener and the backend, and is closed here."""
        clients = Acceptor(self._proxy)
        with stack:
            accepting = asyncio.create_task(clients.accept(listener, self._serve))
            try:
                try:
                    client, early, address = await self._await_owner()
                finally:
                    accepting.cancel()
                    await asyncio.gather(accepting, return_exceptions=True)
                    listener.close()
                await self._relay(client, early, address)
            except SnfError as error:
                self._proxy.refuse("legacy", "", str(error))
            finally:
                self._ended.set()
                await clients.close(_CLOSE_SECONDS)

    async def _await_owner(self) -> tuple[Client, bytes, str]:
        seconds = self._proxy.settings.legacy.connect_timeout
        try:
            async with asyncio.timeout(seconds):
                return await asyncio.shield(self._admitted)
        except TimeoutError:
            raise DeadlineError("the wait for a console's client", seconds) from None

    async def _serve(self, stream: Stream, address: str) -> None:
        """A client that may be the owner, or anybody; the owner's stays until its end."""
        async with asyncio.timeout(self._proxy.settings.limits.handshake):
            client = await self._greet(stream, address)
            if client is None:
                return
            handshake = Handshake(serve(Offer(Security.VNC)))
            early = await drive_messages(client, handshake, self._check)
        if self._admitted.done():
            raise ConnectionEnded("the console is taken")
        self._admitted.set_result((client, early, address))
        await self._ended.wait()

    async def _greet(self, stream: Stream, address: str) -> Client | None:
        """What a console's type has before RFB."""
        if self._asked.type == "vnc":
            return Viewer(stream)
        if self._asked.type == "vnc-wss":
            await stream.start_tls(self._make_tls())
        http = HttpConnection(stream, address)
        try:
            request = await http.receive()
            if request is None or not request.is_upgrade:
                raise BadRequest(HTTPStatus.UPGRADE_REQUIRED, "this is for WebSockets")
        except BadRequest:
            return None
        offered = request.headers.get("sec-websocket-protocol", "").split(",")
        words = [word.strip() for word in offered if word.strip() == "binary"]
        return await WebSocket.accept(stream, request.head, http.trailing, words)

    async def _check(self, proof: Proof) -> str | None:
        assert isinstance(proof, Response)
        if self._admitted.done():
            return "the console is taken"
        if proof.matches(self._asked.password.encode()):
            return None
        self._wrong += 1
        if self._wrong >= _WRONG_PASSWORDS and not self._admitted.done():
            self._admitted.set_exception(InputError("too many wrong passwords for a console"))
        return "wrong password"

    async def _relay(self, client: Client, early: bytes, address: str) -> None:
        session = await self._proxy.admit(self._grant, "legacy", address, ticket=False)
        async with self._proxy.counted(session):
            try:
                await session.relay(client, self._backend.stream, early)
            except SnfError as error:
                session.stop(End(str(error)))
