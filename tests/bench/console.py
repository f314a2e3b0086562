"""The console proxy and websockify, side by side on loopback with the same certificate.

Both lead to the same VNC server, with TLS towards the client and in clear behind.
"""

import contextlib
import http.client
import json
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from snf_ganeti import process
from snf_ganeti.errors import NodeError
from testbed.deadline import wait_for

HOST = "127.0.0.1"
PEER = "websockify"
ROUNDS = 5
_START_SECONDS = 60.0
_SECONDS = 120.0
_DEBS = Path(__file__).resolve().parents[2] / "build/deb"
_SETTINGS = """
[listen]
address = "127.0.0.1"
port = {port}
public_url = "https://127.0.0.1:{port}"
certificate = "{folder}/cert.pem"
key = "{folder}/key.pem"
[controllers]
tokens = "{folder}/tokens"
[targets]
ports = "1024-65535"
tls = "off"
[limits]
sessions = 4000
sessions_per_user = 4000
sessions_per_instance = 4000
handshakes_per_address = 4000
handshake = 60.0
"""


@dataclass(frozen=True)
class Pair:
    """Ports of both on loopback, and their processes' ids. token: of our controller."""

    folder: Path
    backend: int
    ours: int
    peer: int
    token: str
    ours_pid: int
    peer_pid: int

    def open_tls(self, port: int) -> ssl.SSLSocket:
        context = ssl.create_default_context(cafile=self.folder / "cert.pem")
        plain = socket.create_connection((HOST, port), _SECONDS)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return context.wrap_socket(plain, server_hostname=HOST)

    def open_controller(self) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection(HOST)
        connection.sock = self.open_tls(self.ours)
        return connection

    def order(self, controller: http.client.HTTPConnection) -> str:
        """A ticket for the backend."""
        target = {"host": HOST, "port": self.backend}
        body = json.dumps({"user": "bench", "target": target})
        headers = {"Authorization": f"Bearer {self.token}"}
        controller.request("POST", "/tickets", body, headers)
        answer = controller.getresponse()
        document = json.loads(answer.read())
        if answer.status != http.client.CREATED:
            raise NodeError(f"no ticket: {document}")
        return str(document["ticket"])

    def open_ours(self, controller: http.client.HTTPConnection) -> "Console":
        return Console(self.open_tls(self.ours), f"binary, ticket.{self.order(controller)}")

    def open_peer(self) -> "Console":
        return Console(self.open_tls(self.peer), "binary")


class Console:
    """A WebSocket whose RFB handshake is done: the server's next message comes next."""

    def __init__(self, tls: ssl.SSLSocket, words: str) -> None:
        self.tls = tls
        tls.sendall(
            b"GET /websocket HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            b"Sec-WebSocket-Protocol: " + words.encode() + b"\r\n\r\n"
        )
        self._input = b""
        while b"\r\n\r\n" not in self._input:
            self._input += self._receive()
        head, _, self._input = self._input.partition(b"\r\n\r\n")
        if b" 101 " not in head:
            raise NodeError(f"no WebSocket: {head!r}")
        self._payload = b""
        for expected, said in ((12, b"RFB 003.008\n"), (2, b"\1"), (4, b"\1"), (28, b"")):
            self.read(expected)
            if said:
                self.send(said)

    def send(self, data: bytes) -> None:
        self.tls.sendall(make_frame(data))

    def read(self, size: int) -> bytes:
        while len(self._payload) < size:
            self._payload += self._read_frame()
        data, self._payload = self._payload[:size], self._payload[size:]
        return data

    def _read_frame(self) -> bytes:
        _, size = self._take(2)
        if size == 126:
            (size,) = struct.unpack(">H", self._take(2))
        elif size == 127:
            (size,) = struct.unpack(">Q", self._take(8))
        return self._take(size)

    def _take(self, size: int) -> bytes:
        while len(self._input) < size:
            self._input += self._receive()
        data, self._input = self._input[:size], self._input[size:]
        return data

    def _receive(self) -> bytes:
        data = self.tls.recv(1 << 16)
        if not data:
            raise NodeError("the WebSocket ended")
        return data

    def close(self) -> None:
        self.tls.close()


def make_frame(data: bytes) -> bytes:
    """A client's frame; with a mask that is not zero, since that would be no work."""
    size, mask = len(data), b"\x37\xfa\x21\x3d"
    length = bytes((0x80 | size,)) if size < 126 else b"\xfe" + struct.pack(">H", size)
    padded = int.from_bytes(data, "big")
    pattern = int.from_bytes((mask * (size // 4 + 1))[:size], "big")
    return b"\x82" + length + mask + (padded ^ pattern).to_bytes(size, "big")


@contextlib.contextmanager
def running_pair(mode: str) -> Iterator[Pair]:
    """Both in front of a `bench.vnc_stub` of a mode. Ours is what the packages hold."""
    with tempfile.TemporaryDirectory(prefix="bench-console-") as name:
        folder = Path(name)
        _unpack(folder)
        argv = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt"]
        argv += ["ec_paramgen_curve:P-256", "-nodes", "-days", "9", "-subj", "/CN=127.0.0.1"]
        argv += ["-addext", "subjectAltName=IP:127.0.0.1"]
        process.run([*argv, "-keyout", f"{folder}/key.pem", "-out", f"{folder}/cert.pem"])
        stub = [sys.executable, "-m", "bench.vnc_stub", mode]
        tests = str(Path(__file__).resolve().parents[1])
        with (
            process.spawn(stub, stdout=subprocess.PIPE, env={"PYTHONPATH": tests}) as backend,
            (folder / "log").open("wb") as log,
        ):
            assert backend.stdout
            port = int(backend.stdout.readline())
            with _running_both(folder, port, log.fileno()) as pair:
                yield pair


def _unpack(folder: Path) -> None:
    for package in ("snf-ganeti-common", "vncauthproxy"):
        (deb,) = _DEBS.glob(f"{package}_*.deb")
        process.run(["dpkg-deb", "--extract", str(deb), str(folder)])


@contextlib.contextmanager
def _running_both(folder: Path, backend: int, log: int) -> Iterator[Pair]:
    ours, peer = _find_port(), _find_port()
    (folder / "vncauthproxy").mkdir()
    settings = _SETTINGS.format(port=ours, folder=folder)
    (folder / "vncauthproxy/vncauthproxy.toml").write_text(settings)
    packages = {"PYTHONPATH": str(folder / "usr/lib/python3/dist-packages")}
    code = "from vncauthproxy.commands.main import run; run()"
    command = ["/usr/bin/python3", "-c", code, "--etc", str(folder)]
    token = process.run([*command, "add-token", "bench"], env=packages).text.strip()
    certificate = (f"--cert={folder}/cert.pem", f"--key={folder}/key.pem", "--ssl-only")
    target = (f"{HOST}:{peer}", f"{HOST}:{backend}")
    with open(log, "wb", closefd=False) as out, contextlib.ExitStack() as stack:
        spawn = stack.enter_context
        first = spawn(process.spawn([*command, "serve"], stdout=out, stderr=out, env=packages))
        second = spawn(process.spawn(["websockify", *certificate, *target], stdout=out, stderr=out))
        pair = Pair(folder, backend, ours, peer, token, first.pid, second.pid)
        for port in (ours, peer):
            wait_for(f"port {port}", lambda port=port: _answers(pair, port), _START_SECONDS)  # type: ignore[misc]
        yield pair


def _answers(pair: Pair, port: int) -> bool:
    with contextlib.suppress(OSError):
        pair.open_tls(port).close()
        return True
    return False


def _find_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
