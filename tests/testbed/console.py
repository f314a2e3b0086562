"""The installed console proxy on a bed's node, real VNC servers behind it, and a controller."""

import contextlib
import http.client
import json
import os
import socket
import ssl
import struct
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snf_ganeti import process
from testbed.deadline import wait_for
from testbed.drawing import BOOT_SECTOR, COLOURS, Colour
from testbed.machine import Machine
from testbed.rfb_client import RfbClient

NODE_NAME = "node1.bed.test"
NODE_ADDRESS = "10.78.0.11"
PASSWORD = "sesame12"
PKI = "/srv/pki"
NOVNC = Path("/usr/share/novnc")
Connect = Callable[[str, int], socket.socket]

_SECONDS = 60.0
_RAPI_PASSWORD = "secret-of-rapi"
_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "90")

DISPLAYS = {
    "none": (5901, ""),
    "password": (5902, "password-secret=password"),
    "x509": (5903, "tls-creds=x509"),
    "x509-password": (5904, "tls-creds=x509,password-secret=password"),
    "x509-verify": (5905, "tls-creds=verify"),
    "tls": (5906, "tls-creds=anon"),
    "tls-password": (5907, "tls-creds=anon,password-secret=password"),
}
"""The security configurations of QEMU's VNC server: port and options."""
SOCKET_FOLDER = "/srv/vnc"
SOCKET = f"{SOCKET_FOLDER}/guest.vnc"


def make_certificates(folder: Path) -> None:
    """A CA, a server certificate of the node and of loopback, a client certificate; and another
    CA's server certificate. Named as QEMU wants them."""

    def sign(name: str, subject: str, names: str, ca: str) -> None:
        arguments = ("-CA", f"{ca}-cert.pem", "-CAkey", f"{ca}-key.pem") if ca else ()
        extensions = ("-addext", f"subjectAltName={names}") if names else ()
        kind = ("-addext", "basicConstraints=critical,CA:FALSE") if ca else ()
        output = ("-keyout", f"{name}-key.pem", "-out", f"{name}-cert.pem")
        argv = ["openssl", "req", "-x509", *_KEY, "-subj", f"/CN={subject}", *output]
        subprocess.run(
            [*argv, *arguments, *extensions, *kind], cwd=folder, check=True, capture_output=True
        )

    names = f"DNS:{NODE_NAME},IP:{NODE_ADDRESS},DNS:localhost,IP:127.0.0.1"
    sign("ca", "console test CA", "", "")
    sign("other-ca", "another CA", "", "")
    sign("server", NODE_NAME, names, "ca")
    sign("client", "panel.example", "DNS:panel.example", "ca")
    sign("foreign", NODE_NAME, names, "other-ca")
    sign("renewed", "renewed.example", names, "ca")
    sign("self", "localhost", "DNS:localhost,IP:127.0.0.1", "")


def install_files(node: Machine, certificates: Path) -> None:
    """Certificates and noVNC, which the packages only recommend, into a node."""
    for path in certificates.iterdir():
        node.write(f"{PKI}/{path.name}", path.read_bytes())
    archive = process.run(
        ["tar", "--create", "--directory", str(NOVNC.parent), NOVNC.name], limit=1 << 26
    ).stdout
    node.run("tar", "--extract", "--directory", str(NOVNC.parent), stdin=archive)


def prepare_rapi(node: Machine, folder: str) -> None:
    """A user `reader` of Ganeti's remote API, and what the proxy needs to ask it: `rapi.pem` and
    `rapi-password` in a folder of the node."""
    users = "/var/lib/ganeti/rapi/users"
    node.write(users, f"reader {_RAPI_PASSWORD}\n", mode=0o640)
    node.run("chown", "gnt-rapi:gnt-masterd", users)
    node.write("/etc/default/ganeti", 'RAPI_ARGS="-b 127.0.0.1 --require-authentication"\n')
    node.run("/usr/lib/ganeti/daemon-util", "stop", "ganeti-rapi", ok=(0, 1))
    node.run("/usr/lib/ganeti/daemon-util", "start", "ganeti-rapi")
    pem = node.read("/var/lib/ganeti/rapi.pem").decode()
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----\n"
    certificate = begin + pem.partition(begin)[2].partition(end)[0] + end
    node.write(f"{folder}/rapi.pem", certificate)
    node.write(f"{folder}/rapi-password", f"{_RAPI_PASSWORD}\n", mode=0o640)
    node.run("chgrp", "vncauthproxy", f"{folder}/rapi-password")


@contextlib.contextmanager
def running_guest(node: Machine, log: Path) -> Iterator[None]:
    """QEMU with a guest that draws, and a VNC server of each security configuration."""
    node.write("/srv/drawing.img", BOOT_SECTOR)
    node.run("mkdir", "--parents", SOCKET_FOLDER)
    node.run("chmod", "755", SOCKET_FOLDER)
    displays = [
        ("-vnc", f"127.0.0.1:{port - 5900},id={name}" + (f",{options}" if options else ""))
        for name, (port, options) in DISPLAYS.items()
    ]
    credentials = f"dir={PKI},endpoint=server"
    argv = [
        *("qemu-system-x86_64", "-machine", "pc,accel=tcg", "-m", "32", "-nodefaults"),
        *("-vga", "std", "-name", "drawing", "-drive", "file=/srv/drawing.img,format=raw"),
        *("-object", f"tls-creds-x509,id=x509,verify-peer=off,{credentials}"),
        *("-object", f"tls-creds-x509,id=verify,verify-peer=on,{credentials}"),
        *("-object", "tls-creds-anon,id=anon,endpoint=server"),
        *("-object", f"secret,id=password,data={PASSWORD}"),
        *(word for words in displays for word in words),
        *("-vnc", f"unix:{SOCKET},id=unix"),
    ]
    node.write("/srv/guest.sh", "umask 0\nexec " + " ".join(argv) + "\n")
    with node.spawn("sh", "/srv/guest.sh", output=log):
        wait_for("QEMU's VNC servers", lambda: _is_there(node, SOCKET), _SECONDS)
        yield


def _is_there(node: Machine, path: str) -> bool:
    return node.run("test", "-S", path, ok=(0, 1)).status == 0


@dataclass(frozen=True)
class Proxy:
    """A running proxy: the installed command, as the user that the package made.

    etc: its settings are under it. log: what it printed.
    """

    node: Machine
    connect: Connect
    etc: str
    port: int
    token: str
    log: Path
    ca: Path
    child: subprocess.Popen[bytes]

    @property
    def pid(self) -> int:
        """As this machine sees it: the child of what entered the node."""
        entered = self.child.pid
        (pid,) = Path(f"/proc/{entered}/task/{entered}/children").read_text().split()
        return int(pid)

    @property
    def url(self) -> str:
        return f"https://{NODE_NAME}:{self.port}"

    def open_tls(self, **options: Any) -> ssl.SSLSocket:
        context = ssl.create_default_context(cafile=self.ca)
        for certificate, key in options.pop("certificates", ()):
            context.load_cert_chain(certificate, key)
        return context.wrap_socket(
            self.connect(NODE_ADDRESS, self.port), server_hostname=NODE_NAME, **options
        )

    def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        token: str | None = None,
        certificates: tuple[tuple[Path, Path], ...] = (),
    ) -> tuple[int, Any]:
        """One request: status and JSON, or text where it is none."""
        connection = http.client.HTTPConnection("proxy")
        connection.sock = self.open_tls(certificates=certificates)
        data = body if isinstance(body, bytes) else json.dumps(body) if body is not None else None
        chosen = self.token if token is None else token
        headers = {"Authorization": f"Bearer {chosen}"} if chosen else {}
        with contextlib.closing(connection):
            connection.request(method, path, data, headers)
            answer = connection.getresponse()
            text = answer.read()
        if answer.getheader("Content-Type") == "application/json" and text:
            return answer.status, json.loads(text)
        return answer.status, text.decode()

    def order(self, **fields: Any) -> dict[str, Any]:
        """A ticket, by default for the guest without security."""
        if "instance" not in fields:
            fields = {"target": {"host": "127.0.0.1", "port": 5901}, **fields}
        status, ticket = self.ask("POST", "/tickets", {"user": "alice", **fields})
        assert status == 201, ticket
        assert isinstance(ticket, dict)
        return ticket

    def read_metrics(self) -> dict[str, str]:
        """Value by name and labels."""
        status, text = self.ask("GET", "/metrics")
        assert status == 200
        return dict(line.rsplit(" ", 1) for line in text.splitlines() if line[0] != "#")

    def read_audit(self) -> list[dict[str, Any]]:
        """The lines of JSON in its log."""
        lines = self.log.read_text(errors="replace").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def find_audit(self, session: str) -> dict[str, Any]:
        """The line of a session, once it is there."""

        def look() -> dict[str, Any] | None:
            lines = (line for line in self.read_audit() if line.get("session") == session)
            return next(lines, None)

        found = wait_for(f"the audit line of {session}", look, _SECONDS)
        assert found
        return found

    def find_sessions(self) -> dict[str, dict[str, Any]]:
        """Of all proxies that it shares tickets with, by their ids."""
        status, answer = self.ask("GET", "/sessions")
        assert status == 200, answer
        return {each["session"]: each for each in answer["sessions"]}

    def wait_for_sessions(self, count: int) -> None:
        """Until it carries so many itself."""

        def matches() -> bool:
            carriers = [str(each["proxy"]) for each in self.find_sessions().values()]
            return len([each for each in carriers if each.endswith(f":{self.port}")]) == count

        wait_for(f"{count} sessions", matches, _SECONDS)


@contextlib.contextmanager
def running_proxy(
    node: Machine, connect: Connect, folder: Path, name: str, port: int, settings: str
) -> Iterator[Proxy]:
    """A proxy in a node. connect: to an address that the node has; settings: TOML beside what
    every proxy here has; folder: of this machine, with the certificates, for its log."""
    etc = f"/srv/{name}"
    node.write(f"{etc}/vncauthproxy/vncauthproxy.toml", make_settings(etc, port, settings))
    token = node.run("vncauthproxy", "--etc", etc, "add-token", "test").text.strip()
    for file in ("cert", "key"):
        node.run("cp", f"{PKI}/server-{file}.pem", f"{etc}/{file}.pem")
    node.run("chown", "-R", "vncauthproxy:", etc)
    log = folder / f"{name}.log"
    user = ("setpriv", "--reuid=vncauthproxy", "--regid=vncauthproxy", "--clear-groups")
    argv = (*user, "vncauthproxy", "--etc", etc, "serve")
    with node.spawn(*argv, output=log) as child:
        proxy = Proxy(node, connect, etc, port, token, log, folder / "ca-cert.pem", child)

        def answers() -> bool:
            assert child.poll() is None, log.read_text()
            with contextlib.suppress(OSError):
                return proxy.ask("GET", "/health")[0] == 200
            return False

        wait_for(f"proxy {name}", answers, _SECONDS)
        yield proxy


def make_settings(etc: str, port: int, settings: str) -> str:
    return f"""
[listen]
port = {port}
public_url = "https://{NODE_NAME}:{port}"
certificate = "{etc}/cert.pem"
key = "{etc}/key.pem"
[controllers]
tokens = "{etc}/tokens"
client_ca = "{PKI}/ca-cert.pem"
client_names = ["panel.example"]
{settings}
"""


class WebSocketClient:
    """A WebSocket of RFC 6455, client's side, with control over every frame."""

    def __init__(
        self, tls: ssl.SSLSocket, ticket: str, *, words: str = "binary", headers: str = ""
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
