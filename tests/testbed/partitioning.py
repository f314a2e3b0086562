"""Where the parts of a disk lie, how sfdisk is told so, and how an fstab names them.

Pure: nothing here reads or writes a disk.
"""

import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

MIB = 1 << 20
SECTOR = 512
_NAMESPACE = uuid.UUID("7d3f8a52-6b0e-4d53-9a55-2f0c6f1f8f5e")
_BIOS_BOOT = "bios"
_TYPES: Mapping[str, Mapping[str, str]] = {
    "mbr": {"": "83", "swap": "82", "extended": "5"},
    "gpt": {
        "": "0FC63DAF-8483-4772-8E79-3D69D8477DE4",
        "swap": "0657FD6D-A4AB-43C4-84E5-0933C84B4F4F",
        _BIOS_BOOT: "21686148-6449-6E6F-744E-656564454649",
    },
}
"""Partition types by what they hold; "" is any Linux file system. UAPI's Discoverable
Partitions Specification, and GRUB's manual for the BIOS boot partition."""


@dataclass(frozen=True)
class Volume:
    """Something that fills a partition, or the whole of a disk without a table.

    kind: a file system, `swap` or `bios` (room for GRUB on a GPT). size: MiB.
    mountpoint: empty for what is not mounted. logical: inside the extended partition.
    number: the partition's, where it shall not be the next one.
    """

    kind: str
    size: int
    mountpoint: str = ""
    logical: bool = False
    number: int = 0

    @property
    def label(self) -> str:
        """The file system's and the partition's label, within xfs's 12 characters."""
        return self.mountpoint.strip("/") or ("root" if self.mountpoint else self.kind)


@dataclass(frozen=True)
class Partition:
    """A volume and its place. number: 0 where the disk has no table; start: bytes."""

    volume: Volume
    number: int
    start: int

    @property
    def size(self) -> int:
        return self.volume.size * MIB


@dataclass(frozen=True)
class DiskLayout:
    """A disk of `size` bytes. table: mbr, gpt or none. name: what all its ids derive from."""

    name: str
    table: str
    partitions: tuple[Partition, ...]
    size: int

    @property
    def disk_id(self) -> str:
        """As `blkid` shows it: eight digits for MBR, a UUID for GPT."""
        whole = make_uuid(self.name, "disk")
        return whole[:8] if self.table == "mbr" else whole

    @property
    def extended(self) -> Partition | None:
        """The partition that holds the logical ones: from the first of them to the end."""
        inner = [partition for partition in self.partitions if partition.volume.logical]
        if not inner:
            return None
        start = inner[0].start - MIB
        size = (inner[-1].start + inner[-1].size - start) // MIB
        return Partition(Volume("extended", size), len(self.partitions) - len(inner) + 1, start)

    def uuid(self, partition: Partition) -> str:
        """The UUID of what the partition holds."""
        return make_uuid(self.name, partition.volume.label)

    def partuuid(self, partition: Partition) -> str:
        if self.table == "mbr":
            return f"{self.disk_id}-{partition.number:02x}"
        return make_uuid(self.name, f"partition {partition.number}")


def make_uuid(name: str, what: str) -> str:
    """The same name gives the same UUID: an image built twice is the same image."""
    return str(uuid.uuid5(_NAMESPACE, f"{name}/{what}"))


def lay_out(name: str, table: str, volumes: Sequence[Volume]) -> DiskLayout:
    """Place volumes one behind the other, on MiB boundaries; the last ends the disk.

    Logical ones come last, each behind a MiB for its own table. A GPT has its second copy
    in one more MiB at the end.
    """
    if table == "none":
        only = Partition(volumes[0], 0, 0)
        return DiskLayout(name, table, (only,), only.size)
    placed, at, primary, logical = [], MIB, 0, 4
    for volume in volumes:
        if volume.logical:
            logical += 1
            at += MIB
        elif not volume.number:
            primary += 1
        placed.append(
            Partition(volume, volume.number or (logical if volume.logical else primary), at)
        )
        at += placed[-1].size
    return DiskLayout(name, table, tuple(placed), at + (MIB if table == "gpt" else 0))


def make_sfdisk_script(layout: DiskLayout) -> str:
    """The table as sfdisk(8) reads it."""
    head = {
        "mbr": f"label: dos\nlabel-id: 0x{layout.disk_id}",
        "gpt": f"label: gpt\nlabel-id: {layout.disk_id}",
    }
    return "\n".join([head[layout.table], "unit: sectors", "", *_make_lines(layout)]) + "\n"


def _make_lines(layout: DiskLayout) -> Iterator[str]:
    types = _TYPES[layout.table]
    extended = (layout.extended,) if layout.extended else ()
    everything = sorted((*layout.partitions, *extended), key=lambda each: each.start)
    for each in everything:
        line = f"{each.number} : start={each.start // SECTOR}, size={each.size // SECTOR}"
        line += f", type={types.get(each.volume.kind, types[''])}"
        if layout.table == "gpt":
            line += f', uuid={layout.partuuid(each)}, name="{each.volume.label}"'
        yield line


_SOURCES: Mapping[str, Callable[[DiskLayout, Partition], str]] = {
    "UUID": lambda layout, each: f"UUID={layout.uuid(each)}",
    "LABEL": lambda _, each: f"LABEL={each.volume.label}",
    "PARTUUID": lambda layout, each: f"PARTUUID={layout.partuuid(each)}",
    "PARTLABEL": lambda _, each: f"PARTLABEL={each.volume.label}",
    "device": lambda _, each: f"/dev/vda{each.number or ''}",
}
FSTAB_STYLES = tuple(_SOURCES)


def make_source(layout: DiskLayout, partition: Partition, style: str) -> str:
    """What an fstab of this style calls a partition. PARTLABEL exists on a GPT alone."""
    return _SOURCES[style](layout, partition)


def make_fstab(layout: DiskLayout, style: str) -> str:
    lines = ["# <file system> <mount point> <type> <options> <dump> <pass>"]
    for each in layout.partitions:
        source, kind = make_source(layout, each, style), each.volume.kind
        if kind == "swap":
            lines.append(f"{source} none swap sw 0 0")
        elif each.volume.mountpoint == "/":
            options = "errors=remount-ro" if kind.startswith("ext") else "defaults"
            lines.append(f"{source} / {kind} {options} 0 1")
        elif each.volume.mountpoint:
            lines.append(f"{source} {each.volume.mountpoint} {kind} defaults 0 2")
    return "".join(f"{line}\n" for line in lines)
