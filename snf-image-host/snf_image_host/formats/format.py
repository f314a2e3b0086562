"""What an image's format says about the disk that is made of it."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from snf_ganeti.errors import InputError
from snf_image_host.confinement.jail import Jail
from snf_image_host.copying.content import Content
from snf_image_host.copying.disk_copy import Run
from snf_image_host.settings import Settings


@dataclass(frozen=True)
class Room:
    """The disk for which an image is meant. size: bytes."""

    name: str
    size: int

    def require(self, image: str, size: int) -> None:
        """Raises InputError when an image's `size` bytes are more than there is room for."""
        if size > self.size:
            raise InputError(
                f"{image} needs a disk of {size} bytes or more, and {self.name} has {self.size}",
                hint=f"make the disk at least {-(-size // (1 << 20))} MiB large",
            )


class Format(Protocol):
    """An image whose format was looked at, and found acceptable."""

    @property
    def size(self) -> int | None:
        """Bytes of the disk; None when nobody knows yet."""

    @property
    def file(self) -> int | None:
        """A regular file of this node whose bytes are the disk's, one for one, if there is one."""

    @property
    def least(self) -> int:
        """Bytes that the disk must have at least, as far as the image says so by now."""

    def open_runs(self, room: Room) -> contextlib.AbstractContextManager[Iterator[Run]]:
        """The disk's contents. Raises SnfError, before anything is written where possible."""


@dataclass(frozen=True)
class Workshop:
    """What a format may need of the node."""

    settings: Settings
    jail: Jail


OpenFormat = Callable[[Content, Workshop], Format]
"""Raises InputError for contents that are not of the format, or not acceptable."""
