"""Who may write an image: its exclusive lock, and the clients that lose it.

Ganeti says with `open` which node writes. That node's client takes the image's lock for
itself alone; another that still holds it is put on the cluster's blocklist, so that whatever
it has under way is refused by every OSD.

Clients are named by their address, `IP:PORT/NONCE`: librbd gives a lock's owner and an image's
watchers so, and the blocklist wants it.
"""

import contextlib
import logging

import rados
import rbd

log = logging.getLogger(__name__)

_BLOCKLIST_SECONDS = 3600


def find_owners(image: rbd.Image) -> list[str]:
    """The addresses of the clients that hold the image's lock: one or none."""
    with contextlib.suppress(rbd.ImageNotFound):  # librbd's way to say: nobody
        return [each["owner"] for each in image.lock_get_owners()]
    return []


def find_watchers(image: rbd.Image, cluster: rados.Rados) -> list[str]:
    """The addresses of other clients that have the image open for writing, or had until they
    died less than 30 s ago."""
    own = cluster.get_instance_id()
    return [each["addr"] for each in image.watchers_list() if each["id"] != own]


def is_on_this_node(address: str, cluster: rados.Rados) -> bool:
    """Is it a client on the node of this connection?"""
    return _find_host(address) == _find_host(cluster.get_addrs())


def take(image: rbd.Image) -> None:
    """Take the lock for this client alone; who holds it is fenced. Raises rbd.Error."""
    if not image.is_exclusive_lock_owner():
        for owner in find_owners(image):
            break_lock(image, owner)
    image.lock_acquire(rbd.RBD_LOCK_MODE_EXCLUSIVE)


def break_lock(image: rbd.Image, owner: str) -> None:
    """Take the lock from a client, which librbd puts on the blocklist. Raises rbd.Error."""
    log.warning("client %s held the lock, and is fenced", owner)
    with contextlib.suppress(rbd.ImageNotFound):  # it let go meanwhile
        image.lock_break(rbd.RBD_LOCK_MODE_EXCLUSIVE, owner)


def blocklist(cluster: rados.Rados, address: str) -> None:
    """Have every OSD refuse a client. Raises rados.Error."""
    log.warning("client %s is fenced", address)
    cluster.blocklist_add(address, _BLOCKLIST_SECONDS)


def _find_host(address: str) -> str:
    """The IP address in `IP:PORT/NONCE`, which may have a protocol before it."""
    host = address.rpartition(":")[0]
    return host[3:] if host[:3] in ("v1:", "v2:") else host
