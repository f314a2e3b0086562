"""The predecessor's protocol: a JSON object on a control port, and a port for each console.

One request, `source_port destination_address destination_port password auth_user auth_password
type`, one answer, `source_port status proxy_address` and perhaps `reason`. Types: `vnc` (RFB with
VNC authentication), `vnc-ws` and `vnc-wss` (the same in a WebSocket). It is off by default: its
consoles have passwords of eight characters, and two of its types are in clear.

Unlike the predecessor's, a console is not used up by whoever connects first: a port scan, a wrong
password and a client that says nothing leave it to its owner, within its time.
"""

import asyncio
import contextlib
import json
import random
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Literal, cast

from snf_ganeti.errors import DeadlineError, InputError, NodeError, SnfError
from vncauthproxy import settings, users
from vncauthproxy.backend import Backend
from vncauthproxy.driving import drive_messages
from vncauthproxy.front import TLS_HELLO
from vncauthproxy.handshake import Handshake, Offer, Proof, Response, serve
from vncauthproxy.http_server import BadRequest, HttpConnection
from vncauthproxy.listener import Acceptor, open_listener
from vncauthproxy.proxy import Proxy
from vncauthproxy.rfb import Security
from vncauthproxy.session import Client, End, Viewer
from vncauthproxy.stream import ConnectionEnded, Stream, closing
from vncauthproxy.targets import parse_address, parse_target
from vncauthproxy.tickets import Grant, make_session_id
from vncauthproxy.websocket import WebSocket

REQUEST_LIMIT = 4096
_WRONG_PASSWORDS = 5
"""After so many a console is gone, so that nobody can try them all."""
_CLOSE_SECONDS = 1.0

ConsoleType = Literal["vnc", "vnc-ws", "vnc-wss"]
_TYPES = ("vnc", "vnc-ws", "vnc-wss")
_FIELDS = {
    "source_port": int,
    "destination_address": str,
    "destination_port": int,
    "password": str,
    "auth_user": str,
    "auth_password": str,
}


@dataclass(frozen=True)
class Forwarding:
    """A request. source_port: 0 for any of the pool."""

    source_port: int
    destination_address: str
    destination_port: int
    auth_user: str
    type: ConsoleType
    password: str = field(repr=False)
    auth_password: str = field(repr=False)


def parse_forwarding(data: bytes) -> Forwarding:
    """Raises InputError, which never shows what was sent."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        raise InputError("the request is not JSON") from None
    if not isinstance(document, dict):
        raise InputError("the request is not a JSON object")
    values: dict[str, Any] = {}
    for name, kind in _FIELDS.items():
        value = document.get(name)
        if kind is int and isinstance(value, str) and value.isdecimal():
            value = int(value[:6])
        if type(value) is not kind:
            raise InputError(f"the request has no {name}, or not of the right type")
        values[name] = value
    console_type = document.get("type", "vnc")
    if console_type not in _TYPES:
        raise InputError("the type is not one of vnc, vnc-ws, vnc-wss")
    if not values["password"]:
        raise InputError("the password is empty")
    return Forwarding(**values, type=cast(ConsoleType, console_type))


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


class Legacy:
    def __init__(
        self, proxy: Proxy, acceptor: Acceptor, make_tls: Callable[[], ssl.SSLContext]
    ) -> None:
        self._proxy = proxy
        self._acceptor = acceptor
        self._make_tls = make_tls
        self._settings: settings.Legacy = proxy.settings.legacy
        self._ports = Ports(
            self._settings.console_address, settings.parse_ports(self._settings.ports)
        )

    async def serve(self, stream: Stream, address: str) -> None:
        """One control connection. Raises SnfError, TimeoutError."""
        seconds = self._proxy.settings.limits.handshake
        async with asyncio.timeout(seconds):
            first = await stream.peek(seconds)
            if first == TLS_HELLO:
                await stream.start_tls(self._make_tls())
            elif self._settings.require_tls and not parse_address(address).is_loopback:
                raise ConnectionEnded("a control connection in clear, from elsewhere")
            data = await _read_request(stream)
        try:
            answer = await self._forward(parse_forwarding(data), address)
        except SnfError as error:
            self._proxy.refuse("legacy", address, str(error))
            answer = {
                "source_port": 0,
                "status": "FAILED",
                "proxy_address": None,
                "reason": str(error),
            }
        async with asyncio.timeout(seconds):
            await stream.write(json.dumps(answer).encode())
        await stream.close_gently(_CLOSE_SECONDS)

    async def _forward(self, asked: Forwarding, address: str) -> dict[str, Any]:
        """Open an instance's console and a port for it. Raises SnfError."""
        known = await asyncio.to_thread(users.read_users, self._settings.users)
        name, password = asked.auth_user, asked.auth_password
        if not await asyncio.to_thread(users.verify, known, name, password):
            raise InputError("invalid user or password")
        target = parse_target({"host": asked.destination_address, "port": asked.destination_port})
        grant = Grant(
            session=make_session_id(),
            user=asked.auth_user,
            name=str(target),
            target=target,
            until=self._proxy.make_end(),
        )
        refusal = self._proxy.sessions.find_limit(grant)
        if refusal:
            raise InputError(refusal)
        with contextlib.ExitStack() as stack:
            listener = stack.enter_context(self._ports.open(asked.source_port))
            backend = await self._proxy.instances.open(target, "")
            stack.enter_context(closing(backend.stream))
            console = _Console(self._proxy, grant, asked, backend, self._make_tls)
            self._acceptor.start(console.wait(listener, stack.pop_all()))
            port = listener.getsockname()[1]
        advertised = self._settings.advertised_address or _find_own_name(self._settings)
        return {"source_port": port, "status": "OK", "proxy_address": advertised}


class _Console:
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
        with self._proxy.counted(session):
            try:
                await session.relay(client, self._backend.stream, early)
            except SnfError as error:
                session.stop(End(str(error)))


async def _read_request(stream: Stream) -> bytes:
    """One JSON object, which nothing ends: it is complete when it can be parsed."""
    data = b""
    while len(data) < REQUEST_LIMIT:
        more = await stream.read(REQUEST_LIMIT - len(data))
        data += more
        if not more:
            break
        with contextlib.suppress(ValueError, RecursionError):
            json.loads(data)
            break
    return data


def _find_own_name(legacy: settings.Legacy) -> str:
    wildcard = parse_address(legacy.console_address).is_unspecified
    return socket.getfqdn() if wildcard else legacy.console_address
