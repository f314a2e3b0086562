"""Locks between processes, freed by the kernel when their holder dies."""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from snf_ganeti.errors import LockError


@contextlib.contextmanager
def lock_file(path: Path, *, timeout: float = 0, shared: bool = False) -> Iterator[int]:
    """Hold `path` (made if absent, mode 0600) locked for the block; gives its descriptor. A child
    that inherits that holds the lock, too, until it closes it or ends.

    timeout: seconds to wait for another holder. Raises LockError when they are over.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        _acquire(descriptor, path, timeout, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def _acquire(descriptor: int, path: Path, timeout: float, kind: int) -> None:
    deadline = time.monotonic() + timeout
    while True:
        try:
            return fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise LockError(
                    f"{path} is held by another run", hint="wait for it to end, then try again"
                ) from None
            time.sleep(0.05)
