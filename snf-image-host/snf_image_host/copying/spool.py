"""A file without a name, where an image is kept while something reads it out of order."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from snf_ganeti.errors import NodeError
from snf_image_host.confinement.jail import Jail
from snf_image_host.copying.disk_copy import Run


@contextlib.contextmanager
def open_spool(folder: Path, jail: Jail) -> Iterator[int]:
    """The descriptor of a new file that is gone when the block ends, or this process.

    The jail's user owns it, so that what is jailed can open it by its descriptor.
    Raises NodeError.
    """
    try:
        descriptor = os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o400)
    except OSError as error:
        raise NodeError(
            f"no file can be made in spool_dir {folder}: {error.strerror}",
            hint="set spool_dir to a folder of a local file system",
        ) from None
    try:
        os.fchown(descriptor, jail.uid, jail.gid)
        yield descriptor
    finally:
        os.close(descriptor)


def fill_spool(descriptor: int, runs: Iterator[Run], folder: Path) -> None:
    """Keep what the runs make. Raises NodeError when there is no room."""
    end = 0
    try:
        for run in runs:
            end = run.start + run.length
            at = run.start
            left = run.data if run.data is not None else memoryview(b"")
            while left:
                count = os.pwrite(descriptor, left, at)
                at, left = at + count, left[count:]
        os.ftruncate(descriptor, end)
    except OSError as error:
        raise NodeError(
            f"the image can't be kept in {folder}: {error.strerror}",
            hint="make room there, or set spool_dir",
        ) from None
