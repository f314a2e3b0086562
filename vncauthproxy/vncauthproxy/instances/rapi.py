"""Ganeti's remote API: where the console of an instance is now.

`/2/instances/NAME/console` tells the bind address and not the node, so the node is taken from
`/2/instances/NAME`. It is asked again for each session: an instance can move.
"""

import asyncio
import base64
import contextlib
import http.client
import json
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from cryptography import x509

from snf_ganeti.errors import InputError, NodeError
from vncauthproxy import settings
from vncauthproxy.instances.targets import Place, Target, find_places, find_socket

_ANSWER_LIMIT = 1 << 20
_BEGIN = b"-----BEGIN CERTIFICATE-----"


@dataclass(frozen=True)
class Console:
    """An instance's VNC server: its node and port, or the folder of its socket there."""

    node: str
    port: int
    bind: str


async def find_console(name: str, ganeti: settings.Ganeti) -> Console:
    """Ask the cluster. Raises InputError for an instance without a console, NodeError."""
    if not ganeti.rapi:
        raise InputError("tickets can't name instances here: ganeti.rapi is not set")
    document = await asyncio.to_thread(_get_instance, name, ganeti)
    return parse_console(name, document)


def parse_console(name: str, document: dict[str, Any]) -> Console:
    """RAPI's answer for an instance. Raises InputError."""
    if not document.get("oper_state"):
        raise InputError(f"instance {name} is not running", hint="start it and try again")
    hypervisor = document.get("hvparams") or {}
    bind = str(hypervisor.get("vnc_bind_address") or "")
    port = document.get("network_port")
    node = document.get("pnode")
    if not bind or not isinstance(node, str) or not isinstance(port, int):
        raise InputError(f"instance {name} has no VNC console", hint="set its vnc_bind_address")
    return Console(node, port, bind)


async def find_instance(
    target: Target, ganeti: settings.Ganeti, allowed: settings.Targets
) -> list[Place]:
    """The places of an instance's console. Raises InputError, NodeError."""
    console = await find_console(target.instance, ganeti)
    if console.bind.startswith("/"):
        return [find_socket(Path(console.bind) / f"{target.instance}.vnc", allowed)]
    return await find_places(Target(host=console.node, port=console.port), allowed)


def find_cluster_name(ganeti: settings.Ganeti) -> str:
    """Raises NodeError."""
    document = _get("/2/info", ganeti)
    return str((document or {}).get("name", "an unnamed cluster"))


def _get_instance(name: str, ganeti: settings.Ganeti) -> dict[str, Any]:
    document = _get(f"/2/instances/{quote(name, safe='')}", ganeti)
    if document is None:
        raise InputError(f"the cluster has no instance {name}")
    return document


def _get(path: str, ganeti: settings.Ganeti) -> dict[str, Any] | None:
    """A document of RAPI; None where it says that there is none. Raises NodeError."""
    parts = urlsplit(ganeti.rapi)
    try:
        connection = http.client.HTTPSConnection(
            parts.hostname or "",
            parts.port or 5080,
            timeout=ganeti.timeout,
            context=make_context(ganeti.ca),
        )
        with contextlib.closing(connection):
            connection.request("GET", path, headers=_sign(ganeti))
            answer = connection.getresponse()
            body = answer.read(_ANSWER_LIMIT)
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise NodeError(f"Ganeti's RAPI at {ganeti.rapi} can't be asked: {error}") from None
    if answer.status == http.client.NOT_FOUND:
        return None
    try:
        document = json.loads(body) if answer.status == http.client.OK else None
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise NodeError(f"Ganeti's RAPI at {ganeti.rapi} answered with status {answer.status}")
    return document


def make_context(ca: Path | None) -> ssl.SSLContext:
    """TLS towards RAPI. Ganeti makes a certificate that signed itself, for no name that exists:
    when such a one is all that `ca` holds, it is pinned, and no other will do. Raises OSError."""
    context = ssl.create_default_context(cafile=ca)
    text = ca.read_bytes() if ca else b""
    if text.count(_BEGIN) == 1 and not _is_authority(x509.load_pem_x509_certificate(text)):
        context.check_hostname = False
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def _is_authority(certificate: x509.Certificate) -> bool:
    """May it sign others?"""
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    except x509.ExtensionNotFound:
        return False
    return constraints.value.ca


def _sign(ganeti: settings.Ganeti) -> dict[str, str]:
    if not ganeti.password_file:
        return {}
    try:
        password = ganeti.password_file.read_text().strip()
    except OSError as error:
        raise NodeError(f"{ganeti.password_file} can't be read: {error.strerror}") from None
    return {
        "Authorization": "Basic " + base64.b64encode(f"{ganeti.user}:{password}".encode()).decode()
    }
