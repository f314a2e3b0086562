"""What compressed streams say of their size; the usual tools make them."""

import lzma
import os
import subprocess
from pathlib import Path

import pytest

from snf_image_host.copying.unpacked_size import read_least

DATA = os.urandom(3000) + bytes(5_000_000)
HEADS = [
    ("zst", ["zstd", "-q"], len(DATA)),
    ("zst", ["zstd", "-q", "--no-content-size"], 0),
    ("lz4", ["lz4", "-q", "--content-size"], len(DATA)),
    ("lz4", ["lz4", "-q", "--no-content-size"], 0),
]
ENDS = [
    ("xz", ["xz", "-0"], len(DATA)),
    ("xz", ["xz", "-0", "--block-size=100000"], len(DATA)),
]


def pack(folder: Path, argv: list[str], data: bytes = DATA) -> bytes:
    (folder / "data").write_bytes(data)
    done = subprocess.run([*argv, "-c", folder / "data"], check=True, capture_output=True)
    return done.stdout


def read_file(kind: str, folder: Path, packed: bytes) -> int:
    (folder / "packed").write_bytes(packed)
    with (folder / "packed").open("rb") as file:
        return read_least(kind, packed[:1000], file.fileno())


@pytest.mark.spawn
@pytest.mark.parametrize(("kind", "argv", "size"), HEADS)
def test_a_head_tells(tmp_path: Path, kind: str, argv: list[str], size: int) -> None:
    assert read_least(kind, pack(tmp_path, argv)[:1000], None) == size


@pytest.mark.spawn
@pytest.mark.parametrize("length", [100, 255, 256, 300, 70_000])
def test_each_width_of_a_zstandard_size(tmp_path: Path, length: int) -> None:
    packed = pack(tmp_path, ["zstd", "-q"], b"x" * length)
    assert read_least("zst", packed, None) == length


@pytest.mark.spawn
@pytest.mark.parametrize(("kind", "argv", "size"), ENDS)
def test_an_end_tells(tmp_path: Path, kind: str, argv: list[str], size: int) -> None:
    packed = pack(tmp_path, argv)
    assert read_file(kind, tmp_path, packed) == size
    assert read_least(kind, packed, None) == 0  # only the first bytes are here yet


def test_of_several_streams_one_counts(tmp_path: Path) -> None:
    packed = lzma.compress(DATA) + lzma.compress(b"x" * 100)
    assert read_file("xz", tmp_path, packed) == 100


@pytest.mark.parametrize("kind", ["gz", "xz", "zst", "lz4"])
def test_what_is_cut_or_damaged_says_nothing(tmp_path: Path, kind: str) -> None:
    for packed in (b"", b"\x28", b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18\x68", b"YZ"):
        assert read_file(kind, tmp_path, packed) == 0


def test_an_index_that_lies_about_itself_is_not_followed(tmp_path: Path) -> None:
    for size in (0xFFFFFFFF, 1 << 20, 3):
        footer = bytes(4) + size.to_bytes(4, "little") + b"\0\4YZ"
        assert read_file("xz", tmp_path, b"\xff" * 64 + footer) == 0
