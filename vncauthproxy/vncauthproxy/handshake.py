"""RFB's handshakes without I/O: they take bytes and give bytes.

A handshake is written as a script, a generator that yields what it needs: `Read` so many bytes,
`Write` these, `StartTls`, `Check` a proof. `Handshake` runs a script and does not mind how the
bytes are cut:

    handshake.receive(data)      bytes that came
    handshake.take_output()      bytes to send, also after ProtocolError: the reason is in them
    handshake.needs              bytes without which it can't go on; reading no more than these
                                 leaves whatever comes after the handshake to others
    handshake.pending            StartTls or Check, which the caller does and then `answer`s
    handshake.result             at the end

Nothing is taken over from before TLS: bytes that came too early are an error.
"""

import hmac
import secrets
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from vncauthproxy import rfb
from vncauthproxy.rfb import Inner, ProtocolError, Security, Subtype, Version
from vncauthproxy.vnc_auth import make_response

Result = TypeVar("Result")


@dataclass(frozen=True)
class Read:
    size: int


@dataclass(frozen=True)
class Write:
    data: bytes


@dataclass(frozen=True)
class StartTls:
    """All that was written is to be sent first. anonymous: without certificates."""

    anonymous: bool


@dataclass(frozen=True)
class Response:
    """A client's answer to a challenge of VNC authentication."""

    challenge: bytes
    response: bytes = field(repr=False)

    def matches(self, password: bytes) -> bool:
        return hmac.compare_digest(make_response(password, self.challenge), self.response)


@dataclass(frozen=True)
class Login:
    """A client's name and password, in clear inside TLS."""

    user: str
    password: bytes = field(repr=False)


Proof = Response | Login


@dataclass(frozen=True)
class Check:
    """Is this proof good? Answered with why not, or nothing."""

    proof: Proof


Script = Generator[Read | Write | StartTls | Check, Any, Result]


class Handshake(Generic[Result]):
    def __init__(self, script: Script[Result]) -> None:
        self._script = script
        self._input = bytearray()
        self._output = bytearray()
        self._wants: Read | StartTls | Check | None = None
        self.result: Result | None = None
        self._advance(None)

    @property
    def needs(self) -> int:
        return self._wants.size - len(self._input) if isinstance(self._wants, Read) else 0

    @property
    def pending(self) -> StartTls | Check | None:
        return None if isinstance(self._wants, Read) else self._wants

    @property
    def done(self) -> bool:
        return self._wants is None

    def receive(self, data: bytes) -> None:
        """Raises ProtocolError; after it only `take_output` makes sense."""
        self._input += data
        self._pump()

    def answer(self, value: Any = None) -> None:
        """`pending` was done. A Check is answered with the reason of a refusal, or nothing."""
        assert self.pending is not None, "nothing was asked"
        self._advance(value)
        self._pump()

    def take_output(self) -> bytes:
        output = bytes(self._output)
        self._output.clear()
        return output

    def take_unread(self) -> bytes:
        """What was received beyond the end of the handshake."""
        unread = bytes(self._input)
        self._input.clear()
        return unread

    def _pump(self) -> None:
        while isinstance(self._wants, Read) and len(self._input) >= self._wants.size:
            data = bytes(self._input[: self._wants.size])
            del self._input[: self._wants.size]
            self._advance(data)

    def _advance(self, value: Any) -> None:
        try:
            wants = self._script.send(value)
            while isinstance(wants, Write):
                self._output += wants.data
                wants = next(self._script)
        except StopIteration as end:
            self._wants, self.result = None, end.value
            return
        except ProtocolError:
            self._wants = None
            raise
        self._wants = wants
        if isinstance(wants, StartTls) and self._input:
            self._wants = None
            raise ProtocolError("data came before TLS where none may come")


def _read_number(size: int) -> Script[int]:
    data: bytes = yield Read(size)
    return int.from_bytes(data, "big")


# The server's side: a browser or a viewer is served.


@dataclass(frozen=True)
class Offer:
    """What a server offers. challenge: of VNC authentication; random for each without."""

    security: Security
    subtypes: tuple[Subtype, ...] = ()
    challenge: bytes = b""


@dataclass(frozen=True)
class Served:
    """A client that has been let in. proof: how it showed that it may, if it had to."""

    version: Version
    proof: Proof | None


def serve(offer: Offer) -> Script[Served]:
    """The server's side up to ClientInit. Its `shared` flag is read and left aside: who may
    disconnect whom is not the client's to say."""
    yield Write(Version.V3_8.value)
    version = rfb.parse_version((yield Read(rfb.GREETING_SIZE)))
    yield from _offer_security(offer, version)
    proof = yield from _authenticate(offer)
    refusal: str | None = (yield Check(proof)) if proof else None
    # Before 3.8, "None" is followed by no result.
    if version is Version.V3_8 or offer.security is not Security.NONE:
        yield Write(bytes((0, 0, 0, 1 if refusal else 0)))
    if refusal:
        if version is Version.V3_8:
            yield Write(rfb.make_reason(refusal))
        raise ProtocolError(refusal)
    yield Read(1)
    return Served(version, proof)


def _offer_security(offer: Offer, version: Version) -> Script[None]:
    if version is Version.V3_3:
        if offer.security is Security.VENCRYPT:
            reason = "this server wants VeNCrypt, which RFB 3.3 does not have"
            yield Write(bytes(4) + rfb.make_reason(reason))
            raise ProtocolError("the client speaks RFB 3.3, which has no VeNCrypt")
        yield Write(offer.security.to_bytes(4, "big"))
        return
    yield Write(bytes((1, offer.security)))
    chosen = yield from _read_number(1)
    if chosen != offer.security:
        yield Write((1).to_bytes(4, "big"))
        if version is Version.V3_8:
            yield Write(rfb.make_reason("that security type was not offered"))
        raise ProtocolError(f"the client chose security type {chosen}, which was not offered")


def _authenticate(offer: Offer) -> Script[Proof | None]:
    inner = {Security.NONE: Inner.NONE, Security.VNC: Inner.VNC}.get(offer.security)
    if inner is None:
        inner = yield from _serve_vencrypt(offer.subtypes)
    if inner is Inner.VNC:
        challenge = offer.challenge or secrets.token_bytes(rfb.CHALLENGE_SIZE)
        yield Write(challenge)
        return Response(challenge, (yield Read(rfb.CHALLENGE_SIZE)))
    if inner is Inner.PLAIN:
        return (yield from _read_login())
    return None


def _serve_vencrypt(subtypes: Sequence[Subtype]) -> Script[Inner]:
    yield Write(rfb.VENCRYPT_VERSION)
    version = yield Read(2)
    if version != rfb.VENCRYPT_VERSION:
        yield Write(b"\xff")
        raise ProtocolError(f"the client wants VeNCrypt {version[0]}.{version[1]}, not 0.2")
    numbers = b"".join(subtype.to_bytes(4, "big") for subtype in subtypes)
    yield Write(b"\0" + bytes((len(subtypes),)) + numbers)
    chosen = yield from _read_number(4)
    if chosen not in subtypes:
        yield Write(b"\0")
        raise ProtocolError(f"the client chose VeNCrypt subtype {chosen}, which was not offered")
    yield Write(b"\1")
    layers = rfb.LAYERS[Subtype(chosen)]
    yield StartTls(layers.anonymous)
    return layers.inner


def _read_login() -> Script[Login]:
    user_size = yield from _read_number(4)
    password_size = yield from _read_number(4)
    if user_size > rfb.LOGIN_LIMIT or password_size > rfb.LOGIN_LIMIT:
        raise ProtocolError("the client sent a name or password beyond all measure")
    user = (yield Read(user_size)).decode(errors="replace")
    return Login(user, (yield Read(password_size)))


# The client's side: an instance's VNC server is opened.


@dataclass(frozen=True)
class Demand:
    """What a client wants of a server.

    password: of VNC authentication. subtypes: of VeNCrypt, that it can do, best first. clear:
    whether it goes on where the server has no VeNCrypt.
    """

    password: bytes | None = field(default=None, repr=False)
    subtypes: tuple[Subtype, ...] = ()
    clear: bool = True


@dataclass(frozen=True)
class Opened:
    """A server that let us in; its ServerInit comes next. subtype: of VeNCrypt, if used."""

    version: Version
    security: Security
    subtype: Subtype | None


def connect(demand: Demand) -> Script[Opened]:
    """The client's side up to ClientInit, which always shares: QEMU would disconnect others."""
    version = rfb.parse_version((yield Read(rfb.GREETING_SIZE)))
    yield Write(version.value)
    security = yield from _choose_security(demand, version)
    subtype = None
    inner = {Security.NONE: Inner.NONE, Security.VNC: Inner.VNC}.get(security)
    if inner is None:
        subtype = yield from _open_vencrypt(demand)
        inner = rfb.LAYERS[subtype].inner
    if inner is Inner.VNC:
        challenge = yield Read(rfb.CHALLENGE_SIZE)
        yield Write(make_response(demand.password or b"", challenge))
    if version is Version.V3_8 or security is not Security.NONE:
        yield from _read_result(version)
    yield Write(b"\1")
    return Opened(version, security, subtype)


def _choose_security(demand: Demand, version: Version) -> Script[Security]:
    if version is Version.V3_3:
        offered = [(yield from _read_number(4))]
        if offered == [Security.INVALID]:
            yield from _fail_with_reason()
    else:
        offered = list((yield Read((yield from _read_number(1)))))
        if not offered:
            yield from _fail_with_reason()
    wanted = [Security.VENCRYPT] if demand.subtypes and version is not Version.V3_3 else []
    if demand.clear:
        wanted += [Security.VNC] if demand.password is not None else []
        wanted += [Security.NONE]
    for security in wanted:
        if security in offered:
            if version is not Version.V3_3:
                yield Write(bytes((security,)))
            return security
    raise ProtocolError(_explain_refusal(demand, offered))


def _explain_refusal(demand: Demand, offered: list[int]) -> str:
    if Security.VNC in offered and demand.clear:
        return "the instance's VNC server wants a password and none was given"
    if not demand.clear and Security.VENCRYPT not in offered:
        return "the instance's VNC server has no TLS, which the settings demand"
    shown = ", ".join(map(str, offered))
    return f"the instance's VNC server offers security types {shown}, none of which can be used"


def _open_vencrypt(demand: Demand) -> Script[Subtype]:
    version: bytes = yield Read(2)
    if version < rfb.VENCRYPT_VERSION:
        raise ProtocolError(f"the instance's VNC server has VeNCrypt {version[0]}.{version[1]}")
    yield Write(rfb.VENCRYPT_VERSION)
    if (yield from _read_number(1)):
        raise ProtocolError("the instance's VNC server refused VeNCrypt 0.2")
    data: bytes = yield Read(4 * (yield from _read_number(1)))
    offered = [int.from_bytes(data[at : at + 4], "big") for at in range(0, len(data), 4)]
    for subtype in demand.subtypes:
        lacks_password = rfb.LAYERS[subtype].inner is Inner.VNC and demand.password is None
        if subtype in offered and not lacks_password:
            break
    else:
        shown = ", ".join(map(str, offered))
        raise ProtocolError(
            f"the instance's VNC server offers VeNCrypt subtypes {shown}, none of which can be used"
        )
    yield Write(subtype.to_bytes(4, "big"))
    if (yield from _read_number(1)) != 1:
        raise ProtocolError(f"the instance's VNC server refused VeNCrypt subtype {subtype}")
    yield StartTls(rfb.LAYERS[subtype].anonymous)
    return subtype


def _read_result(version: Version) -> Script[None]:
    if not (yield from _read_number(4)):
        return
    if version is Version.V3_8:
        yield from _fail_with_reason()
    raise ProtocolError("the instance's VNC server refused us")


def _fail_with_reason() -> Script[None]:
    size = yield from _read_number(4)
    data: bytes = yield Read(min(size, rfb.REASON_LIMIT))
    reason = data.decode(errors="replace")
    raise ProtocolError(f"the instance's VNC server refused us: {reason!r}")
