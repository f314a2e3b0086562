"""The table of file systems: how each is told, checked, grown and mounted."""

import contextlib
import ctypes
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from snf_ganeti import process
from snf_ganeti.errors import CommandError
from snf_image_helper.task import TaskFailed

_SAFE = ("nodev", "nosuid", "noexec")
_libc = ctypes.CDLL(None, use_errno=True)
_TIMEOUT = 1800.0
"""Seconds for a tool that goes over a whole file system; the host's deadline is shorter."""


@dataclass(frozen=True)
class Superblock:
    """What blkid tells of a block device; what it does not tell is empty."""

    type: str
    uuid: str = ""
    label: str = ""
    partuuid: str = ""
    partlabel: str = ""


@dataclass(frozen=True)
class Growth:
    """How a file system grows into its partition.

    mounted: whether it must be mounted for that. argv: from device, or mount point if
    mounted. check: argv of the check before, from the device. size: reads how large it is,
    in bytes, from the same. slack: bytes at a partition's end that it may leave unused. least:
    a size in bytes below which it can't be grown.
    """

    mounted: bool
    argv: Callable[[str], Sequence[str]]
    size: Callable[[str], int]
    slack: int
    check: Callable[[str], Sequence[str]] | None = None
    least: int = 0


@dataclass(frozen=True)
class FileSystem:
    """driver: the type for mount(8). root: whether a Linux system can live on it."""

    driver: str
    growth: Growth | None = None
    root: bool = True


def _read_ext_size(device: str) -> int:
    """From the superblock: s_blocks_count_lo, s_log_block_size, s_blocks_count_hi."""
    with open(device, "rb") as file:
        file.seek(1024)
        block = file.read(1024)
    low, log, high = (int.from_bytes(block[at : at + 4], "little") for at in (0x04, 0x18, 0x150))
    return (high << 32 | low) << (10 + log)


def _read_xfs_size(mountpoint: str) -> int:
    text = process.run(["xfs_growfs", "-n", mountpoint]).text
    match = re.search(r"^data\s.*bsize=(\d+)\s+blocks=(\d+)", text, re.MULTILINE)
    return int(match[1]) * int(match[2]) if match else 0


def _read_btrfs_size(mountpoint: str) -> int:
    text = process.run(["btrfs", "filesystem", "usage", "--raw", mountpoint]).text
    match = re.search(r"Device size:\s+(\d+)", text)
    return int(match[1]) if match else 0


_EXT = FileSystem(
    "ext4",
    Growth(
        mounted=False,
        check=lambda device: ["e2fsck", "-f", "-p", device],
        argv=lambda device: ["resize2fs", device],
        size=_read_ext_size,
        slack=128 << 20,  # a last block group too short for its own tables is left out
    ),
)
_XFS = FileSystem(
    "xfs", Growth(True, lambda mountpoint: ["xfs_growfs", mountpoint], _read_xfs_size, 16 << 20)
)
_BTRFS = FileSystem(
    "btrfs",
    Growth(
        True,
        lambda mountpoint: ["btrfs", "filesystem", "resize", "max", mountpoint],
        _read_btrfs_size,
        1 << 20,
        least=256 << 20,  # the kernel's own, btrfs_ioctl_resize
    ),
)
FILE_SYSTEMS: Mapping[str, FileSystem] = {
    "ext2": _EXT,
    "ext3": _EXT,
    "ext4": _EXT,
    "xfs": _XFS,
    "btrfs": _BTRFS,
    "vfat": FileSystem("vfat", root=False),
    "ntfs": FileSystem("ntfs-3g", root=False),
}


def read_superblock(device: str) -> Superblock:
    """What a device holds, told by its bytes. Raises CommandError."""
    argv = ["blkid", "--probe", "--output", "export", device]
    return parse_superblock(process.run(argv, ok=(0, 2)).text)


def parse_superblock(text: str) -> Superblock:
    """blkid's export format: NAME=value a line, backslashes before shell's characters."""
    fields = {
        name: re.sub(r"\\(.)", r"\1", value)
        for name, _, value in (line.partition("=") for line in text.splitlines())
    }
    return Superblock(
        fields.get("TYPE", ""),
        fields.get("UUID", ""),
        fields.get("LABEL", ""),
        fields.get("PART_ENTRY_UUID", ""),
        fields.get("PART_ENTRY_NAME", ""),
    )


def mount(device: str, kind: str, target: str, options: Sequence[str] = ()) -> None:
    """Mount a file system of the table; devices, set-user-id and execution are always off.

    kind: what the device's superblock says. Raises TaskFailed when that is none of the table,
    or can't be mounted.
    """
    if kind not in FILE_SYSTEMS:
        raise TaskFailed(f"{device} holds {kind or 'nothing known'}, which can't be mounted")
    argv = ["mount", "--types", FILE_SYSTEMS[kind].driver]
    try:
        process.run([*argv, "--options", ",".join((*_SAFE, *options)), device, target])
    except CommandError as error:
        first = error.output.strip().partition("\n")[0].removeprefix(f"mount: {target}: ")
        raise TaskFailed(f"{kind} can't be mounted: {first}") from None


def unmount(target: str) -> None:
    """Unmount what is at `target`. Raises CommandError; TaskFailed: not all that was written
    is on the disk."""
    lost = _flush(target)
    process.run(["umount", target], timeout=_TIMEOUT)
    if lost:
        raise TaskFailed(f"what was written did not reach the disk: {os.strerror(lost)}")


def _flush(target: str) -> int:
    """Write everything out; the error of what could not be, 0 if there is none.

    syncfs(2) tells it since Linux 5.8; sync(2) and umount(2) never do.
    """
    descriptor = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return ctypes.get_errno() if _libc.syncfs(descriptor) else 0
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def mounted(device: str, kind: str, options: Sequence[str] = ()) -> Iterator[str]:
    """A file system on a mount point of its own, for the length of the block."""
    target = tempfile.mkdtemp(prefix="mnt-", dir="/run")
    try:
        mount(device, kind, target, options)
        try:
            yield target
        finally:
            unmount(target)
    finally:
        Path(target).rmdir()


def grow(device: str, partition_size: int, kind: str, growth: Growth) -> None:
    """Grow a file system to its partition's size and see that it is so.

    partition_size: bytes; kind: the type for messages. Raises TaskFailed, CommandError.
    """
    if growth.check is not None:
        _check(device, kind, growth.check(device))
    with mounted(device, kind) if growth.mounted else contextlib.nullcontext(device) as place:
        if partition_size >= growth.least:
            process.run(growth.argv(place), timeout=_TIMEOUT)
        size = growth.size(place)
    if partition_size - growth.slack <= size <= partition_size:
        return
    if partition_size < growth.least:
        raise TaskFailed(
            f"{kind} on {device} can't grow to {partition_size >> 20} MiB: the kernel does that "
            f"from {growth.least >> 20} MiB on; give a larger disk, or leave the file system as it "
            "is with EXCLUDE_FILESYSTEMRESIZE_TASKS=yes"
        )
    raise TaskFailed(f"{kind} on {device} has {size} bytes of {partition_size} after growing")


def _check(device: str, kind: str, argv: Sequence[str]) -> None:
    try:
        process.run(argv, timeout=_TIMEOUT, ok=(0, 1, 2))  # 1 and 2: errors were corrected
    except CommandError as error:
        lines = [line.strip() for line in error.output.splitlines() if line.strip()]
        raise TaskFailed(
            f"{kind} on {device} is corrupt and {argv[0]} can't repair it unattended: "
            + (lines[0] if lines else f"status {error.status}")
        ) from None
