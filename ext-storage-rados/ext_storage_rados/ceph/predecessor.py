"""The client of Ceph that an earlier run on this node used, when that run was killed or Ceph
fell silent under it.

Ceph believes in it for 30 s more: it keeps volumes from being removed, and whoever changes one
waits for its answer. So each run notes its client while it lives, and whoever comes next puts
that of a dead run on the blocklist.
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

import rados

from ext_storage_rados.ceph import fencing
from ext_storage_rados.ceph.cluster import UnreachableError

RUN = Path("/run/ext-storage-rados/clients")

_LIMIT = 256
_DYING_SECONDS = 2.0


@contextlib.contextmanager
def replaced(cluster: rados.Rados, name: str, run: Path = RUN) -> Iterator[None]:
    """Note this connection's client under the name of what it works on for the block; fence a
    dead one.

    While another run lives under the name, nothing is noted. Raises rados.Error.
    """
    run.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(run / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if not _lock(descriptor):
            yield
            return
        for address in os.pread(descriptor, _LIMIT, 0).decode().split():
            fencing.blocklist(cluster, address)
        left = own = cluster.get_addrs()
        _write(descriptor, own)
        try:
            yield
            left = ""
        except UnreachableError:
            raise  # it can't take its leave of Ceph, which is as if it died
        except BaseException:
            left = ""
            raise
        finally:
            _write(descriptor, left)
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    """False when another run lives; one that was killed may take a moment to go."""
    deadline = time.monotonic() + _DYING_SECONDS
    while True:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)


def note(name: str, address: str, run: Path = RUN) -> None:
    """A client that is dead, for the next run to fence."""
    run.mkdir(parents=True, exist_ok=True)
    with (run / name).open("a") as file:
        file.write(f"\n{address}\n")


def _write(descriptor: int, text: str) -> None:
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, text.encode(), 0)
