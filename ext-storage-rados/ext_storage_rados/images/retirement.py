"""The end of golden images: retired at once, removed when the last clone is gone.

An image that has clones goes to RBD's trash. Its last clone is removed by a node, whose key
may not write images; what it leaves there, a publisher's key removes.
"""

import rados

from ext_storage_rados import volume
from ext_storage_rados.ceph.cluster import explained, open_image, open_pool
from ext_storage_rados.images import golden
from ext_storage_rados.names import ImageName
from snf_ganeti.errors import InputError


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
        explained(str(image)),
        open_image(context, image) as opened,
    ):
        opened.remove_snap(golden.SNAPSHOT)
    volume.remove(cluster, image, 0)
    return found.clones
