"""`vncauthproxy-client`: `open INSTANCE` prints the URL of a console; without it, the
predecessor's command, which asks for a forwarding over the legacy protocol."""

import argparse
import http.client
import json
import socket
import ssl
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from snf_ganeti.errors import InputError, NodeError, run_main
from vncauthproxy import settings

DEFAULT_SERVER_ADDRESS = "127.0.0.1"
DEFAULT_SERVER_PORT = 24999
_ANSWER_LIMIT = 65536
_SECONDS = 60.0
_TOKEN_FILE = Path("/etc/vncauthproxy/client-token")


def request_forwarding(
    sport: int,
    daddr: str,
    dport: int,
    password: str,
    auth_user: str,
    auth_password: str,
    server_address: str = DEFAULT_SERVER_ADDRESS,
    server_port: int = DEFAULT_SERVER_PORT,
    enable_ssl: bool = False,
    ca_cert: str | None = None,
    strict: bool = False,
    console_type: str = "vnc",
) -> dict[str, Any]:
    """Ask a proxy for a forwarding, as the predecessor's library call does.

    Gives its answer: `source_port`, `status` ("OK" or "FAILED"), `proxy_address`, `reason`.
    strict: check the host's name in its certificate. Raises InputError, NodeError.
    """
    request = {
        "source_port": int(sport),
        "destination_address": daddr,
        "destination_port": int(dport),
        "password": password,
        "auth_user": auth_user,
        "auth_password": auth_password,
        "type": console_type,
    }
    for name in ("destination_address", "password", "auth_user", "auth_password"):
        if not request[name]:
            raise InputError(f"{name} is missing")
    try:
        with socket.create_connection((server_address, server_port), _SECONDS) as plain:
            connection = plain
            if enable_ssl:
                context = _make_context(ca_cert, strict=strict)
                connection = context.wrap_socket(plain, server_hostname=server_address)
            with connection:
                connection.sendall(json.dumps(request).encode())
                answer = _read_all(connection)
    except OSError as error:
        raise NodeError(
            f"the proxy at {server_address} port {server_port} can't be asked: {error}"
        ) from None
    return _parse_answer(answer)


def _make_context(ca: str | None, *, strict: bool) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=ca)
    if not ca:  # the predecessor's promise: no CA, no check
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif not strict:
        context.check_hostname = False
    return context


def _read_all(connection: socket.socket) -> bytes:
    data = b""
    while len(data) < _ANSWER_LIMIT:
        more = connection.recv(_ANSWER_LIMIT - len(data))
        if not more:
            break
        data += more
    return data


def _parse_answer(data: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(data)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise NodeError("the proxy's answer is not a JSON object")
    return answer


def open_console(proxy: str, token: str, ca: Path | None, order: dict[str, Any]) -> str:
    """The URL of a ticket. Raises InputError (the proxy refuses), NodeError."""
    parts = urlsplit(proxy)
    if parts.scheme != "https" or not parts.hostname:
        raise InputError(f"{proxy} is not an https:// URL")
    try:
        connection = http.client.HTTPSConnection(
            parts.hostname,
            parts.port or 443,
            timeout=_SECONDS,
            context=ssl.create_default_context(cafile=ca),
        )
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        connection.request("POST", "/tickets", json.dumps(order), headers)
        response = connection.getresponse()
        answer = _parse_answer(response.read(_ANSWER_LIMIT))
        connection.close()
    except (OSError, http.client.HTTPException) as error:
        raise NodeError(f"the proxy at {proxy} can't be asked: {error}") from None
    if response.status != http.client.CREATED:
        raise InputError(str(answer.get("error", f"the proxy answered {response.status}")))
    if not answer.get("url"):
        raise NodeError(
            f"the proxy at {proxy} has no page for browsers", hint="install novnc there, restart it"
        )
    return str(answer["url"])


def main() -> int:
    if sys.argv[1:2] == ["open"]:
        return _open(sys.argv[2:])
    return _forward(sys.argv[1:])


def make_open_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="vncauthproxy-client open", description="Print a URL that opens a console, once."
    )
    parser.add_argument("instance", help="its name in Ganeti; HOST:PORT or a path with --target")
    parser.add_argument("--target", action="store_true", help="INSTANCE is HOST:PORT or a path")
    parser.add_argument("--user", default="root", help="for whom, in the proxy's log")
    parser.add_argument("--view-only", action="store_true")
    parser.add_argument("--lifetime", type=float, default=0.0, help="seconds until it expires")
    parser.add_argument("--proxy", default="", help="its URL; this machine's without")
    parser.add_argument("--ca", type=Path, help="certificates to check the proxy's with")
    parser.add_argument("--token-file", type=Path, default=_TOKEN_FILE)
    return parser


def _open(argv: list[str]) -> int:
    given = make_open_parser().parse_args(argv)
    order: dict[str, Any] = {"user": given.user, "view_only": given.view_only}
    if given.lifetime:
        order["lifetime"] = given.lifetime
    order.update(_name_target(given.instance) if given.target else {"instance": given.instance})
    proxy = given.proxy or settings.read().public_url
    print(open_console(proxy, _read_secret(given.token_file), given.ca, order))
    return 0


def _name_target(text: str) -> dict[str, Any]:
    if text.startswith("/"):
        return {"target": {"unix": text}}
    host, _, port = text.rpartition(":")
    if not port.isdecimal():
        raise InputError(f"{text} is neither HOST:PORT nor a path")
    return {"target": {"host": host.strip("[]"), "port": int(port)}}


def _read_secret(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError as error:
        raise NodeError(f"{path} can't be read: {error.strerror}") from None


def make_forward_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="vncauthproxy-client", description="Ask for a forwarding; or see `open --help`."
    )
    parser.add_argument("--server", default=DEFAULT_SERVER_ADDRESS)
    parser.add_argument("--server-port", type=int, default=DEFAULT_SERVER_PORT)
    parser.add_argument("-s", dest="source_port", type=int, default=0)
    parser.add_argument("-d", "--dest", required=True)
    parser.add_argument("-p", "--dport", type=int, required=True)
    parser.add_argument("-P", "--password", help="others on this machine can see it")
    parser.add_argument("--password-file", type=Path)
    parser.add_argument("--auth-user", required=True)
    parser.add_argument("--auth-password", help="others on this machine can see it")
    parser.add_argument("--auth-password-file", type=Path)
    parser.add_argument("--type", choices=("vnc", "vnc-ws", "vnc-wss"), default="vnc")
    parser.add_argument("--enable-ssl", action="store_true")
    parser.add_argument("--ca-cert")
    parser.add_argument("--strict", action="store_true", help="check the host's name, too")
    return parser


def _forward(argv: list[str]) -> int:
    given = make_forward_parser().parse_args(argv)
    answer = request_forwarding(
        given.source_port,
        given.dest,
        given.dport,
        _choose_secret("password", given.password, given.password_file),
        given.auth_user,
        _choose_secret("auth-password", given.auth_password, given.auth_password_file),
        given.server,
        given.server_port,
        given.enable_ssl,
        given.ca_cert,
        given.strict,
        given.type,
    )
    print(json.dumps(answer))
    return 0 if answer.get("status") == "OK" else 1


def _choose_secret(name: str, given: str | None, file: Path | None) -> str:
    if bool(given) == bool(file):
        raise InputError(f"give either --{name} or --{name}-file")
    return given or _read_secret(file) if file else str(given)


def run() -> None:
    run_main(main)
