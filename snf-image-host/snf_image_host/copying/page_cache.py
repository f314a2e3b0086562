"""The node's page cache: an image that is written once must not push everything else out.

What is only read, an image's own file, is left to the kernel: pages that were used once are the
first to go, and the next deployment may want them.
"""

import ctypes
import os

_WINDOW = 64 << 20
"""Bytes whose write-back is started together."""
_BEHIND = 3
"""Windows that may be waiting for the disk; the one before them is out of the cache."""
_WAIT_BEFORE, _WRITE, _WAIT_AFTER = 1, 2, 4

_libc = ctypes.CDLL(None, use_errno=True)
_libc.sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)


class WriteBehind:
    """Bounds what was written and is still in memory: it starts the write-back of a window when
    that is full, and waits for it, and drops it, a few windows later. So who writes goes on at
    the disk's pace, with the cache as a buffer of that size."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._windows: list[tuple[int, int]] = []
        self._start = self._end = self._written = 0

    def note(self, start: int, length: int) -> None:
        """Bytes were written; mostly they follow those before. Raises OSError: the disk did not
        take what was written earlier."""
        if not self._written:
            self._start = self._end = start
        self._start = min(self._start, start)
        self._end = max(self._end, start + length)
        self._written += length
        if self._written >= _WINDOW:
            self._advance()

    def _advance(self) -> None:
        window = (self._start, self._end - self._start)
        self._written = 0
        self._sync(*window, _WRITE)
        self._windows.append(window)
        if len(self._windows) > _BEHIND:
            oldest = self._windows.pop(0)
            self._sync(*oldest, _WAIT_BEFORE | _WRITE | _WAIT_AFTER)
            os.posix_fadvise(self._descriptor, *oldest, os.POSIX_FADV_DONTNEED)

    def _sync(self, start: int, length: int, how: int) -> None:
        """sync_file_range(2), which tells of an error once: fsync(2) would not, after it."""
        if _libc.sync_file_range(self._descriptor, start, length, how):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
