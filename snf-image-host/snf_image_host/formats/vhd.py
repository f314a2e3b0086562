"""VHD, by Microsoft's "Virtual Hard Disk Image Format Specification" 1.0.

A fixed disk is raw with a footer behind it; a dynamic one has the same footer in front, too.
Refused are differencing disks, which have a parent.
"""

import struct
from dataclasses import dataclass

from snf_image_host.formats.container import Layout
from snf_image_host.formats.image_bytes import SECTOR, ImageBytes, check_disk_size

_MAGIC = b"conectix"
_FOOTER = struct.Struct(">8sIIQI4sI4sQQHBBII")
_CHECKSUM = slice(64, 68)
_FIXED, _DYNAMIC, _DIFFERENCING = 2, 3, 4
_SIZE_LIMIT = 2040 << 30
_BY_GEOMETRY = (b"vpc ", b"qemu")
"""Creators for which the disk ends with its last whole cylinder; by all others the size counts."""
_GEOMETRY_LIMIT = 65535 * 16 * 255

_DYNAMIC_MAGIC = b"cxsparse"
_HEADER = struct.Struct(">8sQQIII")
_BLOCK_LIMIT = 256 << 20


@dataclass(frozen=True)
class _Footer:
    """kind: of disk; header: where a dynamic one goes on; size: bytes of the disk."""

    kind: int
    header: int
    size: int


def read_vhd(image: ImageBytes) -> Layout:
    """Raises ValueError, Unfetched; see `ReadLayout`."""
    if image.size is not None and image.size < SECTOR:
        raise ValueError("is no vhd image")
    head = image.read(0, SECTOR)
    if not head.startswith(_MAGIC):
        return _read_fixed(image)
    footer = _parse_footer(head)
    if footer.kind == _DIFFERENCING:
        raise ValueError("is a differencing disk, and an image must be whole")
    if footer.kind != _DYNAMIC:
        raise ValueError(f"is a VHD of the unknown type {footer.kind}")
    _check_header(image, footer)
    return Layout(footer.size, "vpc", checked=False)


def _read_fixed(image: ImageBytes) -> Layout:
    """What lies before the footer is the disk: QEMU's `raw` reads that."""
    end = image.require_size() - SECTOR
    tail = image.read(end, SECTOR)
    if not tail.startswith(_MAGIC):
        raise ValueError("is no vhd image")
    footer = _parse_footer(tail)
    if footer.kind != _FIXED:
        raise ValueError("lacks its beginning")
    image.require(footer.size + SECTOR)
    return Layout(footer.size, "raw", {"offset": 0, "size": footer.size}, checked=False)


def _parse_footer(footer: bytes) -> _Footer:
    (
        _,
        _,
        version,
        header,
        _,
        creator,
        _,
        _,
        _,
        size,
        cylinders,
        heads,
        sectors,
        kind,
        checksum,
    ) = _FOOTER.unpack_from(footer)
    if checksum != make_checksum(footer):
        raise ValueError("is a damaged vhd image: its footer has another checksum")
    if version >> 16 != 1:
        raise ValueError(f"is of VHD's unknown version {version >> 16}")
    geometry = cylinders * heads * sectors
    if kind == _DYNAMIC and creator in _BY_GEOMETRY and geometry != _GEOMETRY_LIMIT:
        size = geometry * SECTOR
    return _Footer(kind, header, check_disk_size(size, _SIZE_LIMIT))


def make_checksum(footer: bytes) -> int:
    """The one's complement of the sum of all bytes but the checksum's own."""
    return ~(sum(footer) - sum(footer[_CHECKSUM])) & 0xFFFFFFFF


def _check_header(image: ImageBytes, footer: _Footer) -> None:
    magic, _, table, _, entries, block = _HEADER.unpack(image.read(footer.header, _HEADER.size))
    if magic != _DYNAMIC_MAGIC:
        raise ValueError("is a damaged vhd image: its second header is missing")
    if not SECTOR <= block <= _BLOCK_LIMIT or block & (block - 1):
        raise ValueError(f"has blocks of {block} bytes")
    if entries * block < footer.size:
        raise ValueError(f"tells of {entries} blocks only, and its disk has more")
    image.require(table + 4 * entries)
