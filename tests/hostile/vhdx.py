"""VHDXs that have a parent or a log, lie about their size or end too soon.

By Microsoft's [MS-VHDX]; what is harmed is what qemu-img makes.
"""

import struct
from collections.abc import Sequence
from pathlib import Path
from uuid import UUID

from hostile.attack import MIB, Attack, Make, write, write_at
from hostile.containers import Row, copied_by_qemu, make_attacks, patched

_HEADERS = (64 << 10, 128 << 10)
_REGIONS = 192 << 10
_LOG_ID, _VERSION = 48, 66
"""Of a header: offsets of its fields."""
_METADATA = UUID("8b7ca206-4790-4b9a-b8fe-575f050f886e").bytes_le
_BLOCKS = UUID("2dc27766-f623-4200-9d64-115e9bfd4a08").bytes_le
_PARAMETERS = UUID("caa16737-fa36-4d43-b3b6-33f0aa44e76b").bytes_le
_SIZE = UUID("2fa54224-cd1b-4876-b211-5dbed83bf4b8").bytes_le
_SECTOR_SIZE = UUID("8141bf1d-a96f-4709-ba47-f233a8faab5f").bytes_le
_PAGE_83 = UUID("beca12ab-b2e6-4523-93ef-c309e000c746").bytes_le
_PARENT = UUID("a8d35f2d-b30b-454d-abf7-d3d84834ab0c").bytes_le

_UNSOUND = "is a damaged vhdx image: part of its data is missing"
_SOUND = copied_by_qemu("vhdx", content=b"x" * MIB)


def _item(kind: bytes, value: bytes, offset: int = 0) -> Make:
    """The same with bytes of an item of its metadata changed."""

    def make(path: Path) -> None:
        _SOUND(path)
        data = bytearray(path.read_bytes())
        (start,) = struct.unpack_from("<Q", data, data.index(_METADATA) + 16)
        (at,) = struct.unpack_from("<I", data, data.index(kind) + 16)
        data[start + at + offset : start + at + offset + len(value)] = value
        path.write_bytes(data)

    return make


def _entry(kind: bytes, value: bytes, offset: int = 0) -> Make:
    """The same with bytes of an entry of a table changed."""

    def make(path: Path) -> None:
        _SOUND(path)
        data = bytearray(path.read_bytes())
        at = data.index(kind) + offset
        data[at : at + len(value)] = value
        path.write_bytes(data)

    return make


def _in_headers(offset: int, value: bytes) -> Make:
    return patched(_SOUND, {at + offset: value for at in _HEADERS})


_ROWS: Sequence[Row] = (
    (
        "parent",
        "a differencing disk",
        _item(_PARAMETERS, struct.pack("<I", 2), 4),
        "differencing disk",
    ),
    (
        "parent-locator",
        "the place of a parent in a disk that says it has none",
        _entry(_PAGE_83, _PARENT),
        "differencing disk",
    ),
    (
        "log",
        "a log to be replayed, that could write anywhere",
        _in_headers(_LOG_ID, b"\x01" * 16),
        "was not closed",
    ),
    ("version", "a version that is not there yet", _in_headers(_VERSION, b"\x09"), "version 9"),
    (
        "size",
        "a size of 2^63",
        _item(_SIZE, struct.pack("<Q", 2**63)),
        "disk has 9223372036854775808 bytes",
    ),
    (
        "size-10-tib",
        "a size of 10 TiB",
        _item(_SIZE, struct.pack("<Q", 10 << 40)),
        "needs a disk of",
    ),
    ("size-0", "a size of nothing", _item(_SIZE, bytes(8)), "disk has 0 bytes"),
    (
        "sectors",
        "sectors of 4096 bytes",
        _item(_SECTOR_SIZE, struct.pack("<I", 4096)),
        "sectors of 4096",
    ),
    ("block-0", "blocks of no bytes", _item(_PARAMETERS, bytes(4)), "has blocks of 0 bytes"),
    (
        "block-huge",
        "blocks of 2 GiB",
        _item(_PARAMETERS, struct.pack("<I", 1 << 31)),
        "has blocks of 2147483648",
    ),
    (
        "metadata-beyond",
        "its metadata behind the file's end",
        _entry(_METADATA, struct.pack("<Q", 2**62), 16),
        "ends after",
    ),
    (
        "metadata-first",
        "metadata that are the file's beginning",
        _entry(_METADATA, bytes(8), 16),
        "metadata are missing",
    ),
    (
        "blocks-beyond",
        "its table of blocks behind the file's end",
        _entry(_BLOCKS, struct.pack("<QI", 1 << 40, 2**32 - 1), 16),
        "ends after",
    ),
    ("blocks-none", "no table of blocks", _entry(_BLOCKS, bytes(16)), "no table of blocks"),
    ("item-beyond", "an item far away", _entry(_SIZE, b"\xff" * 4, 16), "ends after"),
    (
        "item-size",
        "an item of 4 GiB",
        _entry(_SIZE, b"\xff" * 4, 20),
        "metadata have another size",
    ),
    ("item-twice", "two sizes", _entry(_PAGE_83, _SIZE), "where a thing is twice"),
    (
        "items",
        "65535 items",
        _entry(_PARAMETERS, b"\xff\xff", -22),
        "metadata are missing",
    ),
    (
        "regions",
        "four thousand million regions",
        patched(_SOUND, {_REGIONS + 8: b"\xff" * 4}),
        "table of regions is missing",
    ),
    (
        "regions-checksum",
        "regions of another checksum",
        patched(_SOUND, {_REGIONS + 4: b"\xff" * 4}),
        _UNSOUND,
    ),
    (
        "signature",
        "nothing but a signature",
        write_at({0: b"vhdxfile"}, MIB),
        "headers are missing",
    ),
    ("headers", "both headers damaged", _in_headers(0, b"xxxx"), "headers are missing"),
    ("cut", "it ends before its blocks", patched(_SOUND, {}, cut=7 * MIB), _UNSOUND),
    (
        "cut-regions",
        "it ends before its regions",
        write(b"vhdxfile".ljust(9000, b"\0")),
        "ends after",
    ),
    ("empty", "a file of no bytes", write(b""), "no vhdx image"),
    ("raw", "a raw image called vhdx", write_at({510: b"\x55\xaa"}, MIB), "no vhdx image"),
)

ATTACKS: tuple[Attack, ...] = make_attacks("vhdx", _ROWS)
