"""Golden images: images whose snapshot `golden` instances are clones of.

An image without that snapshot is not one: publishing makes the snapshot last. Properties are
metadata under a prefix, which clones inherit.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO

import rados
import rbd

from ext_storage_rados import volume
from ext_storage_rados.ceph import watches
from ext_storage_rados.ceph.cluster import (
    GoneError,
    ask_manager,
    explained,
    open_image,
    open_pool,
)
from ext_storage_rados.images import ancestry
from ext_storage_rados.names import ImageName, SnapshotName
from ext_storage_rados.parameters import Parameters
from snf_ganeti.errors import InputError

SNAPSHOT = "golden"
PROPERTY = "property."
_UNFINISHED = "ext-storage-rados.unfinished"
_CHUNK = 4 << 20


@dataclass(frozen=True)
class GoldenImage:
    """size: bytes. clones: names of the images that need it, those in the trash left out."""

    name: ImageName
    size: int
    properties: Mapping[str, str]
    clones: tuple[str, ...]


@dataclass(frozen=True)
class Volume:
    """A volume, and what it has from the snapshot that it is a clone of, if it is one."""

    name: ImageName
    origin: SnapshotName | None
    properties: Mapping[str, str]


def publish(
    cluster: rados.Rados,
    image: ImageName,
    raw: IO[bytes],
    properties: Mapping[str, str],
    parameters: Parameters,
) -> None:
    """Make a golden image of a sparse file. Raises InputError when there is one already."""
    with (
        open_pool(cluster, image.pool, image.namespace) as context,
        explained(f"the publication of {image}"),
    ):
        _make_way(context, image)
        size = os.fstat(raw.fileno()).st_size
        if not size:
            raise InputError("the image is empty", hint="check the file")
        features = int(rbd.RBD().features_from_string(",".join(parameters.features)))
        rbd.RBD().create(context, image.name, size, old_format=False, features=features)
        with open_image(context, image) as opened:
            opened.metadata_set(_UNFINISHED, "yes")
            for extent in find_data(raw.fileno(), size):
                _write(opened, raw, extent)
            opened.flush()
            for key, value in properties.items():
                opened.metadata_set(PROPERTY + key, value)
            opened.create_snap(SNAPSHOT)
            opened.metadata_remove(_UNFINISHED)


def snapshot(
    cluster: rados.Rados,
    source: ImageName,
    image: ImageName,
    properties: Mapping[str, str],
    parameters: Parameters,
) -> int:
    """Make a golden image of what a volume holds now, sharing its data; gives how many images
    that is spread over, beyond itself."""
    with open_pool(cluster, image.pool, image.namespace) as context:
        _make_way(context, image)
        volume.snapshot(cluster, source, image, parameters)
        with explained(str(image)), open_image(context, image) as opened:
            for key, value in properties.items():
                opened.metadata_set(PROPERTY + key, value)
            opened.create_snap(SNAPSHOT)
            return ancestry.count_ancestors(cluster, opened)


def find_all(cluster: rados.Rados, pool: str, namespace: str) -> list[GoldenImage]:
    """The golden images of a pool, by name."""
    found = []
    with open_pool(cluster, pool, namespace) as context:
        with explained(f"pool {pool}"):
            names = sorted(rbd.RBD().list(context))
        for name in names:
            with contextlib.suppress(GoneError):
                found.append(_read(context, ImageName(pool, namespace, name)))
    return found


def read(cluster: rados.Rados, image: ImageName) -> GoldenImage:
    """Raises GoneError when there is no such image, or it has no golden snapshot."""
    with open_pool(cluster, image.pool, image.namespace) as context:
        return _read(context, image)


def read_volume(cluster: rados.Rados, image: ImageName) -> Volume:
    """What a volume has from its origin. Raises GoneError."""
    with (
        open_pool(cluster, image.pool, image.namespace) as context,
        explained(str(image)),
        open_image(context, image, read_only=True) as opened,
    ):
        return Volume(image, ancestry.find_origin(opened), _read_properties(opened))


def flatten(cluster: rados.Rados, image: ImageName) -> None:
    """Have Ceph's manager copy what a clone shares, so that it stands by itself."""
    with open_pool(cluster, image.pool, image.namespace) as context, open_image(context, image):
        pass
    ask_manager(cluster, {"prefix": "rbd task add flatten", "image_spec": str(image)})


def find_data(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    """Where a sparse file of `size` bytes has data: offset and length, at most 4 MiB each."""
    end = 0
    while end < size:
        try:
            start = os.lseek(descriptor, end, os.SEEK_DATA)
        except OSError:  # a hole up to the end
            return
        end = os.lseek(descriptor, start, os.SEEK_HOLE)
        for offset in range(start, end, _CHUNK):
            yield offset, min(_CHUNK, end - offset)


def _write(opened: rbd.Image, raw: IO[bytes], extent: tuple[int, int]) -> None:
    offset, length = extent
    chunk = os.pread(raw.fileno(), length, offset)
    if chunk.count(0) != len(chunk):
        opened.write(chunk, offset)


def _make_way(context: rados.Ioctx, image: ImageName) -> None:
    """Remove what a publication that was cut off left. Raises InputError for another image."""
    with explained(str(image)):
        watches.outlast(context, image, lambda: _clear(context, image))


def _clear(context: rados.Ioctx, image: ImageName) -> None:
    try:
        with open_image(context, image, read_only=True) as opened:
            snapshots = [each["name"] for each in opened.list_snaps()]
            unfinished = _UNFINISHED in dict(opened.metadata_list())
            empty = not snapshots and volume.is_empty(opened)
    except GoneError:
        empty = unfinished = True
    if not (unfinished or empty):
        raise InputError(
            f"{image} exists already", hint="take another name, such as one with a date"
        )
    with (
        contextlib.suppress(GoneError, rbd.ImageNotFound),
        open_image(context, image) as opened,
    ):
        opened.remove_snap(SNAPSHOT)
    volume.discard(context, image)


def _read(context: rados.Ioctx, image: ImageName) -> GoldenImage:
    with (
        explained(str(image)),
        open_image(context, image, snapshot=SNAPSHOT, read_only=True) as opened,
    ):
        clones = tuple(
            str(ImageName(each["pool"], each["pool_namespace"], each["image"]))
            for each in opened.list_children2()
            if not each["trash"]
        )
        return GoldenImage(image, opened.size(), _read_properties(opened), clones)


def _read_properties(opened: rbd.Image) -> dict[str, str]:
    return {
        key.removeprefix(PROPERTY): value
        for key, value in opened.metadata_list()
        if key.startswith(PROPERTY)
    }


def parse_properties(texts: list[str]) -> dict[str, str]:
    """`KEY=VALUE` each. Raises InputError."""
    properties = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.replace("_", "").isalnum():
            raise InputError(f"{text!r} is no property", hint="write KEY=VALUE")
        properties[key.upper()] = value
    return properties


def make_document(image: GoldenImage) -> dict[str, object]:
    """As the command prints it with --json."""
    return {
        "name": str(image.name),
        "origin": f"{image.name}@{SNAPSHOT}",
        "size": image.size,
        "properties": dict(image.properties),
        "clones": list(image.clones),
    }


def make_volume_document(volume: Volume) -> dict[str, object]:
    """As the command prints it with --json."""
    return {
        "name": str(volume.name),
        "origin": str(volume.origin or ""),
        "properties": dict(volume.properties),
    }
