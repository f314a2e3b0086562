"""The watches on an image, by which Ceph knows who has it open.

The watch of a client that was killed ends after 30 s, or as soon as the client is on the
blocklist. One kind never does: when the connection breaks after the OSD has carried out the
request to watch and before that is on its disk, the OSD (seen with Ceph 16.2.15) writes the
watch into the header object, and keeps nothing in memory that would end it. It ends it like any
other once it has read the header from its disk again. Until then the image can't be removed.
"""

import contextlib
import uuid

import rados

from ext_storage_rados.ceph.cluster import GoneError, explained, open_image
from ext_storage_rados.names import ImageName

_KEPT = 100
"""More objects than an OSD keeps in mind of each placement group: `ceph config help
osd_pg_object_context_cache_count`. The header of an image that a living client watches is kept
beyond that, so nothing is lost by asking for too many."""


def find(context: rados.Ioctx, image: ImageName) -> list[str]:
    """The addresses of the clients that watch an image; none when it is gone."""
    with (
        contextlib.suppress(GoneError),
        explained(str(image)),
        open_image(context, image, read_only=True) as opened,
    ):
        return [each["addr"] for each in opened.watchers_list()]
    return []


def renew(context: rados.Ioctx, image: ImageName) -> None:
    """Have the OSD read from its disk who watches an image that no living client has open.

    It comes to mind anew after other objects of its placement group. They do not exist, and
    asking for their removal does not make them.
    """
    with (
        contextlib.suppress(GoneError),
        explained(str(image)),
        open_image(context, image, read_only=True) as opened,
    ):
        others = f"{image.name}.{uuid.uuid4().hex}"
        context.set_locator_key(f"rbd_header.{opened.id()}")
        try:
            for number in range(_KEPT):
                with contextlib.suppress(rados.ObjectNotFound):
                    context.remove_object(f"{others}.{number}")
        finally:
            context.set_locator_key("")
