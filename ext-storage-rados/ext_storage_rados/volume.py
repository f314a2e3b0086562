"""A volume's life in the cluster: each step can be cut off anywhere and be done again."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace

import rados
import rbd

from ext_storage_rados import mark, trash
from ext_storage_rados.ceph import fencing, watches
from ext_storage_rados.ceph.cluster import GoneError, explained, open_image, open_pool
from ext_storage_rados.images import ancestry
from ext_storage_rados.names import ImageName, SnapshotName
from ext_storage_rados.parameters import Parameters
from snf_ganeti.errors import InputError, NodeError, SnfError

PASSING = "snf-rados."
"""Prefix of snapshots that live only while a clone is made of them."""
INFO = "ganeti.info"

_MEBIBYTE = 1 << 20


def create(cluster: rados.Rados, image: ImageName, size: int, parameters: Parameters) -> None:
    """Make a volume of `size` bytes, or find it made. Raises SnfError, and then there is none
    that was not there before."""
    with open_pool(cluster, image.pool, image.namespace) as context:
        if parameters.reuse_data:
            with open_image(context, image, read_only=True):
                return
        if parameters.origin:
            check_origin(cluster, parameters.origin, size)
        wanted = mark.make_mark(image, size, parameters)
        with explained(f"the creation of {image}"):
            if _find_or_clear(context, image, wanted):
                return
            with _undone(context, image):
                _make(cluster, context, image, size, parameters)
                _finish(context, image, size, parameters, wanted)


def check_origin(cluster: rados.Rados, origin: SnapshotName, size: int) -> None:
    """Raises InputError: it does not exist, is larger than `size` bytes, or is too deep."""
    image = origin.image
    with (
        open_pool(cluster, image.pool, image.namespace) as context,
        open_image(context, image, snapshot=origin.snapshot, read_only=True) as opened,
    ):
        ancestry.require_shallow(cluster, opened, origin)
        if opened.size() > size:
            needed = -(-opened.size() // _MEBIBYTE)
            raise InputError(
                f"the origin {origin} has {needed} MiB, and the volume {size // _MEBIBYTE}",
                hint="make the volume as large as its origin",
            )


def remove(cluster: rados.Rados, image: ImageName, delay: float) -> None:
    """Remove a volume, or find it gone. With clones it goes to the trash, from where librbd
    removes it with the last of them.

    delay: seconds for which it can be brought back with `rbd trash restore`. Waits for a dead
    client's watch to end. Raises NodeError when a living client has it open.
    """
    with (
        open_pool(cluster, image.pool, image.namespace) as context,
        explained(str(image)),
    ):
        parent = _find_parent_beside(context, image)
        watches.outlast(context, image, lambda: _remove(context, image, delay))
        trash.complete(context, image.name)
        if parent:
            trash.settle(context, parent)


def grow(cluster: rados.Rados, image: ImageName, size: int) -> None:
    """Grow a volume to `size` bytes; nothing when it has them. Raises InputError."""
    with (
        open_pool(cluster, image.pool, image.namespace) as context,
        explained(str(image)),
        open_image(context, image) as opened,
    ):
        now = opened.size()
        if size < now:
            raise InputError(
                f"{image} has {now // _MEBIBYTE} MiB, and would shrink to {size // _MEBIBYTE}",
                hint="a volume only grows",
            )
        if size > now:
            opened.resize(size)


def set_info(cluster: rados.Rados, image: ImageName, text: str) -> None:
    """Keep Ganeti's text about a volume in its metadata."""
    with (
        open_pool(cluster, image.pool, image.namespace) as context,
        explained(str(image)),
        open_image(context, image) as opened,
    ):
        opened.metadata_set(INFO, text)


def snapshot(
    cluster: rados.Rados, image: ImageName, target: ImageName, parameters: Parameters
) -> None:
    """Make a volume of its own, `target`, that holds what `image` holds now."""
    with (
        open_pool(cluster, image.pool, image.namespace) as context,
        explained(f"a snapshot of {image}"),
        open_image(context, image) as opened,
    ):
        passing = SnapshotName(image, PASSING + target.name)
        parameters = replace(parameters, origin=passing, reuse_data=False)
        size = opened.size()
        with open_pool(cluster, target.pool, target.namespace) as targets:
            if _find_or_clear(targets, target, mark.make_mark(target, size, parameters)):
                return _remove_passing_snapshots(opened)
        _remove_passing_snapshots(opened, passing.snapshot)
        opened.create_snap(passing.snapshot)
        create(cluster, target, size, parameters)
        opened.remove_snap(passing.snapshot)
        return None


def _find_or_clear(context: rados.Ioctx, image: ImageName, wanted: str) -> bool:
    """Is the volume made? If not, what a run that was cut off left of it goes."""

    def attempt() -> bool:
        if _is_made(context, image, wanted):
            return True
        discard(context, image)
        return False

    return watches.outlast(context, image, attempt)


def _is_made(context: rados.Ioctx, image: ImageName, wanted: str) -> bool:
    """Is the volume there, and finished, with the same mark? Raises InputError when it is
    there for something else."""
    with contextlib.suppress(GoneError), open_image(context, image, read_only=True) as opened:
        found = _read_mark(opened, image)
        if found == wanted:
            return True
        if found or (opened.size() and not is_empty(opened)):
            raise InputError(
                f"{image} exists already, made with other arguments or by another program",
                hint="remove it, or give another name",
            )
    return False


def _read_mark(opened: rbd.Image, image: ImageName) -> str:
    try:
        found = str(opened.metadata_get(mark.KEY))
    except KeyError:
        return ""
    return found if mark.is_about(found, image) else ""


def is_empty(opened: rbd.Image) -> bool:
    """Has nothing been written to it yet, and nobody made a snapshot?"""
    extents: list[int] = []
    opened.diff_iterate(0, opened.size(), None, lambda offset, *_: extents.append(offset),
                        include_parent=False)  # fmt: skip
    return not extents and not list(opened.list_snaps())


def _make(
    cluster: rados.Rados,
    context: rados.Ioctx,
    image: ImageName,
    size: int,
    parameters: Parameters,
) -> None:
    """The bare image."""
    features = rbd.RBD().features_from_string(",".join(parameters.features))
    shape = {
        "features": int(features),
        "stripe_unit": parameters.stripe_unit,
        "stripe_count": parameters.stripe_count,
        "data_pool": parameters.data_pool or None,
    }
    if not parameters.origin:
        rbd.RBD().create(context, image.name, size, old_format=False, **shape)
        return
    parent, name = parameters.origin.image, parameters.origin.snapshot
    with open_pool(cluster, parent.pool, parent.namespace) as parents:
        rbd.RBD().clone(parents, parent.name, name, context, image.name, **shape)


def _finish(
    context: rados.Ioctx, image: ImageName, size: int, parameters: Parameters, wanted: str
) -> None:
    with open_image(context, image) as opened:
        if opened.size() != size:
            opened.resize(size)
        for key, limit in (("iops", parameters.qos_iops), ("bps", parameters.qos_bps)):
            if limit:
                opened.config_set(f"rbd_qos_{key}_limit", str(limit))
        opened.metadata_set(mark.KEY, wanted)


@contextlib.contextmanager
def _undone(context: rados.Ioctx, image: ImageName) -> Iterator[None]:
    try:
        yield
    except BaseException:
        with contextlib.suppress(rbd.Error, rados.Error, SnfError):
            discard(context, image)
        raise


def discard(context: rados.Ioctx, image: ImageName) -> None:
    """Remove an image that was never finished. Raises rbd.Error."""
    with contextlib.suppress(rbd.ImageNotFound):
        rbd.RBD().remove(context, image.name)


def _remove(context: rados.Ioctx, image: ImageName, delay: float) -> None:
    """What can't be opened, because its creation was cut off, can be removed all the same.
    Raises rbd.ImageBusy when a client has the image open."""
    try:
        with open_image(context, image) as opened:
            _remove_passing_snapshots(opened)
    except GoneError:
        delay = 0  # there is nothing to bring back, and the trash could not be listed with it
    try:
        if delay:
            if watches.find(context, image):  # of which librbd takes no notice
                raise rbd.ImageBusy(str(image))
            rbd.RBD().trash_move(context, image.name, int(delay))
        else:
            rbd.RBD().remove(context, image.name)
    except rbd.ImageNotFound:
        pass
    except rbd.ImageHasSnapshots:
        raise NodeError(
            f"{image} has snapshots that others made",
            hint=f"`rbd snap purge {image}` removes them, if nobody needs them",
        ) from None


def _find_parent_beside(context: rados.Ioctx, image: ImageName) -> str:
    """The id of the volume in the same place that a volume is a clone of; empty for none."""
    with contextlib.suppress(GoneError), open_image(context, image, read_only=True) as opened:
        origin = ancestry.find_origin(opened)
        beside = (image.pool, image.namespace)
        if origin and (origin.image.pool, origin.image.namespace) == beside:
            return str(opened.parent_id())
    return ""


def _remove_passing_snapshots(opened: rbd.Image, only: str = "") -> None:
    """Those that a run which was cut off left; one with clones goes to the trash."""
    for each in list(opened.list_snaps()):
        if each["name"].startswith(only or PASSING):
            with contextlib.suppress(rbd.ImageNotFound):
                opened.remove_snap(each["name"])


def require(cluster: rados.Rados, image: ImageName) -> None:
    """Raises GoneError when there is no such volume."""
    with (
        open_pool(cluster, image.pool, image.namespace) as context,
        open_image(context, image, read_only=True),
    ):
        pass


def fence_others(cluster: rados.Rados, image: ImageName) -> None:
    """Put on the blocklist who has the volume open for writing on another node."""
    with (
        open_pool(cluster, image.pool, image.namespace) as context,
        explained(f"the fencing of {image}'s old users"),
        open_image(context, image) as opened,
    ):
        for owner in fencing.find_owners(opened):
            if not fencing.is_on_this_node(owner, cluster):
                fencing.break_lock(opened, owner)
        for watcher in fencing.find_watchers(opened, cluster):
            if not fencing.is_on_this_node(watcher, cluster):
                fencing.blocklist(cluster, watcher)
