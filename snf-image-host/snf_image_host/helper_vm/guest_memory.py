"""The memory of a helper VM: a file without a name, in this node's memory.

A VM that boots has one of its own. Those that are restored from the same state share one: it
is sealed, so that a VM can map it, changes staying the VM's own, and nothing can write to it
any more, whoever opens it and how. (QEMU 7.2 opens a memory's file for writing even when it
only maps it privately; a file in a file system would have to be writable by the jail's user,
and one broken VM could then change what all later ones start with.)

No process keeps the file: each run that uses it says beside the state where it is open, so that
the next run finds it there, and the file goes with the last one.
"""

import contextlib
import fcntl
import logging
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from snf_ganeti.lock import lock_file
from snf_image_host.helper_vm.saved_state import SavedState

log = logging.getLogger(__name__)

_SIGN, _LOCK = "memory.open", "lock"
_LOCK_TIMEOUT = 20.0
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


@contextlib.contextmanager
def make_memory(size: int) -> Iterator[int]:
    """Memory of a VM that boots; size: bytes."""
    ram = os.memfd_create("snf-image-helper")
    try:
        os.truncate(ram, size)
        yield ram
    finally:
        os.close(ram)


@dataclass(frozen=True)
class SharedMemory:
    """ram: the file. wait: returns when all of the memory is in it, and nobody can change it any
    more; raises NodeError (the state is damaged), OSError."""

    ram: int
    wait: Callable[[], None]


@contextlib.contextmanager
def share_memory(state: SavedState) -> Iterator[SharedMemory]:
    """A saved state's memory: another run's if there is one, else read anew, by a thread: QEMU
    starts meanwhile, and does not look into a memory that is restored.

    Raises LockError, OSError.
    """
    name = f"snf-image-helper-{state.name}"
    sign = state.folder / _SIGN
    with ThreadPoolExecutor(1) as pool, contextlib.ExitStack() as lock:
        lock.enter_context(lock_file(state.folder / _LOCK, timeout=_LOCK_TIMEOUT))
        ram = _find(sign, name, state.memory_size)
        draft = None
        if ram is None:
            ram = draft = _make_draft(state, name)
        target = f"/proc/{os.getpid()}/fd/{ram}"

        def finish() -> None:
            with lock:
                if draft is not None:
                    state.read_memory(draft)
                    fcntl.fcntl(draft, fcntl.F_ADD_SEALS, _SEALS)
                _point(sign, target)  # the newest run is the one that is there longest

        finished = pool.submit(finish)
        try:
            yield SharedMemory(ram, finished.result)
        finally:
            wait([finished])
            os.close(ram)
            with contextlib.suppress(OSError):
                if sign.readlink() == Path(target):
                    sign.unlink()


def _find(sign: Path, name: str, size: int) -> int | None:
    """The memory that another run has open, if the sign still leads to it."""
    try:
        ram = os.open(sign, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    if _is_memory(ram, name, size):
        return ram
    os.close(ram)  # the run ended, and its number is another process's by now
    return None


def _is_memory(ram: int, name: str, size: int) -> bool:
    """One who is what we are (root) made it, under this name, and nobody can change it."""
    status = os.fstat(ram)
    return (
        Path(f"/proc/self/fd/{ram}").readlink() == Path(f"/memfd:{name} (deleted)")
        and (status.st_uid, status.st_size) == (os.geteuid(), size)
        and fcntl.fcntl(ram, fcntl.F_GET_SEALS) == _SEALS
    )


def _make_draft(state: SavedState, name: str) -> int:
    ram = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.truncate(ram, state.memory_size)
    return ram


def _point(sign: Path, target: str) -> None:
    draft = sign.with_name(sign.name + ".new")
    draft.unlink(missing_ok=True)
    draft.symlink_to(target)
    draft.rename(sign)
