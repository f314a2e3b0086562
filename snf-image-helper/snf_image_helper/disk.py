"""The instance's disks as the helper's kernel shows them, and their partitions."""

import errno
import fcntl
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from snf_ganeti.errors import DeadlineError, NodeError

_SYSFS = Path("/sys")
_SECTOR_SIZE = "queue/logical_block_size"
_BLKRRPART = 0x125F  # linux/fs.h
_SECTOR = 512
"""Bytes of the unit in which sysfs counts, whatever the disk's own sector is."""
_WAIT = 20.0
"""Seconds that a device may take to appear."""
_PAUSE = 0.01

_Answer = TypeVar("_Answer")


@dataclass(frozen=True)
class Disk:
    """Disk `index` of the instance. path: `/dev/sda`; size: bytes; sector: bytes."""

    index: int
    path: str
    size: int
    sector: int


@dataclass(frozen=True)
class Partition:
    """Partition `number` of a disk, as the kernel numbers it. size: bytes."""

    number: int
    path: str
    size: int


def find_disks(count: int, sysfs: Path = _SYSFS) -> list[Disk]:
    """Disks 0 to `count` - 1, which are the LUNs of the only SCSI host.

    Waits until the kernel has found them all. Raises DeadlineError.
    """
    names = _await(lambda: _find_names(count, sysfs), f"finding the instance's {count} disks")
    return [_read_disk(index, name, sysfs) for index, name in enumerate(names)]


def find_partitions(disk: Disk, sysfs: Path = _SYSFS) -> list[Partition]:
    """The partitions that the kernel knows on a disk, by number."""
    folder = sysfs / "class/block" / Path(disk.path).name
    found = [
        Partition(int(entry.read_text()), f"/dev/{entry.parent.name}", _read_size(entry.parent))
        for entry in folder.glob("*/partition")
    ]
    return sorted(found, key=lambda partition: partition.number)


def reread_partitions(disk: Disk) -> None:
    """Have the kernel read a partition table that was changed, or may not have been read yet.

    Raises NodeError, DeadlineError.
    """

    def reread() -> bool:
        try:
            descriptor = os.open(disk.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            if error.errno in (errno.ENXIO, errno.ENOENT):  # it was plugged in just now
                return False
            raise
        try:
            fcntl.ioctl(descriptor, _BLKRRPART)
        except OSError as error:
            if error.errno == errno.EBUSY:
                return False
            raise NodeError(f"{disk.path}: partitions not reread: {error.strerror}") from None
        finally:
            os.close(descriptor)
        return True

    _await(reread, f"rereading the partitions of {disk.path}")


def make_partition_path(device: str, number: int) -> str:
    """`/dev/sda1`, but `/dev/nvme0n1p1`: a `p` keeps digits apart."""
    return f"{device}p{number}" if device[-1].isdigit() else f"{device}{number}"


_LETTERS = re.compile(r"/dev/(?:sd|vd|xvd|hd)([a-z]{1,2})(\d*)")
_NVME = re.compile(r"/dev/nvme(\d+)n1(?:p(\d+))?")


def parse_device(path: str) -> tuple[int, int | None] | None:
    """A guest's name of a device as (disk, partition): `/dev/vdb3` is (1, 3), `/dev/vdb`
    (1, None); None for other names. The guest may see its disks behind any driver."""
    if match := _LETTERS.fullmatch(path):
        return parse_letters(match[1]), int(match[2]) if match[2] else None
    if match := _NVME.fullmatch(path):
        return int(match[1]), int(match[2]) if match[2] else None
    return None


def parse_letters(letters: str) -> int:
    """The index of a disk from its letters: a is 0, z 25, aa 26."""
    index = 0
    for letter in letters:
        index = index * 26 + ord(letter) - ord("a") + 1
    return index - 1


def _find_names(count: int, sysfs: Path) -> list[str] | None:
    names = {
        int(entry.parents[2].name.split(":")[3]): entry.name
        for entry in sysfs.glob("class/scsi_disk/*/device/block/*")
        if (sysfs / "class/block" / entry.name / _SECTOR_SIZE).exists()  # it comes later
    }
    return [names[lun] for lun in range(count)] if set(range(count)) <= names.keys() else None


def _read_disk(index: int, name: str, sysfs: Path) -> Disk:
    folder = sysfs / "class/block" / name
    sector = int((folder / _SECTOR_SIZE).read_text())
    return Disk(index, f"/dev/{name}", _read_size(folder), sector)


def _read_size(folder: Path) -> int:
    return int((folder / "size").read_text()) * _SECTOR


def _await(ask: Callable[[], _Answer | None], what: str) -> _Answer:
    """Ask until the answer is true. The devices come by themselves; nothing tells when."""
    deadline = time.monotonic() + _WAIT
    while not (answer := ask()):
        if time.monotonic() > deadline:
            raise DeadlineError(what, _WAIT)
        time.sleep(_PAUSE)
    return answer
