"""The WebSocket of a browser, on the protocol core of the websockets library.

RFC 6455. The subprotocol carries the ticket, `ticket.WORD`, since a browser's script can set no
other header and a URL would end in logs. The answer chooses `console` (our page: facts about the
session come as JSON in text messages, RFB in binary ones), `binary`, or none.
"""

import json
import logging
from collections.abc import Iterator, Sequence
from typing import Any

from websockets import server
from websockets.frames import Frame, Opcode
from websockets.http11 import Response

from vncauthproxy.connections.frames import Frames, make_head
from vncauthproxy.connections.stream import CHUNK, ConnectionEnded, Stream
from vncauthproxy.protocol.rfb import ProtocolError

MESSAGE_LIMIT = 1 << 20
CONTROLS = "console"
_BINARY = "binary"
_TICKET = "ticket."
_REASON_LIMIT = 120  # bytes; a close frame takes 123

# It would log the request's head, and the ticket with it.
_silent = logging.getLogger("vncauthproxy.connections.websocket")
_silent.setLevel(logging.CRITICAL + 1)

# ServerConnection until websockets 10, ServerProtocol since.
_Protocol: Any = getattr(server, "ServerProtocol", None) or server.ServerConnection


class WebSocketRefused(ProtocolError):
    """A request that is no good WebSocket handshake. response: what to send."""

    def __init__(self, response: bytes) -> None:
        self.response = response
        super().__init__("the WebSocket handshake is not valid")


def find_ticket(offered: str) -> str:
    """The ticket among offered subprotocols (the header's text), or nothing."""
    words = (word.strip() for word in offered.split(","))
    tickets = [word.removeprefix(_TICKET) for word in words if word.startswith(_TICKET)]
    return tickets[0] if len(tickets) == 1 else ""


def find_subprotocol(offered: Sequence[str]) -> str | None:
    """Which of the offered ones is spoken; none where none is known."""
    return next((word for word in (CONTROLS, _BINARY) if word in offered), None)


class WebSocket:
    """A session's client."""

    def __init__(self, stream: Stream, protocol: Any, early: bytes, *, controls: bool) -> None:
        self.stream = stream
        self.controls = controls
        self._protocol = protocol
        self._early = early
        self._frames = Frames(MESSAGE_LIMIT)
        self._ended = False

    @classmethod
    async def accept(
        cls, stream: Stream, head: bytes, early: bytes, offered: Sequence[str]
    ) -> "WebSocket":
        """Answer a request, `head` with its empty line. early: what came after it.

        Raises WebSocketRefused; nothing was sent then.
        """
        protocol = _Protocol(max_size=MESSAGE_LIMIT, logger=_silent)
        protocol.receive_data(head)
        requests = protocol.events_received()
        response: Response | None = protocol.accept(requests[0]) if requests else None
        if response is None or response.status_code != 101:
            raise WebSocketRefused(response.serialize() if response else b"")
        chosen = find_subprotocol(offered)
        if chosen:
            response.headers["Sec-WebSocket-Protocol"] = chosen
        protocol.send_response(response)
        socket = cls(stream, protocol, early, controls=chosen == CONTROLS)
        await socket._flush()
        return socket

    async def read(self) -> bytes:
        """RFB's bytes, or none when the browser left. Raises ConnectionEnded, ProtocolError."""
        while not self._ended:
            data = self._early or await self.stream.read(CHUNK)
            self._early = b""
            if not data:
                return b""
            payload = b"".join(self._take_all(data))
            await self._flush()
            if self._protocol.parser_exc:
                raise ProtocolError(f"bad WebSocket data: {self._protocol.parser_exc}")
            if payload:
                return payload
        return b""

    def _take_all(self, data: bytes) -> Iterator[bytes]:
        for piece in self._frames.split(data):
            if piece.is_rfb:
                yield piece.data
                continue
            self._protocol.receive_data(piece.data)
            for event in self._protocol.events_received():
                yield self._take(event)
            if self._ended or self._protocol.parser_exc:
                self._ended = True
                break

    def _take(self, event: Any) -> bytes:
        assert isinstance(event, Frame)
        if event.opcode is Opcode.TEXT:
            raise ProtocolError("the browser sent text where only binary messages may come")
        if event.opcode is Opcode.CLOSE:
            self._ended = True
        return event.data if event.opcode in (Opcode.BINARY, Opcode.CONT) else b""

    async def write(self, data: bytes) -> None:
        if self._ended:
            raise ConnectionEnded("the browser closed its WebSocket")
        await self.stream.write(make_head(len(data)) + data)  # the library copies it twice

    async def ping(self) -> None:
        """Keeps what stands between from forgetting the connection; not while data flows."""
        if not self.stream.is_writing and not self._ended:
            self._protocol.send_ping(b"")
            await self._flush()

    async def tell(self, **facts: object) -> None:
        """Facts for the page: instance, view_only, resume, error."""
        if self.controls and not self._ended:
            self._protocol.send_text(json.dumps(facts).encode())
            await self._flush()

    async def close(self, code: int, reason: str) -> None:
        if not self._ended:
            self._ended = True
            text = reason.encode()[:_REASON_LIMIT].decode(errors="ignore")
            self._protocol.send_close(code, text)
            await self._flush()

    async def _flush(self) -> None:
        data = b"".join(self._protocol.data_to_send())
        if data:
            await self.stream.write(data)
