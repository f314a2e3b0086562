"""An image's bytes, unpacked, as runs of data and zeros; counted and checked as fetched."""

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from snf_ganeti.errors import InputError
from snf_image_host.confinement.jail import Jail
from snf_image_host.copying.compression import find_compression, open_decoder
from snf_image_host.copying.disk_copy import CHUNK, ZEROS, Buffers, Run, split_runs
from snf_image_host.copying.sparse_file import find_data
from snf_image_host.copying.unpacked_size import read_least
from snf_image_host.os_parameters.checksum import Checksum
from snf_image_host.sources import Source

HEAD_SIZE = 64 << 10
_SLACK = 64 << 20

Fill = Callable[[memoryview], int]
"""Fills a buffer with the next bytes, not always to its end; 0 when there are no more."""


class Fetch:
    """The source's bytes as they come: counted, hashed, held to a limit."""

    def __init__(self, source: Source, checksum: Checksum | None) -> None:
        self._source = source
        self._checksum = checksum
        self._hash = hashlib.new(checksum.algorithm) if checksum else None
        self.position = 0
        self.limit: int | None = None

    @property
    def checked(self) -> bool:
        return self._checksum is not None

    def read_into(self, buffer: memoryview) -> int:
        count = self._source.read_into(buffer)
        self.note(buffer[:count])
        if not count and self._source.size not in (None, self.position):
            raise InputError(
                f"{self._source.name} ended after {self.position} of {self._source.size} bytes"
            )
        if self.limit is not None and self.position > self.limit:
            raise InputError(f"{self._source.name} is larger than the disk")
        return count

    def note(self, data: memoryview | bytes) -> None:
        """The next bytes were fetched."""
        self.position += len(data)
        if self._hash is not None:
            self._hash.update(data)

    def verify(self) -> None:
        """All was fetched. Raises InputError when the checksum is another."""
        if self._hash is None or self._checksum is None:
            return
        if self._hash.hexdigest() != self._checksum.digest:
            raise InputError(
                f"{self._source.name} has the {self._checksum.algorithm} {self._hash.hexdigest()}",
                hint="that is not its img_checksum: the image was changed or damaged on its way",
            )


@dataclass
class Content:
    """What an image holds once it is unpacked.

    head: its first bytes, up to HEAD_SIZE. size: bytes in all, None when nobody knows yet.
    descriptor: a regular file that holds just this. fill: gives the bytes from the first.
    least: bytes that it has at least, by its own word.
    """

    source: Source
    fetch: Fetch
    head: bytes
    size: int | None
    descriptor: int | None
    fill: Fill
    least: int = 0
    limit: int | None = None

    @property
    def name(self) -> str:
        return self.source.name

    @property
    def fetched(self) -> int:
        """Bytes fetched so far; a decoder that reads a file itself shares its offset."""
        file = self.source.descriptor
        return self.fetch.position or (os.lseek(file, 0, os.SEEK_CUR) if file is not None else 0)

    def hold_to(self, room: int) -> None:
        """Neither fetch nor unpack more than the fullest image of a `room` bytes disk has."""
        self.fetch.limit = self.limit = room + room // 64 + _SLACK

    def make_runs(self, start: int = 0) -> Iterator[Run]:
        """All of it, in order; its first byte is the disk's byte `start`."""
        if self.descriptor is not None:
            yield from self._make_file_runs(self.descriptor, start)
        else:
            yield from self._make_stream_runs(start)
        self.fetch.verify()

    def verify_file(self, descriptor: int) -> None:
        """Read a file that is used in place only for its checksum, if there is one."""
        if self.fetch.checked:
            for _ in self._make_file_runs(descriptor, 0):
                pass
        self.fetch.verify()

    def _make_stream_runs(self, start: int) -> Iterator[Run]:
        buffers, at = Buffers(), start
        while count := fill_up(self.fill, buffer := buffers.take()):
            yield from split_runs(at, buffer[:count])
            at += count
            if self.limit is not None and at - start > self.limit:
                raise InputError(f"{self.name} unpacks to more than the disk holds")
            if count < CHUNK:
                break

    def _make_file_runs(self, descriptor: int, start: int) -> Iterator[Run]:
        buffers, at = Buffers(), 0
        assert self.size is not None
        for data, end in (*find_data(descriptor, self.size), (self.size, self.size)):
            if data > at:
                self._note_zeros(data - at)
                yield Run(start + at, data - at)
            at = data
            while at < end:
                buffer = buffers.take()
                count = self._read_at(descriptor, buffer[: end - at], at)
                self.fetch.note(buffer[:count])
                yield from split_runs(start + at, buffer[:count])
                at += count

    def _note_zeros(self, length: int) -> None:
        zeros = memoryview(ZEROS)
        while self.fetch.checked and length:
            step = min(length, len(zeros))
            self.fetch.note(zeros[:step])
            length -= step

    def _read_at(self, descriptor: int, buffer: memoryview, at: int) -> int:
        try:
            count = os.preadv(descriptor, [buffer], at)
        except OSError as error:
            raise InputError(f"{self.name} can't be read at byte {at}: {error.strerror}") from None
        if not count:
            raise InputError(f"{self.name} became shorter while it was read")
        return count


def fill_up(fill: Fill, buffer: memoryview) -> int:
    """Fill a buffer to its end, or to the end of what there is."""
    at = 0
    while at < len(buffer) and (count := fill(buffer[at:])):
        at += count
    return at


@contextlib.contextmanager
def open_content(source: Source, checksum: Checksum | None, jail: Jail) -> Iterator[Content]:
    """Unpack the source's bytes when they are a compressed stream, whatever its name is."""
    fetch = Fetch(source, checksum)
    file = source.descriptor
    if file is not None:
        head = os.pread(file, HEAD_SIZE, 0)
        whole: Fill = fetch.read_into
    else:
        head = _read_head(fetch.read_into)
        whole = _join(head, fetch.read_into)
    compression = find_compression(head)
    if compression is None:
        yield Content(source, fetch, head, source.size, file, whole, source.size or 0)
        return
    least = read_least(compression.name, head, file)
    packed: int | Fill = whole if file is None or checksum else file
    with open_decoder(source.name, compression, jail, packed) as decoder:
        head = _read_head(decoder.read_into)
        yield Content(source, fetch, head, None, None, _join(head, decoder.read_into), least)


def _read_head(fill: Fill) -> bytes:
    buffer = memoryview(bytearray(HEAD_SIZE))
    return bytes(buffer[: fill_up(fill, buffer)])


def _join(head: bytes, fill: Fill) -> Fill:
    """What gives `head` first and then the rest."""
    unread = memoryview(head)

    def fill_joined(buffer: memoryview) -> int:
        nonlocal unread
        if not unread:
            return fill(buffer)
        count = min(len(unread), len(buffer))
        buffer[:count], unread = unread[:count], unread[count:]
        return count

    return fill_joined
