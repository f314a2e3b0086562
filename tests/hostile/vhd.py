"""VHDs that have a parent, lie about their size or end too soon.

By Microsoft's "Virtual Hard Disk Image Format Specification" 1.0.
"""

import struct
from collections.abc import Sequence

from hostile.attack import MIB, SECTOR, Attack, Make, write, write_at
from hostile.containers import Row, make_attacks

_FIXED, _DYNAMIC, _DIFFERENCING = 2, 3, 4
_BLOCK = 2 * MIB
_TABLE = 3 * SECTOR
_UNUSED = b"\xff" * 4


def make_footer(
    *,
    kind: int = _DYNAMIC,
    size: int = 4 * MIB,
    header: int = SECTOR,
    version: int = 1 << 16,
    creator: bytes = b"qem2",
    geometry: tuple[int, int, int] = (120, 4, 17),
    wrong: int = 0,
) -> bytes:
    """wrong: how far its checksum is off."""
    fields = (b"conectix", 2, version, header, 0, creator, 0x50003, b"Wi2k", size, size, *geometry)
    footer = struct.pack(">8sIIQI4sI4sQQHBBI", *fields, kind)
    checksum = (~sum(footer) + wrong) & 0xFFFFFFFF
    return (footer + struct.pack(">I", checksum)).ljust(SECTOR, b"\0")


def make_header(
    *, entries: int = 2, block: int = _BLOCK, table: int = _TABLE, parent: str = ""
) -> bytes:
    """What follows the first footer of a dynamic disk. block, table: bytes."""
    fields = (b"cxsparse", 2**64 - 1, table, 1 << 16, entries, block)
    name = parent.encode("utf-16-be")
    header = bytearray(struct.pack(">8sQQIII28x512s", *fields, name).ljust(2 * SECTOR, b"\0"))
    header[36:40] = struct.pack(">I", ~sum(header) & 0xFFFFFFFF)
    return bytes(header)


def _dynamic(
    footer: bytes, header: bytes, *entries: int, size: int = 0, end: bytes | None = None
) -> Make:
    table = struct.pack(f">{len(entries)}I", *entries).ljust(SECTOR, b"\xff")
    at = size or _TABLE + SECTOR
    last = footer if end is None else end
    return write_at({0: footer, SECTOR: header, _TABLE: table, at: last})


def _fixed(footer: bytes, size: int = 4 * MIB) -> Make:
    return write_at({0: b"x" * SECTOR, size: footer})


_FOOTER, _HEADER = make_footer(), make_header()
_LOST = "can't be read as vhd: block-vpc: .* points after the end of file"

_ROWS: Sequence[Row] = (
    (
        "parent",
        "a differencing disk whose parent is a file of the node",
        _dynamic(make_footer(kind=_DIFFERENCING), make_header(parent="/etc/shadow")),
        "differencing disk",
    ),
    (
        "parent-self",
        "a differencing disk whose parent is itself",
        _dynamic(make_footer(kind=_DIFFERENCING), make_header(parent="vhd-parent-self.img")),
        "differencing disk",
    ),
    (
        "parent-unsaid",
        "a parent in a disk that says it has none: nobody follows it",
        _dynamic(_FOOTER, make_header(parent="/etc/shadow")),
        "",
    ),
    (
        "fixed-parent",
        "a fixed disk that calls itself a differencing one",
        _fixed(make_footer(kind=_DIFFERENCING)),
        "lacks its beginning",
    ),
    (
        "checksum",
        "a footer of another checksum",
        _dynamic(make_footer(wrong=1), _HEADER),
        "another checksum",
    ),
    (
        "version",
        "a version that is not there yet",
        _dynamic(make_footer(version=9 << 16), _HEADER),
        "unknown version 9",
    ),
    (
        "type",
        "a type that is not there",
        _dynamic(make_footer(kind=77), _HEADER),
        "unknown type 77",
    ),
    (
        "type-front",
        "a fixed disk's footer at the front, where a guest's first sector is",
        _dynamic(make_footer(kind=_FIXED), _HEADER),
        "unknown type 2",
    ),
    (
        "size",
        "a size of 2^63 - 1",
        _dynamic(make_footer(size=2**63 - 1), _HEADER),
        "disk has 9223372036854775807 bytes",
    ),
    ("size-0", "a size of nothing", _dynamic(make_footer(size=0), _HEADER), "disk has 0 bytes"),
    (
        "size-tib",
        "a size of 1 TiB",
        _dynamic(make_footer(size=1 << 40), make_header(entries=1 << 19), size=4 * MIB),
        "needs a disk of",
    ),
    (
        "geometry-0",
        "a geometry of no cylinder, where it is the geometry that counts",
        _dynamic(make_footer(creator=b"vpc ", geometry=(0, 0, 0)), _HEADER),
        "disk has 0 bytes",
    ),
    (
        "blocks",
        "a table of 2^32 blocks",
        _dynamic(_FOOTER, make_header(entries=2**32 - 1)),
        "ends after",
    ),
    (
        "blocks-few",
        "a table of fewer blocks than the disk has",
        _dynamic(_FOOTER, make_header(entries=1)),
        "1 blocks only",
    ),
    (
        "block-0",
        "blocks of no bytes",
        _dynamic(_FOOTER, make_header(block=0)),
        "has blocks of 0 bytes",
    ),
    (
        "block-odd",
        "blocks of 1000000 bytes",
        _dynamic(_FOOTER, make_header(block=1000000)),
        "has blocks of 1000000 bytes",
    ),
    (
        "table-beyond",
        "its table behind the file's end",
        _dynamic(_FOOTER, make_header(table=2**63 - 1)),
        "ends after",
    ),
    (
        "header-beyond",
        "its second header behind the file's end",
        _dynamic(make_footer(header=2**63 - 1), _HEADER),
        "ends after",
    ),
    (
        "header-first",
        "a second header that is the footer",
        _dynamic(make_footer(header=0), _HEADER),
        "second header is missing",
    ),
    (
        "block-beyond",
        "a block behind the file's end",
        _dynamic(_FOOTER, _HEADER, 0x7FFFFFFF),
        _LOST,
    ),
    (
        "loop",
        "blocks that are the table, the header and each other: bytes like any",
        _dynamic(_FOOTER, _HEADER, 0, 0, size=4 * MIB),
        "",
    ),
    (
        "fixed-size",
        "a fixed disk larger than its file",
        _fixed(make_footer(kind=_FIXED), MIB),
        "ends after",
    ),
    ("cut", "it ends in its second header", write(_FOOTER + _HEADER[:100]), "ends after"),
    ("fixed-cut", "a fixed disk without its end", write_at({0: b"x"}, 4 * MIB), "no vhd image"),
    ("short", "shorter than a footer", write(_FOOTER[:100]), "no vhd image"),
    ("empty", "a file of no bytes", write(b""), "no vhd image"),
    ("raw", "a raw image called vhd", write_at({510: b"\x55\xaa"}, MIB), "no vhd image"),
)

ATTACKS: tuple[Attack, ...] = make_attacks("vhd", _ROWS)
