"""extdump and ntfsdump: a bare file system, around which a disk is made.

The disk has an MBR with one bootable partition at sector 2048, and a boot loader in front of
it, the appliance's boot prefix.
"""

import contextlib
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from snf_ganeti.errors import InputError, NodeError
from snf_image_host.copying.boot_prefix import CODE_END, SECTOR, SIZE
from snf_image_host.copying.content import Content
from snf_image_host.copying.disk_copy import Run, split_runs
from snf_image_host.formats.format import OpenFormat, Room, Workshop
from snf_image_host.helper_vm.appliance import BUILD_ANEW, read_appliance

_BOOTABLE = 0x80
_SECTORS_LIMIT = (1 << 32) - SIZE // SECTOR
_FAR = b"\xfe\xff\xff"
"""A place that cylinder, head and sector can't tell: only the sector's number counts."""


@dataclass(frozen=True)
class FileSystem:
    """A row. magic: what a file system of this kind has at byte `offset`."""

    name: str
    offset: int
    magic: bytes
    partition_type: int


EXT = FileSystem("ext2, ext3 or ext4", 1080, b"\x53\xef", 0x83)
NTFS = FileSystem("NTFS", 3, b"NTFS    ", 0x07)


def make_opener(kind: FileSystem) -> OpenFormat:
    return lambda content, workshop: Partitioned(kind, content, workshop)


class Partitioned:
    """A disk that is made around a file system."""

    file = None

    def __init__(self, kind: FileSystem, content: Content, workshop: Workshop) -> None:
        if not content.head.startswith(kind.magic, kind.offset):
            raise InputError(f"{content.name} is no {kind.name} file system")
        self._kind = kind
        self._content = content
        self._prefix = read_appliance(workshop.settings.helper_dir).boot_prefix

    @property
    def size(self) -> int | None:
        size = self._content.size
        return None if size is None else SIZE + -(-size // SECTOR) * SECTOR

    @property
    def least(self) -> int:
        return self.size or SIZE + self._content.least

    def open_runs(self, room: Room) -> contextlib.AbstractContextManager[Iterator[Run]]:
        self._content.hold_to(room.size)
        return contextlib.nullcontext(self._make_runs())

    def _make_runs(self) -> Iterator[Run]:
        """The first sector comes last: only then it is sure how large the partition is."""
        prefix = self._read_prefix()
        yield from split_runs(SECTOR, _copy(prefix[SECTOR:]))
        end = SIZE
        for run in self._content.make_runs(SIZE):
            end = run.start + run.length
            yield run
        tail = -end % SECTOR
        if tail:
            yield Run(end, tail)
        sectors = (end + tail - SIZE) // SECTOR
        table = make_table(os.urandom(4), self._kind.partition_type, sectors)
        yield Run(0, SECTOR, _copy(prefix[:CODE_END] + table))

    def _read_prefix(self) -> bytes:
        prefix = self._prefix.read_bytes()
        if len(prefix) != SIZE:
            raise NodeError(f"{self._prefix} is damaged", hint=BUILD_ANEW)
        return prefix


def _copy(data: bytes) -> memoryview:
    return memoryview(bytearray(data))


def make_table(disk_id: bytes, partition_type: int, sectors: int) -> bytes:
    """The rest of the first sector, from the disk's id (4 bytes) on: one bootable partition.

    sectors: its size. Raises InputError for more than can be told.
    """
    if sectors > _SECTORS_LIMIT:
        raise InputError("the image is larger than 2 TiB, which an MBR has no numbers for")
    entry = struct.pack("<B3sB3sII", _BOOTABLE, _FAR, partition_type, _FAR, SIZE // SECTOR, sectors)
    return disk_id + bytes(2) + entry + bytes(3 * 16) + b"\x55\xaa"
