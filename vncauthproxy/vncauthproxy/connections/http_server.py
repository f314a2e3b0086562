"""HTTP/1.1 on a Stream, on the protocol core of the h11 library: one request at a time."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

import h11

from snf_ganeti.errors import SnfError
from vncauthproxy.connections.stream import Stream

HEAD_LIMIT = 16384
BODY_LIMIT = 65536

ALWAYS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class BadRequest(SnfError):
    """A request that is answered with `status` and an error, after which the connection ends."""

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        self.status = status
        super().__init__(reason)


@dataclass(frozen=True)
class Request:
    """path: without the query. headers: names in lower case, repeated ones joined by commas.
    peer: the client's address; certificate: the names of its certificate, if it showed one."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    peer: str
    certificate: tuple[str, ...] = ()
    body: bytes = b""
    head: bytes = field(default=b"", repr=False)

    @property
    def is_upgrade(self) -> bool:
        return self.headers.get("upgrade", "").lower() == "websocket"


@dataclass(frozen=True)
class Response:
    status: HTTPStatus
    body: bytes = b""
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


def make_json(status: HTTPStatus, document: Any, **headers: str) -> Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(status, json.dumps(document).encode() + b"\n", headers=named)


def make_error(status: HTTPStatus, reason: str, **headers: str) -> Response:
    return make_json(status, {"error": reason}, **headers)


class HttpConnection:
    """peer, certificate: as in Request."""

    def __init__(self, stream: Stream, peer: str, certificate: tuple[str, ...] = ()) -> None:
        self._stream = stream
        self._peer = peer
        self._certificate = certificate
        self._machine = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_LIMIT)

    @property
    def trailing(self) -> bytes:
        """What came after a request that asks for an upgrade."""
        return bytes(self._machine.trailing_data[0])

    async def receive(self) -> Request | None:
        """The next request; None at the end. Raises BadRequest, ConnectionEnded."""
        try:
            head = await self._next_event()
            if not isinstance(head, h11.Request):
                return None
            request = self._parse(head)
            body = b"" if request.is_upgrade else await self._read_body()
        except h11.RemoteProtocolError as error:
            raise BadRequest(HTTPStatus(error.error_status_hint), str(error)) from None
        return replace(request, body=body)

    def _parse(self, head: h11.Request) -> Request:
        target = head.target.decode("ascii")
        path, _, query = target.partition("?")
        if not path.startswith("/"):
            raise BadRequest(HTTPStatus.BAD_REQUEST, "the request's target is not a path")
        headers: dict[str, str] = {}
        for raw_name, raw_value in head.headers:
            name, value = raw_name.decode("ascii"), raw_value.decode("latin-1")
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        lines = [b"%s: %s" % (name, value) for name, value in head.headers.raw_items()]
        raw = b"\r\n".join([b"GET %s HTTP/1.1" % head.target, *lines, b"", b""])
        return Request(
            head.method.decode("ascii"),
            unquote(path),
            query,
            headers,
            self._peer,
            self._certificate,
            head=raw,
        )

    async def _read_body(self) -> bytes:
        body = b""
        if self._machine.they_are_waiting_for_100_continue:
            proceed = h11.InformationalResponse(status_code=100, headers=list[tuple[str, str]]())
            await self._stream.write(self._machine.send(proceed) or b"")
        while isinstance(event := await self._next_event(), h11.Data):
            body += event.data
            if len(body) > BODY_LIMIT:
                reason = f"a request's body may have {BODY_LIMIT} bytes"
                raise BadRequest(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, reason)
        return body

    async def _next_event(self) -> Any:
        while (event := self._machine.next_event()) is h11.NEED_DATA:
            self._machine.receive_data(await self._stream.read(HEAD_LIMIT))
        return event

    async def refuse(self, response: Response) -> None:
        """Answer what was no good request, where an answer is still possible."""
        if self._machine.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            await self.send(response)

    async def send(self, response: Response, *, without_body: bool = False) -> bool:
        """Answer; tells whether another request may follow. Raises ConnectionEnded."""
        headers = {
            "Date": formatdate(usegmt=True),
            "Content-Type": response.content_type,
            "Content-Length": str(len(response.body)),
            **ALWAYS,
            **response.headers,
        }
        head = h11.Response(
            status_code=response.status,
            headers=list(headers.items()),
            reason=response.status.phrase,
        )
        data = self._machine.send(head) or b""
        if not without_body:
            data += self._machine.send(h11.Data(data=response.body)) or b""
        data += self._machine.send(h11.EndOfMessage()) or b""
        await self._stream.write(data)
        if self._machine.our_state is not h11.DONE or self._machine.their_state is not h11.DONE:
            return False
        self._machine.start_next_cycle()
        return True
