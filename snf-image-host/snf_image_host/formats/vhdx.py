"""VHDX, by Microsoft's [MS-VHDX]: what is far behind its first bytes is read from the whole file.

Refused are differencing disks, which have a parent, and those whose log is to be replayed.
"""

import struct
from collections.abc import Iterator, Mapping
from uuid import UUID

from snf_image_host.formats.container import Layout
from snf_image_host.formats.image_bytes import ImageBytes, check_disk_size

_MAGIC = b"vhdxfile"
_HEADERS = (64 << 10, 128 << 10)
_HEADER = struct.Struct("<4sIQ16s16s16sHH")
_HEADER_MAGIC = b"head"
_REGIONS = 192 << 10
_TABLE_SIZE = 64 << 10
_REGION_TABLE = struct.Struct("<4sII4x")
_REGION = struct.Struct("<16sQI4x")
_METADATA_TABLE = struct.Struct("<8s2xH20x")
_METADATA = struct.Struct("<16sII8x")
_ENTRIES_LIMIT = 2047
_MIB = 1 << 20

_BAT = UUID("2dc27766-f623-4200-9d64-115e9bfd4a08").bytes_le
_METADATA_REGION = UUID("8b7ca206-4790-4b9a-b8fe-575f050f886e").bytes_le
_FILE_PARAMETERS = UUID("caa16737-fa36-4d43-b3b6-33f0aa44e76b").bytes_le
_DISK_SIZE = UUID("2fa54224-cd1b-4876-b211-5dbed83bf4b8").bytes_le
_SECTOR_SIZE = UUID("8141bf1d-a96f-4709-ba47-f233a8faab5f").bytes_le
_PARENT_LOCATOR = UUID("a8d35f2d-b30b-454d-abf7-d3d84834ab0c").bytes_le
_HAS_PARENT = 1 << 1

_Table = Mapping[bytes, tuple[int, int]]
"""GUID → offset and length, bytes."""


def read_vhdx(image: ImageBytes) -> Layout:
    """Raises ValueError, Unfetched; see `ReadLayout`."""
    if image.size is not None and image.size < len(_MAGIC):
        raise ValueError("is no vhdx image")
    if image.read(0, len(_MAGIC)) != _MAGIC:
        raise ValueError("is no vhdx image")
    _check_log(image)
    regions = _read_regions(image)
    start = regions[_METADATA_REGION][0]
    items = _read_items(image, start)
    flags = _read_parameters(image, start, items)
    if flags & _HAS_PARENT or _PARENT_LOCATOR in items:
        raise ValueError("is a differencing disk, and an image must be whole")
    (sector,) = struct.unpack("<I", _read_item(image, start, items, _SECTOR_SIZE, 4))
    if sector != 512:
        raise ValueError(f"has sectors of {sector} bytes, and only those of 512 can be read")
    (size,) = struct.unpack("<Q", _read_item(image, start, items, _DISK_SIZE, 8))
    return Layout(check_disk_size(size, 64 << 40), "vhdx")


def _check_log(image: ImageBytes) -> None:
    """Of the two headers the one with the higher number counts."""
    headers = [_HEADER.unpack(image.read(at, _HEADER.size)) for at in _HEADERS]
    sound = [each for each in headers if each[0] == _HEADER_MAGIC]
    if not sound:
        raise ValueError("is a damaged vhdx image: both its headers are missing")
    *_, log, _, version = max(sound, key=lambda header: int(header[2]))
    if version != 1:
        raise ValueError(f"is of VHDX's unknown version {version}")
    if any(log):
        raise ValueError("was not closed: its log has changes that are not in its data")


def _read_regions(image: ImageBytes) -> _Table:
    table = image.read(_REGIONS, _TABLE_SIZE)
    magic, _, count = _REGION_TABLE.unpack_from(table)
    if magic != b"regi" or count > _ENTRIES_LIMIT:
        raise ValueError("is a damaged vhdx image: its table of regions is missing")
    regions = _make_table(_iterate(table, _REGION, _REGION_TABLE.size, count))
    for kind in (_BAT, _METADATA_REGION):
        if kind not in regions:
            raise ValueError("is a damaged vhdx image: it has no table of blocks, or no metadata")
        image.require(sum(regions[kind]))
    return regions


def _read_items(image: ImageBytes, start: int) -> _Table:
    table = image.read(start, _TABLE_SIZE)
    magic, count = _METADATA_TABLE.unpack_from(table)
    if magic != b"metadata" or count > _ENTRIES_LIMIT:
        raise ValueError("is a damaged vhdx image: its metadata are missing")
    return _make_table(_iterate(table, _METADATA, _METADATA_TABLE.size, count))


def _iterate(
    table: bytes, entry: struct.Struct, first: int, count: int
) -> Iterator[tuple[bytes, int, int]]:
    for index in range(count):
        kind, offset, length = entry.unpack_from(table, first + index * entry.size)
        yield kind, offset, length


def _make_table(entries: Iterator[tuple[bytes, int, int]]) -> _Table:
    table: dict[bytes, tuple[int, int]] = {}
    for kind, offset, length in entries:
        if kind in table:
            raise ValueError("is a damaged vhdx image: it tells where a thing is twice")
        table[kind] = (offset, length)
    return table


def _read_parameters(image: ImageBytes, start: int, items: _Table) -> int:
    """The flags of the file's parameters."""
    block, flags = struct.unpack("<II", _read_item(image, start, items, _FILE_PARAMETERS, 8))
    if not _MIB <= block <= 256 * _MIB or block & (block - 1):
        raise ValueError(f"has blocks of {block} bytes")
    return int(flags)


def _read_item(image: ImageBytes, start: int, items: _Table, kind: bytes, size: int) -> bytes:
    if kind not in items:
        raise ValueError("is a damaged vhdx image: its metadata are not whole")
    offset, length = items[kind]
    if length != size:
        raise ValueError("is a damaged vhdx image: its metadata have another size")
    return image.read(start + offset, size)
