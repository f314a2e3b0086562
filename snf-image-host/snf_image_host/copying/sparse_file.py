"""Holes of files, found and made; blocks of files, shared."""

import ctypes
import errno
import fcntl
import os
import struct
from collections.abc import Iterator

_KEEP_SIZE, _PUNCH_HOLE = 1, 2
_FICLONERANGE = 0x4020940D  # linux/fs.h
_UNABLE = (
    *(errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ENOTTY, errno.ENODEV, errno.EPERM),
)
"""What the kernel says when a file system or device can't."""

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


def find_data(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    """Start and end of each range that is no hole, in order; the whole where holes are unknown."""
    at = 0
    while at < size:
        try:
            at = os.lseek(descriptor, at, os.SEEK_DATA)
            end = os.lseek(descriptor, at, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            if error.errno not in _UNABLE:
                raise
            end = size
        if at >= size:
            return
        yield at, min(end, size)
        at = end


def punch_hole(descriptor: int, start: int, length: int) -> bool:
    """Make a range of a file or block device a hole; False where that can't be done."""
    if not length or not _libc.fallocate(descriptor, _KEEP_SIZE | _PUNCH_HOLE, start, length):
        return True
    number = ctypes.get_errno()
    if number not in _UNABLE:
        raise OSError(number, os.strerror(number))
    return False


def share_blocks(file: int, into: int, length: int) -> bool:
    """Have the first bytes of a file be another's, in whole blocks that both share until one of
    them is written; False where that can't be done. Holes stay holes. See ioctl_ficlonerange(2).
    """
    try:
        fcntl.ioctl(into, _FICLONERANGE, struct.pack("qQQQ", file, 0, length, 0))
    except OSError as error:
        if error.errno in (*_UNABLE, errno.EXDEV, errno.EISDIR):
            return False
        raise
    return True
