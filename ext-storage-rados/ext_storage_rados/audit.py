"""Ganeti's configuration and Ceph's pools held against each other."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import rados
import rbd

from ext_storage_rados.ceph.cluster import explained, open_pool
from ext_storage_rados.names import ImageName
from snf_ganeti.errors import InputError, NodeError

CONFIG = Path("/var/lib/ganeti/config.data")
PROVIDER = "rados"

_LIMIT = 512 << 20
_VOLUME = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\.ext\.disk[0-9]+(\.snap)?")


@dataclass(frozen=True)
class Disk:
    """A disk in Ganeti's configuration. instance: empty when it is attached to none."""

    image: ImageName
    instance: str


@dataclass(frozen=True)
class Findings:
    """lost: disks without a volume; orphans: volumes, named as Ganeti does, without a disk."""

    lost: tuple[Disk, ...]
    orphans: tuple[ImageName, ...]


def read_disks(path: Path, pool: str, namespace: str) -> list[Disk]:
    """The provider's disks in config.data. pool, namespace: of those that name none.

    Raises NodeError when this node has no configuration, InputError when it is none.
    """
    try:
        with path.open("rb") as file:
            text = file.read(_LIMIT)
    except OSError as error:
        hint = "run this on the master, or name a copy with --config"
        raise NodeError(f"{path}: {error.strerror}", hint=hint) from None
    try:
        return parse_disks(text.decode(), pool, namespace)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is not a configuration of Ganeti: {error!r}") from None


def parse_disks(text: str, pool: str, namespace: str) -> list[Disk]:
    config = json.loads(text)
    owners = {
        disk: instance["name"]
        for instance in config["instances"].values()
        for disk in instance["disks"]
    }
    return [
        Disk(_find_image(disk, pool, namespace), owners.get(uuid, ""))
        for uuid, disk in config["disks"].items()
        if disk["dev_type"] == "ext" and disk["logical_id"][0] == PROVIDER
    ]


def compare(disks: list[Disk], volumes: list[ImageName]) -> Findings:
    known, there = {disk.image for disk in disks}, set(volumes)
    return Findings(
        lost=tuple(disk for disk in disks if disk.image not in there),
        orphans=tuple(
            image for image in volumes if image not in known and _VOLUME.fullmatch(image.name)
        ),
    )


def list_volumes(cluster: rados.Rados, pool: str, namespace: str) -> list[ImageName]:
    """Every image of a pool's namespace. Raises MissingError."""
    with open_pool(cluster, pool, namespace) as context, explained(f"pool {pool}"):
        return [ImageName(pool, namespace, name) for name in sorted(rbd.RBD().list(context))]


def audit(cluster: rados.Rados, disks: list[Disk], pool: str, namespace: str) -> Findings:
    """Look into the pools that disks are in, and into the one of the settings."""
    places = {(pool, namespace), *((disk.image.pool, disk.image.namespace) for disk in disks)}
    volumes = [image for place in sorted(places) for image in list_volumes(cluster, *place)]
    return compare(disks, volumes)


def _find_image(disk: dict[str, object], pool: str, namespace: str) -> ImageName:
    params, identity = disk.get("params") or {}, disk["logical_id"]
    assert isinstance(params, dict) and isinstance(identity, list)
    return ImageName(
        params.get("pool") or pool, params.get("namespace") or namespace, str(identity[1])
    )
