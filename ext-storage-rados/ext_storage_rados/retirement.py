"""The end of golden images: retired at once, removed when the last clone is gone.

An image that has clones goes to RBD's trash. Its last clone is removed by a node, whose key
may not write images; what it leaves in the trash, with nobody who needs it, a publisher's key
removes.
"""

import contextlib

import rados
import rbd

from ext_storage_rados import golden, volume
from ext_storage_rados.cluster import explained, open_image, open_pool
from ext_storage_rados.names import ImageName
from snf_ganeti.errors import InputError

_PARENT = "USER_PARENT"
"""Source of what is in the trash because it had clones: librbd removes it with the last one
by itself, if the client that removes that one may."""


def retire(cluster: rados.Rados, image: ImageName, *, deferred: bool) -> tuple[str, ...]:
    """Remove a golden image, and give the clones that still need its data.

    deferred: with clones, it goes to the trash, where it stays until the last one is gone.
    Raises InputError when there are clones and it is not.
    """
    found = golden.read(cluster, image)
    if found.clones and not deferred:
        raise InputError(
            f"{image} has {len(found.clones)} clones: {', '.join(found.clones[:3])} …",
            hint="flatten or remove them, or retire it with --deferred",
        )
    with (
        open_pool(cluster, image.pool, image.namespace) as context,
        open_image(context, image) as opened,
        explained(str(image)),
    ):
        opened.remove_snap(golden.SNAPSHOT)
    volume.remove(cluster, image, 0)
    return found.clones


def purge(cluster: rados.Rados, pool: str, namespace: str) -> list[ImageName]:
    """Remove what is in the trash because it had clones, and has none any more. What somebody
    put there, to be brought back or not, stays."""
    removed = []
    with open_pool(cluster, pool, namespace) as context, explained(f"the trash of {pool}"):
        for entry in list(rbd.RBD().trash_list(context)):
            if entry["source"] == _PARENT and _remove(context, entry["id"]):
                removed.append(ImageName(pool, namespace, entry["name"]))
    return removed


def _remove(context: rados.Ioctx, identity: str) -> bool:
    """Remove an image in the trash; False when clones need it, or it is gone meanwhile."""
    with contextlib.suppress(rbd.ImageNotFound):
        with rbd.Image(context, image_id=identity) as opened:
            if list(opened.list_descendants()):
                return False
            for each in list(opened.list_snaps()):
                opened.remove_snap_by_id(each["id"])
        rbd.RBD().trash_remove(context, identity, force=True)
        return True
    return False
