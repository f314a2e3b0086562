"""What `verify` checks: that a volume with these parameters could be made."""

import rados
import rbd

from ext_storage_rados.ceph.cluster import explained, open_image, open_pool
from ext_storage_rados.parameters import Parameters


def verify(cluster: rados.Rados, parameters: Parameters) -> None:
    """Raises SnfError: a pool, namespace or origin that is missing or may not be read."""
    with (
        open_pool(cluster, parameters.pool, parameters.namespace) as context,
        explained(f"pool {parameters.pool}"),
    ):
        rbd.RBD().list(context)
    if parameters.data_pool:
        with open_pool(cluster, parameters.data_pool):
            pass
    if parameters.origin:
        image = parameters.origin.image
        with (
            open_pool(cluster, image.pool, image.namespace) as context,
            open_image(context, image, snapshot=parameters.origin.snapshot, read_only=True),
        ):
            pass
