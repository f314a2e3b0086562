"""The URI by which QEMU opens a volume itself, in the form that a Ganeti takes.

3.0 hands it to QEMU as it is; 3.1 knows pool and image, of plain names, and no options;
3.2 an `id` beside them.
"""

from pathlib import Path

from ext_storage_rados.ceph.access import Access
from ext_storage_rados.names import ImageName, parse_image
from snf_ganeti.errors import InputError, NodeError

DEFAULT_CONF = Path("/etc/ceph/ceph.conf")
DEFAULT_USER = "admin"
SHARE = Path("/etc/ganeti/share")
VERSIONS = ("3.0", "3.1", "3.2")


def find_ganeti(share: Path = SHARE) -> str:
    """The version of Ganeti that is in force, from Debian's link. Raises NodeError."""
    try:
        version = share.readlink().name
    except OSError:
        version = ""
    if version not in VERSIONS:
        raise NodeError(
            f"the version of Ganeti does not show in {share}",
            hint=f"set ganeti in the settings, to one of {', '.join(VERSIONS)}",
        )
    return version


def make_uri(image: ImageName, access: Access, ganeti: str) -> str:
    """Raises InputError when this Ganeti has no way to say it."""
    if ganeti == "3.0":
        return f"rbd:{image}:id={access.user}:conf={access.conf}"
    if image.namespace:
        raise _refuse(ganeti, f"the namespace of {image}")
    if access.conf != DEFAULT_CONF:
        raise _refuse(ganeti, f"{access.conf}")
    if ganeti == "3.2":
        return f"rbd:{image}:id={access.user}"
    if access.user != DEFAULT_USER:
        raise _refuse(ganeti, f"client.{access.user}")
    if not image.pool.replace("_", "").isalnum():
        raise _refuse(ganeti, f"the pool {image.pool}")
    return f"rbd:{image}"


def parse_uri(uri: str) -> ImageName:
    """The image of a URI that `make_uri` made. Raises InputError."""
    name, _, _ = uri.removeprefix("rbd:").partition(":")
    return parse_image(name, pool="")


def _refuse(ganeti: str, what: str) -> InputError:
    return InputError(
        f"Ganeti {ganeti} can't give {what} to QEMU", hint="use access=kernelspace for this disk"
    )
