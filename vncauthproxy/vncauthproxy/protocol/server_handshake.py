"""The server's side of RFB's handshake: a browser or a viewer is served."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from vncauthproxy.protocol import rfb
from vncauthproxy.protocol.handshake import (
    Check,
    Login,
    Proof,
    Read,
    Response,
    Script,
    StartTls,
    Write,
    read_number,
)
from vncauthproxy.protocol.rfb import Inner, ProtocolError, Security, Subtype, Version


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
    chosen = yield from read_number(1)
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
    chosen = yield from read_number(4)
    if chosen not in subtypes:
        yield Write(b"\0")
        raise ProtocolError(f"the client chose VeNCrypt subtype {chosen}, which was not offered")
    yield Write(b"\1")
    layers = rfb.LAYERS[Subtype(chosen)]
    yield StartTls(layers.anonymous)
    return layers.inner


def _read_login() -> Script[Login]:
    user_size = yield from read_number(4)
    password_size = yield from read_number(4)
    if user_size > rfb.LOGIN_LIMIT or password_size > rfb.LOGIN_LIMIT:
        raise ProtocolError("the client sent a name or password beyond all measure")
    user = (yield Read(user_size)).decode(errors="replace")
    return Login(user, (yield Read(password_size)))
