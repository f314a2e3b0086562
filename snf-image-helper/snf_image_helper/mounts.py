"""The image's file systems, mounted as the guest itself would mount them."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from snf_image_helper import fstab
from snf_image_helper.disk import Disk, find_partitions, parse_device
from snf_image_helper.filesystem import (
    FILE_SYSTEMS,
    Superblock,
    mount,
    mounted,
    read_superblock,
)
from snf_image_helper.guest import read_guest
from snf_image_helper.task import Context, TaskFailed
from snf_image_helper.tree import Tree, TreeError

ROOT = "/run/guest"
_ENTRIES_LIMIT = 100
_MARKS = {"os-release", "passwd", "fstab"}
"""Names in /etc of which a root file system has one."""
_SUBVOLUMES = ("@", "@rootfs", "root", "@root")
"""Where distributions put their root in a btrfs whose default is the top level."""


@dataclass(frozen=True)
class Device:
    """A disk (partition 0) or a partition, and what it holds."""

    disk: int
    partition: int
    path: str
    superblock: Superblock

    @property
    def may_be_root(self) -> bool:
        known = FILE_SYSTEMS.get(self.superblock.type)
        return known is not None and known.root


def find_devices(disks: Sequence[Disk]) -> list[Device]:
    """Every disk and partition of the instance, the first disk's first."""
    places = [
        (disk.index, number, path)
        for disk in disks
        for number, path in [(0, disk.path), *((p.number, p.path) for p in find_partitions(disk))]
    ]
    return [Device(disk, number, path, read_superblock(path)) for disk, number, path in places]


def find_source(devices: Sequence[Device], source: str) -> Device | None:
    """The device that an fstab names, or None when there is none of that name."""
    if tag := fstab.parse_source(source):
        field, value = tag
        # A UUID's case differs between tools; a label's is part of it.
        if "uuid" in field:
            value = value.lower()
        return next((d for d in devices if _read_tag(d.superblock, field) == value and value), None)
    named = parse_device(source)
    if named is None:
        return None
    disk, partition = named
    return next((d for d in devices if (d.disk, d.partition) == (disk, partition or 0)), None)


def _read_tag(superblock: Superblock, field: str) -> str:
    value: str = getattr(superblock, field)
    return value.lower() if "uuid" in field else value


def find_root(devices: Sequence[Device], property_value: str) -> tuple[Device, tuple[str, ...]]:
    """The root's device and the options that choose its subvolume.

    property_value: ROOT_PARTITION, a partition number of the first disk; where empty, the
    first device that looks like a root is it. Raises TaskFailed.
    """
    first = [device for device in devices if device.disk == 0]
    if property_value:
        if not property_value.isdecimal():
            raise TaskFailed(f"ROOT_PARTITION={property_value} is not a partition's number")
        first = [device for device in first if device.partition == int(property_value)]
        if not first:
            raise TaskFailed(f"ROOT_PARTITION={property_value}: the image has no such partition")
    reasons = []
    for device in (device for device in first if device.may_be_root):
        try:
            options = _find_subvolume(device)
        except TaskFailed as error:
            reasons.append(f"{_name(device)}: {error}")
            continue
        if options is not None:
            return device, options
        reasons.append(f"{_name(device)} has no /etc of a Linux system")
    held = [
        f"{_name(device)} holds {device.superblock.type}"
        for device in first
        if device.superblock.type and not device.may_be_root
    ]
    raise TaskFailed(
        "no root file system found: " + ("; ".join([*reasons, *held]) or "no file system")
    )


def _name(device: Device) -> str:
    return f"partition {device.partition}" if device.partition else f"disk {device.disk}"


def _find_subvolume(device: Device) -> tuple[str, ...] | None:
    """The mount options with which a device shows a root; None when there are none."""
    choices: list[tuple[str, ...]] = [()]
    kind = device.superblock.type
    if kind == "btrfs":
        choices += [(f"subvol={name}",) for name in _SUBVOLUMES]
    for options in choices:
        try:
            with (
                mounted(device.path, device.superblock.type, options) as target,
                _opened(target) as tree,
            ):
                if _MARKS & set(tree.list_dir("/etc")):
                    return options
        except TaskFailed:  # also of a subvolume that is not there
            if not options:
                raise
        except TreeError:  # an /etc that is none
            continue
    return None


@contextlib.contextmanager
def _opened(root: str) -> Iterator[Tree]:
    tree = Tree(root)
    try:
        yield tree
    finally:
        tree.close()


def mount_image(context: Context) -> None:
    """Mount the image at ROOT and give its guest to the context. Raises TaskFailed."""
    devices = find_devices(context.disks)
    root, options = find_root(devices, context.request.properties.get("ROOT_PARTITION", ""))
    Path(ROOT).mkdir(exist_ok=True)
    _mount(context, root, ROOT, options)
    context.root_partition = root.partition
    tree = Tree(ROOT)
    try:
        _mount_entries(context, tree, devices)
        context.guest = read_guest(tree)
    except BaseException:
        tree.close()  # or the root would be busy when it is unmounted
        raise


def _mount_entries(context: Context, tree: Tree, devices: Sequence[Device]) -> None:
    """Mount what the guest's fstab lists, outer mount points first. Raises TaskFailed."""
    text = tree.read_text(fstab.PATH) if tree.stat(fstab.PATH) is not None else ""
    entries = [entry for entry in fstab.parse_fstab(text) if entry.is_local and entry.target != "/"]
    if len(entries) > _ENTRIES_LIMIT:
        raise TaskFailed(f"{fstab.PATH} lists more than {_ENTRIES_LIMIT} file systems")
    for entry in sorted(entries, key=lambda entry: entry.target.rstrip("/").count("/")):
        try:
            _mount_entry(context, tree, devices, entry)
        except (TaskFailed, TreeError) as error:
            reason = f"{entry.target} of the guest's fstab ({entry.source}): {error}"
            if not entry.may_be_missing:
                raise TaskFailed(reason) from None
            context.warn(reason)


def _mount_entry(
    context: Context, tree: Tree, devices: Sequence[Device], entry: fstab.Entry
) -> None:
    device = find_source(devices, entry.source)
    if device is None:
        raise TaskFailed("no such file system")
    tree.make_dirs(entry.target)
    with tree.open(entry.target, os.O_PATH | os.O_DIRECTORY) as place:
        # The path with the guest's symlinks resolved inside its root.
        target = str(Path(f"/proc/self/fd/{place}").readlink())
    if target == ROOT:
        # Paths of later entries would be found in the tree below, and mounted in the one above.
        raise TaskFailed("it would be mounted over the root")
    _mount(context, device, target, entry.subvolume)


def _mount(context: Context, device: Device, target: str, options: Sequence[str]) -> None:
    mount(device.path, device.superblock.type, target, options)
    context.mounted.append(target)
