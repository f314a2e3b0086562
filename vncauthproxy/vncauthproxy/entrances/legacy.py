"""The predecessor's protocol: a JSON object on a control port, and a port for each console.

One request, `source_port destination_address destination_port password auth_user auth_password
type`, one answer, `source_port status proxy_address` and perhaps `reason`. Types: `vnc` (RFB with
VNC authentication), `vnc-ws` and `vnc-wss` (the same in a WebSocket). It is off by default: its
consoles have passwords of eight characters, and two of its types are in clear.
"""

import asyncio
import contextlib
import json
import socket
import ssl
from collections.abc import Callable
from typing import Any

from snf_ganeti.errors import InputError, SnfError
from vncauthproxy import settings, users
from vncauthproxy.connections.stream import ConnectionEnded, Stream, closing
from vncauthproxy.entrances.front import TLS_HELLO
from vncauthproxy.entrances.legacy_console import Console, Ports
from vncauthproxy.entrances.legacy_request import Forwarding, parse_forwarding, read_request
from vncauthproxy.entrances.listener import Acceptor
from vncauthproxy.instances.targets import parse_address, parse_target
from vncauthproxy.proxy import Proxy
from vncauthproxy.tickets import Grant, make_session_id

_CLOSE_SECONDS = 1.0


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
            data = await read_request(stream)
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
            console = Console(self._proxy, grant, asked, backend, self._make_tls)
            self._acceptor.start(console.wait(listener, stack.pop_all()))
            port = listener.getsockname()[1]
        advertised = self._settings.advertised_address or _find_own_name(self._settings)
        return {"source_port": port, "status": "OK", "proxy_address": advertised}


def _find_own_name(legacy: settings.Legacy) -> str:
    wildcard = parse_address(legacy.console_address).is_unspecified
    return socket.getfqdn() if wildcard else legacy.console_address
