"""Images in containers that name other files, lie about their size or never end.

qcow2: QEMU's docs/interop/qcow2.txt. VMDK: VMware's "Virtual Disk Format 5.0". VHD and VHDX:
Microsoft's specifications of both.
"""

import struct
import tempfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from hostile.attack import MIB, SECTOR, Attack, Make, write, write_at
from snf_ganeti import process

_CLUSTER = 1 << 16
_NONE = {"img_properties": '{"EXCLUDE_ALL_TASKS": "yes"}'}


def make_qcow2(
    *,
    version: int = 3,
    backing: bytes = b"",
    cluster_bits: int = 16,
    size: int = 4 * MIB,
    encryption: int = 0,
    l1_size: int = 1,
    l1_at: int = 3 * _CLUSTER,
    refcounts_at: int = _CLUSTER,
    refcount_clusters: int = 1,
    snapshots: int = 0,
    incompatible: int = 0,
    header_length: int = 104,
    extensions: bytes = b"",
    backing_length: int | None = None,
    refcount_order: int = 4,
) -> bytes:
    """A header and what lies behind it in the first cluster."""
    end = 104 + len(extensions) + 8
    return (
        struct.pack(
            ">4sIQIIQIIQQIIQQQQII",
            *(b"QFI\xfb", version),
            end if backing or backing_length else 0,
            len(backing) if backing_length is None else backing_length,
            *(cluster_bits, size, encryption, l1_size, l1_at),
            *(refcounts_at, refcount_clusters, snapshots, 0),
            *(incompatible, 0, 0, refcount_order, header_length),
        )
        + extensions
        + bytes(8)
        + backing
    )


def make_extension(kind: int, data: bytes, length: int | None = None) -> bytes:
    return struct.pack(">II", kind, len(data) if length is None else length) + data


def _qcow2(head: bytes, more: Mapping[int, bytes] | None = None) -> Make:
    """A file with a header, a refcount table and block, and an L1 table that is empty."""
    tables = {
        _CLUSTER: struct.pack(">Q", 2 * _CLUSTER),
        2 * _CLUSTER: struct.pack(">H", 1) * 4,
    }
    return write_at({0: head, **tables, **(more or {})}, 4 * _CLUSTER)


def copied_by_qemu(kind: str, *options: str, content: bytes = b"") -> Make:
    """What qemu-img makes of 4 MiB that begin so; a sound container."""

    def make(path: Path) -> None:
        with tempfile.NamedTemporaryFile() as raw:
            raw.write(content)
            raw.truncate(4 * MIB)
            argv = ["qemu-img", "convert", "-q", "-f", "raw", "-O", kind]
            process.run([*argv, *(f"-o{option}" for option in options), raw.name, str(path)])

    return make


def _patched(make: Make, patches: Mapping[int, bytes], cut: int = 0) -> Make:
    """The same with these bytes overwritten; a negative offset counts from the end."""

    def patch(path: Path) -> None:
        make(path)
        data = bytearray(path.read_bytes())
        for at, piece in patches.items():
            at = at if at >= 0 else len(data) + at
            data[at : at + len(piece)] = piece
        path.write_bytes(data[: len(data) - cut] if cut else data)

    return patch


def _make_loop_of_tables() -> Make:
    """The L1 entry leads to the header, whose bytes then are L2 entries."""
    return _qcow2(make_qcow2(), {3 * _CLUSTER: struct.pack(">Q", 1 << 63)})


def _make_compressed(path: Path) -> None:
    """16384 clusters that all are the same compressed one, of zeros: 1 GiB in 1 MiB.

    An L2 entry of a compressed cluster has bit 62, its offset, and its sectors less one.
    """
    packer = zlib.compressobj(9, zlib.DEFLATED, -12)
    cluster = packer.compress(b"\xa5" * _CLUSTER) + packer.flush()
    at = 4 * _CLUSTER
    entry = struct.pack(">Q", 1 << 62 | at)
    tables = 2
    l2 = {(5 + index) * _CLUSTER: entry * (_CLUSTER // 8) for index in range(tables)}
    l1 = b"".join(struct.pack(">Q", 1 << 63 | (5 + index) * _CLUSTER) for index in range(tables))
    head = make_qcow2(size=tables * (_CLUSTER // 8) * _CLUSTER, l1_size=tables)
    _qcow2(head, {3 * _CLUSTER: l1, at: cluster, **l2})(path)


_Row = tuple[str, str, Make, str]

_QCOW2: Sequence[_Row] = (
    (
        "backing",
        "a file of the node as its backing file",
        _qcow2(make_qcow2(backing=b"/etc/shadow")),
        "backing file",
    ),
    (
        "backing-json",
        "a backing file as QEMU's JSON, with a driver of its own",
        _qcow2(make_qcow2(backing=b'json:{"driver":"raw","file":{"filename":"/etc/shadow"}}')),
        "backing file",
    ),
    (
        "backing-nbd",
        "a server on the node's network as its backing file",
        _qcow2(make_qcow2(backing=b"nbd://127.0.0.1:1")),
        "backing file",
    ),
    (
        "backing-fd",
        "a descriptor of the converter as its backing file",
        _qcow2(make_qcow2(backing=b"/dev/fd/0")),
        "backing file",
    ),
    (
        "backing-self",
        "itself as its backing file",
        _qcow2(make_qcow2(backing=b"qcow2-backing-self.img")),
        "backing file",
    ),
    (
        "backing-length",
        "a backing file's name of 2 GiB",
        _qcow2(make_qcow2(backing_length=2**31)),
        "backing file|name",
    ),
    (
        "data-file",
        "its data in a file of the node",
        _qcow2(
            make_qcow2(
                incompatible=4, extensions=make_extension(0x44415441, b"/etc/shadow\0\0\0\0\0")
            )
        ),
        "another file",
    ),
    (
        "data-file-unnamed",
        "its data in a file without a name",
        _qcow2(make_qcow2(incompatible=4)),
        "another file",
    ),
    ("encrypted", "encrypted with AES", _qcow2(make_qcow2(encryption=1)), "encrypt"),
    ("luks", "encrypted with LUKS", _qcow2(make_qcow2(encryption=2)), "encrypt"),
    ("version-1", "version 1", _qcow2(make_qcow2(version=1)), "version"),
    ("version-99", "a version that is not there yet", _qcow2(make_qcow2(version=99)), "version"),
    ("cluster-0", "clusters of a byte", _qcow2(make_qcow2(cluster_bits=0)), "luster"),
    ("cluster-63", "clusters of 2^63 bytes", _qcow2(make_qcow2(cluster_bits=63)), "luster"),
    ("size-2-63", "a size of 2^63", _qcow2(make_qcow2(size=2**63)), "size|disk|large"),
    ("size-all-ones", "a size of 2^64 - 1", _qcow2(make_qcow2(size=2**64 - 1)), "size|disk|large"),
    (
        "size-10-tib",
        "a size of 10 TiB",
        _qcow2(make_qcow2(size=10 << 40, l1_size=20480)),
        "disk of",
    ),
    ("size-odd", "a size that is no whole sector", _qcow2(make_qcow2(size=4 * MIB + 1)), ""),
    ("l1-huge", "an L1 table of 32 GiB", _qcow2(make_qcow2(l1_size=2**32 - 1)), "."),
    ("l1-beyond", "an L1 table behind the file's end", _qcow2(make_qcow2(l1_at=1 << 62)), "."),
    ("l1-header", "an L1 table in the header", _qcow2(make_qcow2(l1_at=0)), "."),
    ("l2-header", "an L2 table that is the header", _make_loop_of_tables(), "."),
    (
        "refcount-huge",
        "a refcount table of 256 TiB",
        _qcow2(make_qcow2(refcount_clusters=2**32 - 1)),
        ".",
    ),
    ("refcount-order", "refcounts of 2^255 bits", _qcow2(make_qcow2(refcount_order=255)), "."),
    ("snapshots", "four thousand million snapshots", _qcow2(make_qcow2(snapshots=2**32 - 1)), "."),
    (
        "header-length",
        "a header of 4 GiB",
        _qcow2(make_qcow2(header_length=2**32 - 8)),
        "damaged qcow2 image",
    ),
    (
        "unknown-bits",
        "features that nobody knows",
        _qcow2(make_qcow2(incompatible=1 << 63)),
        "feature",
    ),
    ("corrupt-bit", "marked as corrupt", _qcow2(make_qcow2(incompatible=2)), "."),
    (
        "extension-huge",
        "a header extension of 4 GiB",
        _qcow2(make_qcow2(extensions=make_extension(0x12345678, b"", 2**32 - 1))),
        ".",
    ),
    (
        "extension-format",
        "a backing format without a backing file",
        _qcow2(make_qcow2(extensions=make_extension(0xE2792ACA, b"raw\0\0\0\0\0", 3))),
        "",
    ),
    ("bomb", "a GiB of compressed clusters that are one", _make_compressed, "disk of"),
    ("cut", "it ends in its header", write(make_qcow2()[:50]), "."),
    ("cut-tables", "it ends before its tables", write(make_qcow2()), "."),
    ("empty", "a file of no bytes", write(b""), "no qcow2 image|empty"),
    ("raw", "a raw image called qcow2", write_at({510: b"\x55\xaa"}, MIB), "not|no qcow2"),
)


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
) -> bytes:
    """A sparse extent's header with its descriptor behind it. capacity, grain: sectors."""
    header = struct.pack(
        "<4sIIQQQQIQQQB4sH",
        *(b"KDMV", version, flags, capacity, grain, 1, 20, per_table),
        *(21, tables_at, 128, 0, b"\n \r\n", compression),
    )
    return header.ljust(SECTOR, b"\0") + descriptor.ljust(20 * SECTOR, b"\0")


_SPARSE = make_descriptor("monolithicSparse")
_VMDK: Sequence[_Row] = (
    (
        "flat",
        "a descriptor whose extent is a file of the node",
        write(make_descriptor("monolithicFlat", 'RW 8 FLAT "/etc/shadow" 0')),
        "extent|descriptor",
    ),
    (
        "flat-dots",
        "an extent up and out",
        write(make_descriptor("monolithicFlat", 'RW 8 FLAT "../../../etc/shadow" 0')),
        "extent|descriptor",
    ),
    (
        "device",
        "an extent that is a device of the node",
        write(make_descriptor("fullDevice", 'RW 8 FLAT "/dev/sda" 0')),
        "extent|descriptor",
    ),
    (
        "split",
        "extents in files beside it",
        write(
            make_descriptor("twoGbMaxExtentSparse", 'RW 8 SPARSE "a.vmdk"', 'RW 8 SPARSE "b.vmdk"')
        ),
        "extent|descriptor",
    ),
    (
        "crowd",
        "10000 extents",
        write(make_descriptor("twoGbMaxExtentFlat", *['RW 1 FLAT "/etc/shadow" 0'] * 10000)),
        "extent|descriptor",
    ),
    (
        "embedded-flat",
        "a sparse extent whose descriptor names a file of the node",
        write_at(
            {0: make_vmdk(make_descriptor("monolithicFlat", 'RW 8 FLAT "/etc/shadow" 0'))}, MIB
        ),
        "extent",
    ),
    (
        "parent",
        "a file of the node as its parent",
        write_at({0: make_vmdk(make_descriptor("monolithicSparse", parent="/etc/shadow"))}, MIB),
        "parent|backing",
    ),
    (
        "capacity",
        "a capacity of 2^63 sectors",
        write_at({0: make_vmdk(_SPARSE, capacity=2**63)}, MIB),
        ".",
    ),
    ("grain-0", "grains of no sectors", write_at({0: make_vmdk(_SPARSE, grain=0)}, MIB), "."),
    (
        "grain-huge",
        "grains of 2^62 sectors",
        write_at({0: make_vmdk(_SPARSE, grain=2**62)}, MIB),
        ".",
    ),
    (
        "tables",
        "grain tables of 2^32 entries",
        write_at({0: make_vmdk(_SPARSE, per_table=2**32 - 1)}, MIB),
        ".",
    ),
    (
        "tables-beyond",
        "grain tables behind the file's end",
        write_at({0: make_vmdk(_SPARSE, tables_at=2**54)}, MIB),
        ".",
    ),
    (
        "version",
        "a version that is not there yet",
        write_at({0: make_vmdk(_SPARSE, version=99)}, MIB),
        ".",
    ),
    ("cut", "it ends in its header", write(make_vmdk(_SPARSE)[:60]), "."),
    (
        "stream-cut",
        "a stream of compressed grains that ends early",
        _patched(copied_by_qemu("vmdk", "subformat=streamOptimized"), {}, cut=1024),
        ".",
    ),
    ("raw", "a raw image called vmdk", write_at({510: b"\x55\xaa"}, MIB), "."),
)
_VHD = copied_by_qemu("vpc", "subformat=dynamic")
_VHDS: Sequence[_Row] = (
    ("checksum", "a footer of another checksum", _patched(_VHD, {64: b"\xff\xff\xff\xff"}), "."),
    (
        "parent",
        "a differencing disk",
        _patched(_VHD, {60: b"\0\0\0\x04", -452: b"\0\0\0\x04"}),
        ".",
    ),
    (
        "size",
        "a size of 2^63",
        _patched(_VHD, {48: b"\x7f" + b"\xff" * 7, -464: b"\x7f" + b"\xff" * 7}),
        ".",
    ),
    ("blocks", "2^32 blocks", _patched(_VHD, {512 + 28: b"\xff" * 4}), "."),
    ("block-size", "blocks of no bytes", _patched(_VHD, {512 + 32: bytes(4)}), "."),
    (
        "table-beyond",
        "its table behind the file's end",
        _patched(_VHD, {512 + 16: b"\x7f" + b"\xff" * 7}),
        ".",
    ),
    ("raw", "a raw image called vhd", write_at({510: b"\x55\xaa"}, MIB), "."),
)
_VHDX = copied_by_qemu("vhdx")
_VHDXS: Sequence[_Row] = (
    ("signature", "nothing but a signature", write_at({0: b"vhdxfile"}, MIB), "."),
    (
        "headers",
        "both headers damaged",
        _patched(_VHDX, {64 << 10: b"xxxx", 128 << 10: b"xxxx"}),
        ".",
    ),
    (
        "regions",
        "four thousand million regions",
        _patched(_VHDX, {(192 << 10) + 8: b"\xff" * 4, (256 << 10) + 8: b"\xff" * 4}),
        ".",
    ),
    ("cut", "it ends before its regions", _patched(_VHDX, {}, cut=7 * MIB), "."),
    ("raw", "a raw image called vhdx", write_at({510: b"\x55\xaa"}, MIB), "."),
)


def _make_attacks(kind: str, rows: Sequence[_Row]) -> tuple[Attack, ...]:
    return tuple(
        Attack(
            f"{kind}-{name}",
            what,
            make,
            reason,
            format=kind,
            untouched=bool(reason),
            helper=False,
            parameters=_NONE,
        )
        for name, what, make, reason in rows
    )


ATTACKS = (
    *_make_attacks("qcow2", _QCOW2),
    *_make_attacks("vmdk", _VMDK),
    *_make_attacks("vhd", _VHDS),
    *_make_attacks("vhdx", _VHDXS),
)
