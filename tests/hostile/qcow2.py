"""qcow2 images that name other files, lie about their size or never end.

By QEMU's docs/interop/qcow2.txt.
"""

import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from hostile.attack import MIB, Make, write, write_at
from hostile.containers import Row, make_attacks

_CLUSTER = 1 << 16


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


_UNSOUND = "is a damaged qcow2 image: part of its data is missing"

_ROWS: Sequence[Row] = (
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
        "backing file",
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
    ("encrypted", "encrypted with AES", _qcow2(make_qcow2(encryption=1)), "is encrypted"),
    ("luks", "encrypted with LUKS", _qcow2(make_qcow2(encryption=2)), "is encrypted"),
    ("version-1", "version 1", _qcow2(make_qcow2(version=1)), "unknown version"),
    (
        "version-99",
        "a version that is not there yet",
        _qcow2(make_qcow2(version=99)),
        "unknown version",
    ),
    ("cluster-0", "clusters of a byte", _qcow2(make_qcow2(cluster_bits=0)), "clusters of 2"),
    ("cluster-63", "clusters of 2^63 bytes", _qcow2(make_qcow2(cluster_bits=63)), "clusters of 2"),
    ("size-2-63", "a size of 2^63", _qcow2(make_qcow2(size=2**63)), "says that its disk has"),
    (
        "size-all-ones",
        "a size of 2^64 - 1",
        _qcow2(make_qcow2(size=2**64 - 1)),
        "says that its disk has",
    ),
    (
        "size-10-tib",
        "a size of 10 TiB",
        _qcow2(make_qcow2(size=10 << 40, l1_size=20480)),
        "needs a disk of",
    ),
    (
        "size-odd",
        "a size that is no whole sector",
        _qcow2(make_qcow2(size=4 * MIB + 1)),
        "4194305 bytes",
    ),
    ("l1-huge", "an L1 table of 32 GiB", _qcow2(make_qcow2(l1_size=2**32 - 1)), _UNSOUND),
    ("l1-beyond", "an L1 table behind the file's end", _qcow2(make_qcow2(l1_at=1 << 62)), _UNSOUND),
    ("l1-header", "an L1 table in the header", _qcow2(make_qcow2(l1_at=0)), _UNSOUND),
    ("l2-header", "an L2 table that is the header", _make_loop_of_tables(), _UNSOUND),
    (
        "refcount-huge",
        "a refcount table of 256 TiB",
        _qcow2(make_qcow2(refcount_clusters=2**32 - 1)),
        _UNSOUND,
    ),
    ("refcount-order", "refcounts of 2^255 bits", _qcow2(make_qcow2(refcount_order=255)), _UNSOUND),
    (
        "snapshots",
        "four thousand million snapshots",
        _qcow2(make_qcow2(snapshots=2**32 - 1)),
        _UNSOUND,
    ),
    (
        "header-length",
        "a header of 4 GiB",
        _qcow2(make_qcow2(header_length=2**32 - 8)),
        _UNSOUND,
    ),
    (
        "unknown-bits",
        "features that nobody knows",
        _qcow2(make_qcow2(incompatible=1 << 63)),
        "features that are not known",
    ),
    ("corrupt-bit", "marked as corrupt", _qcow2(make_qcow2(incompatible=2)), "marked as corrupt"),
    (
        "extension-huge",
        "a header extension of 4 GiB",
        _qcow2(make_qcow2(extensions=make_extension(0x12345678, b"", 2**32 - 1))),
        _UNSOUND,
    ),
    (
        "extension-format",
        "a backing format without a backing file",
        _qcow2(make_qcow2(extensions=make_extension(0xE2792ACA, b"raw\0\0\0\0\0", 3))),
        "",
    ),
    ("bomb", "a GiB of compressed clusters that are one", _make_compressed, "needs a disk of"),
    ("cut", "it ends in its header", write(make_qcow2()[:50]), "no qcow2 image"),
    ("cut-tables", "it ends before its tables", write(make_qcow2()), _UNSOUND),
    ("empty", "a file of no bytes", write(b""), "no qcow2 image"),
    ("raw", "a raw image called qcow2", write_at({510: b"\x55\xaa"}, MIB), "no qcow2 image"),
)


ATTACKS = make_attacks("qcow2", _ROWS)
