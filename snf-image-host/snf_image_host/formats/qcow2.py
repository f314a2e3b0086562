"""qcow2, by QEMU's docs/interop/qcow2.txt: its header is read here, the rest in a jail.

What could lead out of the file is refused before QEMU sees it: a backing file, a file that
holds the data, keys.
"""

import contextlib
import os
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from snf_ganeti.errors import InputError
from snf_image_host.content import Content
from snf_image_host.disk_copy import CHUNK, Run, split_runs
from snf_image_host.formats.format import Workshop
from snf_image_host.jail import Confinement, Jail, run_jailed
from snf_image_host.nbd_disk import NbdDisk, open_nbd_disk
from snf_image_host.nbd_server import NbdServer, serve
from snf_image_host.spool import fill_spool, open_spool

_MAGIC = b"QFI\xfb"
_HEADER = struct.Struct(">4sIQIIQIIQQIIQ")
_HEADER_3 = struct.Struct(">QQQII")
_EXTERNAL_DATA = 1 << 2
_KNOWN_FEATURES = 0b11111
_CORRUPT = 1 << 1
_SIZE_LIMIT = 1 << 50
_LEAKS = 3
"""The status of `qemu-img check` when space is wasted, and nothing else is wrong."""
_CHECK_TIMEOUT = 600.0
_CONFINEMENT = Confinement("server", address_space=2 << 30, cpu=24 * 3600, file_size=16 << 10)


@dataclass(frozen=True)
class Qcow2Header:
    """What the header says. size: bytes of the disk."""

    version: int
    size: int
    cluster_bits: int


def parse_header(head: bytes) -> Qcow2Header:
    """Raises ValueError with the reason for what is no qcow2, or one that is not accepted."""
    if len(head) < _HEADER.size or not head.startswith(_MAGIC):
        raise ValueError("is no qcow2 image")
    _, version, backing, _, cluster_bits, size, encryption, *_ = _HEADER.unpack_from(head)
    if version not in (2, 3):
        raise ValueError(f"is of qcow2's unknown version {version}")
    if backing:
        raise ValueError("has a backing file, and an image must be whole")
    if encryption:
        raise ValueError("is encrypted")
    if not 9 <= cluster_bits <= 21:
        raise ValueError(f"has clusters of 2^{cluster_bits} bytes, which qcow2 does not know")
    if not 0 < size <= _SIZE_LIMIT:
        raise ValueError(f"says that its disk has {size} bytes")
    if version == 3:
        _check_features(head)
    return Qcow2Header(version, size, cluster_bits)


def _check_features(head: bytes) -> None:
    if len(head) < _HEADER.size + _HEADER_3.size:
        raise ValueError("ends within its header")
    incompatible = _HEADER_3.unpack_from(head, _HEADER.size)[0]
    if incompatible & _EXTERNAL_DATA:
        raise ValueError("has its data in another file, and an image must be whole")
    if incompatible & _CORRUPT:
        raise ValueError("is marked as corrupt")
    if incompatible & ~_KNOWN_FEATURES:
        raise ValueError("has features that are not known here")


class Qcow2:
    """A disk that QEMU reads out of a qcow2 file."""

    def __init__(self, content: Content, workshop: Workshop) -> None:
        try:
            self.size: int | None = parse_header(content.head).size
        except ValueError as error:
            raise InputError(f"{content.name} {error}") from None
        self._content = content
        self._workshop = workshop

    @contextlib.contextmanager
    def open_runs(self, room: int) -> Iterator[Iterator[Run]]:
        """Everything is fetched, and its checksum verified, before QEMU reads the first byte."""
        name, jail = self._content.name, self._workshop.jail
        self._content.hold_to(room)
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(self._open_file())
            _require_sound(name, file, jail)
            server = stack.enter_context(
                serve(jail, make_node(file), _CONFINEMENT, pass_fds=(file,))
            )
            with _telling(name, server):
                disk = stack.enter_context(open_nbd_disk(server))
            yield self._make_runs(disk, server)

    @contextlib.contextmanager
    def _open_file(self) -> Iterator[int]:
        """A file that the jail can open: the image itself, or a copy."""
        content, workshop = self._content, self._workshop
        file = content.descriptor
        if file is not None and os.fstat(file).st_mode & stat.S_IROTH:
            content.verify_file(file)
            yield file
            return
        with open_spool(workshop.settings.spool_dir, workshop.jail) as spool:
            fill_spool(spool, content.make_runs(), workshop.settings.spool_dir)
            yield spool

    def _make_runs(self, disk: NbdDisk, server: NbdServer) -> Iterator[Run]:
        at = 0
        with _telling(self._content.name, server):
            for data, end in (*disk.find_data(), (disk.size, disk.size)):
                if data > at:
                    yield Run(at, data - at)
                at = data
                while at < end:
                    buffer = disk.read(at, min(CHUNK, end - at))
                    yield from split_runs(at, memoryview(buffer))
                    at += len(buffer)


def _require_sound(name: str, file: int, jail: Jail) -> None:
    """Raises InputError for what QEMU would read as zeros: a file that is cut, or whose tables
    lie."""
    status = run_jailed(
        jail,
        make_check_argv(file),
        _CONFINEMENT,
        timeout=_CHECK_TIMEOUT,
        ok=(0, 1, 2, _LEAKS),
        pass_fds=(file,),
    ).status
    if status not in (0, _LEAKS):
        raise InputError(f"{name} is a damaged qcow2 image: part of its data is missing")


def make_check_argv(file: int) -> list[str]:
    options = ",".join(
        ("driver=qcow2", "file.driver=file", f"file.filename=/dev/fd/{file}", "file.locking=off")
    )
    return ["qemu-img", "check", "-q", "--image-opts", options]


@contextlib.contextmanager
def _telling(name: str, server: NbdServer) -> Iterator[None]:
    try:
        yield
    except OSError:
        raise InputError(f"{name} can't be read as qcow2: {server.last_message}") from None


def make_node(file: int) -> dict[str, Any]:
    """The block node of a qcow2 file that the daemon inherits as descriptor `file`."""
    return {
        "driver": "qcow2",
        "read-only": True,
        "backing": None,
        "file": {
            "driver": "file",
            "filename": f"/dev/fd/{file}",
            "read-only": True,
            "locking": "off",
        },
    }
