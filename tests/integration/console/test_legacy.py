"""The predecessor's protocol, as Synnefo speaks it, and its holes closed."""

import contextlib
import json
import socket
import ssl
from typing import Any

import pytest

from testbed.console import Proxy
from testbed.console_client import WebSocketClient, ask_legacy, paint, receive
from testbed.ganeti import Cluster
from testbed.machine import Machine
from testbed.rfb_client import RfbClient
from testbed.vnc_servers import NODE_ADDRESS, NODE_NAME
from vncauthproxy.commands.client import request_forwarding
from vncauthproxy.protocol.vnc_auth import make_response

SECONDS = 120.0


class Plain:
    """RFB on a socket."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.socket.settimeout(SECONDS)

    def receive(self, size: int) -> bytes:
        return receive(self.socket, size)

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)


def log_in(connection: Any, password: bytes) -> bytes:
    """VNC authentication: the four bytes of its result."""
    assert connection.receive(12) == b"RFB 003.008\n"
    connection.send(b"RFB 003.008\n")
    assert connection.receive(2) == b"\1\2"
    connection.send(b"\2")
    connection.send(make_response(password, connection.receive(16)))
    result: bytes = connection.receive(4)
    return result


def start_rfb(connection: Any) -> RfbClient:
    client = RfbClient.__new__(RfbClient)
    client.connection = connection
    client.start()
    return client


def test_legacy_console_outlives_a_port_scan_and_a_wrong_password(
    cluster: Cluster, sharing: Proxy, green: None
) -> None:
    answer = ask_legacy(sharing)
    assert (answer["status"], set(answer)) == ("OK", {"source_port", "status", "proxy_address"})
    port = answer["source_port"]
    assert 25000 <= port <= 25009
    cluster.bed.wire.connect(NODE_ADDRESS, port).close()
    silent = cluster.bed.wire.connect(NODE_ADDRESS, port)
    stranger = Plain(cluster.bed.wire.connect(NODE_ADDRESS, port))
    assert log_in(stranger, b"guessed") == b"\0\0\0\1"
    owner = Plain(cluster.bed.wire.connect(NODE_ADDRESS, port))
    assert log_in(owner, b"eightchr") == bytes(4)
    paint(start_rfb(owner), "d")
    with pytest.raises(OSError):
        cluster.bed.wire.connect(NODE_ADDRESS, port)
    silent.close()
    owner.socket.close()


def test_legacy_console_in_a_websocket_with_tls(
    cluster: Cluster, sharing: Proxy, green: None
) -> None:
    answer = ask_legacy(sharing, type="vnc-wss", source_port=25005)
    assert answer["source_port"] == 25005
    context = ssl.create_default_context(cafile=sharing.ca)
    tls = context.wrap_socket(
        cluster.bed.wire.connect(NODE_ADDRESS, 25005), server_hostname=NODE_NAME
    )
    client = WebSocketClient(tls, "")
    assert client.status == 101
    assert log_in(client, b"eightchr") == bytes(4)
    paint(start_rfb(client), "d")
    tls.close()


@pytest.mark.parametrize(
    "changes",
    [
        {"auth_password": "wrong"},
        {"auth_user": "nobody"},
        {"destination_address": "192.0.2.1"},
        {"destination_port": 22},
        {"source_port": 80},
        {"type": "spice"},
        {"password": ""},
    ],
)
def test_legacy_request_that_is_refused(
    cluster: Cluster, sharing: Proxy, changes: dict[str, object]
) -> None:
    answer = ask_legacy(sharing, **changes)
    assert (answer["status"], answer["source_port"]) == ("FAILED", 0)
    assert answer["proxy_address"] is None and answer["reason"]


def test_legacy_control_in_clear_is_for_the_machine_alone(
    cluster: Cluster, sharing: Proxy, node: Machine, green: None
) -> None:
    with cluster.bed.wire.connect(NODE_ADDRESS, 24999) as control:
        control.settimeout(SECONDS)
        control.sendall(b"{}")
        with contextlib.suppress(ConnectionResetError):
            assert control.recv(100) == b""
    node.write("/srv/secrets/console", "eightchr")
    node.write("/srv/secrets/user", "user-secret")
    argv = ("vncauthproxy-client", "--dest", "127.0.0.1", "--dport", "5901", "--auth-user")
    files = ("--password-file", "/srv/secrets/console", "--auth-password-file")
    printed = node.run(*argv, "synnefo", *files, "/srv/secrets/user").text
    port = json.loads(printed)["source_port"]
    owner = Plain(cluster.bed.wire.connect(NODE_ADDRESS, port))
    assert log_in(owner, b"eightchr") == bytes(4)
    owner.socket.close()
    assert request_forwarding.__defaults__ is not None
    assert request_forwarding.__defaults__[:2] == ("127.0.0.1", 24999)
