"""The FUSE file system of one file, mounted on a file."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from ext_storage_rados.export import fuse
from snf_ganeti import process
from snf_ganeti.errors import CommandError, NodeError

_UNMOUNT_SECONDS = 10.0


@contextlib.contextmanager
def mount(file: Path) -> Iterator[int]:
    """A file system that is one file, on the file; gives its descriptor of /dev/fuse."""
    file.touch(mode=0o600)
    try:
        descriptor = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise NodeError(f"/dev/fuse: {error.strerror}", hint="is the module fuse there?") from None
    try:
        options = f"fd={descriptor},rootmode=100600,user_id=0,group_id=0,max_read={fuse.MAX_WRITE}"
        argv = ["mount", "-i", "-t", "fuse", "-o", options, "ext-storage-rados", str(file)]
        process.run(argv, pass_fds=[descriptor])
        yield descriptor
    finally:
        os.close(descriptor)
        unmount(file, lazily=True)


def unmount(file: Path, *, lazily: bool = False) -> bool:
    """True when it is not mounted any more; lazily, it goes when its last user does."""
    try:
        process.run(
            ["umount", *(("--lazy",) if lazily else ()), str(file)], timeout=_UNMOUNT_SECONDS
        )
    except CommandError as error:
        return "not mounted" in error.output or "no mount point" in error.output
    return True
