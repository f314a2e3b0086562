"""RBD's trash: what is there because it had clones, a retired image or a removed volume, or for
its owner to bring it back.

librbd removes what had clones with the last of them, if the client that removes that one may,
and if nobody has it open, be it a client that is dead. What it leaves, with nobody who needs it,
is removed here. So is the end of a move to the trash brought about, if it was cut off.
"""

import contextlib
import logging
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass

import rados
import rbd

from ext_storage_rados.ceph import watches
from ext_storage_rados.ceph.cluster import UnreachableError, explained, open_pool
from ext_storage_rados.names import ImageName
from snf_ganeti.errors import NodeError

log = logging.getLogger(__name__)

_TRASH, _PREFIX = "rbd_trash", "id_"
"""The object whose omap is a pool's trash, and what comes before an image's id in its keys."""
_SPEC = struct.Struct("<BBIBI")
"""The beginning of cls::rbd::TrashImageSpec: two versions, length, source, length of the name.
The name follows, two times, and the state."""
_TIMES = 16
_PARENT = 4
"""TRASH_IMAGE_SOURCE_USER_PARENT: it is there because it had clones."""
_NORMAL, _MOVING = range(2)
"""States of an image: it is in the trash, and for nothing else; it was about to be moved there."""
_PAGE = 500
_FENCED_SECONDS = 5.0  # by which OSDs know that a client was fenced
_PAUSE = 0.1


@dataclass(frozen=True)
class Entry:
    """An image in the trash. is_parent: it is there because it had clones; is_moving: not all is
    done that brings it there."""

    identity: str
    name: str
    is_parent: bool
    is_moving: bool


def purge(cluster: rados.Rados, pool: str, namespace: str) -> list[ImageName]:
    """Remove what had clones and has none any more: an image whose last clone a node removed, a
    volume whose last clone's removal was cut off. What somebody put there, to be brought back or
    not, stays; and what is open, for the next time."""
    removed = []
    with open_pool(cluster, pool, namespace) as context, explained(f"the trash of {pool}"):
        for entry in filter(lambda each: each.is_parent, list(read(context))):
            image = ImageName(pool, namespace, entry.name)
            try:
                with explained(f"{image} in the trash"):
                    if _remove(context, entry.identity):
                        removed.append(image)
            except UnreachableError:
                raise
            except NodeError as error:
                log.warning("%s", error)
    return removed


def complete(context: rados.Ioctx, name: str) -> None:
    """Bring the move of an image to the trash to its end, if it was cut off. Until then Ceph can
    neither remove it nor bring it back."""
    for entry in list(read(context)):
        if entry.name == name and entry.is_moving:
            context.execute(_TRASH, "rbd", "trash_state_set", make_state_request(entry.identity))
            settle(context, entry.identity)


def settle(context: rados.Ioctx, identity: str) -> None:
    """Remove an image that lost a clone, if that was its last and librbd has not. It has not when
    a client of a moment ago is taken to have it open, though it was fenced. What stays all the
    same, `purge` removes."""
    deadline = time.monotonic() + _FENCED_SECONDS
    while time.monotonic() < deadline:
        if not any(each.identity == identity and each.is_parent for each in read(context)):
            return
        with contextlib.suppress(rbd.Error):
            _remove(context, identity)
            return
        time.sleep(_PAUSE)


def read(context: rados.Ioctx) -> Iterator[Entry]:
    """What is in a pool's trash. librbd's own list in Python stumbles over parents, up to
    Ceph 16."""
    last = ""
    with contextlib.suppress(rados.ObjectNotFound):
        while True:
            with rados.ReadOpCtx() as operation:
                found, _ = context.get_omap_vals(operation, last, _PREFIX, _PAGE)
                context.operate_read_op(operation, _TRASH)
                page = list(found)
            for last, value in page:
                yield parse_entry(last.removeprefix(_PREFIX), value)
            if len(page) < _PAGE:
                break


def parse_entry(identity: str, value: bytes) -> Entry:
    """value: a cls::rbd::TrashImageSpec, which has a state from its second version on."""
    version, *_, source, length = _SPEC.unpack_from(value)
    name = value[_SPEC.size :][:length].decode()
    state = value[_SPEC.size + length + _TIMES] if version > 1 else _NORMAL
    return Entry(identity, name, source == _PARENT, state == _MOVING)


def make_state_request(identity: str) -> bytes:
    """For the method trash_state_set of cls_rbd: the id, the state to be, and the one that is."""
    encoded = identity.encode()
    return struct.pack(f"<I{len(encoded)}sBB", len(encoded), encoded, _NORMAL, _MOVING)


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
