"""The bytes of an image from which a header is read: bounded, and only those that are here."""

import os
from collections.abc import Callable

from snf_image_host.copying.content import HEAD_SIZE, Content

SECTOR = 512
_READ_LIMIT = 1 << 20
_SIZE_LIMIT = 1 << 50


class Unfetched(Exception):
    """What is asked for was not fetched yet."""


class ImageBytes:
    """size: bytes in all, None while nobody knows. available: bytes that can be read."""

    def __init__(self, size: int | None, available: int, pread: Callable[[int, int], bytes]):
        self.size = size
        self._available = available
        self._pread = pread

    def read(self, start: int, length: int) -> bytes:
        """Raises ValueError: the image ends before that; Unfetched."""
        if length > _READ_LIMIT:
            raise ValueError(f"has a header of {length} bytes")
        self.require(start + length)
        if start + length > self._available:
            raise Unfetched
        return self._pread(start, length)

    def require(self, size: int) -> None:
        """Raises ValueError when it is known that the image has fewer bytes than `size`."""
        if self.size is not None and size > self.size:
            raise ValueError(f"ends after {self.size} bytes, within what its header counts on")

    def require_size(self) -> int:
        """Bytes in all. Raises Unfetched."""
        if self.size is None:
            raise Unfetched
        return self.size


def peek(content: Content) -> ImageBytes:
    """What is there of an image before it is fetched."""
    if content.descriptor is not None:
        return read_file(content.descriptor)
    head = content.head
    size = content.size if len(head) == HEAD_SIZE else len(head)
    return ImageBytes(size, len(head), lambda start, length: head[start : start + length])


def read_file(file: int) -> ImageBytes:
    size = os.fstat(file).st_size
    return ImageBytes(size, size, lambda start, length: os.pread(file, length, start))


def check_disk_size(size: int, limit: int = _SIZE_LIMIT) -> int:
    """The same size, in bytes. Raises ValueError for one that no disk has."""
    if not 0 < size <= limit or size % SECTOR:
        raise ValueError(f"says that its disk has {size} bytes")
    return size
