"""Messages as lines of JSON at the end of a file, on disk before they count as confirmed.

A line is `{"message_id": …, "routing_key": …, "event": {…}}`. At a size, FILE becomes FILE.1,
FILE.1 becomes FILE.2 and so on. Several programs may write to one file.
"""

import asyncio
import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from snf_ganeti_eventd.messages.message import Message
from snf_ganeti_eventd.settings import LogSettings
from snf_ganeti_eventd.transport import Outcome, TransportError


class JournalTransport:
    def __init__(self, settings: LogSettings, path: Path | None = None) -> None:
        self._settings = settings
        self._path = path or settings.path
        self._limit = settings.max_size << 20
        self.problem = ""
        self.is_open = False

    @property
    def address(self) -> str:
        return str(self._path)

    async def open(self) -> None:
        try:
            with _append(self._path):
                self.is_open = True
        except OSError as error:
            self.problem = f"{self._path} can't be written: {error.strerror}"
            raise TransportError(self.problem) from None

    async def publish(self, batch: Sequence[Message]) -> list[Outcome]:
        lines = b"".join(map(make_line, batch))
        try:
            await asyncio.to_thread(self._write, lines)
        except OSError as error:
            self.is_open = False
            self.problem = f"{self._path} can't be written: {error.strerror}"
            return [Outcome.UNCONFIRMED] * len(batch)
        return [Outcome.CONFIRMED] * len(batch)

    async def close(self) -> None:
        self.is_open = False

    def _write(self, lines: bytes) -> None:
        """All lines, or none. Raises OSError."""
        while True:
            with _append(self._path) as descriptor:
                size = os.fstat(descriptor).st_size
                if size and size + len(lines) > self._limit:
                    rotate(self._path, self._settings.keep)
                    continue
                try:
                    _write_all(descriptor, lines)
                    os.fdatasync(descriptor)
                except OSError:
                    with contextlib.suppress(OSError):
                        os.ftruncate(descriptor, size)
                    raise
                return


def make_line(message: Message) -> bytes:
    entry = {"message_id": message.id, "routing_key": message.key, "event": message.body}
    return json.dumps(entry, allow_nan=False).encode() + b"\n"


def rotate(path: Path, keep: int) -> None:
    """Make room for a new file; of the old ones, `keep` stay. Raises OSError."""
    for number in range(keep, 0, -1):
        older = path.with_name(f"{path.name}.{number - 1}") if number > 1 else path
        with contextlib.suppress(FileNotFoundError):
            older.rename(path.with_name(f"{path.name}.{number}"))


@contextlib.contextmanager
def _append(path: Path) -> Iterator[int]:
    """The file, locked, with whole lines only: what a power cut left of one is ended."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if _is_same(descriptor, path):
                size = os.fstat(descriptor).st_size
                if size and os.pread(descriptor, 1, size - 1) != b"\n":
                    _write_all(descriptor, b"\n")
                yield descriptor
                return
        finally:
            os.close(descriptor)


def _is_same(descriptor: int, path: Path) -> bool:
    """False when another program has rotated the file meanwhile."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _write_all(descriptor: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]
