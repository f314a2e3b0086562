"""A connection to a Ceph cluster, and its errors as ours.

"Gone" and "does not answer" are different errors: who takes one for the other loses data.
"""

import contextlib
import errno
import json
import logging
import os
from collections.abc import Iterator, Sequence
from typing import Any

import rados
import rbd

from ext_storage_rados.ceph import fencing
from ext_storage_rados.ceph.access import Access
from ext_storage_rados.names import ImageName
from snf_ganeti.errors import InputError, NodeError, SnfError

log = logging.getLogger(__name__)

_FULL = ("OSD_FULL", "POOL_FULL", "OSD_BACKFILLFULL")
_CLIENT_DEFAULTS = {
    # Clones of version 2 need no protected snapshot, and outlive it.
    "rbd_default_clone_format": "2",
    "rbd_move_parent_to_trash_on_remove": "true",
}


class MissingError(InputError):
    """The cluster answered: there is no such thing."""


class GoneError(MissingError):
    """The pool is there, and the image is not in it."""


class UnreachableError(NodeError):
    """The cluster did not answer, so nothing is known."""


class LockedError(NodeError):
    """Another client has the image's lock, living or dead, and does not give it."""


class FullError(NodeError):
    """The cluster has no room."""


@contextlib.contextmanager
def connect(access: Access, options: dict[str, str] | None = None) -> Iterator[rados.Rados]:
    """A connection for the block. options: over those of ceph.conf.

    Raises UnreachableError, NodeError.
    """
    if not access.conf.is_file():
        raise NodeError(f"{access.conf} does not exist", hint="it is Ceph's configuration")
    conf = {**_CLIENT_DEFAULTS, **(options or {})}
    seconds = str(max(1, round(access.timeout)))
    if access.timeout:
        conf["rados_mon_op_timeout"] = conf["rados_osd_op_timeout"] = seconds
        conf["client_mount_timeout"] = seconds
    with explained(f"Ceph, as client.{access.user} by {access.conf}"):
        cluster = rados.Rados(
            conffile=str(access.conf), rados_id=access.user, conf=conf, clustername="ceph"
        )
        try:
            cluster.connect()
        except rados.ObjectNotFound:
            hint = "see `ceph auth get` and the option keyring"
            raise NodeError(f"there is no key for client.{access.user}", hint=hint) from None
    try:
        yield cluster
    except UnreachableError as error:
        raise explain_silence(cluster, error) from None
    finally:
        cluster.shutdown()


@contextlib.contextmanager
def open_pool(cluster: rados.Rados, pool: str, namespace: str = "") -> Iterator[rados.Ioctx]:
    """A pool for the block. Raises MissingError."""
    with explained(f"pool {pool}"):
        try:
            context = cluster.open_ioctx(pool)
        except rados.ObjectNotFound:
            raise MissingError(
                f"there is no pool {pool}", hint="see `ceph osd pool ls`, or check the spelling"
            ) from None
    try:
        if namespace:
            with explained(f"namespace {pool}/{namespace}"):
                if not rbd.RBD().namespace_exists(context, namespace):
                    raise MissingError(
                        f"pool {pool} has no namespace {namespace}",
                        hint=f"`rbd namespace create {pool}/{namespace}` makes it",
                    )
            context.set_namespace(namespace)
        yield context
    finally:
        context.close()


@contextlib.contextmanager
def open_image(
    context: rados.Ioctx, name: ImageName, *, snapshot: str = "", read_only: bool = False
) -> Iterator[rbd.Image]:
    """An image, or a snapshot of it, for the block. Raises GoneError, and LockedError when the
    block needs the image's lock and does not get it."""
    what = f"{name}@{snapshot}" if snapshot else str(name)
    with explained(what):
        try:
            image = rbd.Image(context, name.name, snapshot or None, read_only=read_only)
        except rbd.ImageNotFound:
            raise GoneError(
                f"{what} does not exist", hint=f"`rbd ls {name.pool}` shows what does"
            ) from None
    try:
        yield image
    except rbd.ReadOnlyImage:  # whatever kept librbd from the lock, the cluster's silence too
        with explained(what):
            raise make_lock_error(what, fencing.find_owners(image)) from None
    finally:
        with contextlib.suppress(rbd.Error):  # a client that was fenced can't say goodbye
            image.close()


@contextlib.contextmanager
def explained(what: str) -> Iterator[None]:
    """Turn the errors of librados and librbd in the block into ours, which name `what`."""
    try:
        yield
    except (rados.Error, rbd.Error) as error:
        raise make_error(what, error) from None


def make_error(what: str, error: rados.Error | rbd.Error) -> SnfError:
    number = abs(getattr(error, "errno", 0) or 0)
    if number in _KNOWN:
        kind, reason, hint = _KNOWN[number]
        return kind(f"{what} {reason}", hint=hint)
    text = os.strerror(number) if number else str(error)
    return NodeError(f"{what}: {text}", hint="see the log of Ceph's monitor")


def make_lock_error(what: str, owners: Sequence[str]) -> LockedError:
    if owners:
        return LockedError(
            f"{what} is locked by {', '.join(owners)}", hint="stop that client first"
        )
    return LockedError(f"{what} could not be locked", hint="try again")


_KNOWN: dict[int, tuple[type[SnfError], str, str]] = {
    errno.ENOENT: (MissingError, "does not exist", "check pool, namespace and name"),
    errno.EEXIST: (InputError, "exists already", ""),
    errno.EBUSY: (NodeError, "is in use", "`rbd status` shows by whom"),
    errno.EACCES: (NodeError, "is refused by Ceph", "does this client's key allow it?"),
    errno.EPERM: (NodeError, "is refused by Ceph", "does this client's key allow it?"),
    errno.EROFS: (NodeError, "is locked by another client", "`rbd lock list` shows which"),
    errno.ETIMEDOUT: (UnreachableError, "does not answer", "is the cluster up: `ceph status`?"),
    errno.ESHUTDOWN: (NodeError, "is closed to this client, which was fenced", "attach it again"),
    errno.ENOSPC: (FullError, "has no room left", "see `ceph df`"),
    errno.EDQUOT: (FullError, "has reached its quota", "see `ceph df`"),
}


def explain_silence(cluster: rados.Rados, error: UnreachableError) -> SnfError:
    """A full cluster keeps writers waiting, and to them looks dead; its monitors know better."""
    with contextlib.suppress(rados.Error, SnfError):
        checks = ask_monitors(cluster, {"prefix": "health"}).get("checks", {})
        if any(name in checks for name in _FULL):
            return FullError("the cluster is full", hint="see `ceph df`; add room, then try again")
    return error


def ask_monitors(cluster: rados.Rados, command: dict[str, Any]) -> Any:
    """A command of the monitors; gives its JSON. Raises SnfError."""
    with explained(command["prefix"]):
        status, out, text = cluster.mon_command(json.dumps({**command, "format": "json"}), b"")
    if status:
        raise make_error(f"{command['prefix']}: {text}", rados.Error(text, -status))
    return json.loads(out or b"null")


def ask_manager(cluster: rados.Rados, command: dict[str, Any]) -> Any:
    """A command of the manager; gives its JSON, or None. Raises SnfError."""
    with explained(command["prefix"]):
        status, out, text = cluster.mgr_command(json.dumps({**command, "format": "json"}), b"")
    if status:
        raise make_error(f"{command['prefix']}: {text}", rados.Error(text, -status))
    return json.loads(out or b"null")
