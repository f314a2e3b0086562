"""What a browser sends in its WebSocket, split and unmasked as it comes (RFC 6455 §5).

Nearly all of it is the payload of whole binary messages. That is unmasked here, piece by piece
and without waiting for the end of a frame; numpy does in a tenth of the time what Python's
integers do. Every other frame goes to the library as it is, which judges and answers it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

_WHOLE_BINARY = 0x82
_FINAL = 0x80
_MASKED = 0x80
_CONTROL = 0x08
_MASK_SIZE = 4
_LONG = {126: 2, 127: 8}
"""Bytes of a length that does not fit into the second byte, which then is this."""


@dataclass(frozen=True)
class Piece:
    """Some bytes of RFB, or of frames that are for the library."""

    data: bytes
    is_rfb: bool


class Frames:
    """limit: bytes of a frame; a longer one is the library's to refuse."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._head = b""
        self._left = 0
        self._mask = b""
        """Of the bytes to come in a frame; none where it is the library's."""
        self._fragmented = False

    def split(self, data: bytes) -> Iterator[Piece]:
        """The pieces of what came, in order; none is empty."""
        if self._head:
            data, self._head = self._head + data, b""
        view, at = memoryview(data), 0
        while at < len(data):
            if not self._left:
                size = _measure_head(view[at:])
                if size is None:
                    self._head = data[at:]
                    return
                self._open(data[at : at + size])
                if not self._mask:
                    yield Piece(data[at : at + size], is_rfb=False)
                at += size
            part = view[at : at + self._left]
            if part:
                yield self._take(part)
            at += len(part)

    def _open(self, head: bytes) -> None:
        """A frame begins."""
        extended = _LONG.get(head[1] & ~_MASKED, 0)
        self._left = int.from_bytes(head[2 : 2 + extended], "big") if extended else head[1] & 127
        is_plain = head[0] == _WHOLE_BINARY and not self._fragmented
        is_taken = is_plain and head[1] & _MASKED and self._left <= self._limit
        self._mask = head[-_MASK_SIZE:] if is_taken else b""
        if not head[0] & _CONTROL:
            self._fragmented = not head[0] & _FINAL

    def _take(self, part: memoryview) -> Piece:
        self._left -= len(part)
        if not self._mask:
            return Piece(bytes(part), is_rfb=False)
        data = unmask(part, self._mask)
        turn = len(part) % _MASK_SIZE
        self._mask = self._mask[turn:] + self._mask[:turn]
        return Piece(data, is_rfb=True)


def make_head(size: int) -> bytes:
    """What stands before a server's whole binary message of so many bytes."""
    if size < 126:
        return bytes((_WHOLE_BINARY, size))
    marker = 126 if size < 1 << 16 else 127
    return bytes((_WHOLE_BINARY, marker)) + size.to_bytes(_LONG[marker], "big")


def unmask(data: memoryview, mask: bytes) -> bytes:
    """mask: four bytes, of which the first is for the first of the data."""
    pattern = np.frombuffer(mask * (len(data) // _MASK_SIZE + 1), np.uint8, len(data))
    return (np.frombuffer(data, np.uint8) ^ pattern).tobytes()


def _measure_head(view: memoryview) -> int | None:
    """Bytes of a frame before its payload; None while they are not all there."""
    if len(view) < 2:
        return None
    size = 2 + _LONG.get(view[1] & ~_MASKED, 0) + (_MASK_SIZE if view[1] & _MASKED else 0)
    return size if len(view) >= size else None
