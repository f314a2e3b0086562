"""What an image's format says about the disk that is made of it."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from snf_image_host.content import Content
from snf_image_host.disk_copy import Run
from snf_image_host.jail import Jail
from snf_image_host.settings import Settings


class Format(Protocol):
    """An image whose format was looked at, and found acceptable."""

    @property
    def size(self) -> int | None:
        """Bytes of the disk; None when nobody knows before the end."""

    def open_runs(self, room: int) -> contextlib.AbstractContextManager[Iterator[Run]]:
        """The disk's contents, of which `room` bytes can be kept. Raises SnfError."""


@dataclass(frozen=True)
class Workshop:
    """What a format may need of the node."""

    settings: Settings
    jail: Jail


OpenFormat = Callable[[Content, Workshop], Format]
"""Raises InputError for contents that are not of the format, or not acceptable."""
