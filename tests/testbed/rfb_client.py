"""A plain RFB client: what it sees of a screen, and keys. Of RFC 6143, and not of our code."""

import struct
from typing import Protocol

from testbed.drawing import Colour

_FORMAT = struct.pack(">BBBBHHHBBBxxx", 32, 24, 0, 1, 255, 255, 255, 16, 8, 0)
_POINT = 20  # of the screen, in each direction; a small rectangle says what colour it has


class Connection(Protocol):
    """Bytes in order: a socket's, or those in the messages of a WebSocket."""

    def receive(self, size: int) -> bytes: ...
    def send(self, data: bytes) -> None: ...
    def close(self) -> None: ...


def shake_hands(connection: Connection) -> None:
    """With a server that wants no security; next comes ClientInit."""
    assert connection.receive(12) == b"RFB 003.008\n"
    connection.send(b"RFB 003.008\n")
    assert connection.receive(2) == b"\1\1"
    connection.send(b"\1")
    assert connection.receive(4) == bytes(4)


class RfbClient:
    def __init__(self, connection: Connection) -> None:
        """From ClientInit on; it asks, as a rude one, to be alone."""
        self.connection = connection
        self.connection.send(b"\0")
        self.width, self.height = struct.unpack(">HH", self.connection.receive(4))
        self.connection.receive(16)
        (size,) = struct.unpack(">I", self.connection.receive(4))
        self.name = self.connection.receive(size).decode()
        self.connection.send(b"\0\0\0\0" + _FORMAT)
        self.connection.send(struct.pack(">BxHi", 2, 1, 0))  # raw

    def read_colour(self) -> Colour:
        """Of a point of the screen, now."""
        request = struct.pack(">BBHHHH", 3, 0, _POINT, _POINT, 1, 1)
        self.connection.send(request)
        while True:
            (kind,) = self.connection.receive(1)
            if kind == 0:
                return self._read_update()
            assert kind == 2, f"server message {kind}"  # bell

    def _read_update(self) -> Colour:
        (count,) = struct.unpack(">xH", self.connection.receive(3))
        pixels = b""
        for _ in range(count):
            _, _, width, height, encoding = struct.unpack(">HHHHi", self.connection.receive(12))
            assert encoding == 0
            pixels = self.connection.receive(width * height * 4)
        return (pixels[2], pixels[1], pixels[0])

    def press(self, character: str) -> None:
        for down in (1, 0):
            self.connection.send(struct.pack(">BBxxI", 4, down, ord(character)))
