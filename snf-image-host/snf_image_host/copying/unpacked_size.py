"""How large a compressed stream says it gets: at least so many bytes, if it is to be believed.

A disk that is too small is then refused at once. Nothing else depends on it: a stream may be
several one after the other, of which this is one, or lie. (gzip has the lower 32 bits at its end,
where a stream that is cut has anything.)

xz: "The .xz File Format" 1.2, 2.1.2 and 4. Zstandard: RFC 8878, 3.1.1.1.
LZ4: its frame format 1.6.
"""

import os
import struct
import zlib
from collections.abc import Callable, Mapping

_FOOTER = struct.Struct("<IIH2s")
_INDEX_LIMIT = 4 << 20
"""Bytes of an index: those of 200000 blocks."""
_VLI_LIMIT = 9


def read_least(kind: str, head: bytes, file: int | None) -> int:
    """Bytes that a stream unpacks to at least; 0 when it does not say.

    kind: a name of the table of compressions. head: its first bytes; file: all of it, where that
    is at hand.
    """
    try:
        if kind in _BY_HEAD:
            return _BY_HEAD[kind](head)
        if kind in _BY_END and file is not None:
            return _BY_END[kind](file, os.fstat(file).st_size)
    except (struct.error, IndexError, OSError):
        pass  # it is cut or damaged, which the decoder tells
    return 0


def _read_zst(head: bytes) -> int:
    flags = head[4]
    single, code = flags >> 5 & 1, flags >> 6
    at = 5 + (0 if single else 1) + (0, 1, 2, 4)[flags & 3]
    if code == 0:
        return head[at] if single else 0
    (size,) = struct.unpack_from(("", "<H", "<I", "<Q")[code], head, at)
    return int(size) + (256 if code == 1 else 0)


def _read_lz4(head: bytes) -> int:
    has_size = head[4] >> 3 & 1
    return int(struct.unpack_from("<Q", head, 6)[0]) if has_size else 0


def _read_xz(file: int, end: int) -> int:
    """The last stream's index has the size of each block."""
    footer = os.pread(file, _FOOTER.size, end - _FOOTER.size)
    checksum, size, _, magic = _FOOTER.unpack(footer)
    size = (size + 1) * 4
    if magic != b"YZ" or zlib.crc32(footer[4:10]) != checksum or size > _INDEX_LIMIT:
        return 0
    index = os.pread(file, size, end - _FOOTER.size - size)
    if zlib.crc32(index[:-4]) != int.from_bytes(index[-4:], "little"):
        return 0
    records, at = _read_vli(index, 1)
    total = 0
    for _ in range(records):
        _, at = _read_vli(index, at)
        unpacked, at = _read_vli(index, at)
        total += unpacked
    return total


def _read_vli(data: bytes, at: int) -> tuple[int, int]:
    """A number of seven bits a byte, the lowest first, and where the next one is."""
    value = 0
    for index in range(_VLI_LIMIT):
        byte = data[at + index]
        value |= (byte & 0x7F) << 7 * index
        if not byte & 0x80:
            return value, at + index + 1
    raise IndexError("a number that does not end")


_BY_HEAD: Mapping[str, Callable[[bytes], int]] = {"zst": _read_zst, "lz4": _read_lz4}
_BY_END: Mapping[str, Callable[[int, int], int]] = {"xz": _read_xz}
