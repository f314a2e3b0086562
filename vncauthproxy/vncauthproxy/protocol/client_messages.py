"""What a client sends after the handshake, told apart without decoding a pixel.

RFC 6143 §7.5, and the extensions that noVNC, TigerVNC and QEMU share (rfbproto). A message of a
type that is not listed ends the session: after it nobody knows where the next one begins, and a
rule that can't be checked can't be kept.
"""

import enum
from collections.abc import Callable
from dataclasses import dataclass

from vncauthproxy.protocol.rfb import ProtocolError


class Kind(enum.Enum):
    DISPLAY = enum.auto()  # how the screen is sent
    INPUT = enum.auto()  # keys and pointer
    CLIPBOARD = enum.auto()
    CONTROL = enum.auto()  # power, size of the screen


@dataclass(frozen=True)
class Message:
    """head: bytes from which `measure` knows how many follow it."""

    kind: Kind
    head: int
    measure: Callable[[bytes], int] = lambda head: 0


def _number(head: bytes, start: int, stop: int) -> int:
    return int.from_bytes(head[start:stop], "big")


def _measure_cut_text(head: bytes) -> int:
    """A negative length announces the extended form, of so many bytes."""
    return abs(int.from_bytes(head[4:8], "big", signed=True))


def _measure_gii(head: bytes) -> int:
    """The General Input Interface tells its own byte order in the top bit of its type."""
    return int.from_bytes(head[2:4], "big" if head[1] & 0x80 else "little")


_QEMU = 255
_SET_ENCODINGS = 2
_EXTENDED_CLIPBOARD = bytes.fromhex("c0a1e5ce")
MESSAGES = {
    0: Message(Kind.DISPLAY, 20),  # SetPixelFormat
    2: Message(Kind.DISPLAY, 4, lambda head: 4 * _number(head, 2, 4)),  # SetEncodings
    3: Message(Kind.DISPLAY, 10),  # FramebufferUpdateRequest
    4: Message(Kind.INPUT, 8),  # KeyEvent
    5: Message(Kind.INPUT, 6),  # PointerEvent
    6: Message(Kind.CLIPBOARD, 8, _measure_cut_text),  # ClientCutText
    150: Message(Kind.DISPLAY, 10),  # EnableContinuousUpdates
    248: Message(Kind.DISPLAY, 9, lambda head: head[8]),  # ClientFence
    250: Message(Kind.CONTROL, 4),  # xvp: shut down, reboot, reset
    251: Message(Kind.CONTROL, 8, lambda head: 16 * head[6]),  # SetDesktopSize
    252: Message(Kind.INPUT, 4, _measure_gii),
}
QEMU_MESSAGES = {
    (0,): Message(Kind.INPUT, 12),  # extended key event
    (1, 0, 0): Message(Kind.DISPLAY, 4),  # audio: enable
    (1, 0, 1): Message(Kind.DISPLAY, 4),  # audio: disable
    (1, 0, 2): Message(Kind.DISPLAY, 10),  # audio: format
}

_VIEW_ONLY = frozenset({Kind.DISPLAY})
_ALL = frozenset(Kind)
_ENCODINGS_LIMIT = 4096
CLIPBOARD_LIMIT = 1 << 20
"""Bytes of a clipboard; who sends more is cut off."""


class ClientMessages:
    """The messages of one session, filtered by rules that can change at any time.

    view_only: nothing passes but what asks for the screen. clipboard: whether text that was cut
    passes, and the server is asked for its own. A change takes effect with the next message.
    """

    def __init__(self, *, view_only: bool = False, clipboard: bool = True) -> None:
        self.view_only = view_only
        self.clipboard = clipboard
        self.inputs = 0
        """Messages of keys and pointer so far, whether they passed or not."""
        self._head = b""
        self._rest = 0
        self._passes = True

    def receive(self, data: bytes) -> bytes:
        """What of these bytes may go on to the server. Raises ProtocolError."""
        if self._rest >= len(data):  # in the middle of a long message
            self._rest -= len(data)
            return data if self._passes else b""
        if self._head:
            data, self._head = self._head + data, b""
        kept: list[bytes] = []
        at = start = 0  # data[start:at] is to be kept
        while at < len(data):
            if not self._rest:
                known = self._find(data, at)
                if known is None:  # its head is not complete
                    self._head = data[at:]
                    break
                if self._is_edited(data[at]):
                    kept += [data[start:at]] if self._passes else []
                    start = at + known[1]
                    kept.append(hide_clipboard(data[at:start]))
                    at = start
                    continue
                passes = self._open(*known)
                if passes != self._passes:
                    kept += [data[start:at]] if self._passes else []
                    start, self._passes = at, passes
            step = min(self._rest, len(data) - at)
            self._rest -= step
            at += step
        if self._passes and at > start:
            kept.append(data[start:at])
        return kept[0] if len(kept) == 1 else b"".join(kept)

    def _open(self, message: Message, size: int) -> bool:
        """A message of `size` bytes begins: does it pass?"""
        self._rest = size
        if message.kind is Kind.INPUT:
            self.inputs += 1
        elif message.kind is Kind.CLIPBOARD:
            if size > CLIPBOARD_LIMIT:
                raise ProtocolError(f"the client sent a clipboard of {size} bytes")
            return self.clipboard and not self.view_only
        return message.kind in (_VIEW_ONLY if self.view_only else _ALL)

    def _find(self, data: bytes, at: int) -> tuple[Message, int] | None:
        """The message that begins at `at` and its size; None while too little of it is there."""
        number = data[at]
        message = MESSAGES.get(number) if number != _QEMU else _find_qemu(data[at : at + 4])
        if message is None:
            if number == _QEMU and len(data) - at < 4:
                return None
            shown = data[at : at + 4].hex() if number == _QEMU else str(number)
            raise ProtocolError(f"the client sent a message of unknown type {shown}")
        if len(data) - at < message.head:
            return None
        size = message.head + message.measure(data[at : at + message.head])
        if self._is_edited(number) and len(data) - at < size:
            if size > _ENCODINGS_LIMIT:
                raise ProtocolError(f"the client sent a list of encodings of {size} bytes")
            return None
        return message, size

    def _is_edited(self, number: int) -> bool:
        """A message that is passed on whole, and not as it came."""
        return number == _SET_ENCODINGS and not self.clipboard


def hide_clipboard(message: bytes) -> bytes:
    """SetEncodings without the extension that has a server send its clipboard: QEMU sends it to
    nobody else."""
    listed = [message[at : at + 4] for at in range(4, len(message), 4)]
    kept = [encoding for encoding in listed if encoding != _EXTENDED_CLIPBOARD]
    return message[:2] + len(kept).to_bytes(2, "big") + b"".join(kept)


def _find_qemu(head: bytes) -> Message | None:
    return QEMU_MESSAGES.get(tuple(head[1:2])) or QEMU_MESSAGES.get(tuple(head[1:4]))
