"""The cursor's file: read at the start, and written by a thread while the daemon goes on."""

import asyncio
import contextlib
import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from snf_ganeti_eventd.publication.cursor import (
    Cursor,
    CursorError,
    format_cursor,
    read_cursor,
    write_cursor,
)

log = logging.getLogger(__name__)


class CursorFile:
    """One write after the other: a disk that is slow holds up no event."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer = ThreadPoolExecutor(1, "cursor")
        self._problem = ""

    def read(self) -> Cursor:
        """The cursor; an empty one, which publishes all again, when it can't be used."""
        try:
            cursor = read_cursor(self._path)
            if cursor is None:
                log.info("no cursor: every job in the queue and its archive is published")
                return Cursor()
        except (CursorError, OSError) as error:
            aside = self._path.with_name(f"{self._path.name}.unusable")
            log.error("cursor %s: %s; it becomes %s, and every job is published again",
                      self._path, error, aside.name)  # fmt: skip
            with contextlib.suppress(OSError):
                self._path.replace(aside)
            return Cursor()
        return cursor

    async def save(self, cursor: Cursor) -> bool:
        """Write what it says now; it may go on meanwhile. Gives False when that failed."""
        loop, data = asyncio.get_running_loop(), format_cursor(cursor)
        try:
            await loop.run_in_executor(self._writer, write_cursor, self._path, data)
        except OSError as error:
            if self._problem != str(error):
                self._problem = str(error)
                log.error("cursor %s can't be written: %s; after a crash, events since now are "
                          "published again", self._path, error.strerror)  # fmt: skip
            return False
        self._problem = ""
        return True

    async def close(self, cursor: Cursor) -> None:
        """Write it a last time, after what is being written."""
        await self.save(cursor)
        self._writer.shutdown()
