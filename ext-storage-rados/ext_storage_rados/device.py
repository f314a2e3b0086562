"""A volume as a block device of this node, by whichever way the node has.

What needs Ceph's libraries is imported where it is used: most calls of Ganeti are answered
from what this node knows.
"""

from pathlib import Path
from typing import Protocol

from ext_storage_rados import krbd
from ext_storage_rados.ceph.access import Access, Mode
from ext_storage_rados.export import attachment
from ext_storage_rados.names import ImageName
from ext_storage_rados.settings import Settings


class Device(Protocol):
    """One way. Sizes are bytes, timeouts seconds; all raise SnfError."""

    def find(self, image: ImageName, access: Access) -> Path | None:
        """The block device of an image that is attached, and works."""

    def attach(self, image: ImageName, access: Access, timeout: float) -> Path: ...

    def detach(self, image: ImageName, access: Access, timeout: float) -> None: ...

    def set_mode(self, image: ImageName, access: Access, mode: Mode, timeout: float) -> bool:
        """Change who may write; False when the way can't, and others have to be fenced."""

    def update_size(self, image: ImageName, size: int, timeout: float) -> None: ...


class Export:
    """librbd behind FUSE and a loop device; see `ext_storage_rados.export`."""

    def find(self, image: ImageName, access: Access) -> Path | None:
        return attachment.find_device(image)

    def attach(self, image: ImageName, access: Access, timeout: float) -> Path:
        return attachment.attach(image, Access(access.conf, access.user), timeout)

    def detach(self, image: ImageName, access: Access, timeout: float) -> None:
        attachment.detach(image, timeout)

    def set_mode(self, image: ImageName, access: Access, mode: Mode, timeout: float) -> bool:
        return attachment.set_mode(image, mode, timeout)

    def update_size(self, image: ImageName, size: int, timeout: float) -> None:
        attachment.update_size(image, size, timeout)


class Krbd:
    """The kernel's client, which follows a volume's growth by itself."""

    def find(self, image: ImageName, access: Access) -> Path | None:
        return krbd.find_device(image, access)

    def attach(self, image: ImageName, access: Access, timeout: float) -> Path:
        return krbd.attach(image, access, timeout)

    def detach(self, image: ImageName, access: Access, timeout: float) -> None:
        krbd.detach(image, access, timeout)

    def set_mode(self, image: ImageName, access: Access, mode: Mode, timeout: float) -> bool:
        return False

    def update_size(self, image: ImageName, size: int, timeout: float) -> None:
        return None


def choose(settings: Settings) -> Device:
    """The way that the settings name, or else the kernel's where it is."""
    if settings.device == "krbd" or (settings.device == "auto" and krbd.is_there()):
        return Krbd()
    return Export()
