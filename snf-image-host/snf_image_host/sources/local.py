"""Images of this node: a bare name or `local://NAME`, a regular file under `image_dir`."""

import contextlib
import ctypes
import errno
import os
import stat
import struct
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from snf_ganeti.errors import InputError
from snf_image_host.settings import Settings

_PREFIX = "local://"
_OPENAT2 = 437
_RESOLVE = 0x08 | 0x02  # RESOLVE_BENEATH, RESOLVE_NO_MAGICLINKS
_REASONS = {errno.EXDEV: "it leads out of there", errno.ELOOP: "its symlinks lead nowhere"}

_libc = ctypes.CDLL(None, use_errno=True)


class LocalSource:
    """A regular file, read from its start."""

    def __init__(self, name: str, descriptor: int) -> None:
        self.name = name
        self.descriptor = descriptor
        self.size = os.fstat(descriptor).st_size
        self._position = 0

    def read_into(self, buffer: memoryview) -> int:
        try:
            count = os.preadv(self.descriptor, [buffer], self._position)
        except OSError as error:
            raise InputError(
                f"{self.name} can't be read at byte {self._position}: {error.strerror}"
            ) from None
        self._position += count
        return count


@contextlib.contextmanager
def open_local_source(image_id: str, settings: Settings) -> Iterator[LocalSource]:
    """Raises InputError: the name leads out of `image_dir`, or to no regular file."""
    name = image_id[len(_PREFIX) :] if image_id.lower().startswith(_PREFIX) else image_id
    if not name or name.startswith("/") or ".." in PurePosixPath(name).parts or "\0" in name:
        raise InputError(
            f"{image_id!r} is no name of an image", hint=f"name a file under {settings.image_dir}"
        )
    with contextlib.ExitStack() as stack:
        descriptor = _open_below(settings.image_dir, name, stack)
        yield LocalSource(f"image {name}", descriptor)


def _open_below(folder: Path, name: str, stack: contextlib.ExitStack) -> int:
    """Open a file under its folder; no symlink and no `..` leads out of there."""
    try:
        at = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        stack.callback(os.close, at)
        file = open_beneath(at, name)
        stack.callback(os.close, file)
    except OSError as error:
        reason = _REASONS.get(error.errno or 0, error.strerror)
        raise InputError(f"image {name} can't be opened under {folder}: {reason}") from None
    if not stat.S_ISREG(os.fstat(file).st_mode):
        raise InputError(f"image {name} under {folder} is no regular file")
    return file


def open_beneath(folder: int, name: str) -> int:
    """Open a file for reading by openat2(2), resolved beneath a folder. Raises OSError."""
    how = struct.pack("QQQ", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC, 0, _RESOLVE)
    descriptor = int(_libc.syscall(_OPENAT2, folder, os.fsencode(name), how, len(how)))
    if descriptor < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return descriptor
