"""The kernel's inotify, as a file descriptor to wait for: inotify(7)."""

import ctypes
import os
import struct
from dataclasses import dataclass
from pathlib import Path

from snf_ganeti.errors import NodeError

ATTRIB = 0x4
CLOSE_WRITE = 0x8
MOVED_TO = 0x80
CREATE = 0x100
DELETE_SELF = 0x400
MOVE_SELF = 0x800
OVERFLOW = 0x4000
IGNORED = 0x8000
_ONLYDIR = 0x01000000

_HEAD = struct.Struct("iIII")
_BUFFER = 64 << 10
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Notice:
    """watch: of `Inotify.add`, -1 for an overflow; name: of the entry, empty for the folder."""

    watch: int
    mask: int
    name: str


class Inotify:
    """A queue of notices that never blocks; close it, or use it as a context."""

    def __init__(self) -> None:
        self._descriptor: int = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._descriptor < 0:
            raise NodeError(
                f"inotify can't be used: {os.strerror(ctypes.get_errno())}",
                hint="raise fs.inotify.max_user_instances with sysctl",
            )

    def __enter__(self) -> "Inotify":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def fileno(self) -> int:
        return self._descriptor

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def add(self, folder: Path, mask: int) -> int | None:
        """Watch a folder; gives its number, or None when there is no such folder."""
        watch: int = _libc.inotify_add_watch(self._descriptor, os.fsencode(folder), mask | _ONLYDIR)
        if watch >= 0:
            return watch
        code = ctypes.get_errno()
        if code in (2, 20):  # ENOENT, ENOTDIR
            return None
        hint = "raise fs.inotify.max_user_watches with sysctl" if code == 28 else ""
        raise NodeError(f"{folder} can't be watched: {os.strerror(code)}", hint=hint)

    def read(self) -> list[Notice]:
        """What came since the last call."""
        try:
            data = os.read(self._descriptor, _BUFFER)
        except BlockingIOError:
            return []
        notices, at = [], 0
        while at < len(data):
            watch, mask, _, length = _HEAD.unpack_from(data, at)
            at += _HEAD.size
            name = data[at : at + length].rstrip(b"\0")
            at += length
            notices.append(Notice(watch, mask, os.fsdecode(name)))
        return notices
