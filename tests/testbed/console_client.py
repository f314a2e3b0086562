"""Clients of the console proxy: a WebSocket with control over every frame, and RFB in it."""

import os
import socket
import struct
from typing import Any

from testbed.console import Proxy
from testbed.deadline import wait_for
from testbed.drawing import COLOURS, Colour
from testbed.rfb_client import RfbClient, shake_hands
from testbed.vnc_servers import NODE_NAME

_SECONDS = 60.0


class WebSocketClient:
    """A WebSocket of RFC 6455, client's side, with control over every frame."""

    def __init__(
        self, tls: socket.socket, ticket: str, *, words: str = "binary", headers: str = ""
    ) -> None:
        self.tls = tls
        tls.settimeout(_SECONDS)
        offered = f"{words}, ticket.{ticket}" if ticket else words
        tls.sendall(
            f"GET /websocket HTTP/1.1\r\nHost: {NODE_NAME}\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            f"Sec-WebSocket-Protocol: {offered}\r\n{headers}\r\n".encode()
        )
        self._input = b""
        while b"\r\n\r\n" not in self._input:
            data = tls.recv(4096)
            assert data, f"no answer: {self._input!r}"
            self._input += data
        head, _, self._input = self._input.partition(b"\r\n\r\n")
        self.head = head.decode()
        self.status = int(self.head.split()[1])
        self._payload = b""
        self.texts: list[str] = []
        self.closed: tuple[int, str] | None = None

    def send(self, data: bytes) -> None:
        self.send_frame(2, data)

    def close(self) -> None:
        self.tls.close()

    def send_frame(self, opcode: int, data: bytes, *, final: bool = True) -> None:
        size = len(data)
        if size < 126:
            length = bytes((0x80 | size,))
        elif size < 65536:
            length = b"\xfe" + struct.pack(">H", size)
        else:
            length = b"\xff" + struct.pack(">Q", size)
        mask = os.urandom(4)
        masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(data))
        self.tls.sendall(bytes(((0x80 if final else 0) | opcode,)) + length + mask + masked)

    def receive(self, size: int) -> bytes:
        """RFB's bytes. Raises EOFError when the WebSocket is closed first."""
        while len(self._payload) < size:
            self._read_frame()
        data, self._payload = self._payload[:size], self._payload[size:]
        return data

    def wait_for_close(self) -> tuple[int, str]:
        """Code and reason with which it was closed; 0 when it just ended."""
        try:
            while True:
                self._read_frame()
        except EOFError:
            return self.closed or (0, "")

    def _read_frame(self) -> None:
        first, size = self._take(2)
        assert not size & 0x80, "a server's frames are not masked"
        if size == 126:
            (size,) = struct.unpack(">H", self._take(2))
        elif size == 127:
            (size,) = struct.unpack(">Q", self._take(8))
        data = self._take(size)
        opcode = first & 15
        if opcode == 1:
            self.texts.append(data.decode())
        elif opcode == 8:
            self.closed = (struct.unpack(">H", data[:2])[0], data[2:].decode())
            raise EOFError(self.closed)
        elif opcode in (0, 2):
            self._payload += data

    def _take(self, size: int) -> bytes:
        while len(self._input) < size:
            try:
                data = self.tls.recv(1 << 16)
            except ConnectionResetError:
                data = b""
            if not data:
                raise EOFError("the connection ended")
            self._input += data
        data, self._input = self._input[:size], self._input[size:]
        return data


def open_console(proxy: Proxy, ticket: dict[str, Any], **options: Any) -> RfbClient:
    """A console in a WebSocket."""
    client = WebSocketClient(proxy.open_tls(), ticket["ticket"], **options)
    assert client.status == 101, client.head
    shake_hands(client)
    return RfbClient(client)


def wait_for_colour(client: RfbClient, colour: Colour) -> None:
    """The guest draws when it has booted, and after it got a key."""
    seen: list[Colour] = []

    def shows() -> bool:
        seen.append(client.read_colour())
        return seen[-1] == colour

    wait_for(f"colour {colour}", shows, _SECONDS * 2, explain=lambda: f"it is {seen[-1]}")


def paint(client: RfbClient, key: str) -> None:
    """Press a key and see what it does."""
    client.press(key)
    wait_for_colour(client, COLOURS[key])


def receive(connection: socket.socket, size: int) -> bytes:
    """Exactly so many bytes of a socket."""
    data = b""
    while len(data) < size:
        more = connection.recv(size - len(data))
        assert more, f"it ended after {data!r}"
        data += more
    return data
