"""The watches on an image, by which Ceph knows who has it open.

The watch of a client that was killed ends after 30 s, or as soon as the client is on the
blocklist. One kind never does: when the connection breaks after the OSD has carried out the
request to watch and before that is on its disk, the OSD (seen with Ceph 16.2.15) writes the
watch into the header object, and keeps nothing in memory that would end it. It ends it like any
other once it has read the header from its disk again. Until then the image can't be removed.
"""

import contextlib
import logging
import time
import uuid
from collections.abc import Callable, Sequence
from typing import TypeVar

import rados
import rbd

from ext_storage_rados.ceph.cluster import (
    GoneError,
    LockedError,
    UnreachableError,
    explained,
    open_image,
)
from ext_storage_rados.names import ImageName
from snf_ganeti.errors import NodeError

log = logging.getLogger(__name__)

Value = TypeVar("Value")

_SECONDS = 30.0  # how long Ceph believes in a client that died
_LATE_SECONDS = 60.0  # by which a busy OSD may be late with it
_PAUSE = 0.5
_RENEWAL_SECONDS = 10.0

_KEPT = 100
"""More objects than an OSD keeps in mind of each placement group: `ceph config help
osd_pg_object_context_cache_count`. The header of an image that a living client watches is kept
beyond that, so nothing is lost by asking for too many."""


def outlast(context: rados.Ioctx, image: ImageName, attempt: Callable[[], Value]) -> Value:
    """What `attempt` gives, which is called again while somebody has the image open, for as
    long as that can be a client that died.

    Such a client stands in the way in more ways than one: the image is in use, its lock is not
    given, or the client is asked, for as long as an answer of Ceph may take. Raises NodeError
    when a living one has the image open, and what else `attempt` raises.
    """
    deadline = time.monotonic() + _SECONDS + _LATE_SECONDS
    renewed = -_RENEWAL_SECONDS
    while watchers := find(context, image):
        with contextlib.suppress(rbd.ImageBusy, rbd.Timeout, LockedError, UnreachableError):
            return attempt()
        now = time.monotonic()
        if now > deadline:
            raise _make_busy_error(image, watchers)
        if now > renewed + _RENEWAL_SECONDS:
            log.info("%s is open, or was by a client that died; waiting", image)
            renew(context, image)
            renewed = now
        time.sleep(_PAUSE)
    return attempt()


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
    """Have the OSD read from its disk who watches an image that no living client has open."""
    with (
        contextlib.suppress(GoneError),
        explained(str(image)),
        open_image(context, image, read_only=True) as opened,
    ):
        renew_header(context, opened.id())


def renew_header(context: rados.Ioctx, identity: str) -> None:
    """The same for an image that has but its id, as in the trash. Raises rados.Error.

    The header comes to mind anew after other objects of its placement group. They do not exist,
    and asking for their removal does not make them.
    """
    others = f"{identity}.{uuid.uuid4().hex}"
    context.set_locator_key(f"rbd_header.{identity}")
    try:
        for number in range(_KEPT):
            with contextlib.suppress(rados.ObjectNotFound):
                context.remove_object(f"{others}.{number}")
    finally:
        context.set_locator_key("")


def _make_busy_error(image: ImageName, watchers: Sequence[str]) -> NodeError:
    """What a dead client's watch does to an image has ended by now; these live."""
    return NodeError(
        f"{image} is in use by {', '.join(watchers)}",
        hint=f"stop that client, or `ceph osd blocklist add {watchers[0]}`, then try again",
    )
