"""The installed console proxy on a bed's node, and a controller."""

import contextlib
import http.client
import json
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snf_ganeti import process
from testbed.deadline import wait_for
from testbed.descendants import find_children
from testbed.machine import Machine
from testbed.vnc_servers import NODE_ADDRESS, NODE_NAME, PKI

NOVNC = Path("/usr/share/novnc")
Connect = Callable[[str, int], socket.socket]

_SECONDS = 60.0
_RAPI_PASSWORD = "secret-of-rapi"


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
        (pid,) = find_children(self.child.pid)
        return pid

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
        return parse_audit(self.log.read_text(errors="replace"))

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


def parse_audit(log: str) -> list[dict[str, Any]]:
    """The lines of JSON in a proxy's log; the last line may still be on its way."""
    *lines, _ = log.split("\n")
    return [json.loads(line) for line in lines if line.startswith("{")]


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
