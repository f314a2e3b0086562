"""The end of golden images: retired at once, removed when the last clone is gone.

An image that has clones goes to RBD's trash. Its last clone is removed by a node, whose key
may not write images; what it leaves in the trash, with nobody who needs it, a publisher's key
removes.
"""

import contextlib
import logging
import struct
from collections.abc import Mapping

import rados
import rbd

from ext_storage_rados import volume
from ext_storage_rados.ceph import watches
from ext_storage_rados.ceph.cluster import UnreachableError, explained, open_image, open_pool
from ext_storage_rados.images import golden
from ext_storage_rados.names import ImageName
from snf_ganeti.errors import InputError, NodeError

log = logging.getLogger(__name__)

_TRASH, _PREFIX = "rbd_trash", "id_"
"""The object whose omap is a pool's trash, and what comes before an image's id in its keys."""
_SPEC = struct.Struct("<BBIBI")
"""The beginning of cls::rbd::TrashImageSpec: two versions, length, source, length of the name."""
_PARENT = 4
"""TRASH_IMAGE_SOURCE_USER_PARENT: it is there because it had clones. librbd removes it with the
last one by itself, if the client that removes that one may."""
_PAGE = 500


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


def purge(cluster: rados.Rados, pool: str, namespace: str) -> list[ImageName]:
    """Remove what is in the trash because it had clones, and has none any more: an image whose
    last clone a node removed, a volume whose last clone's removal was cut off. What somebody
    put there, to be brought back or not, stays; and what is open, for the next time."""
    removed = []
    with open_pool(cluster, pool, namespace) as context, explained(f"the trash of {pool}"):
        for identity, name in find_parents(list_trash(context)):
            image = ImageName(pool, namespace, name)
            try:
                with explained(f"{image} in the trash"):
                    if _remove(context, identity):
                        removed.append(image)
            except UnreachableError:
                raise
            except NodeError as error:
                log.warning("%s", error)
    return removed


def list_trash(context: rados.Ioctx) -> dict[str, bytes]:
    """What is in a pool's trash, as it is kept there: the images' ids, with what is known of
    them. librbd's own list in Python stumbles over parents, up to Ceph 16."""
    found: dict[str, bytes] = {}
    with contextlib.suppress(rados.ObjectNotFound):
        while True:
            with rados.ReadOpCtx() as read:
                last = _PREFIX + max(found) if found else ""
                page, _ = context.get_omap_vals(read, last, _PREFIX, _PAGE)
                context.operate_read_op(read, _TRASH)
                before = len(found)
                found.update((key.removeprefix(_PREFIX), value) for key, value in page)
            if len(found) < before + _PAGE:
                break
    return found


def find_parents(trash: Mapping[str, bytes]) -> list[tuple[str, str]]:
    """Ids and names of what is in the trash because it had clones."""
    parents = []
    for identity, spec in trash.items():
        *_, source, length = _SPEC.unpack_from(spec)
        if source == _PARENT:
            parents.append((identity, spec[_SPEC.size :][:length].decode()))
    return parents


def _remove(context: rados.Ioctx, identity: str) -> bool:
    """Remove an image in the trash; False when clones need it, or it is gone meanwhile."""
    with contextlib.suppress(rbd.ImageNotFound):
        with rbd.Image(context, image_id=identity) as opened:
            if list(opened.list_descendants()):
                return False
            for each in list(opened.list_snaps()):
                opened.remove_snap_by_id(each["id"])
        try:
            rbd.RBD().trash_remove(context, identity, force=True)
        except rbd.ImageBusy:
            watches.renew_header(context, identity)
            rbd.RBD().trash_remove(context, identity, force=True)
        return True
    return False
