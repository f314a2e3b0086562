"""VMDKs that name other files, lie about their size or end too soon.

By VMware's "Virtual Disk Format 5.0".
"""

import struct
from collections.abc import Sequence
from pathlib import Path

from hostile.attack import MIB, SECTOR, Attack, Make, write, write_at
from hostile.containers import Row, copied_by_qemu, make_attacks, patched


def make_descriptor(kind: str, *extents: str, parent: str = "", size: int = 8192) -> bytes:
    hint = f'parentFileNameHint="{parent}"\n' if parent else ""
    cid = "00000001" if parent else "ffffffff"
    lines = "\n".join(extents) or f'RW {size} SPARSE "disk.vmdk"'
    return (
        "# Disk DescriptorFile\nversion=1\nCID=fffffffe\n"
        f'parentCID={cid}\n{hint}createType="{kind}"\n\n# Extent description\n{lines}\n\n'
        'ddb.adapterType = "lsilogic"\n'
    ).encode()


def make_vmdk(
    descriptor: bytes,
    *,
    version: int = 1,
    flags: int = 3,
    capacity: int = 8192,
    grain: int = 128,
    per_table: int = 512,
    tables_at: int = 26,
    compression: int = 0,
    descriptor_at: int = 1,
    descriptor_size: int = 20,
) -> bytes:
    """A sparse extent's header with its descriptor behind it. Units are sectors."""
    header = struct.pack(
        "<4sIIQQQQIQQQB4sH",
        *(b"KDMV", version, flags, capacity, grain, descriptor_at, descriptor_size, per_table),
        *(21, tables_at, 128, 0, b"\n \r\n", compression),
    )
    return header.ljust(SECTOR, b"\0") + descriptor.ljust(20 * SECTOR, b"\0")


_SPARSE = make_descriptor("monolithicSparse")
_STREAM = copied_by_qemu("vmdk", "subformat=streamOptimized", content=b"x" * MIB)
_DIRECTORY = 56
"""Offset of the field that tells where the grain directory is."""


def make_stream(path: Path) -> None:
    """A stream as VMware writes it."""
    _STREAM(path)
    add_footer(path)


def add_footer(path: Path) -> None:
    """Have only a footer tell where a stream's tables are: it is written in one go."""
    data = bytearray(path.read_bytes())
    data += bytes(-len(data) % SECTOR)
    footer = struct.pack("<QII", 0, 0, 3).ljust(SECTOR, b"\0") + data[:SECTOR] + bytes(SECTOR)
    data[_DIRECTORY : _DIRECTORY + 8] = b"\xff" * 8
    path.write_bytes(data + footer)


_LONE = "the descriptor of a VMDK whose extents are other files"
_OTHERS = "has extents in other files"
_TIB = 10 << 40


def _sparse(descriptor: bytes = _SPARSE, size: int = MIB, **fields: int) -> Make:
    return write_at({0: make_vmdk(descriptor, **fields)}, size)


_ROWS: Sequence[Row] = (
    (
        "flat",
        "a descriptor whose extent is a file of the node",
        write(make_descriptor("monolithicFlat", 'RW 8 FLAT "/etc/shadow" 0')),
        _LONE,
    ),
    (
        "flat-dots",
        "an extent up and out",
        write(make_descriptor("monolithicFlat", 'RW 8 FLAT "../../../etc/shadow" 0')),
        _LONE,
    ),
    (
        "flat-json",
        "an extent in QEMU's words, with a driver of its own",
        write(make_descriptor("monolithicFlat", 'RW 8 FLAT "json:{\\"driver\\":\\"nbd\\"}" 0')),
        _LONE,
    ),
    (
        "device",
        "an extent that is a device of the node",
        write(make_descriptor("fullDevice", 'RW 8 FLAT "/dev/sda" 0')),
        _LONE,
    ),
    (
        "self",
        "an extent that is the descriptor itself",
        write(make_descriptor("monolithicFlat", 'RW 8 FLAT "vmdk-self.img" 0')),
        _LONE,
    ),
    (
        "split",
        "extents in files beside it",
        write(
            make_descriptor("twoGbMaxExtentSparse", 'RW 8 SPARSE "a.vmdk"', 'RW 8 SPARSE "b.vmdk"')
        ),
        _LONE,
    ),
    (
        "crowd",
        "10000 extents",
        write(make_descriptor("twoGbMaxExtentFlat", *['RW 1 FLAT "/etc/shadow" 0'] * 10000)),
        _LONE,
    ),
    (
        "embedded-flat",
        "a sparse extent whose descriptor names a file of the node",
        _sparse(make_descriptor("monolithicFlat", 'RW 8 FLAT "/etc/shadow" 0')),
        _OTHERS,
    ),
    (
        "embedded-beside",
        "one sparse extent of its own, and one that is a file of the node",
        _sparse(
            make_descriptor(
                "monolithicSparse", 'RW 8192 SPARSE "disk.vmdk"', 'RW 8 FLAT "/etc/shadow" 0'
            )
        ),
        _OTHERS,
    ),
    (
        "embedded-two-types",
        "sparse at first, and of another type a line later",
        _sparse(_SPARSE + b'createType="monolithicFlat"\n'),
        _OTHERS,
    ),
    (
        "capacity-0",
        "no capacity, which has QEMU follow the descriptor",
        _sparse(make_descriptor("monolithicFlat", 'RW 8 FLAT "/etc/shadow" 0'), capacity=0),
        "disk has 0 bytes",
    ),
    ("descriptor-none", "an extent of several, without a descriptor", _sparse(b""), "descriptor"),
    (
        "descriptor-far",
        "a descriptor that is not where QEMU looks",
        _sparse(descriptor_at=40),
        "a descriptor of 20 sectors at sector 40",
    ),
    (
        "descriptor-huge",
        "a descriptor of 2^63 sectors",
        _sparse(descriptor_size=2**63),
        "a descriptor of 9223372036854775808 sectors",
    ),
    (
        "parent",
        "a file of the node as its parent",
        _sparse(make_descriptor("monolithicSparse", parent="/etc/shadow")),
        "has a parent",
    ),
    (
        "parent-self",
        "itself as its parent",
        _sparse(make_descriptor("monolithicSparse", parent="vmdk-parent-self.img")),
        "has a parent",
    ),
    (
        "parent-id",
        "a parent that has a number and no name",
        _sparse(_SPARSE.replace(b"parentCID=ffffffff", b"parentCID = 00000001")),
        "has a parent",
    ),
    (
        "parent-late",
        "a parent's name at the descriptor's end",
        _sparse(_SPARSE.ljust(19 * SECTOR, b"\n") + b'ParentFileNameHint="/etc/shadow"\n'),
        "has a parent",
    ),
    ("old", "the format of VMware's servers", write_at({0: b"COWD"}, MIB), "only VMware's own"),
    (
        "capacity",
        "a capacity of 2^63 sectors",
        _sparse(capacity=2**63),
        "disk has 4722366482869645213696 bytes",
    ),
    (
        "size-10-tib",
        "a capacity of 10 TiB",
        _sparse(size=2 * MIB, capacity=_TIB // SECTOR),
        "needs a disk of",
    ),
    ("grain-0", "grains of no sectors", _sparse(grain=0), "grains of 0 sectors"),
    ("grain-odd", "grains of 100 sectors", _sparse(grain=100), "grains of 100 sectors"),
    ("grain-huge", "grains of 2^62 sectors", _sparse(grain=2**62), "grains of 46116860"),
    ("tables", "tables of 2^32 grains", _sparse(per_table=2**32 - 1), "tables of 4294967295"),
    ("tables-none", "tables of no grain", _sparse(per_table=0), "grain tables of 0"),
    ("tables-beyond", "tables behind the file's end", _sparse(tables_at=2**54), "ends after"),
    (
        "tables-loop",
        "a grain table that is the directory, whose entries then are grains",
        write_at({0: make_vmdk(_SPARSE), 26 * SECTOR: struct.pack("<I", 26) * 4}, MIB),
        "",
    ),
    (
        "grain-beyond",
        "a grain behind the file's end",
        write_at(
            {
                0: make_vmdk(_SPARSE),
                26 * SECTOR: struct.pack("<I", 30),
                30 * SECTOR: struct.pack("<I", 2**31),
            },
            MIB,
        ),
        "is a damaged vmdk image: part of its data is missing",
    ),
    ("version", "a version that is not there yet", _sparse(version=99), "unknown version 99"),
    ("method", "an unknown compression", _sparse(compression=7), "unknown method 7"),
    (
        "text",
        "its line ends changed on the way",
        patched(_sparse(), {73: b"\n\n\r\n"}),
        "damaged by a transfer as text",
    ),
    ("cut", "it ends in its header", write(make_vmdk(_SPARSE)[:60]), "ends after 60 bytes"),
    (
        "stream-cut",
        "a stream that ends early",
        patched(make_stream, {}, cut=1024),
        "before its footer",
    ),
    (
        "stream-end",
        "a stream that ends within a sector",
        patched(make_stream, {}, cut=7),
        "within its last sector",
    ),
    (
        "stream-footer",
        "a stream whose footer has another size",
        patched(make_stream, {12 - 1024: struct.pack("<Q", 1 << 30)}),
        "one thing in its header and another in its footer",
    ),
    (
        "stream-footer-none",
        "a footer that says that a footer tells",
        patched(make_stream, {_DIRECTORY - 1024: b"\xff" * 8}),
        "ends after",
    ),
    (
        "stream-grain",
        "a compressed grain of 4 GiB",
        patched(make_stream, {128 * SECTOR + 8: b"\xff\xff\xff\xff"}),
        "can't be read as vmdk",
    ),
    ("empty", "a file of no bytes", write(b""), "no vmdk image"),
    ("raw", "a raw image called vmdk", write_at({510: b"\x55\xaa"}, MIB), "no vmdk image"),
)
_LATE = ("stream-grain",)

ATTACKS: tuple[Attack, ...] = make_attacks("vmdk", _ROWS, _LATE)
