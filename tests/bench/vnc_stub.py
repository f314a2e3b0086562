"""A VNC server for benchmarks: `python3 -m bench.vnc_stub MODE` prints its port and serves.

After RFB's handshake it does one thing: `source` sends without end, `sink` takes so many bytes as
the first eight say and then sends one, `echo` answers each message of eight bytes with as many.
"""

import os
import socket
import struct
import sys
import threading
from collections.abc import Callable

_INIT = struct.pack(">HH", 640, 480) + bytes(16) + struct.pack(">I", 4) + b"stub"
_CHUNK = 1 << 18


def shake_hands(connection: socket.socket) -> None:
    connection.sendall(b"RFB 003.008\n")
    take(connection, 12)
    connection.sendall(b"\1\1")
    take(connection, 1)
    connection.sendall(bytes(4))
    take(connection, 1)
    connection.sendall(_INIT)


def take(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = connection.recv(size - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def source(connection: socket.socket) -> None:
    take(connection, 1)
    data = os.urandom(_CHUNK)
    while True:
        connection.sendall(data)


def sink(connection: socket.socket) -> None:
    """The number comes in a key's message: its second half and its padding are any bytes."""
    _, _, megabytes = struct.unpack(">BBxxI", take(connection, 8))
    left, buffer = megabytes * 1_000_000, bytearray(_CHUNK)
    while left > 0:
        left -= connection.recv_into(buffer)
    connection.sendall(b"!")
    take(connection, 1)


def echo(connection: socket.socket) -> None:
    while True:
        connection.sendall(take(connection, 8))


MODES: dict[str, Callable[[socket.socket], None]] = {"source": source, "sink": sink, "echo": echo}


def serve(connection: socket.socket, mode: Callable[[socket.socket], None]) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        shake_hands(connection)
        mode(connection)
    except (OSError, EOFError):
        pass
    finally:
        connection.close()


def main() -> None:
    mode = MODES[sys.argv[1]]
    threading.stack_size(1 << 18)
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        print(listener.getsockname()[1], flush=True)
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=serve, args=(connection, mode), daemon=True).start()


if __name__ == "__main__":
    main()
