"""Compressed streams that never end, want too much memory, are cut or are something else.

gzip: RFC 1952. xz: "The .xz File Format" 1.2. Zstandard: RFC 8878. LZ4: its frame format 1.6.
"""

import gzip
import lzma
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from hostile.attack import MIB, SECTOR, Attack, Make, write
from snf_ganeti import process

_NONE = {"img_properties": '{"EXCLUDE_ALL_TASKS": "yes"}'}
_PIECE = 16 * MIB
_COPIES = 640
"""Copies of a compressed piece: 10 GiB in all."""

Compress = Callable[[bytes], bytes]
_COMPRESS: Mapping[str, Compress] = {
    "gz": lambda data: gzip.compress(data, mtime=0),
    "xz": lambda data: lzma.compress(data, preset=0),
    "zst": lambda data: process.run(["zstd", "-q", "-c"], stdin=data).stdout,
    "lz4": lambda data: process.run(["lz4", "-q", "-c"], stdin=data).stdout,
}


def _bomb(kind: str, data: bytes) -> Make:
    """A stream of many members: each tool goes on with the next one."""

    def make(path: Path) -> None:
        piece = _COMPRESS[kind](data)
        with path.open("wb") as file:
            for _ in range(_COPIES):
                file.write(piece)

    return make


def _pack(kind: str, data: bytes, *, cut: int = 0, tail: bytes = b"", flip: bool = False) -> Make:
    def make(path: Path) -> None:
        packed = bytearray(_COMPRESS[kind](data))
        if flip:
            packed[len(packed) // 2] ^= 0xFF
        path.write_bytes(packed[: len(packed) - cut] + tail)

    return make


def _make_greedy_xz() -> bytes:
    """A dictionary of 4 GiB - 1: byte 40 of the filter's properties, and a checksum that fits."""
    stream = bytearray(lzma.compress(b"x" * SECTOR))
    size = (stream[12] + 1) * 4
    header = stream[12 : 12 + size - 4]
    header[header.index(b"\x21\x01") + 2] = 40
    stream[12 : 12 + size] = header + struct.pack("<I", zlib.crc32(bytes(header)))
    return bytes(stream)


def _make_greedy_zst() -> bytes:
    """A window of 3.75 TiB: the largest that the descriptor can say; then an empty last block."""
    return b"\x28\xb5\x2f\xfd\x00\xff" + b"\x01\0\0"


_NOISE = bytes(range(256)) * (SECTOR // 256) * 2000
_SOUND = "no sound {} stream"
_Row = tuple[str, str, Make, str]


def _make_rows(kind: str) -> Sequence[_Row]:
    unsound = _SOUND.format(kind)
    return (
        ("zeros", "10 GiB of zeros in little", _bomb(kind, bytes(_PIECE)), "needs a disk of"),
        ("ones", "10 GiB of 0xff in little", _bomb(kind, b"\xff" * _PIECE), "needs a disk of"),
        ("cut", "a stream that ends early", _pack(kind, _NOISE, cut=20), unsound),
        ("magic", "nothing but its first bytes", _pack(kind, b"", cut=6), unsound),
        ("damaged", "a byte in its middle is another", _pack(kind, _NOISE, flip=True), unsound),
        ("tail", "garbage behind its end", _pack(kind, _NOISE, tail=b"\xde\xad" * 512), unsound),
        ("empty", "a sound stream of nothing", _pack(kind, b""), "empty"),
    )


_ODD: Sequence[_Row] = (
    ("xz-memory", "a dictionary of 4 GiB", write(_make_greedy_xz()), "no sound xz stream: .*emory"),
    ("zst-memory", "a window of 3.75 TiB", write(_make_greedy_zst()), "no sound zst stream"),
    (
        "gz-name",
        "a file's name that goes on for 8 MiB",
        write(b"\x1f\x8b\x08\x08" + bytes(6) + b"x" * (8 * MIB)),
        "no sound gz stream",
    ),
    (
        "gz-gz",
        "compressed twice: once is unpacked, and that is the disk",
        write(gzip.compress(gzip.compress(bytes(SECTOR)).ljust(SECTOR, b"\0"))),
        "",
    ),
    (
        "zst-skippable",
        "4 GiB of a frame to skip, of which nothing is there",
        write(b"\x28\xb5\x2f\xfd\x20\x00\x01\0\0" + b"\x50\x2a\x4d\x18\xff\xff\xff\xff"),
        "no sound zst stream: .*premature end",
    ),
)


def _make_attack(name: str, what: str, make: Make, reason: str) -> Attack:
    return Attack(f"stream-{name}", what, make, reason, helper=False, parameters=_NONE)


ATTACKS = (
    *(
        _make_attack(f"{kind}-{name}", what, make, reason)
        for kind in _COMPRESS
        for name, what, make, reason in _make_rows(kind)
    ),
    *(_make_attack(*row) for row in _ODD),
)
