"""VMDK, by VMware's "Virtual Disk Format 5.0": a sparse extent with its descriptor in it.

One file only, `monolithicSparse` or `streamOptimized`. Refused are descriptors by themselves,
whose extents are other files or devices, parents, and extents beside the one.
"""

import re
import struct
from dataclasses import dataclass

from snf_image_host.formats.container import Layout
from snf_image_host.formats.image_bytes import SECTOR, ImageBytes, check_disk_size

_MAGIC = b"KDMV"
_OLD_MAGIC = b"COWD"
_HEADER = struct.Struct("<4sIIQQQQIQQQB4sH")
_NEWLINES = b"\n \r\n"
"""What a transfer as text would have changed."""
_VERSIONS = (1, 2, 3)
_DEFLATE = 1
_AT_END = (1 << 64) - 1
"""The place of the grain directory when only the footer tells it."""
_GRAIN_LIMIT = (16 << 20) // SECTOR
_TABLE_LIMIT = 512
_DESCRIPTOR = (1, 20)
"""Sectors from and of the descriptor, as QEMU reads it whatever the header says."""
_DESCRIPTOR_LIMIT = 2048
_TYPES = ("monolithicsparse", "streamoptimized")
_EXTENT = re.compile(rb"^[ \t]*(?:RW|RDONLY|NOACCESS)[ \t]+\d+[ \t]+(\w+)", re.M | re.I)
_PARENT = re.compile(rb"parentfilenamehint|^[ \t]*parentcid[ \t]*=[ \t]*(?!f{8}\b)", re.M | re.I)
_TYPE = re.compile(rb'^[ \t]*createtype[ \t]*=[ \t]*"([^"]*)"', re.M | re.I)
_FOOTER = struct.Struct("<QII496x")
_FOOTER_MARKER = (0, 0, 3)
_END_MARKER = (0, 0, 0)


@dataclass(frozen=True)
class _Extent:
    """A header. Units are sectors; per_table: grains that a table tells of."""

    capacity: int
    grain: int
    descriptor: int
    descriptor_size: int
    per_table: int
    directory: int

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.capacity, self.grain, self.per_table)


def read_vmdk(image: ImageBytes) -> Layout:
    """Raises ValueError, Unfetched; see `ReadLayout`."""
    head = _read_extent(image)
    _check_descriptor(_read_descriptor(image, head))
    last = _read_footer(image, head) if head.directory == _AT_END else head
    tables = -(-last.capacity // (last.grain * last.per_table))
    image.require(last.directory * SECTOR + 4 * tables)
    return Layout(check_disk_size(head.capacity * SECTOR), "vmdk", {"backing": None})


def _read_extent(image: ImageBytes) -> _Extent:
    magic = image.read(0, 4) if image.size is None or image.size >= 4 else b""
    if magic == _OLD_MAGIC:
        raise ValueError("is a VMDK of a kind that only VMware's own servers read")
    if magic.startswith(b"#"):
        raise ValueError(
            "is the descriptor of a VMDK whose extents are other files, and an image must be whole"
        )
    if magic != _MAGIC:
        raise ValueError("is no vmdk image")
    return _parse_extent(image.read(0, _HEADER.size))


def _parse_extent(header: bytes) -> _Extent:
    (_, version, _, capacity, grain, descriptor, descriptor_size, per_table, _, directory) = (
        _HEADER.unpack(header)[:10]
    )
    newlines, compression = _HEADER.unpack(header)[-2:]
    if version not in _VERSIONS:
        raise ValueError(f"is of VMDK's unknown version {version}")
    if newlines != _NEWLINES:
        raise ValueError("was damaged by a transfer as text")
    if compression not in (0, _DEFLATE):
        raise ValueError(f"is compressed by the unknown method {compression}")
    check_disk_size(capacity * SECTOR)
    if not 8 <= grain <= _GRAIN_LIMIT or grain & (grain - 1):
        raise ValueError(f"has grains of {grain} sectors")
    if not 0 < per_table <= _TABLE_LIMIT:
        raise ValueError(f"has grain tables of {per_table} entries")
    return _Extent(capacity, grain, descriptor, descriptor_size, per_table, directory)


def _read_descriptor(image: ImageBytes, extent: _Extent) -> bytes:
    start, size = _DESCRIPTOR
    if extent.descriptor != start or not 0 < extent.descriptor_size <= _DESCRIPTOR_LIMIT:
        raise ValueError(
            f"has a descriptor of {extent.descriptor_size} sectors at sector {extent.descriptor}"
        )
    return image.read(start * SECTOR, max(size, extent.descriptor_size) * SECTOR)


def _check_descriptor(text: bytes) -> None:
    if _PARENT.search(text):
        raise ValueError("has a parent, and an image must be whole")
    types = [kind.decode("latin-1").lower() for kind in _TYPE.findall(text)]
    extents = [kind.upper() for kind in _EXTENT.findall(text)]
    if not types:
        raise ValueError("has no descriptor, and an image must be whole")
    if len(types) != 1 or types[0] not in _TYPES or extents != [b"SPARSE"]:
        raise ValueError("has extents in other files, and an image must be whole")


def _read_footer(image: ImageBytes, head: _Extent) -> _Extent:
    """The header that counts, behind a stream that was written in one go."""
    size = image.require_size()
    if size % SECTOR or size < 4 * SECTOR:
        raise ValueError("ends within its last sector")
    marker, header, end = (image.read(size - at * SECTOR, SECTOR) for at in (3, 2, 1))
    if _FOOTER.unpack(marker) != _FOOTER_MARKER or _FOOTER.unpack(end) != _END_MARKER:
        raise ValueError("ends before its footer")
    if not header.startswith(_MAGIC):
        raise ValueError("has a damaged footer")
    footer = _parse_extent(header[: _HEADER.size])
    if footer.shape != head.shape:
        raise ValueError("says one thing in its header and another in its footer")
    return footer
