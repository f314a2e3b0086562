"""The node's page cache: an image that is written once must not push everything else out."""

import os

_WINDOW = 64 << 20
"""Bytes whose write-back is started together."""
_BEHIND = 3
"""Windows that may be waiting for the disk; the one before them is out of the cache."""


class WriteBehind:
    """Starts the write-back of what was written, and drops it when it had time to get out.

    posix_fadvise(2) with DONTNEED starts the write-back of dirty pages and drops clean ones,
    so each range is advised twice.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._windows: list[tuple[int, int]] = []
        self._start = self._end = self._written = 0

    def note(self, start: int, length: int) -> None:
        """Bytes were written; mostly they follow those before."""
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
        self._advise(*window)
        self._windows.append(window)
        if len(self._windows) > _BEHIND:
            self._advise(*self._windows.pop(0))

    def _advise(self, start: int, length: int) -> None:
        os.posix_fadvise(self._descriptor, start, length, os.POSIX_FADV_DONTNEED)
