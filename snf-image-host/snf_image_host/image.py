"""An image: what is ordered, and its way from the source to an instance's disk.

source → unpacked → by its format, runs of data and zeros → target
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from snf_image_host.confinement.jail import Jail
from snf_image_host.copying.content import Content, open_content
from snf_image_host.copying.disk_copy import OnProgress, Run, copy_runs
from snf_image_host.formats import Format, Room, Workshop, open_format
from snf_image_host.os_parameters.checksum import Checksum
from snf_image_host.os_parameters.parameters import Parameters
from snf_image_host.settings import Settings
from snf_image_host.sources import NULL
from snf_image_host.sources.cached import open_cached_source
from snf_image_host.targets import Target
from snf_image_host.targets.target import telling


@dataclass(frozen=True)
class ImageOrder:
    """Which image, as the OS parameters say it. checksum: of the bytes as fetched."""

    id: str
    format: str
    checksum: Checksum | None = None


def make_order(parameters: Parameters) -> ImageOrder:
    return ImageOrder(parameters.img_id, parameters.img_format, parameters.img_checksum)


@contextlib.contextmanager
def open_image(order: ImageOrder, settings: Settings, jail: Jail) -> Iterator["Image"]:
    """Find the image and look at how it begins; what runs for it ends with the block.

    jail: where everything runs that reads the image's structure. Raises InputError (there is
    no such image, it is not of its format, or not acceptable), DeadlineError, NodeError.
    """
    if order.id == NULL:
        yield Image(None, None)
        return
    with (
        open_cached_source(order.id, order.checksum, settings) as (source, checksum),
        open_content(source, checksum, jail) as content,
    ):
        yield Image(content, open_format(order.format, content, Workshop(settings, jail)))


class Image:
    """An image that was found. null: the disk holds it already, so nothing is to be copied."""

    def __init__(self, content: Content | None, format: Format | None) -> None:
        self._content = content
        self._format = format

    @property
    def null(self) -> bool:
        return self._format is None

    @property
    def size(self) -> int | None:
        """Bytes of the disk that it makes, a boot prefix included; None while nobody knows."""
        return self._format.size if self._format else 0

    def require_room(self, target: Target) -> None:
        """Raises InputError for a target that is too small, as far as the image says so by now."""
        if self._content is not None and self._format is not None:
            Room(target.name, target.size).require(self._content.name, self._format.least)

    def copy_to(self, target: Target, on_progress: OnProgress) -> None:
        """Make the target the image's disk; what lies behind the image is not defined. It is
        durable after the target's `flush`.

        on_progress: called about every second and at the end with position and total, in
        bytes. Raises InputError: the target is too small (before a byte of it is changed), the
        image is damaged or has another checksum; NodeError, DeadlineError.
        """
        if self._content is None or self._format is None:
            return
        content, room = self._content, Room(target.name, target.size)
        self.require_room(target)
        if content.size and _share(content, self._format.file, target):
            on_progress(content.size, content.size)
            return
        with self._format.open_runs(room) as runs:
            meter = _Meter(content, self._format.size, target.size)
            copy_runs(_bound(runs, content.name, room), target, meter.measure, on_progress)
        on_progress(meter.total, meter.total)


def _share(content: Content, file: int | None, target: Target) -> bool:
    """Have the disk's blocks be those of an image on the same file system, if that is possible.
    A checksum is that of what the disk has then. Raises InputError, NodeError."""
    if file is None or content.size is None:
        return False
    with telling(target, "written"):
        if not target.share(file, content.size):
            return False
    content.verify_file(target.vm_disk.fd)
    return True


class _Meter:
    """How far a copy is: on the disk if its size is known, else in what is fetched, else in
    all the room that there is."""

    def __init__(self, content: Content, size: int | None, room: int) -> None:
        self._content = content
        self._fetched = size is None and content.source.size is not None
        self.total = size or content.source.size or room
        self._position = 0

    def measure(self, run: Run) -> tuple[int, int]:
        position = self._content.fetched if self._fetched else run.start + run.length
        self._position = min(max(position, self._position), self.total)
        return self._position, self.total


def _bound(runs: Iterator[Run], image: str, room: Room) -> Iterator[Run]:
    for run in runs:
        room.require(image, run.start + run.length)
        yield run
