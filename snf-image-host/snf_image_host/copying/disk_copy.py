"""The sparse copy: runs of data and zeros, from whatever makes them to a target.

A thread makes the runs, this one writes them: reading, finding zeros and writing overlap.
Zeros are neither handed over nor written where the target reads as zeros already.
"""

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from snf_image_host.targets.target import Target, telling

OnProgress = Callable[[int, int], None]
"""Called with position and total, bytes; total is more than 0, position at most total."""

BLOCK = 4096
"""Zeros are looked for in blocks of this size; a file system can't punch smaller holes."""
CHUNK = 1 << 20
"""Bytes of a buffer; the most that a run of data has."""
ZEROS = bytes(CHUNK)
_ZERO_BLOCK = bytes(BLOCK)

_AHEAD = 8
"""Runs that are made ahead of the writing."""
_PROGRESS_INTERVAL = 1.0


@dataclass(frozen=True)
class Run:
    """`length` bytes of the disk from `start`. data: they themselves, or None for zeros."""

    start: int
    length: int
    data: memoryview | None = None


class Buffers:
    """Buffers in a ring: one is used anew when as many runs were made since as may be ahead."""

    def __init__(self) -> None:
        self._ring = [memoryview(bytearray(CHUNK)) for _ in range(_AHEAD + 3)]
        self._next = 0

    def take(self) -> memoryview:
        self._next = (self._next + 1) % len(self._ring)
        return self._ring[self._next]


def split_runs(start: int, data: memoryview) -> Iterator[Run]:
    """The runs of a buffer whose first byte is the disk's byte `start`."""
    whole = data.obj
    assert isinstance(whole, bytearray)
    at = 0
    while at < len(data):
        end, zero = at, _is_zero(whole, at, len(data))
        while end < len(data) and _is_zero(whole, end, len(data)) == zero:
            end = min(end + BLOCK, len(data))
        yield Run(start + at, end - at, None if zero else data[at:end])
        at = end


def _is_zero(buffer: bytearray, start: int, limit: int) -> bool:
    """Compared by memcmp(3), which ends at the first byte that differs."""
    zeros = _ZERO_BLOCK if start + BLOCK <= limit else _ZERO_BLOCK[: limit - start]
    return buffer.startswith(zeros, start)


def copy_runs(
    runs: Iterator[Run],
    target: Target,
    measure: Callable[[Run], tuple[int, int]],
    on_progress: OnProgress,
) -> None:
    """Write all runs; the target's `flush` makes them durable. measure: position and total
    after a run.

    What fails in making the runs is raised as it is; an OSError of the target as NodeError.
    """
    with telling(target, "erased"):
        blank = target.erase()
    clock = time.monotonic()
    with _ahead(runs) as ready:
        for run in ready:
            if run.data is not None:
                with telling(target, f"written at byte {run.start}"):
                    target.write(run.start, run.data)
            elif not blank:
                with telling(target, f"zeroed at byte {run.start}"):
                    target.zero(run.start, run.length)
            if time.monotonic() - clock >= _PROGRESS_INTERVAL:
                clock = time.monotonic()
                on_progress(*measure(run))


@contextlib.contextmanager
def _ahead(runs: Iterator[Run]) -> Iterator[Iterator[Run]]:
    """The same runs, made by a thread ahead of their use. It ends with the block: what it
    waits for must end by itself or have a deadline."""
    ready: queue.Queue[Run | BaseException | None] = queue.Queue(_AHEAD)
    stopped = threading.Event()

    def make() -> None:
        last: BaseException | None = None
        try:
            for run in runs:
                ready.put(run)
                if stopped.is_set():
                    return
        except BaseException as error:
            last = error
        ready.put(last)

    thread = threading.Thread(target=make, name="runs", daemon=True)
    thread.start()
    try:
        yield _take(ready)
    finally:
        stopped.set()
        while thread.is_alive():
            with contextlib.suppress(queue.Empty):
                ready.get(timeout=0.05)
        thread.join()


def _take(ready: "queue.Queue[Run | BaseException | None]") -> Iterator[Run]:
    while (item := ready.get()) is not None:
        if isinstance(item, BaseException):
            raise item
        yield item
