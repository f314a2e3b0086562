"""Loop devices on a file, by the ioctls of loop(4).

A loop device here is cleared by the kernel as soon as nobody has it open: whoever attaches one
holds it by the descriptor that comes back, and a power cut leaves none behind.
"""

import contextlib
import errno
import fcntl
import os
import stat
import struct
from pathlib import Path

from snf_ganeti.errors import NodeError

_SET_CAPACITY, _CONFIGURE = 0x4C07, 0x4C0A
_GET_FREE = 0x4C82
_AUTOCLEAR, _DIRECT_IO = 4, 16
_CONFIG = struct.Struct("<II 5Q4I 64s64s32s2Q 64x")
"""struct loop_config with its struct loop_info64, of include/uapi/linux/loop.h."""
_CONTROL = "/dev/loop-control"
_TRIES = 64
_MAJOR = 7
_SECTOR = 512


def attach(file: Path) -> tuple[Path, int]:
    """Put a free loop device on a file, with direct I/O; gives its path and the descriptor
    that keeps it. Raises NodeError."""
    backing = os.open(file, os.O_RDWR | os.O_DIRECT | os.O_CLOEXEC)
    try:
        for _ in range(_TRIES):
            device = _find_free()
            descriptor = os.open(device, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.ioctl(descriptor, _CONFIGURE, _make_config(backing))
            except OSError as error:
                os.close(descriptor)
                if error.errno != errno.EBUSY:  # another took it in between
                    raise NodeError(f"{device} can't be set up: {error.strerror}") from None
            else:
                # The device's last file may have left an error that nobody was told of yet.
                with contextlib.suppress(OSError):
                    os.fsync(descriptor)
                return device, descriptor
    finally:
        os.close(backing)
    raise NodeError("no loop device is free", hint="see losetup --list")


def find_file(device: Path) -> str:
    """The path of the file under a loop device, empty when there is none."""
    with contextlib.suppress(OSError):
        return Path(f"/sys/block/{device.name}/loop/backing_file").read_text().rstrip("\n")
    return ""


def read_size(device: Path) -> int:
    """Bytes."""
    return int(Path(f"/sys/block/{device.name}/size").read_text()) * _SECTOR


def update_size(device: Path) -> None:
    """Make the device as large as its file has become, under whoever uses it."""
    with device.open("rb") as opened:
        fcntl.ioctl(opened, _SET_CAPACITY, 0)


def find_users(device: Path) -> list[str]:
    """The processes, but this one, that have a block device open: `NAME (PID)`."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            links = (link.readlink() for link in (process / "fd").iterdir())
            if process.name != str(os.getpid()) and device in links:
                found.append(f"{(process / 'comm').read_text().strip()} ({process.name})")
    return found


def _find_free() -> Path:
    try:
        with open(_CONTROL, "rb") as control:
            number = fcntl.ioctl(control, _GET_FREE)
    except OSError as error:
        raise NodeError(f"{_CONTROL}: {error.strerror}", hint="is the module loop there?") from None
    device = Path(f"/dev/loop{number}")
    with contextlib.suppress(FileExistsError):  # where /dev is not the kernel's own
        if not device.exists():
            os.mknod(device, stat.S_IFBLK | 0o600, os.makedev(_MAJOR, number))
    return device


def _make_config(backing: int) -> bytes:
    flags = _AUTOCLEAR | _DIRECT_IO
    numbers = (0, 0, 0, 0, 0)  # device, inode, its device, offset, size: all or the kernel's
    return _CONFIG.pack(backing, _SECTOR, *numbers, 0, 0, 0, flags, b"", b"", b"", 0, 0)
