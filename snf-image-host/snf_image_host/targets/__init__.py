"""Where an instance's disk is: a path on this node, or a URI that QEMU understands.

A third party adds a scheme by an entry point in the group `snf_image_host.targets`: its name
is the scheme, its value a callable like `open_uri_target`.
"""

import contextlib
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Protocol

from snf_image_host.confinement.jail import Jail
from snf_image_host.environ import Disk
from snf_image_host.targets.local import open_local_target
from snf_image_host.targets.target import Target
from snf_image_host.targets.uri import open_uri_target

__all__ = ["OpenTarget", "Target", "open_target"]

_GROUP = "snf_image_host.targets"


class OpenTarget(Protocol):
    """Opens a disk by its URI. Raises InputError, NodeError."""

    def __call__(
        self, uri: str, jail: Jail, *, writable: bool = True
    ) -> contextlib.AbstractContextManager[Target]: ...


@contextlib.contextmanager
def open_target(disk: Disk, jail: Jail, *, writable: bool = True) -> Iterator[Target]:
    """The disk, open until the block ends; a path is taken before a URI.

    jail: where the server of a URI's disk runs. Raises InputError, NodeError.
    """
    if disk.path:
        with open_local_target(Path(disk.path), writable=writable) as local:
            yield local
        return
    scheme = disk.uri.partition(":")[0].lower()
    found = {each.name: each for each in entry_points(group=_GROUP)}
    opener: OpenTarget = found[scheme].load() if scheme in found else open_uri_target
    with opener(disk.uri, jail, writable=writable) as target:
        yield target
