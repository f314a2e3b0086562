"""What a killed run left: found by the free locks of beds, and removed.

A bed's owner holds its lock for as long as it lives. A bed that was left running on purpose
says so in a file of its folder; it is dead once none of its machines runs.
"""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from snf_ganeti.errors import LockError
from snf_ganeti.lock import lock_file
from testbed import processes

KEPT = "kept"
_SUFFIX = ".lock"
_GATE = ".gate"
_WAIT = 60.0


@contextlib.contextmanager
def own(folder: Path) -> Iterator[None]:
    """Own the bed at `folder` for the block. Raises LockError when another run does."""
    with contextlib.ExitStack() as stack:
        with _gate(folder.parent):
            stack.enter_context(lock_file(_find_lock(folder)))
        try:
            yield
        finally:
            if not folder.exists():
                with _gate(folder.parent):
                    _find_lock(folder).unlink(missing_ok=True)


def sweep(beds: Path) -> list[str]:
    """Remove every dead bed: its processes and its folder. Gives their names."""
    swept = []
    for name in find_names(beds):
        if not is_kept(beds / name):
            with contextlib.suppress(LockError), own(beds / name):
                remove(beds / name)
                swept.append(name)
    return swept


def find_names(beds: Path) -> list[str]:
    """Beds that have a lock, a folder or processes: their files may be gone, as by `rm`."""
    locks = {path.stem for path in beds.glob(f"[!.]*{_SUFFIX}")}
    folders = {path.name for path in beds.glob("*/")}
    running = {each.folder.relative_to(beds).parts[0] for each in processes.find_marked(beds)}
    return sorted(locks | folders | running)


def is_kept(folder: Path) -> bool:
    """Was the bed left running on purpose, and does it still run?"""
    return (folder / KEPT).exists() and bool(processes.find_marked(folder))


def remove(folder: Path) -> None:
    """Kill what runs of a bed that the caller owns, and remove what it wrote."""
    processes.kill_marked(folder)
    if folder.exists():
        shutil.rmtree(folder)


def _find_lock(folder: Path) -> Path:
    return folder.with_name(folder.name + _SUFFIX)


@contextlib.contextmanager
def _gate(beds: Path) -> Iterator[None]:
    """Opening and locking a bed's lock is one step, or a file just removed could be locked."""
    beds.mkdir(parents=True, exist_ok=True)
    with lock_file(beds / _GATE, timeout=_WAIT):
        yield
