"""What has been published: the cursor, small and durable.

A job all of whose facts are published is only a number in `done`; of a job that goes on, the
last published state of each operation is kept. The cursor is written to disk after the broker
confirmed, so a crash can make facts be published again, but never lose one.
"""

import hashlib
import json
import os
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from snf_ganeti.errors import InputError
from snf_ganeti_eventd.jobs.job import STATUSES, Stamp, advance

VERSION = 1
SIZE_LIMIT = 64 << 20
CLOCK_LIMIT = 2048
"""Objects whose last event time is remembered."""


class CursorError(InputError):
    """A cursor that can't be used: damaged, of a newer version, or of another queue."""


class Ranges:
    """A set of integers, as few ranges as possible."""

    def __init__(self, pairs: Iterator[tuple[int, int]] | tuple[()] = ()) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        for start, end in pairs:
            self._starts.append(start)
            self._ends.append(end)

    def __contains__(self, number: int) -> bool:
        at = bisect_right(self._starts, number) - 1
        return at >= 0 and number <= self._ends[at]

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(zip(self._starts, self._ends, strict=True))

    @property
    def highest(self) -> int:
        return self._ends[-1] if self._ends else 0

    def add(self, number: int) -> None:
        at = bisect_right(self._starts, number)  # the range that begins after it
        if at and number <= self._ends[at - 1]:
            return
        joins_left = at > 0 and self._ends[at - 1] == number - 1
        joins_right = at < len(self._starts) and self._starts[at] == number + 1
        if joins_left and joins_right:
            self._ends[at - 1] = self._ends.pop(at)
            del self._starts[at]
        elif joins_left:
            self._ends[at - 1] = number
        elif joins_right:
            self._starts[at] = number
        else:
            self._starts.insert(at, number)
            self._ends.insert(at, number)


@dataclass(frozen=True)
class Clock:
    """job_id: of an object's last job; time: when that ended; floor: when those before did."""

    job_id: int
    floor: Stamp
    time: Stamp


@dataclass
class Cursor:
    """open: job → state of each operation as last published ("" for none).

    clock: of each object of late, least recent first; see `make_time`. anchor: the highest job
    that is done and when it was received, by which another cluster's queue is recognized.
    """

    done: Ranges = field(default_factory=Ranges)
    open: dict[int, list[str]] = field(default_factory=dict)
    clock: dict[str, Clock] = field(default_factory=dict)
    anchor: tuple[int, Stamp] | None = None

    def record(self, job_id: int, index: int, status: str) -> None:
        """An operation's state is published."""
        states = self.open.setdefault(job_id, [])
        states.extend([""] * (index + 1 - len(states)))
        states[index] = status

    def finish(self, job_id: int, received: Stamp | None) -> None:
        """Nothing more will come of a job."""
        self.open.pop(job_id, None)
        self.done.add(job_id)
        if received and (self.anchor is None or job_id >= self.anchor[0]):
            self.anchor = (job_id, received)

    def make_time(self, name: str, job_id: int, order: int, time: Stamp) -> Stamp:
        """A later job's event of the same object is later, even if the clock was set back:
        a controller that goes by event times would take it for old, and miss it.

        order: of the event within its job; the same event always gets the same time.
        """
        entry = self.clock.get(name)
        if entry is None or job_id < entry.job_id:
            return time
        floor = entry.floor if job_id == entry.job_id else max(entry.floor, entry.time)
        return max(time, advance(floor, 1 + order)) if floor > (0, 0) else time

    def record_time(self, name: str, job_id: int, time: Stamp) -> None:
        """A final state of an object's operation has this time."""
        entry = self.clock.pop(name, Clock(job_id, (0, 0), time))
        if job_id > entry.job_id:
            entry = Clock(job_id, max(entry.floor, entry.time), time)
        elif job_id == entry.job_id:
            entry = Clock(job_id, entry.floor, max(entry.time, time))
        self.clock[name] = entry
        if len(self.clock) > CLOCK_LIMIT:
            del self.clock[next(iter(self.clock))]


def format_cursor(cursor: Cursor) -> bytes:
    """One line of JSON, and one with its SHA-256."""
    document = {
        "version": VERSION,
        "done": list(cursor.done),
        "open": {str(job_id): states for job_id, states in cursor.open.items()},
        "anchor": [anchor[0], *anchor[1]] if (anchor := cursor.anchor) else None,
        "clock": {
            name: [each.job_id, *each.floor, *each.time] for name, each in cursor.clock.items()
        },
    }
    line = json.dumps(document, separators=(",", ":")).encode()
    return line + b"\n" + hashlib.sha256(line).hexdigest().encode() + b"\n"


def parse_cursor(data: bytes) -> Cursor:
    """Raises CursorError."""
    line, _, checksum = data.partition(b"\n")
    if hashlib.sha256(line).hexdigest().encode() != checksum.strip():
        raise CursorError("its checksum is wrong")
    try:
        document = json.loads(line)
        version = document["version"]
        if version != VERSION:
            raise CursorError(f"it is of version {version}, and this program knows {VERSION}")
        return Cursor(
            done=Ranges(_parse_ranges(document["done"])),
            open=dict(_parse_open(document["open"])),
            anchor=_parse_anchor(document["anchor"]),
            clock={str(name): _parse_clock(*each) for name, each in document["clock"].items()},
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise CursorError(f"it is malformed: {type(error).__name__}") from None


def read_cursor(path: Path) -> Cursor | None:
    """The cursor in a file; None when there is no file. Raises CursorError, OSError."""
    try:
        with path.open("rb") as file:
            data = file.read(SIZE_LIMIT + 1)
    except FileNotFoundError:
        return None
    if len(data) > SIZE_LIMIT:
        raise CursorError(f"it is larger than {SIZE_LIMIT >> 20} MiB")
    return parse_cursor(data)


def write_cursor(path: Path, data: bytes) -> None:
    """Write what `format_cursor` made, whole or not at all, and on disk when this returns.
    Raises OSError."""
    draft = path.with_name(path.name + ".new")
    with draft.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _parse_ranges(pairs: Any) -> Iterator[tuple[int, int]]:
    before = -1
    for start, end in pairs:
        if not isinstance(start, int) or not isinstance(end, int) or not before < start <= end:
            raise CursorError("its ranges are not in order")
        before = end
        yield start, end


def _parse_anchor(value: Any) -> tuple[int, Stamp] | None:
    if value is None:
        return None
    job_id, seconds, micro = map(int, value)
    return job_id, (seconds, micro)


def _parse_clock(job_id: Any, *numbers: Any) -> Clock:
    floor, floor_micro, time, micro = map(int, numbers)
    return Clock(int(job_id), (floor, floor_micro), (time, micro))


def _parse_open(table: Mapping[str, Any]) -> Iterator[tuple[int, list[str]]]:
    for job_id, states in table.items():
        if not all(state in ("", *STATUSES) for state in states):
            raise CursorError("it names a state that is none")
        yield int(job_id), list(states)
