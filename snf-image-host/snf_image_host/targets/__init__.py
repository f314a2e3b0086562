"""Where an instance's disk is: a path on this node, or a URI that QEMU understands.

A third party adds a scheme by an entry point in the group `snf_image_host.targets`: its name
is the scheme, its value a callable like `open_uri_target`.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from snf_ganeti.errors import InputError
from snf_image_host.environ import Disk
from snf_image_host.jail import Jail
from snf_image_host.targets.local import open_local_target
from snf_image_host.targets.target import Target

__all__ = ["Target", "open_target"]


@contextlib.contextmanager
def open_target(disk: Disk, jail: Jail, *, writable: bool = True) -> Iterator[Target]:
    """The disk, open until the block ends; a path is taken before a URI.

    jail: where the server of a URI's disk runs. Raises InputError, NodeError.
    """
    if disk.path:
        with open_local_target(Path(disk.path), writable=writable) as local:
            yield local
    else:
        raise InputError(
            f"disk {disk.index} has no path on this node: only such are supported so far"
        )
