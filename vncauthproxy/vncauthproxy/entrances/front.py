"""The one port: who connects is a browser, a controller or a viewer, and the first byte tells.

A browser or a controller sends a TLS hello at once; a viewer waits for the server's greeting. So
who is silent for `first_byte_wait` seconds is taken for a viewer.
"""

import asyncio
import contextlib
import ssl
from http import HTTPStatus
from typing import Any

from snf_ganeti.errors import NodeError
from vncauthproxy import api
from vncauthproxy.connections.http_server import BadRequest, HttpConnection, make_error
from vncauthproxy.connections.stream import Stream
from vncauthproxy.entrances import browser
from vncauthproxy.entrances.viewer import serve_viewer
from vncauthproxy.proxy import Proxy
from vncauthproxy.settings import Settings

TLS_HELLO = b"\x16"
_CLOSE_SECONDS = 2.0


def make_server_context(settings: Settings) -> ssl.SSLContext:
    """TLS towards clients. The client's order of ciphers counts: a phone knows what it does
    fast. Raises NodeError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    context.options |= ssl.OP_NO_RENEGOTIATION
    listen, authority = settings.listen, settings.controllers.client_ca
    try:
        context.load_cert_chain(listen.certificate, listen.key)
        if authority:
            context.load_verify_locations(authority)
            context.verify_mode = ssl.CERT_OPTIONAL
    except OSError as error:
        shown = f"{listen.certificate} and {listen.key}"
        raise NodeError(f"the certificate can't be loaded ({shown}): {error}") from None
    return context


def make_viewer_context(settings: Settings) -> ssl.SSLContext:
    """TLS towards viewers, which show no certificate. Some read a session ticket and miss what
    came with it, the challenge, so they get none. Raises NodeError."""
    context = make_server_context(settings)
    context.verify_mode = ssl.CERT_NONE
    context.num_tickets = 0  # type: ignore[attr-defined]
    return context


def find_certificate_names(certificate: dict[str, Any] | None) -> tuple[str, ...]:
    """The names of a client's verified certificate: common name and DNS names."""
    subject = (certificate or {}).get("subject", ())
    common = [value for part in subject for key, value in part if key == "commonName"]
    alternatives = (certificate or {}).get("subjectAltName", ())
    others = [value for kind, value in alternatives if kind == "DNS"]
    return tuple(common + others)


class Front:
    """Of TLS it has two contexts; new ones are for connections that come from then on."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self.load_certificates()

    def load_certificates(self) -> None:
        """Both or none. Raises NodeError."""
        context = make_server_context(self.proxy.settings)
        self._viewer_context = make_viewer_context(self.proxy.settings)
        self.context = context

    async def serve(self, stream: Stream, address: str) -> None:
        """One connection, to its end. Raises SnfError, TimeoutError."""
        first = await stream.peek(self.proxy.settings.listen.first_byte_wait)
        if first is None:
            await serve_viewer(self.proxy, stream, address, lambda: self._viewer_context)
            return
        async with asyncio.timeout(self.proxy.settings.limits.handshake):
            if first == TLS_HELLO:
                await stream.start_tls(self.context)
            elif first:
                await self._refuse_clear(stream, address)
        if stream.tls:
            names = find_certificate_names(stream.tls.getpeercert())
            await self._serve_http(stream, HttpConnection(stream, address, names))

    async def _refuse_clear(self, stream: Stream, address: str) -> None:
        """What isn't TLS may be HTTP in clear, by mistake; it is told."""
        http = HttpConnection(stream, address)
        reason = f"this port speaks HTTPS: {self.proxy.settings.public_url}"
        with contextlib.suppress(BadRequest):
            if await http.receive():
                await http.send(make_error(HTTPStatus.BAD_REQUEST, reason))
        await stream.close_gently(_CLOSE_SECONDS)

    async def _serve_http(self, stream: Stream, http: HttpConnection) -> None:
        seconds = self.proxy.settings.limits.handshake
        try:
            while True:
                async with asyncio.timeout(seconds):
                    request = await http.receive()
                    if request is None:
                        return
                    if request.is_upgrade and request.path == browser.PATH:
                        break
                    response = await api.answer(self.proxy, request)
                    if not await http.send(response, without_body=request.method == "HEAD"):
                        return
            await browser.serve_browser(self.proxy, stream, request, http.trailing)
        except BadRequest as error:
            async with asyncio.timeout(seconds):
                await http.refuse(make_error(error.status, str(error)))
            await stream.close_gently(_CLOSE_SECONDS)
