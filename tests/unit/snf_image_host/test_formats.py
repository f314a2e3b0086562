"""What formats make of an image's first bytes."""

import struct

import pytest

from snf_image_host.compression import find_compression
from snf_image_host.formats.partitioned import make_table
from snf_image_host.formats.qcow2 import make_node, parse_header


def make_qcow2(**changes: int) -> bytes:
    fields = {
        "version": 3,
        "backing": 0,
        "backing_size": 0,
        "cluster_bits": 16,
        "size": 1 << 30,
        "encryption": 0,
        "l1_size": 2,
        "l1": 0x30000,
        "refcounts": 0x10000,
        "refcount_clusters": 1,
        "snapshots": 0,
        "snapshots_offset": 0,
        "incompatible": 0,
        "compatible": 0,
        "autoclear": 0,
        "refcount_order": 4,
        "header_length": 104,
        **changes,
    }
    return struct.pack(">4sIQIIQIIQQIIQQQQII", b"QFI\xfb", *fields.values())


def test_a_sound_header_tells_the_size() -> None:
    assert parse_header(make_qcow2()).size == 1 << 30
    assert parse_header(make_qcow2(version=2)[:72]).size == 1 << 30


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"version": 1}, "unknown version 1"),
        ({"version": 4}, "unknown version 4"),
        ({"backing": 104, "backing_size": 11}, "backing file"),
        ({"encryption": 1}, "encrypted"),
        ({"encryption": 2}, "encrypted"),
        ({"incompatible": 1 << 2}, "data in another file"),
        ({"incompatible": 1 << 1}, "corrupt"),
        ({"incompatible": 1 << 9}, "not known"),
        ({"cluster_bits": 63}, "clusters"),
        ({"size": 0}, "0 bytes"),
        ({"size": (1 << 64) - 1}, "bytes"),
    ],
)
def test_what_leads_out_of_the_file_or_is_absurd_is_refused(
    changes: dict[str, int], reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_header(make_qcow2(**changes))


@pytest.mark.parametrize("head", [b"", b"QFI\xfb", b"\0" * 512, make_qcow2()[:80]])
def test_what_is_no_qcow2_is_refused(head: bytes) -> None:
    with pytest.raises(ValueError, match=r"no qcow2|ends within"):
        parse_header(head)


def test_qemu_is_told_the_format_and_that_nothing_lies_behind() -> None:
    node = make_node(7)
    assert node["driver"] == "qcow2"
    assert node["backing"] is None
    assert node["read-only"] is True
    assert node["file"]["filename"] == "/dev/fd/7"


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"\x1f\x8b\x08\x00", "gz"),
        (b"\xfd7zXZ\x00\x00", "xz"),
        (b"\x28\xb5\x2f\xfd\x24", "zst"),
        (b"\x04\x22\x4d\x18\x64", "lz4"),
    ],
)
def test_a_stream_is_told_by_its_magic(head: bytes, name: str) -> None:
    compression = find_compression(head)
    assert compression is not None
    assert compression.name == name


@pytest.mark.parametrize("head", [b"", b"\x1f", b"\xeb\x63\x90", b"QFI\xfb", bytes(512)])
def test_a_disk_is_no_compressed_stream(head: bytes) -> None:
    assert find_compression(head) is None


def test_the_table_has_one_bootable_partition() -> None:
    table = make_table(b"\x01\x02\x03\x04", 0x83, 4096)
    assert len(table) == 512 - 0x1B8
    assert table[:4] == b"\x01\x02\x03\x04"
    assert table[-2:] == b"\x55\xaa"
    status, _, kind, _, start, sectors = struct.unpack_from("<B3sB3sII", table, 6)
    assert (status, kind, start, sectors) == (0x80, 0x83, 2048, 4096)
    assert not any(table[22:-2])
