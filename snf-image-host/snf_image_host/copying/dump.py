"""A disk as a stream without its zeros: what `export` writes and `import` reads.

It is a tar archive that tar(1) unpacks, too: `tar -xOf DUMP > disk.raw`. First comes a pax
global header whose comment names the format and the disk's size. Then come the pieces of the
disk, in order and without gaps, each a sparse file `disk.00000000` …, of any length but of at
most PIECE_LIMIT bytes of data, so that writer and reader know what is in a piece before they
handle it, and one pass over the disk is enough. The end is tar's: two blocks of zeros.

Sources: POSIX.1-2001, pax Interchange Format; GNU tar manual, "Storing Sparse Files", PAX
format, version 1.0.
"""

import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BufferedReader

from snf_ganeti.errors import InputError

BLOCK = 512
PIECE_LIMIT = 8 << 20
"""Bytes of data in a piece."""
EXTENTS_LIMIT = 2048
"""Runs of data in a piece."""
END = bytes(2 * BLOCK)
_COMMENT = "snf-image disk dump 1, size"
_HEADER_LIMIT = 64 << 10
_LINE_LIMIT = 20  # bytes of a number in a piece's table, its line end included
_WAY_OUT = "the dump is cut off or damaged: make it anew"


@dataclass(frozen=True)
class Extent:
    """Data of a disk. offset, length: bytes."""

    offset: int
    length: int

    @property
    def end(self) -> int:
        return self.offset + self.length


def make_head(size: int) -> bytes:
    """What stands first. size: of the disk, in bytes."""
    headers = {"comment": f"{_COMMENT} {size}"}
    return tarfile.TarInfo.create_pax_global_header(headers)


def make_piece_head(index: int, size: int, extents: Sequence[Extent]) -> bytes:
    """What stands before the data of a piece.

    size: of the piece, in bytes. extents: its data, ascending; their offsets are the piece's.
    """
    # An empty run at the end is how tar knows that the file goes on to there.
    runs = [*extents, Extent(size, 0)]
    numbers = [len(runs), *(number for run in runs for number in (run.offset, run.length))]
    table = _pad("".join(f"{number}\n" for number in numbers).encode())
    name = f"disk.{index:08}"
    info = tarfile.TarInfo(f"GNUSparseFile.0/{name}")
    info.size = len(table) + sum(extent.length for extent in extents)
    info.mode = 0o600
    info.pax_headers = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": name,
        "GNU.sparse.realsize": str(size),
    }
    return info.tobuf(tarfile.PAX_FORMAT) + table


def make_padding(length: int) -> bytes:
    """What follows `length` bytes of data."""
    return bytes(-length % BLOCK)


def _pad(data: bytes) -> bytes:
    return data + make_padding(len(data))


class DumpReader:
    """A dump as it comes: of this format, or plain, which is the disk's bytes and no more.

    size: of the disk, in bytes; None for a plain dump, whose end alone tells.
    """

    def __init__(self, stream: BufferedReader) -> None:
        """Raises InputError when there is nothing at all."""
        self._stream = stream
        self._begun = stream.read(BLOCK)
        if not self._begun:
            raise InputError("the dump is empty", hint=_WAY_OUT)
        self.size = self._read_head()

    def read_data(self, buffer: memoryview) -> Iterator[tuple[int, memoryview]]:
        """The disk's data: offset and bytes, ascending; what is not among them is zero.

        buffer: for the bytes; it is used anew for the next ones. Raises InputError when the dump
        is cut off or damaged; of a plain one, nobody can tell.
        """
        if self.size is None:
            return self._read_plain(buffer)
        return self._read_pieces(self.size, buffer)

    def _read_head(self) -> int | None:
        info = _parse_header(self._begun)
        if info is None or info.type != tarfile.XGLTYPE or info.size > _HEADER_LIMIT:
            return None
        body = self._stream.read(info.size + len(make_padding(info.size)))
        comment = _parse_records(body[: info.size]).get("comment", "")
        found = re.fullmatch(rf"{_COMMENT} ([0-9]{{1,18}})", comment)
        if found is None:
            self._begun += body
            return None
        return int(found[1])

    def _read_plain(self, buffer: memoryview) -> Iterator[tuple[int, memoryview]]:
        offset, begun = 0, self._begun
        while True:
            buffer[: len(begun)] = begun
            count = len(begun) + self._fill(buffer[len(begun) :])
            if not count:
                return
            yield offset, buffer[:count]
            offset, begun = offset + count, b""

    def _read_pieces(self, size: int, buffer: memoryview) -> Iterator[tuple[int, memoryview]]:
        offset = 0
        while (block := self._read(BLOCK)) != bytes(BLOCK):
            length, extents = self._read_piece_head(block)
            for extent in extents:
                at = extent.offset
                while at < extent.end:
                    data = buffer[: extent.end - at]
                    if self._fill(data) < len(data):
                        raise InputError("the dump ends early", hint=_WAY_OUT)
                    yield offset + at, data
                    at += len(data)
            self._read(len(make_padding(sum(extent.length for extent in extents))))
            offset += length
        if self._read(BLOCK) != bytes(BLOCK) or offset != size:
            raise InputError("the dump is not whole", hint=_WAY_OUT)

    def _read_piece_head(self, block: bytes) -> tuple[int, list[Extent]]:
        """Size and data of the piece whose first block was read."""
        info = _parse_header(block)
        if info is None or info.type != tarfile.XHDTYPE or info.size > _HEADER_LIMIT:
            raise InputError("a piece of the dump has no header", hint=_WAY_OUT)
        body = self._read(info.size + len(make_padding(info.size)))[: info.size]
        realsize = _parse_records(body).get("GNU.sparse.realsize", "")
        file = _parse_header(self._read(BLOCK))
        if (
            file is None
            or file.type != tarfile.REGTYPE
            or not re.fullmatch("[0-9]{1,18}", realsize)
        ):
            raise InputError("a piece of the dump is not a sparse file", hint=_WAY_OUT)
        return int(realsize), self._read_extents(int(realsize))

    def _read_extents(self, size: int) -> list[Extent]:
        """The table of a piece's data: their number, then offset and length of each, in lines."""
        text = self._read(BLOCK)
        count = _parse_count(text)
        while text.count(b"\n") <= 2 * count and len(text) <= (2 * count + 1) * _LINE_LIMIT:
            text += self._read(BLOCK)
        lines = text.split(b"\n")[1 : 2 * count + 1]
        if not all(re.fullmatch(b"[0-9]{1,18}", line) for line in lines):
            raise InputError("a piece of the dump has no table of its data", hint=_WAY_OUT)
        extents = [Extent(int(at), int(n)) for at, n in zip(lines[::2], lines[1::2], strict=True)]
        ends = [0, *(extent.end for extent in extents)]
        ascending = all(extent.offset >= end for extent, end in zip(extents, ends, strict=False))
        if not ascending or ends[-1] > size:
            raise InputError("a piece of the dump has data outside of it", hint=_WAY_OUT)
        return extents

    def _fill(self, buffer: memoryview) -> int:
        """Fill a buffer as far as the stream goes; gives how far."""
        at = 0
        while at < len(buffer) and (count := self._stream.readinto(buffer[at:])):
            at += count
        return at

    def _read(self, length: int) -> bytes:
        data = self._stream.read(length)
        if len(data) < length:
            raise InputError("the dump ends early", hint=_WAY_OUT)
        return data


def _parse_count(text: bytes) -> int:
    found = re.match(rb"([0-9]{1,4})\n", text)
    if found is None or int(found[1]) > EXTENTS_LIMIT + 1:
        raise InputError("a piece of the dump has no table of its data", hint=_WAY_OUT)
    return int(found[1])


def _parse_header(block: bytes) -> tarfile.TarInfo | None:
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return None


def _parse_records(body: bytes) -> dict[str, str]:
    """pax records: `LENGTH KEYWORD=VALUE` a line, the length that of the line."""
    lines = (line.partition(b" ")[2].partition(b"=") for line in body.split(b"\n") if line)
    return {
        key.decode("utf-8", "replace"): value.decode("utf-8", "replace") for key, _, value in lines
    }
