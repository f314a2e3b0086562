"""Disks that are a path on this node: a regular file or a block device."""

import contextlib
import errno
import fcntl
import os
import stat
import struct
from collections.abc import Iterator
from pathlib import Path

from snf_ganeti.errors import InputError, NodeError
from snf_image_host.copying.page_cache import WriteBehind
from snf_image_host.copying.sparse_file import find_data, punch_hole, share_blocks
from snf_image_host.helper_vm.vm import DiskKind, VmDisk

_BLKGETSIZE64 = 0x80081272
_BLKZEROOUT = 0x127F
_UNSUPPORTED = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ENOTTY, errno.ENODEV)
_ZEROS = bytes(1 << 20)
_ZERO_STEP = 1 << 28
"""Bytes that are zeroed at once, so that progress goes on."""
_TAIL = 1 << 20
"""At a device's end: backups of partition tables and marks of RAID lie there."""


@contextlib.contextmanager
def open_local_target(path: Path, *, writable: bool = True) -> Iterator["LocalTarget"]:
    """Raises InputError for what is neither file nor block device, NodeError."""
    flags = (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        raise NodeError(f"the disk {path} can't be opened: {error.strerror}") from None
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, descriptor)
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISREG(mode):
            yield FileTarget(path, descriptor)
        elif stat.S_ISBLK(mode):
            yield BlockTarget(path, descriptor)
        else:
            raise InputError(f"the disk {path} is neither a regular file nor a block device")


class LocalTarget:
    """What files and block devices have in common."""

    kind: DiskKind

    def __init__(self, path: Path, descriptor: int) -> None:
        self.name = str(path)
        self.descriptor = descriptor
        self.size = self._read_size()
        self._behind = WriteBehind(descriptor)

    def _read_size(self) -> int:
        return os.fstat(self.descriptor).st_size

    @property
    def vm_disk(self) -> VmDisk:
        access = fcntl.fcntl(self.descriptor, fcntl.F_GETFL) & os.O_ACCMODE
        return VmDisk(self.kind, self.descriptor, read_only=access == os.O_RDONLY)

    def erase(self) -> bool:
        return False

    def share(self, file: int, length: int) -> bool:
        return False

    def write(self, start: int, data: memoryview) -> None:
        at = 0
        while at < len(data):
            written = os.pwrite(self.descriptor, data[at:], start + at)
            if not written:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            at += written
        self._behind.note(start, len(data))

    def zero(self, start: int, length: int) -> None:
        while length:
            step = min(length, _ZERO_STEP)
            if not punch_hole(self.descriptor, start, step):
                self._write_zeros(start, step)
            start, length = start + step, length - step

    def _write_zeros(self, start: int, length: int) -> None:
        zeros = memoryview(_ZEROS)
        while length:
            step = min(length, len(zeros))
            self.write(start, zeros[:step])
            start, length = start + step, length - step

    def flush(self) -> None:
        os.fsync(self.descriptor)

    def find_data(self) -> Iterator[tuple[int, int]]:
        yield from find_data(self.descriptor, self.size)

    def read_into(self, start: int, buffer: memoryview) -> int:
        at = 0
        while at < len(buffer):
            count = os.preadv(self.descriptor, [buffer[at:]], start + at)
            if not count:
                break
            at += count
        return at


class FileTarget(LocalTarget):
    """A regular file, which may hold anything: the instance may be one that is reinstalled."""

    kind: DiskKind = "file"

    def erase(self) -> bool:
        """A file system that punches holes gives all of the file's blocks back."""
        return punch_hole(self.descriptor, 0, self.size)

    def share(self, file: int, length: int) -> bool:
        """btrfs and XFS can, within one file system: whole blocks; the rest is copied."""
        tail = length % os.fstatvfs(self.descriptor).f_bsize
        whole = length - tail
        if not whole or not share_blocks(file, self.descriptor, whole):
            return False
        punch_hole(self.descriptor, whole, self.size - whole)
        if tail:
            self.write(whole, memoryview(os.pread(file, tail, whole)))
        return True


class BlockTarget(LocalTarget):
    """A block device, which may hold what its last owner left."""

    kind: DiskKind = "block"

    def _read_size(self) -> int:
        answer = fcntl.ioctl(self.descriptor, _BLKGETSIZE64, bytes(8))
        size: int = struct.unpack("Q", answer)[0]
        return size

    def erase(self) -> bool:
        """Never the whole: what a disk without that skill takes for it are hours."""
        tail = min(_TAIL, self.size)
        self.zero(self.size - tail, tail)
        return False

    def _write_zeros(self, start: int, length: int) -> None:
        """The kernel writes them when the device does not know how to."""
        try:
            fcntl.ioctl(self.descriptor, _BLKZEROOUT, struct.pack("QQ", start, length))
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
            super()._write_zeros(start, length)

    def find_data(self) -> Iterator[tuple[int, int]]:
        yield 0, self.size
