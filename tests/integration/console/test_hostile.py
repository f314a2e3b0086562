"""Hostile clients and backends: each is refused or ended, and a session that is open meanwhile
never notices."""

import contextlib
import json
import os
import random
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from testbed import namespaces
from testbed.console import Proxy
from testbed.console_client import WebSocketClient, open_console
from testbed.deadline import wait_for
from testbed.drawing import GREEN
from testbed.ganeti import Cluster
from testbed.legacy_client import CONTROL_PORT, ask_legacy, open_legacy
from testbed.vnc_servers import NODE_ADDRESS, NODE_NAME, PASSWORD
from testbed.wire import ADDRESS

SOAK = bool(os.environ.get("SNF_SOAK"))
CONNECTIONS = 10_000 if SOAK else 300
STREAMS = 300 if SOAK else 10
SECONDS = 120.0
MEMORY_LIMIT = 256 << 10  # KiB of resident memory that a proxy never needs


@pytest.fixture(autouse=True)
def undisturbed(sharing: Proxy, green: None) -> Iterator[None]:
    """A session that lives through each of these tests, and a proxy that stays small."""
    sharing.wait_for_sessions(0)
    witness = open_console(sharing, sharing.order(user="witness"))
    assert witness.read_colour() == GREEN
    yield
    assert witness.read_colour() == GREEN
    assert read_memory(sharing) < MEMORY_LIMIT
    witness.connection.close()
    sharing.wait_for_sessions(0)


def read_memory(proxy: Proxy) -> int:
    """KiB of resident memory of the proxy's process."""
    status = Path(f"/proc/{proxy.pid}/status").read_text()
    matched = re.search(r"VmRSS:\s*(\d+) kB", status)
    assert matched, status
    return int(matched[1])


def read_to_the_end(connection: socket.socket) -> bytes:
    """What is sent until the other side ends it; a proxy that never does is an error."""
    connection.settimeout(SECONDS)
    data = b""
    with contextlib.suppress(ConnectionResetError, ssl.SSLError, BrokenPipeError):
        while more := connection.recv(65536):
            data += more
            assert len(data) < 1 << 20
    return data


def open_plain(proxy: Proxy) -> socket.socket:
    return proxy.connect(NODE_ADDRESS, proxy.port)


def test_silent_peer_is_greeted_and_ended(sharing: Proxy) -> None:
    with open_plain(sharing) as silent:
        assert read_to_the_end(silent) == b"RFB 003.008\n"


@pytest.mark.parametrize(
    "start",
    [
        b"\x16",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"\x16\x03\x01\xff\xff" + bytes(1000),
        b"GET / HTTP/1.1\r\n",
        b"\x00" * 100,
        b"RFB 003.008\n",
        b"\xff" * 100_000,
    ],
)
def test_first_bytes_of_every_kind_are_ended(sharing: Proxy, start: bytes) -> None:
    with open_plain(sharing) as peer:
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            peer.sendall(start)
        read_to_the_end(peer)


@pytest.mark.parametrize("kind", ["front", "control", "vnc", "vnc-ws", "vnc-wss"])
def test_random_bytes_are_ended_on_every_port(sharing: Proxy, kind: str) -> None:
    """From peers that close their half at once; a console is still its owner's after them."""
    source, ports = random.Random(kind), {"front": sharing.port, "control": CONTROL_PORT}
    port = ports.get(kind) or ask_legacy(sharing, type=kind)["source_port"]
    for _ in range(STREAMS):
        start = source.choice((b"", b"\x16\x03\x01", b"GET / HTTP/1.1\r\n", b"RFB 003.008\n", b"{"))
        with sharing.connect(NODE_ADDRESS, port) as peer:
            with contextlib.suppress(OSError):
                peer.sendall(start + source.randbytes(source.choice((0, 1, 20, 500, 5000))))
                peer.shutdown(socket.SHUT_WR)
            read_to_the_end(peer)
    if kind not in ports:
        with open_legacy(sharing, port, kind) as owner:
            assert owner.read_colour() == GREEN


def test_hello_of_tls_cut_in_two_is_served(sharing: Proxy) -> None:
    """As a slow network cuts it; the pause is longer than a viewer is waited for."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.create_default_context(cafile=sharing.ca)
    tls = context.wrap_bio(incoming, outgoing, server_hostname=NODE_NAME)
    with open_plain(sharing) as peer, contextlib.suppress(ssl.SSLWantReadError):
        peer.settimeout(SECONDS)
        try:
            tls.do_handshake()
        except ssl.SSLWantReadError:
            hello = outgoing.read()
        peer.sendall(hello[:50])
        until = time.monotonic() + 2.1
        wait_for("a slow network", lambda: time.monotonic() > until, SECONDS)
        peer.sendall(hello[50:])
        assert peer.recv(1) == b"\x16"


def test_byte_a_second_is_ended(sharing: Proxy) -> None:
    with sharing.open_tls() as peer:
        peer.settimeout(SECONDS)
        started = time.monotonic()
        with pytest.raises((OSError, EOFError)):
            for byte in b"GET / HTTP/1.1\r\nX-Slow: " + b"x" * 100:
                peer.sendall(bytes((byte,)))
                peer.settimeout(0.5)
                with contextlib.suppress(TimeoutError):
                    if not peer.recv(1):
                        raise EOFError
        assert time.monotonic() - started < SECONDS


POST = b"POST /tickets HTTP/1.1\r\nHost: x\r\n"


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"GET /novnc/../../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"GET /novnc/%2e%2e/%2e%2e/etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"GET /novnc/core/..%2f..%2fvnc.html HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"DELETE /sessions/../tickets HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"GET /sessions?token=x HTTP/1.1\r\nHost: x\r\n\r\n", 401),
        (b"GET https://u:p@x/ HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /websocket HTTP/1.1\r\nHost: x\r\n\r\n", 426),
        (b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", 405),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET /\r\n\r\n", 400),
        (b"nonsense\r\n\r\n", 400),
        (b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 1_000_000 + b"\r\n\r\n", 431),
        (
            b"POST /tickets HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n" + b" " * 90_000,
            413,
        ),
        (POST + b"Content-Length: -1\r\n\r\n", 400),
        (POST + b"Authorization: Bearer " + b"x" * 1_000_000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + b"x" * 9_000 + b"\r\n\r\n", 200),
    ],
)
def test_requests_that_are_none(sharing: Proxy, request_: bytes, status: int) -> None:
    with sharing.open_tls() as peer:
        with contextlib.suppress(ConnectionResetError, BrokenPipeError, ssl.SSLError):
            peer.sendall(request_)
        peer.settimeout(SECONDS)
        head = peer.recv(65536)
        assert head.split()[1] == str(status).encode(), head[:200]
        assert b"root:" not in head


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        ("Sec-WebSocket-Protocol: binary\r\n", 401),  # no ticket
        ("Sec-WebSocket-Protocol: ticket.a, ticket.b\r\n", 401),
        ("Sec-WebSocket-Protocol: chat, ticket.a\r\n", 400),
        (f"Sec-WebSocket-Protocol: ticket.{'a' * 1_000_000}\r\n", 431),
        ("Sec-WebSocket-Protocol: ticket.a\r\nSec-WebSocket-Version: 8\r\n", 400),
        ("Sec-WebSocket-Protocol: ticket.a\r\nSec-WebSocket-Key: short\r\n", 400),
    ],
)
def test_handshakes_of_websockets_that_are_none(sharing: Proxy, lines: str, status: int) -> None:
    with sharing.open_tls() as peer:
        peer.settimeout(SECONDS)
        peer.sendall(
            "GET /websocket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"{lines}\r\n".encode()
        )
        assert peer.recv(65536).split()[1] == str(status).encode()


def test_wrong_subprotocol_uses_up_nothing(sharing: Proxy) -> None:
    """A browser would end a connection for which none of its subprotocols is chosen."""
    ticket = sharing.order()
    refused = WebSocketClient(sharing.open_tls(), ticket["ticket"], words="chat, mqtt")
    assert refused.status == 400
    assert open_console(sharing, ticket).read_colour() == GREEN


def test_credentials_in_a_url_are_refused(sharing: Proxy) -> None:
    ticket = sharing.order()
    with sharing.open_tls() as peer:
        peer.settimeout(SECONDS)
        peer.sendall(
            f"GET /websocket?ticket={ticket['ticket']} HTTP/1.1\r\nHost: x\r\n"
            "Upgrade: websocket\r\nConnection: Upgrade\r\n\r\n".encode()
        )
        assert b"does not belong into a URL" in peer.recv(65536)
    assert open_console(sharing, ticket).read_colour() == GREEN


def send_fragments(client: WebSocketClient) -> None:
    client.send_frame(2, b"\4" * 8, final=False)
    for _ in range(40):
        client.send_frame(0, bytes(65536), final=False)


def send_half(client: WebSocketClient) -> None:
    client.tls.sendall(b"\x82\xfe\x10")
    client.close()


_GIGABYTE = b"\x82\xff" + (1 << 30).to_bytes(8, "big") + bytes(4) + b"x" * 100
FRAMES: dict[str, Callable[[WebSocketClient], None]] = {
    "a gigabyte": lambda client: client.tls.sendall(_GIGABYTE),
    "not masked": lambda client: client.tls.sendall(b"\x82\x03abc"),
    "text": lambda client: client.send_frame(1, b"hello"),
    "reserved bits": lambda client: client.tls.sendall(b"\xf2\x80" + bytes(4)),
    "unknown opcode": lambda client: client.send_frame(7, b""),
    "a long ping": lambda client: client.send_frame(9, b"x" * 126),
    "fragments without end": send_fragments,
    "unknown message": lambda client: client.send(b"\x4d" * 100),
    "a clipboard of a gigabyte": lambda client: client.send(b"\6\0\0\0\x40\0\0\0"),
    "end in the middle": send_half,
}


@pytest.mark.parametrize("kind", FRAMES)
def test_frames_that_end_a_session(sharing: Proxy, kind: str) -> None:
    ticket = sharing.order(user=kind)
    console = open_console(sharing, ticket)
    client = console.connection
    assert isinstance(client, WebSocketClient)
    with contextlib.suppress(OSError):
        FRAMES[kind](client)
        client.wait_for_close()
    assert sharing.find_audit(ticket["session"])["end"]


def test_connections_without_number(cluster: Cluster, sharing: Proxy) -> None:
    """Beyond a limit of an address they are dropped; they are silent or half open. More than the
    limit come before the first has been silent for too long."""
    wire, place = cluster.bed.wire.machine.pid, (NODE_ADDRESS, sharing.port)
    ticket, before = sharing.order(lifetime=600), count_descriptors(sharing)
    peers: list[socket.socket] = []
    for _ in range(CONNECTIONS):
        with contextlib.suppress(OSError):
            peers.append(namespaces.connect(wire, place, 10))
        if len(peers) > 400:
            peers.pop(0).close()
    assert count_descriptors(sharing) < before + 64 + 20
    for peer in peers:
        peer.close()
    few = before + 20  # with those to Redis, which stay
    wait_for("their end", lambda: count_descriptors(sharing) < few, SECONDS)
    assert open_console(sharing, ticket).read_colour() == GREEN
    assert float(sharing.read_metrics()["vncauthproxy_connections_dropped_total"]) > 0


def count_descriptors(proxy: Proxy) -> int:
    return len(list(Path(f"/proc/{proxy.pid}/fd").iterdir()))


class FakeServer:
    """A VNC server on the wire that does what real ones don't."""

    def __init__(self, cluster: Cluster, script: bytes, *, endless: bytes = b"") -> None:
        self._listener = cluster.bed.wire.listen()
        self.port = self._listener.getsockname()[1]
        self.sent = 0
        self._script, self._endless = script, endless
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            connection, _ = self._listener.accept()
            with connection:
                connection.settimeout(SECONDS)
                connection.sendall(self._script)
                while self._endless:
                    self.sent += connection.send(self._endless)
                if not self._script:
                    connection.recv(1)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes who accepts
        self._listener.close()
        self._thread.join(SECONDS)


SERVERS: dict[str, tuple[bytes, str]] = {
    "another protocol": (b"SSH-2.0-OpenSSH_9.2p1\r\n", "does not speak RFB"),
    "the end in the handshake": (b"RFB 003.008\n", "ended in the middle"),
    "types that we lack": (b"RFB 003.008\n\1\x1e", "types 30"),
    "a refusal": (b"RFB 003.008\n\0\0\0\0\4full", "full"),
    "a reason without end": (b"RFB 003.008\n\0\xff\xff\xff\xff" + b"x" * 9000, "xxx"),
    "silence": (b"", "longer than 4 s"),
}


@pytest.mark.parametrize("kind", SERVERS)
def test_backend_that_is_none(cluster: Cluster, sharing: Proxy, kind: str) -> None:
    script, reason = SERVERS[kind]
    with contextlib.closing(FakeServer(cluster, script)) as server:
        target = {"host": ADDRESS, "port": server.port}
        ticket = sharing.ask("POST", "/tickets", {"user": kind, "target": target})[1]
        client = WebSocketClient(sharing.open_tls(), ticket["ticket"])
        code, said = client.wait_for_close()
        assert code == 4002 and reason in said
    assert reason in sharing.find_audit(ticket["session"])["end"]


def test_endless_data_to_a_client_that_does_not_read(cluster: Cluster, sharing: Proxy) -> None:
    """It is held up, not kept; and the session ends."""
    server_init = bytes((3, 32, 2, 88)) + bytes(16) + bytes(4)
    script = b"RFB 003.008\n\1\1" + bytes(4) + server_init
    server = FakeServer(cluster, script, endless=bytes(1 << 18))
    with contextlib.closing(server):
        ticket = sharing.order(user="lazy", target={"host": ADDRESS, "port": server.port})
        client = WebSocketClient(sharing.open_tls(), ticket["ticket"])
        client.receive(12)
        client.send(b"RFB 003.008\n")
        client.receive(2)
        client.send(b"\1")
        client.receive(4)
        client.send(b"\1")
        assert "did not take" in sharing.find_audit(ticket["session"])["end"]
        assert server.sent < 64 << 20
        client.tls.close()


def test_secrets_reach_no_log(sharing: Proxy, checked: Proxy) -> None:
    """After all that these tests did."""
    ticket = sharing.order(password="backend-secret")
    open_console(sharing, ticket)
    sharing.ask("GET", f"/{ticket['ticket']}")
    for proxy in (sharing, checked):
        text = proxy.log.read_text(errors="replace")
        assert "Traceback" not in text
        for secret in (proxy.token, ticket["ticket"], "backend-secret", PASSWORD, "user-secret"):
            assert secret not in text
        for line in text.splitlines():
            if line.startswith("{"):
                json.loads(line)
