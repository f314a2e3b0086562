"""What a disk can do, wherever it is."""

import contextlib
from collections.abc import Iterator
from typing import Protocol

from snf_ganeti.errors import NodeError
from snf_image_host.helper_vm.vm import VmDisk


class Target(Protocol):
    """An instance's disk, open. Offsets and lengths are bytes; what fails raises OSError."""

    @property
    def name(self) -> str:
        """For messages: its path, or its URI without secrets."""

    @property
    def size(self) -> int: ...

    @property
    def vm_disk(self) -> VmDisk:
        """The disk for the helper's QEMU; the descriptor stays this target's."""

    def erase(self) -> bool:
        """Make the whole disk read as zeros if that costs next to nothing; was it done?"""

    def share(self, file: int, length: int) -> bool:
        """Have the disk begin with the first `length` bytes of a regular file, by sharing its
        blocks; False, and nothing is changed, where that can't be done."""

    def write(self, start: int, data: memoryview) -> None:
        """Write all of `data`."""

    def zero(self, start: int, length: int) -> None:
        """Make a range read as zeros, without space where the disk can."""

    def flush(self) -> None:
        """Make durable what was written."""

    def find_data(self) -> Iterator[tuple[int, int]]:
        """Start and end of each range that may hold more than zeros, in order."""

    def read_into(self, start: int, buffer: memoryview) -> int:
        """Fill `buffer` from `start`; fewer bytes only at the disk's end."""


@contextlib.contextmanager
def telling(target: Target, what: str) -> Iterator[None]:
    """What the disk refuses, as a NodeError: it can't be `what`."""
    try:
        yield
    except OSError as error:
        raise NodeError(f"{target.name} can't be {what}: {error.strerror}") from None
