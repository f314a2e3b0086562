"""Partition tables that overlap, loop, lie about their size or are something else.

MBR: an entry is status, CHS, type, CHS, first sector, sectors; extended partitions are a chain
of such tables (EBR). GPT: the UEFI specification, 5.3.
"""

import struct
import uuid
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from hostile.attack import MIB, SECTOR, Attack, Make, write, write_at

_SIZE = 4 * MIB
_SECTORS = _SIZE // SECTOR
_LINUX, _EXTENDED, _PROTECTIVE = 0x83, 0x05, 0xEE
_NO_ROOT = "MountImage: no root file system found"
_NO_TABLE = "FixPartitionTable: disk 0 has no partition table"
_REFUSED = r"FixPartitionTable: the kernel refuses partitions \[1"
_UNRESIZED = "FixPartitionTable: sfdisk failed "
_CHANGED = "FixPartitionTable: .* does not hold what was written"
_HOLLOW = "FixPartitionTable: .* holds nothing but an empty extended partition"

Entry = tuple[int, int, int]
"""Type, first sector, sectors."""
_Row = tuple[str, str, Make, str]
"""Name, what, image, pattern of the reason."""


def make_mbr(*entries: Entry, signature: bytes = b"\x55\xaa") -> bytes:
    """A sector that holds up to four entries: an MBR or an EBR."""
    table = b"".join(struct.pack("<B3xB3xII", 0, kind, at, size) for kind, at, size in entries)
    return bytes(446) + table.ljust(64, b"\0") + signature


def _mbr(*entries: Entry) -> Make:
    return write_at({0: make_mbr(*entries)}, _SIZE)


def _chain(outer: Entry, ebrs: Mapping[int, bytes], size: int = _SIZE) -> Make:
    """An extended partition and the EBRs in it, by their sectors."""
    tables = {sector * SECTOR: ebr for sector, ebr in ebrs.items()}
    return write_at({0: make_mbr(outer), **tables}, size)


def _make_chain(count: int) -> dict[int, bytes]:
    """EBRs that each hold a partition of one sector and lead to the next, from sector 64."""
    return {
        64 + 2 * index: make_mbr((_LINUX, 1, 1), (_EXTENDED, 2 * (index + 1), 2))
        for index in range(count)
    }


@dataclass(frozen=True)
class Gpt:
    """A GPT as its header tells it, true or not; checksums fit unless they are given.

    partitions: first sector and last. entry: what an entry holds beside them.
    """

    partitions: Sequence[tuple[int, int]] = ((2048, 4095),)
    count: int = 128
    entry_size: int = 128
    entries_at: int = 2
    usable: tuple[int, int] = (34, _SECTORS - 34)
    own_sector: int = 1
    checksum: int | None = None
    signature: bytes = b"EFI PART"
    header_size: int = 92
    name: bytes = b""
    alike: bool = False


def make_entries(gpt: Gpt) -> bytes:
    entries = b""
    for index, (first, last) in enumerate(gpt.partitions):
        ids = uuid.UUID(int=1 if gpt.alike else index + 1).bytes_le
        kind = uuid.UUID("0FC63DAF-8483-4772-8E79-3D69D8477DE4").bytes_le
        name = gpt.name.ljust(72, b"\0")
        entries += kind + ids + struct.pack("<QQQ", first & (2**64 - 1), last & (2**64 - 1), 0)
        entries += name
    return entries.ljust(128 * 128, b"\0")


def make_header(gpt: Gpt, *, backup: bool = False) -> bytes:
    own, other = (_SECTORS - 1, 1) if backup else (gpt.own_sector, _SECTORS - 1)
    entries_at = _SECTORS - 33 if backup else gpt.entries_at
    body = struct.pack(
        "<QQQQ16sQIII",
        *(own, other, *gpt.usable),
        uuid.UUID(int=7).bytes_le,
        *(entries_at, gpt.count, gpt.entry_size, zlib.crc32(make_entries(gpt))),
    )
    head = gpt.signature + struct.pack("<II", 0x10000, gpt.header_size)
    checksum = zlib.crc32(head + bytes(8) + body) if gpt.checksum is None else gpt.checksum
    return head + struct.pack("<II", checksum, 0) + body


def _gpt(gpt: Gpt, *, primary: bool = True, backup: bool = True, mbr: bytes = b"") -> Make:
    pieces = {0: mbr or make_mbr((_PROTECTIVE, 1, _SECTORS - 1))}
    if primary:
        pieces |= {SECTOR: make_header(gpt), 2 * SECTOR: make_entries(gpt)}
    if backup:
        end = _SIZE - SECTOR
        pieces |= {end - 32 * SECTOR: make_entries(gpt), end: make_header(gpt, backup=True)}
    return write_at(pieces, _SIZE)


_PLAIN = Gpt()
_HUGE = 2**64 - 1


def _make_attacks(prefix: str, rows: Sequence[_Row]) -> tuple[Attack, ...]:
    return tuple(
        Attack(f"{prefix}-{name}", what, make, reason) for name, what, make, reason in rows
    )


_MBRS: Sequence[_Row] = (
    ("empty", "a table without entries", _mbr(), "the partition table of disk 0 is empty"),
    (
        "garbage",
        "every byte of the first sector is 0xff",
        write_at({0: b"\xff" * 510 + b"\x55\xaa"}, _SIZE),
        _REFUSED,
    ),
    ("at-0", "a partition that holds its own table", _mbr((_LINUX, 0, _SECTORS)), _NO_ROOT),
    ("beyond", "a partition behind the disk's end", _mbr((_LINUX, 2**31, 2048)), _REFUSED),
    ("huge", "a partition of 2 TiB on a small disk", _mbr((_LINUX, 2048, 2**32 - 1)), _NO_ROOT),
    (
        "overlap",
        "two partitions that share sectors",
        _mbr((_LINUX, 2048, 4096), (_LINUX, 3000, 4096)),
        _UNRESIZED,
    ),
    ("same", "one partition four times", _mbr(*[(_LINUX, 2048, 2048)] * 4), _UNRESIZED),
    ("zero-size", "a partition without sectors", _mbr((_LINUX, 2048, 0)), _UNRESIZED),
    ("wraps", "a partition whose end wraps to 0", _mbr((_LINUX, 2**32 - 8, 16)), _REFUSED),
    (
        "protective",
        "a protective MBR that protects nothing",
        _mbr((_PROTECTIVE, 1, 8191)),
        _REFUSED,
    ),
    (
        "last-first",
        "the partition that ends last stands first",
        _mbr((_LINUX, 6144, 1024), (_LINUX, 2048, 1024)),
        _NO_ROOT,
    ),
    ("unsigned", "a table without its signature", write_at({0: bytes(512)}, _SIZE), _NO_TABLE),
)
_EBRS: Sequence[_Row] = (
    (
        "self",
        "an EBR that leads to itself",
        _chain((_EXTENDED, 64, 4096), {64: make_mbr((_LINUX, 1, 8), (_EXTENDED, 0, 64))}),
        _CHANGED,
    ),
    (
        "circle",
        "two EBRs that lead to each other",
        _chain(
            (_EXTENDED, 64, 4096),
            {
                64: make_mbr((_LINUX, 1, 8), (_EXTENDED, 128, 64)),
                192: make_mbr((_LINUX, 1, 8), (_EXTENDED, 0, 64)),
            },
        ),
        _CHANGED,
    ),
    (
        "300",
        "a chain of 300 logical partitions",
        _chain((_EXTENDED, 64, 4096), _make_chain(300)),
        _NO_ROOT,
    ),
    (
        "beyond",
        "a chain that goes on behind the disk's end",
        _chain((_EXTENDED, 64, 4096), {64: make_mbr((_LINUX, 1, 8), (_EXTENDED, 2**31, 64))}),
        _NO_ROOT,
    ),
    (
        "outside",
        "a logical partition that leaves its container",
        _chain((_EXTENDED, 64, 128), {64: make_mbr((_LINUX, 1, 7000))}),
        _NO_ROOT,
    ),
    (
        "unsigned",
        "a chain whose first link is blank",
        _chain((_EXTENDED, 64, 4096), {64: bytes(512)}),
        _HOLLOW,
    ),
    (
        "nested",
        "an extended partition as the first entry of an EBR",
        _chain((_EXTENDED, 64, 4096), {64: make_mbr((_EXTENDED, 1, 64), (_EXTENDED, 1, 64))}),
        _HOLLOW,
    ),
    (
        "twice",
        "two extended partitions, one in the other",
        _mbr((_EXTENDED, 64, 4096), (_EXTENDED, 128, 1024)),
        _HOLLOW,
    ),
    ("hollow", "an extended partition and nothing else", _mbr((_EXTENDED, 64, 4096)), _HOLLOW),
)
_GPTS: Sequence[_Row] = (
    ("checksum", "headers whose checksums are wrong", _gpt(replace(_PLAIN, checksum=1)), _REFUSED),
    (
        "backup-only",
        "no first header, a sound second one",
        _gpt(_PLAIN, primary=False),
        "the kernel refuses",
    ),
    ("no-backup", "no second header", _gpt(_PLAIN, backup=False), _NO_ROOT),
    ("count", "four thousand million entries", _gpt(replace(_PLAIN, count=2**32 - 1)), _REFUSED),
    ("entry-0", "entries of no bytes", _gpt(replace(_PLAIN, entry_size=0)), _REFUSED),
    ("entry-huge", "entries of 2 GiB", _gpt(replace(_PLAIN, entry_size=2**31)), _REFUSED),
    (
        "entries-beyond",
        "entries behind the disk's end",
        _gpt(replace(_PLAIN, entries_at=2**60)),
        _REFUSED,
    ),
    ("header-huge", "a header of 2 GiB", _gpt(replace(_PLAIN, header_size=2**31)), _REFUSED),
    (
        "own-sector",
        "a header that says it is elsewhere",
        _gpt(replace(_PLAIN, own_sector=9)),
        _REFUSED,
    ),
    (
        "usable",
        "usable sectors that end before they begin",
        _gpt(replace(_PLAIN, usable=(99, 9))),
        _REFUSED,
    ),
    (
        "overlap",
        "partitions that share sectors",
        _gpt(replace(_PLAIN, partitions=((2048, 4095), (3000, 5000)))),
        _UNRESIZED,
    ),
    (
        "backwards",
        "a partition that ends before it begins",
        _gpt(replace(_PLAIN, partitions=((4096, 2048),))),
        _UNRESIZED,
    ),
    (
        "wraps",
        "a partition of all 64-bit sectors",
        _gpt(replace(_PLAIN, partitions=((0, _HUGE),))),
        _UNRESIZED,
    ),
    (
        "128",
        "128 partitions of one sector",
        _gpt(replace(_PLAIN, partitions=[(2048 + index,) * 2 for index in range(128)])),
        _NO_ROOT,
    ),
    (
        "alike",
        "partitions that all have the same id",
        _gpt(replace(_PLAIN, partitions=((2048, 3000), (3072, 4000)), alike=True)),
        _NO_ROOT,
    ),
    (
        "name",
        "a partition's name in half a surrogate pair and a line end",
        _gpt(replace(_PLAIN, name="\n\ud800\u202e\x1b[2J".encode("utf-16-le", "surrogatepass"))),
        _NO_ROOT,
    ),
    (
        "hybrid",
        "an MBR that contradicts the GPT",
        _gpt(_PLAIN, mbr=make_mbr((_PROTECTIVE, 1, 33), (_LINUX, 4096, 512))),
        _NO_ROOT,
    ),
)
_FOREIGN: Sequence[_Row] = (
    ("zeros", "nothing at all", write_at({}, _SIZE), _NO_TABLE),
    ("sector", "an image of one sector", write(make_mbr((_LINUX, 1, 64))), _NO_ROOT),
    (
        "odd-size",
        "an image of a sector and a byte",
        write(make_mbr((_LINUX, 1, 64)) + b"x"),
        _NO_ROOT,
    ),
    ("text", "a shell script", write(b"#!/bin/sh\nreboot\n"), _NO_TABLE),
    (
        "bsd",
        "a BSD disk label",
        write_at({512: struct.pack("<I", 0x82564557) * 64}, _SIZE),
        "of type bsd",
    ),
    ("sun", "a Sun disk label", write_at({508: b"\xda\xbe\xda\xbe"}, _SIZE), "of type sun"),
    (
        "sgi",
        "an SGI disk label",
        write_at({0: b"\x0b\xe5\xa9\x41" + bytes(508)}, _SIZE),
        "of type sgi",
    ),
    (
        "mac",
        "an Apple partition map of 65535 entries",
        write_at({0: b"ER\x02\x00", 512: b"PM\0\0" + struct.pack(">III", 65535, 1, 9)}, _SIZE),
        _NO_TABLE,
    ),
    (
        "lvm",
        "an LVM volume",
        write_at({512: b"LABELONE" + bytes(16) + b"LVM2 001"}, _SIZE),
        _NO_TABLE,
    ),
    ("luks", "a LUKS container", write_at({0: b"LUKS\xba\xbe\x00\x01"}, _SIZE), _NO_TABLE),
    ("iso", "an ISO 9660 file system", write_at({32768: b"\x01CD001\x01"}, _SIZE), _NO_TABLE),
)

ATTACKS = (
    *_make_attacks("mbr", _MBRS),
    *_make_attacks("ebr", _EBRS),
    *_make_attacks("gpt", _GPTS),
    *_make_attacks("table", _FOREIGN),
)
