"""Disks that only QEMU reaches: a URI, as Ganeti hands it to KVM with userspace access.

QEMU's storage daemon opens it and serves it over NBD; it runs in a jail that shares the
node's network, and sees no more of its files than the way to the storage takes.
"""

import contextlib
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from snf_ganeti.errors import InputError, NodeError
from snf_image_host.ceph import find_key, parse_rbd_uri
from snf_image_host.confinement.jail import Confinement, Jail
from snf_image_host.helper_vm.vm import VmDisk
from snf_image_host.nbd.nbd_disk import NbdDisk, open_nbd_disk
from snf_image_host.nbd.nbd_server import NbdServer, serve

_NBD_PORT = "10809"
_RESOLVER = tuple(Path("/etc", name) for name in ("hosts", "resolv.conf", "nsswitch.conf"))
_ADDRESS_SPACE = 4 << 30
_MESSAGES_SIZE = 16 << 10


@dataclass(frozen=True)
class Export:
    """What the daemon serves. name: of the disk, without secrets. node: options of QEMU's
    protocol driver. visible: what it sees of this node. secret: text that it gets as
    QEMU's object `key`, or empty. socket: of a server on this node, to which it gets a
    connection; it does not have the right to it itself."""

    name: str
    node: Mapping[str, Any]
    visible: tuple[Path, ...] = ()
    secret: str = ""
    socket: str = ""


def parse_uri(uri: str) -> Export:
    """Raises InputError for a scheme that is not known, or a URI that is not one of it."""
    scheme = uri.partition(":")[0].lower()
    parse = _PARSERS.get(scheme)
    if parse is None:
        raise InputError(
            f"disks can't be at {scheme[:40]}:", hint=f"known are {', '.join(_PARSERS)}"
        )
    try:
        return parse(uri)
    except ValueError as error:
        raise InputError(f"a disk's {scheme} URI is malformed: {error}") from None


def _parse_nbd(uri: str) -> Export:
    """NBD URIs by the NBD project's doc/uri.md, and QEMU's older nbd:HOST:PORT and nbd:unix:."""
    if not uri.partition(":")[2].startswith("//"):
        return _parse_old_nbd(uri)
    parts = urlsplit(uri)
    name = unquote(parts.path.removeprefix("/"))
    if parts.scheme == "nbd+unix":
        sockets = parse_qs(parts.query).get("socket", [])
        if len(sockets) != 1:
            raise ValueError("it names no socket")
        return _make_unix_nbd(sockets[0], name, uri)
    if not parts.hostname:
        raise ValueError("it names no server")
    return _make_tcp_nbd(parts.hostname, str(parts.port or _NBD_PORT), name, uri)


def _parse_old_nbd(uri: str) -> Export:
    where, _, name = uri.partition(":")[2].partition(":exportname=")
    kind, _, rest = where.rpartition(":")
    if kind == "unix":
        return _make_unix_nbd(rest, name, uri)
    if not kind or not rest.isdecimal():
        raise ValueError("it names no server and port")
    return _make_tcp_nbd(kind.strip("[]"), rest, name, uri)


def _make_unix_nbd(path: str, name: str, uri: str) -> Export:
    if not path.startswith("/"):
        raise ValueError("its socket is no absolute path")
    return Export(uri, {"driver": "nbd", "export": name}, socket=path)


def _make_tcp_nbd(host: str, port: str, name: str, uri: str) -> Export:
    server = {"type": "inet", "host": host, "port": port}
    return Export(uri, {"driver": "nbd", "server": server, "export": name}, _RESOLVER)


def _parse_rbd(uri: str) -> Export:
    image = parse_rbd_uri(uri)
    key = find_key(image)
    node: dict[str, Any] = {"driver": "rbd", "pool": image.pool, "image": image.name}
    for option, value in (
        ("namespace", image.namespace),
        ("snapshot", image.snapshot),
        ("conf", image.conf),
        ("user", image.user),
    ):
        if value:
            node[option] = value
    if key:
        node["key-secret"] = "key"
    return Export(
        f"rbd:{image.pool}/{image.name}", node, (Path(image.conf), *_RESOLVER), secret=key
    )


_PARSERS: Mapping[str, Callable[[str], Export]] = {
    "rbd": _parse_rbd,
    "nbd": _parse_nbd,
    "nbd+tcp": _parse_nbd,
    "nbd+unix": _parse_nbd,
}


@contextlib.contextmanager
def open_uri_target(uri: str, jail: Jail, *, writable: bool = True) -> Iterator["UriTarget"]:
    """Raises InputError for a URI that can't be served, NodeError when it is not reached."""
    export = parse_uri(uri)
    confinement = Confinement(
        "client",
        address_space=_ADDRESS_SPACE,
        file_size=_MESSAGES_SIZE,
        visible=tuple(path for path in export.visible if path.exists()),
        network=not export.socket,
    )
    with contextlib.ExitStack() as stack:
        protocol: dict[str, Any] = {**export.node, "read-only": not writable}
        descriptors: list[int] = []
        if export.socket:
            descriptors.append(stack.enter_context(_connect(export)).fileno())
            protocol["server"] = {"type": "fd", "str": str(descriptors[0])}
        server = stack.enter_context(
            serve(
                jail,
                {"driver": "raw", "file": protocol},
                confinement,
                pass_fds=descriptors,
                writable=writable,
                secret=export.secret,
                orderly=True,
            )
        )
        try:
            disk = stack.enter_context(open_nbd_disk(server))
        except OSError:
            raise NodeError(
                f"the disk {export.name} can't be opened: {server.last_message}"
            ) from None
        yield UriTarget(export.name, server, disk, stack)


def _connect(export: Export) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(export.socket)
    except OSError as error:
        connection.close()
        raise NodeError(
            f"the disk {export.name} can't be reached: {error.strerror}",
        ) from None
    return connection


class UriTarget:
    """A disk that is served."""

    def __init__(
        self, name: str, server: NbdServer, disk: NbdDisk, stack: contextlib.ExitStack
    ) -> None:
        self.name = name
        self.size = disk.size
        self._server = server
        self._disk = disk
        self._stack = stack

    @property
    def vm_disk(self) -> VmDisk:
        """A connection of its own: QEMU agrees on the export with the server itself."""
        connection = self._server.connect()
        self._stack.callback(connection.close)
        return VmDisk("nbd", connection.fileno())

    def erase(self) -> bool:
        return self._disk.zero(0, self.size, fast=True)

    def share(self, file: int, length: int) -> bool:
        return False

    def write(self, start: int, data: memoryview) -> None:
        self._disk.write(start, data)

    def zero(self, start: int, length: int) -> None:
        self._disk.zero(start, length)

    def flush(self) -> None:
        self._disk.flush()

    def find_data(self) -> Iterator[tuple[int, int]]:
        return self._disk.find_data()

    def read_into(self, start: int, buffer: memoryview) -> int:
        count = min(len(buffer), self.size - start)
        buffer[:count] = self._disk.read(start, count)
        return count
