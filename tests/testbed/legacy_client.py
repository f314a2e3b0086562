"""A client of the predecessor's protocol: its request, and the consoles that it is told of."""

import contextlib
import json
import socket
import ssl
from collections.abc import Iterator
from typing import Any

from testbed.console import Proxy
from testbed.console_client import WebSocketClient, receive
from testbed.rfb_client import Connection, RfbClient
from testbed.vnc_servers import NODE_ADDRESS, NODE_NAME
from vncauthproxy.protocol.vnc_auth import make_response

CONTROL_PORT = 24999
_PASSWORD = "eightchr"
_SECONDS = 60.0


class Plain:
    """RFB on a socket."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.socket.settimeout(_SECONDS)

    def receive(self, size: int) -> bytes:
        return receive(self.socket, size)

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def close(self) -> None:
        self.socket.close()


def ask_legacy(proxy: Proxy, **changes: Any) -> dict[str, Any]:
    """The answer to a request, by default for the guest without security."""
    request = {
        "source_port": 0,
        "destination_address": "127.0.0.1",
        "destination_port": 5901,
        "password": _PASSWORD,
        "auth_user": "synnefo",
        "auth_password": "user-secret",
        "type": "vnc",
        **changes,
    }
    with _wrap(proxy, CONTROL_PORT) as control:
        control.settimeout(_SECONDS)
        control.sendall(json.dumps(request).encode())
        data = b""
        while more := control.recv(4096):
            data += more
    answer = json.loads(data)
    assert isinstance(answer, dict)
    return answer


def log_in(connection: Connection, password: str = _PASSWORD) -> bytes:
    """VNC authentication: the four bytes of its result."""
    assert connection.receive(12) == b"RFB 003.008\n"
    connection.send(b"RFB 003.008\n")
    assert connection.receive(2) == b"\1\2"
    connection.send(b"\2")
    connection.send(make_response(password.encode(), connection.receive(16)))
    return connection.receive(4)


@contextlib.contextmanager
def open_legacy(proxy: Proxy, port: int, kind: str) -> Iterator[RfbClient]:
    """The console of a type at a port, for the block; its owner is in."""
    connection = _connect(proxy, port, kind)
    with contextlib.closing(connection):
        assert log_in(connection) == bytes(4)
        yield RfbClient(connection)


def _connect(proxy: Proxy, port: int, kind: str) -> Connection:
    if kind == "vnc-wss":
        socket_: socket.socket = _wrap(proxy, port)
    else:
        socket_ = proxy.connect(NODE_ADDRESS, port)
    if kind == "vnc":
        return Plain(socket_)
    client = WebSocketClient(socket_, "")
    assert client.status == 101, client.head
    return client


def _wrap(proxy: Proxy, port: int) -> ssl.SSLSocket:
    context = ssl.create_default_context(cafile=proxy.ca)
    return context.wrap_socket(proxy.connect(NODE_ADDRESS, port), server_hostname=NODE_NAME)
