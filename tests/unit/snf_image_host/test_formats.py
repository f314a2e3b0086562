"""What formats make of an image's first bytes."""

import struct

import pytest

from snf_image_host.copying.compression import find_compression
from snf_image_host.formats.partitioned import make_table


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
