"""RFB's handshakes without I/O: they take bytes and give bytes.

The two sides are in `server_handshake` and `client_handshake`. Each is written as a script, a
generator that yields what it needs: `Read` so many bytes, `Write` these, `StartTls`, `Check` a
proof. `Handshake` runs a script and does not mind how the bytes are cut:

    handshake.receive(data)      bytes that came
    handshake.take_output()      bytes to send, also after ProtocolError: the reason is in them
    handshake.needs              bytes without which it can't go on; reading no more than these
                                 leaves whatever comes after the handshake to others
    handshake.pending            StartTls or Check, which the caller does and then `answer`s
    handshake.result             at the end

Nothing is taken over from before TLS: bytes that came too early are an error.
"""

import hmac
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from vncauthproxy.protocol.rfb import ProtocolError
from vncauthproxy.protocol.vnc_auth import make_response

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


def read_number(size: int) -> Script[int]:
    data: bytes = yield Read(size)
    return int.from_bytes(data, "big")
