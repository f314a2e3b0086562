"""A browser's way to a console: the WebSocket handshake, the ticket, RFB, the session."""

import asyncio
import contextlib
from http import HTTPStatus

from snf_ganeti.errors import DeadlineError, SnfError
from vncauthproxy import tickets
from vncauthproxy.connections.driving import drive_messages
from vncauthproxy.connections.http_server import BadRequest, Request
from vncauthproxy.connections.stream import Stream
from vncauthproxy.connections.websocket import (
    WebSocket,
    WebSocketRefused,
    find_subprotocol,
    find_ticket,
)
from vncauthproxy.instances.backend import Backend
from vncauthproxy.protocol.handshake import Handshake
from vncauthproxy.protocol.rfb import Security
from vncauthproxy.protocol.server_handshake import Offer, serve
from vncauthproxy.proxy import Proxy
from vncauthproxy.session import End, Session

PATH = "/websocket"
REFUSED = 4001
UNREACHABLE = 4002
_CLOSE_SECONDS = 2.0


async def serve_browser(proxy: Proxy, stream: Stream, request: Request, early: bytes) -> None:
    """From a request for a WebSocket to the end of its session. Raises BadRequest."""
    offered = request.headers.get("sec-websocket-protocol", "")
    ticket = find_ticket(offered)
    if request.query:
        raise BadRequest(HTTPStatus.BAD_REQUEST, "a ticket does not belong into a URL")
    if not ticket:
        raise BadRequest(HTTPStatus.UNAUTHORIZED, "the subprotocol ticket.… is missing")
    words = [word.strip() for word in offered.split(",")]
    if not find_subprotocol(words) and len(words) > 1:
        raise BadRequest(HTTPStatus.BAD_REQUEST, "offer one of the subprotocols console, binary")
    try:
        socket = await WebSocket.accept(stream, request.head, early, words)
    except WebSocketRefused as error:
        await stream.write(error.response)
        return
    end = await _serve(proxy, socket, request, ticket)
    with contextlib.suppress(SnfError, TimeoutError):
        async with asyncio.timeout(_CLOSE_SECONDS):
            await socket.close(end.code, end.reason)
            await stream.close_gently(_CLOSE_SECONDS)


async def _serve(proxy: Proxy, socket: WebSocket, request: Request, ticket: str) -> End:
    origin = request.headers.get("origin", "")
    try:
        session = await proxy.redeem(ticket.encode(), "browser", request.peer, origin)
    except SnfError as error:
        return End(str(error), REFUSED)
    async with proxy.counted(session):
        try:
            return await _open(proxy, session, socket)
        except SnfError as error:
            session.stop(End(str(error), UNREACHABLE, resumable=True))
            assert session.end
            return session.end


async def _open(proxy: Proxy, session: Session, socket: WebSocket) -> End:
    _, resume = await tickets.reissue(proxy.store, session.grant)
    await socket.tell(
        instance=session.grant.name, view_only=session.messages.view_only, resume=resume
    )
    backend = await proxy.open_backend(session)
    try:
        return await _relay(proxy, session, socket, backend)
    finally:
        backend.stream.close()


async def _relay(proxy: Proxy, session: Session, socket: WebSocket, backend: Backend) -> End:
    seconds = proxy.settings.limits.handshake
    try:
        async with asyncio.timeout(seconds):
            early = await drive_messages(socket, Handshake(serve(Offer(Security.NONE))))
    except TimeoutError:
        raise DeadlineError("the browser's handshake", seconds) from None
    return await session.relay(socket, backend.stream, early)
