"""The Remote Framebuffer protocol's numbers and words (RFC 6143; VeNCrypt: rfbproto).

Nothing here reads or writes; `handshake` and `client_messages` are built of it.
"""

import enum
import re
from dataclasses import dataclass

from snf_ganeti.errors import SnfError


class ProtocolError(SnfError):
    """The other side does not keep to the protocol, or wants what we refuse."""


class Version(enum.Enum):
    """The versions that exist; a greeting of another number counts as one of these."""

    V3_3 = b"RFB 003.003\n"
    V3_7 = b"RFB 003.007\n"
    V3_8 = b"RFB 003.008\n"


GREETING_SIZE = 12
_GREETING = re.compile(rb"RFB (\d{3})\.(\d{3})\n")


def parse_version(greeting: bytes) -> Version:
    """The version that a greeting stands for. Raises ProtocolError.

    3.4 to 3.6 were never published and count as 3.3; what is above 3.8 (Apple's 3.889, RealVNC's
    4 and 5) understands 3.8.
    """
    matched = _GREETING.fullmatch(greeting)
    number = (int(matched[1]), int(matched[2])) if matched else (0, 0)
    if number < (3, 3):
        raise ProtocolError(f"the other side does not speak RFB: it began with {greeting!r}")
    if number < (3, 7):
        return Version.V3_3
    return Version.V3_7 if number == (3, 7) else Version.V3_8


class Security(enum.IntEnum):
    """Security types."""

    INVALID = 0
    NONE = 1
    VNC = 2
    VENCRYPT = 19


class Inner(enum.Enum):
    """What authenticates inside VeNCrypt's TLS."""

    NONE = enum.auto()
    VNC = enum.auto()
    PLAIN = enum.auto()


class Subtype(enum.IntEnum):
    """VeNCrypt's subtypes that we know, of both sides."""

    TLS_NONE = 257
    TLS_VNC = 258
    TLS_PLAIN = 259
    X509_NONE = 260
    X509_VNC = 261
    X509_PLAIN = 262


@dataclass(frozen=True)
class Layers:
    """anonymous: TLS without any certificate, which keeps out listeners and nobody else."""

    anonymous: bool
    inner: Inner


LAYERS = {
    Subtype.TLS_NONE: Layers(True, Inner.NONE),
    Subtype.TLS_VNC: Layers(True, Inner.VNC),
    Subtype.TLS_PLAIN: Layers(True, Inner.PLAIN),
    Subtype.X509_NONE: Layers(False, Inner.NONE),
    Subtype.X509_VNC: Layers(False, Inner.VNC),
    Subtype.X509_PLAIN: Layers(False, Inner.PLAIN),
}

VENCRYPT_VERSION = b"\0\2"
CHALLENGE_SIZE = 16
REASON_LIMIT = 4096
"""Bytes of a reason that we read; who sends more is cut off."""
LOGIN_LIMIT = 1024
"""Bytes of a name or password in VeNCrypt's Plain."""


def make_reason(text: str) -> bytes:
    """A reason as it is sent: its length and its bytes."""
    data = text.encode()
    return len(data).to_bytes(4, "big") + data
