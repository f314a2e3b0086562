"""A disk as a whole, out to a stream and in from one: what Ganeti moves and keeps as backups."""

from collections.abc import Iterator
from io import BufferedReader

from snf_ganeti.errors import InputError, NodeError
from snf_image_host.copying.disk_copy import CHUNK, Run, split_runs
from snf_image_host.copying.dump import (
    END,
    EXTENTS_LIMIT,
    PIECE_LIMIT,
    DumpReader,
    Extent,
    make_head,
    make_padding,
    make_piece_head,
)
from snf_image_host.targets.target import Target, telling


def measure_dump(target: Target) -> int:
    """About how many bytes the dump of a disk will have; on a block device, at most."""
    return sum(end - start for start, end in target.find_data())


def make_dump(target: Target) -> Iterator[bytes | bytearray]:
    """The dump of a disk, bit by bit. Raises NodeError when the disk can't be read."""
    yield make_head(target.size)
    piece, index = _Piece(0), 0
    for run in _read_runs(target):
        if not piece.has_room(run):
            yield from piece.finish(index, run.start)
            piece, index = _Piece(run.start), index + 1
        piece.add(run)
    yield from piece.finish(index, target.size)
    yield END


class _Piece:
    """A piece of the dump in the making."""

    def __init__(self, start: int) -> None:
        self._start = start
        self._extents: list[Extent] = []
        self._data = bytearray()

    def has_room(self, run: Run) -> bool:
        return len(self._data) + run.length <= PIECE_LIMIT and len(self._extents) < EXTENTS_LIMIT

    def add(self, run: Run) -> None:
        assert run.data is not None
        self._data += run.data
        offset = run.start - self._start
        if self._extents and self._extents[-1].end == offset:
            before = self._extents.pop()
            self._extents.append(Extent(before.offset, before.length + run.length))
        else:
            self._extents.append(Extent(offset, run.length))

    def finish(self, index: int, end: int) -> Iterator[bytes | bytearray]:
        yield make_piece_head(index, end - self._start, self._extents)
        yield self._data
        yield make_padding(len(self._data))


def _read_runs(target: Target) -> Iterator[Run]:
    """The runs of data of a disk, none of zeros."""
    whole = memoryview(bytearray(CHUNK))  # the piece takes a copy
    try:
        for start, end in target.find_data():
            at = start
            while at < end:
                buffer = whole[: end - at]
                count = target.read_into(at, buffer)
                if not count:
                    raise NodeError(f"{target.name} ends at byte {at} of {target.size}")
                yield from (run for run in split_runs(at, buffer[:count]) if run.data is not None)
                at += count
    except OSError as error:
        raise NodeError(f"{target.name} can't be read: {error.strerror}") from None


def restore_dump(stream: BufferedReader, target: Target, least: int) -> None:
    """Make a disk what a dump says; where the dump has nothing, zeros.

    least: bytes that a plain dump must have at least, as its end can't tell that it is one.
    Raises InputError: the dump is cut off, damaged or larger than the disk; NodeError: the
    disk can't be written.
    """
    reader = DumpReader(stream)
    with telling(target, "erased"):
        blank = target.erase()
    # One thread: a stream may stall for good, and who waits for it must be free to end.
    for run in _make_runs(reader, target, least):
        with telling(target, f"written at byte {run.start}"):
            if run.data is not None:
                target.write(run.start, run.data)
            elif not blank:
                target.zero(run.start, run.length)
    with telling(target, "made durable"):
        target.flush()


def _make_runs(reader: DumpReader, target: Target, least: int) -> Iterator[Run]:
    """The whole disk as runs. A dump may go on behind the disk's end with zeros: the disk that
    it is of was rounded up otherwise."""
    at, buffer = 0, memoryview(bytearray(CHUNK))
    for start, data in reader.read_data(buffer):
        if start > at:
            yield from _make_zeros(at, start, target)
        for run in split_runs(start, data):
            if run.data is None:
                yield from _make_zeros(run.start, run.start + run.length, target)
            elif run.start + run.length > target.size:
                raise InputError(
                    f"the dump has data at byte {run.start}, and {target.name} has only"
                    f" {target.size} bytes",
                    hint="make the disk larger",
                )
            else:
                yield run
        at = start + len(data)
    if reader.size is None and at < least:
        raise InputError(
            f"the dump ends after {at} of {least} bytes",
            hint="if it is whole, import it to a disk of its size, then grow that",
        )
    yield from _make_zeros(at, target.size, target)


def _make_zeros(start: int, end: int, target: Target) -> Iterator[Run]:
    end = min(end, target.size)
    if start < end:
        yield Run(start, end - start)
