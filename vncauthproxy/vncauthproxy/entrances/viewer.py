"""A native viewer's way to a console: VeNCrypt with our certificate, the ticket as password.

A viewer that can send its password inside TLS (X509Plain) sends the whole ticket; the user's
name does not matter. One that can do VNC authentication only (X509Vnc) proves the ticket's first
eight characters.
"""

import asyncio
import contextlib
import ssl
from collections.abc import Callable

from snf_ganeti.errors import SnfError
from vncauthproxy.connections.driving import drive
from vncauthproxy.connections.stream import Stream
from vncauthproxy.instances.backend import Backend
from vncauthproxy.protocol.handshake import Handshake, Login, Proof
from vncauthproxy.protocol.rfb import ProtocolError, Security, Subtype
from vncauthproxy.protocol.server_handshake import Offer, serve
from vncauthproxy.proxy import Proxy
from vncauthproxy.session import End, Session, Viewer

SUBTYPES = (Subtype.X509_PLAIN, Subtype.X509_VNC)
_CLOSE_SECONDS = 2.0


async def serve_viewer(
    proxy: Proxy, stream: Stream, address: str, make_tls: Callable[[], ssl.SSLContext]
) -> None:
    """From the greeting to the end of the session. Raises SnfError, TimeoutError."""
    challenge = await proxy.store.challenge()
    handshake = Handshake(serve(Offer(Security.VENCRYPT, SUBTYPES, challenge)))
    async with contextlib.AsyncExitStack() as stack:
        door = _Door(proxy, address, stack)
        limits = proxy.settings.limits
        try:
            async with asyncio.timeout(limits.handshake) as deadline:

                def begin_tls(_: bool) -> ssl.SSLContext:
                    # From here on a person may be asked for the ticket.
                    deadline.reschedule(asyncio.get_running_loop().time() + limits.login)
                    return make_tls()

                await drive(stream, handshake, make_tls=begin_tls, check=door.check)
        except ProtocolError:
            await stream.close_gently(_CLOSE_SECONDS)  # a person reads the reason
            raise
        assert door.session and door.backend
        door.session.end = None
        await door.session.relay(Viewer(stream), door.backend.stream, handshake.take_unread())


class _Door:
    """Redeems the ticket and opens the instance's console before the viewer is told that it is
    let in: so it can still be told why not. stack: what is closed at the session's end."""

    def __init__(self, proxy: Proxy, address: str, stack: contextlib.AsyncExitStack) -> None:
        self._proxy, self._address, self._stack = proxy, address, stack
        self.session: Session | None = None
        self.backend: Backend | None = None

    async def check(self, proof: Proof) -> str | None:
        handle = proof.password if isinstance(proof, Login) else proof.response
        try:
            self.session = await self._proxy.redeem(handle, "viewer", self._address)
            await self._stack.enter_async_context(self._proxy.counted(self.session))
            self.session.end = End("the viewer left in the middle of the handshake")
            self.backend = await self._proxy.open_backend(self.session)
        except SnfError as error:
            if self.session:
                self.session.end = End(str(error))
            return str(error)
        self._stack.callback(self.backend.stream.close)
        return None
