"""The instance's side of a session: connect to its VNC server and get in."""

import asyncio
import functools
import os
import socket
import ssl
from dataclasses import dataclass

from snf_ganeti.errors import DeadlineError, NodeError
from vncauthproxy import settings
from vncauthproxy.connections.driving import drive
from vncauthproxy.connections.stream import Stream
from vncauthproxy.instances.rapi import find_instance
from vncauthproxy.instances.targets import Place, Target, find_places, parse_address
from vncauthproxy.protocol.client_handshake import Demand, Opened, connect
from vncauthproxy.protocol.handshake import Handshake
from vncauthproxy.protocol.rfb import Subtype

_X509 = (Subtype.X509_VNC, Subtype.X509_NONE)
_ANONYMOUS = (Subtype.TLS_VNC, Subtype.TLS_NONE)


@dataclass(frozen=True)
class Backend:
    """An instance's VNC server that let us in; ServerInit comes next."""

    stream: Stream
    opened: Opened


@dataclass(frozen=True)
class Instances:
    """Opens instances' VNC servers as the settings say."""

    targets: settings.Targets
    ganeti: settings.Ganeti
    seconds: float

    async def open(self, target: Target, password: str) -> Backend:
        """Raises SnfError with a reason that a user may read."""
        what = f"the console of {target}"
        try:
            async with asyncio.timeout(self.seconds):
                return await self._open(target, password)
        except TimeoutError:
            raise DeadlineError(what, self.seconds) from None

    async def _open(self, target: Target, password: str) -> Backend:
        if target.instance:
            places = await find_instance(target, self.ganeti, self.targets)
        else:
            places = await find_places(target, self.targets)
        failures: list[str] = []
        for place in places:
            try:
                stream = await _connect(place)
            except OSError as error:
                # asyncio's own words name its calls.
                failures.append(os.strerror(error.errno) if error.errno else str(error))
            else:
                return await self._get_in(stream, place, password)
        raise NodeError(f"the console of {target} can't be reached: {', '.join(failures)}")

    async def _get_in(self, stream: Stream, place: Place, password: str) -> Backend:
        try:
            demand = make_demand(self.targets, self._find_password(password), place)
            make_tls = functools.partial(make_context, self.targets)
            handshake = Handshake(connect(demand))
            opened = await drive(stream, handshake, make_tls=make_tls, host=place.name)
        except BaseException:
            stream.close()
            raise
        return Backend(stream, opened)

    def _find_password(self, given: str) -> bytes | None:
        if given or not self.targets.password_file:
            return given.encode() if given else None
        try:
            return self.targets.password_file.read_bytes().strip()
        except OSError as error:
            path = self.targets.password_file
            raise NodeError(f"{path} can't be read: {error.strerror}") from None


def make_demand(targets: settings.Targets, password: bytes | None, place: Place) -> Demand:
    """With a CA, a server must show a certificate of it; TLS without certificates is then
    taken from nobody, since whoever sits between could offer it."""
    local = isinstance(place.address, str) or parse_address(place.address[0]).is_loopback
    if targets.tls == "off":
        return Demand(password)
    x509 = _X509 if targets.ca else ()
    anonymous = () if targets.ca or targets.tls == "require" else _ANONYMOUS
    return Demand(password, x509 + anonymous, clear=targets.tls != "require" or local)


@functools.lru_cache(maxsize=8)
def make_context(targets: settings.Targets, anonymous: bool) -> ssl.SSLContext:
    """TLS towards instances. Without certificates OpenSSL wants to be told so in many words."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if anonymous:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers("ADH:AECDH:@SECLEVEL=0")
        return context
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_verify_locations(targets.ca)
        if targets.certificate:
            context.load_cert_chain(targets.certificate, targets.key)
    except OSError as error:
        raise NodeError(f"the certificates of [targets] can't be loaded: {error}") from None
    return context


async def _connect(place: Place) -> Stream:
    loop = asyncio.get_running_loop()
    raw = socket.socket(place.family, socket.SOCK_STREAM)
    raw.setblocking(False)
    try:
        await loop.sock_connect(raw, place.address)
        return Stream(raw)
    except BaseException:
        raw.close()
        raise
