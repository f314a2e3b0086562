"""What an image's bytes are read from."""

from typing import Protocol


class Source(Protocol):
    """Bytes of an image in order, once, as they are fetched."""

    @property
    def name(self) -> str:
        """For messages, without secrets."""

    @property
    def size(self) -> int | None:
        """Bytes in all; None when nobody says. More or fewer are an error of the source."""

    @property
    def descriptor(self) -> int | None:
        """A regular file of this node that holds the bytes, if there is one."""

    def read_into(self, buffer: memoryview) -> int:
        """Read some bytes; 0 at the end. Raises SnfError, within a deadline."""
