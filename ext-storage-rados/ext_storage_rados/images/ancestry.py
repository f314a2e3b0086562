"""Clones of clones: over how many images a volume's data is spread.

What is read goes through each of them, and Linux's own client opens no more than 16.
"""

import contextlib

import rados
import rbd

from ext_storage_rados.ceph.cluster import open_pool
from ext_storage_rados.names import ImageName, SnapshotName
from snf_ganeti.errors import InputError

LIMIT = 14
"""Ancestors that an origin may have."""


def find_origin(opened: rbd.Image) -> SnapshotName | None:
    """The snapshot of which an image is a clone. Raises rbd.Error."""
    try:
        parent = opened.get_parent_image_spec()
    except rbd.ImageNotFound:
        return None
    name = ImageName(parent["pool_name"], parent["pool_namespace"], parent["image_name"])
    return SnapshotName(name, parent["snap_name"])


def count_ancestors(cluster: rados.Rados, opened: rbd.Image) -> int:
    """How many images an image's data is spread over, beyond itself; some may be in the trash.

    Raises rbd.Error, SnfError.
    """
    count = 0
    with contextlib.ExitStack() as stack:
        while (origin := find_origin(opened)) is not None:
            count += 1
            place = open_pool(cluster, origin.image.pool, origin.image.namespace)
            parent = rbd.Image(
                stack.enter_context(place), image_id=opened.parent_id(), read_only=True
            )
            opened = stack.enter_context(contextlib.closing(parent))
    return count


def require_shallow(cluster: rados.Rados, opened: rbd.Image, origin: SnapshotName) -> None:
    """Raises InputError when an origin has so many ancestors that a clone could not be used."""
    count = count_ancestors(cluster, opened)
    if count > LIMIT:
        raise InputError(
            f"the origin {origin} is the end of {count} clones of clones",
            hint=f"make it stand by itself first: snf-rados-image flatten {origin.image}",
        )
