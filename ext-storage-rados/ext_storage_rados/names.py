"""Names of images and snapshots in a Ceph cluster, parsed and checked.

What Ceph, its tools and QEMU take apart by `/`, `@`, `:` and `=` can't be part of a name.
"""

import re
from dataclasses import dataclass

from snf_ganeti.errors import InputError

NAME_LIMIT = 95
"""Characters; RBD_MAX_IMAGE_NAME_SIZE of librbd.h, less its final zero byte."""

_SNAPSHOT_FORM = "write [POOL[/NAMESPACE]/]IMAGE@SNAPSHOT"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")


@dataclass(frozen=True)
class ImageName:
    """An image. namespace: empty for the pool's own."""

    pool: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return "/".join(part for part in (self.pool, self.namespace, self.name) if part)


@dataclass(frozen=True)
class SnapshotName:
    image: ImageName
    snapshot: str

    def __str__(self) -> str:
        return f"{self.image}@{self.snapshot}"


def check_name(what: str, text: str) -> str:
    """The text, if it can be a name. Raises InputError that says what it was to name."""
    if len(text) > NAME_LIMIT:
        raise InputError(f"{what} has {len(text)} characters, and more than {NAME_LIMIT}")
    if not _NAME.fullmatch(text):
        hint = "letters, digits and _ . + - can be in a name"
        raise InputError(f"{what} {text!r} is not a name", hint=hint)
    return text


def parse_image(text: str, *, pool: str, namespace: str = "") -> ImageName:
    """`[POOL[/NAMESPACE]/]IMAGE`, in this pool and namespace if it names none."""
    parts = text.split("/")
    if len(parts) > 3:
        raise InputError(f"{text!r} names no image", hint="write [POOL[/NAMESPACE]/]IMAGE")
    name = check_name("the image", parts[-1])
    if len(parts) == 1:
        return ImageName(pool, namespace, name)
    return ImageName(
        check_name("the pool", parts[0]),
        check_name("the namespace", parts[1]) if len(parts) == 3 else "",
        name,
    )


def parse_snapshot(text: str, *, pool: str, namespace: str = "") -> SnapshotName:
    """`[POOL[/NAMESPACE]/]IMAGE@SNAPSHOT`, in this pool and namespace if it names none."""
    image, at, snapshot = text.partition("@")
    if not at:
        raise InputError(f"{text!r} names no snapshot", hint=_SNAPSHOT_FORM)
    if image.count("/") > 2:
        raise InputError(f"{text!r} names no snapshot", hint=_SNAPSHOT_FORM)
    return SnapshotName(
        parse_image(image, pool=pool, namespace=namespace),
        check_name("the snapshot", snapshot),
    )
