"""The processes below a process, as the kernel lists them."""

import contextlib
from collections.abc import Iterator
from pathlib import Path


def find_children(pid: int) -> Iterator[int]:
    """Of all its threads; none when it has ended."""
    for each in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # the thread ended meanwhile
            yield from map(int, each.read_text().split())


def find_descendants(pid: int) -> Iterator[int]:
    """Each before its own children."""
    for child in find_children(pid):
        yield child
        yield from find_descendants(child)
