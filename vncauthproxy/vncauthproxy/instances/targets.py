"""What a session may lead to: an address in an allowed network, a socket in an allowed folder,
or a Ganeti instance by its name."""

import asyncio
import ipaddress
import re
import socket
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snf_ganeti.errors import InputError, NodeError
from vncauthproxy import settings

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,253}[A-Za-z0-9])?")
_PATH_LIMIT = 107  # bytes of a UNIX socket's path


@dataclass(frozen=True)
class Target:
    """One of the three: `instance`; `host` and `port`; `unix`."""

    instance: str = ""
    host: str = ""
    port: int = 0
    unix: str = ""

    def __str__(self) -> str:
        return self.instance or self.unix or f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Place:
    """Where to connect now. name: what a certificate there must be for."""

    family: socket.AddressFamily
    address: str | tuple[str, int]
    name: str


def parse_target(document: Mapping[str, Any]) -> Target:
    """A target of a JSON object with the fields of `Target`. Raises InputError."""
    given = {key: value for key, value in document.items() if value not in ("", 0, None)}
    kinds = {"instance": str, "host": str, "port": int, "unix": str}
    for key, value in given.items():
        if key not in kinds or type(value) is not kinds[key]:
            raise InputError(f"the target's {key!r} is not what it should be")
    if set(given) not in ({"instance"}, {"host", "port"}, {"unix"}):
        raise InputError("a target is an instance, or host and port, or unix")
    target = Target(**given)
    for key, name in (("instance", target.instance), ("host", target.host)):
        if name and not (_NAME.fullmatch(name) or (key == "host" and _is_address(name))):
            raise InputError(f"the target's {key} is not a name: {name[:80]!r}")
    if target.unix and not _is_plain_path(target.unix):
        raise InputError("the target's unix must be a path without .. or //")
    return target


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _is_plain_path(path: str) -> bool:
    plain = str(Path(path)) == path and path.startswith("/") and ".." not in Path(path).parts
    return plain and "\0" not in path and len(path.encode()) <= _PATH_LIMIT


async def find_places(target: Target, allowed: settings.Targets) -> list[Place]:
    """The allowed places of a target that is no instance. Raises InputError, NodeError."""
    if target.unix:
        return [find_socket(Path(target.unix), allowed)]
    if target.port not in settings.parse_ports(allowed.ports):
        raise InputError(f"port {target.port} is not one that the settings allow")
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise NodeError(f"{target.host} can't be resolved: {error}") from None
    # The address that was checked is the one that is connected to: a name can change between.
    places = [
        Place(family, (str(address[0]), target.port), target.host)
        for family, _, _, _, address in found
        if is_in_networks(str(address[0]), allowed.networks)
    ]
    if not places:
        raise InputError(f"{target.host} is in no network that the settings allow")
    return places


def find_socket(path: Path, allowed: settings.Targets) -> Place:
    """A UNIX socket that lies directly in an allowed folder. Raises InputError, NodeError."""
    if path.parent not in allowed.unix_directories:
        raise InputError(f"{path} is in no folder that the settings allow")
    try:
        mode = path.lstat().st_mode
    except OSError as error:
        raise NodeError(f"{path} can't be opened: {error.strerror}") from None
    if not stat.S_ISSOCK(mode):
        raise InputError(f"{path} is not a socket")
    return Place(socket.AF_UNIX, str(path), "localhost")


def is_in_networks(address: str, networks: tuple[str, ...]) -> bool:
    parsed = parse_address(address)
    return any(parsed in ipaddress.ip_network(network) for network in networks)


def parse_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """An address without its scope; an IPv4 address in IPv6's clothes is an IPv4 address."""
    parsed = ipaddress.ip_address(text.partition("%")[0])
    return getattr(parsed, "ipv4_mapped", None) or parsed
