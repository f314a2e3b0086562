"""The client's side of RFB's handshake: an instance's VNC server is opened."""

from dataclasses import dataclass, field

from vncauthproxy.protocol import rfb
from vncauthproxy.protocol.handshake import Read, Script, StartTls, Write, read_number
from vncauthproxy.protocol.rfb import Inner, ProtocolError, Security, Subtype, Version
from vncauthproxy.protocol.vnc_auth import make_response


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
        offered = [(yield from read_number(4))]
        if offered == [Security.INVALID]:
            yield from _fail_with_reason()
    else:
        offered = list((yield Read((yield from read_number(1)))))
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
    if (yield from read_number(1)):
        raise ProtocolError("the instance's VNC server refused VeNCrypt 0.2")
    data: bytes = yield Read(4 * (yield from read_number(1)))
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
    if (yield from read_number(1)) != 1:
        raise ProtocolError(f"the instance's VNC server refused VeNCrypt subtype {subtype}")
    yield StartTls(rfb.LAYERS[subtype].anonymous)
    return subtype


def _read_result(version: Version) -> Script[None]:
    if not (yield from read_number(4)):
        return
    if version is Version.V3_8:
        yield from _fail_with_reason()
    raise ProtocolError("the instance's VNC server refused us")


def _fail_with_reason() -> Script[None]:
    size = yield from read_number(4)
    data: bytes = yield Read(min(size, rfb.REASON_LIMIT))
    reason = data.decode(errors="replace")
    raise ProtocolError(f"the instance's VNC server refused us: {reason!r}")
