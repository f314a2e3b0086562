"""Block devices that fail: a loop device over a file that was cut short and can't grow again."""

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

_LOOP_SET_FD, _LOOP_CLR_FD, _LOOP_CTL_GET_FREE = 0x4C00, 0x4C01, 0x4C82  # linux/loop.h
_ATTEMPTS = 50


@contextlib.contextmanager
def open_failing_disk(size: int, sound: int) -> Iterator[Path]:
    """A loop device of `size` bytes whose writes behind the first `sound` bytes are errors.

    The file is in memory, sealed against growth: what is behind its end has no place.
    """
    file = os.memfd_create("disk", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.truncate(file, size)
        device, path = _attach(file)
        try:
            os.truncate(file, sound)
            fcntl.fcntl(file, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW)
            yield path
        finally:
            fcntl.ioctl(device, _LOOP_CLR_FD)
            os.close(device)
    finally:
        os.close(file)


def _attach(file: int) -> tuple[int, Path]:
    """The first free loop device, with this file in it; another program may be faster."""
    for _ in range(_ATTEMPTS):
        with open("/dev/loop-control", "rb", buffering=0) as control:
            path = Path(f"/dev/loop{fcntl.ioctl(control, _LOOP_CTL_GET_FREE)}")
        device = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.ioctl(device, _LOOP_SET_FD, file)
        except OSError as error:
            os.close(device)
            if error.errno != errno.EBUSY:
                raise
        else:
            return device, path
    raise OSError(errno.EBUSY, "no loop device is free")
