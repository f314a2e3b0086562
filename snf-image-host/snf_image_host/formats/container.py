"""A disk in a container: our code reads the header, QEMU the rest, in a jail.

What could lead out of the file is refused before QEMU sees it, by the format's own module,
which is one function: bytes to `Layout`. The format is the one of the order, never guessed.
"""

import contextlib
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from snf_ganeti.errors import InputError
from snf_image_host.confinement.jail import Confinement, Jail, run_jailed
from snf_image_host.copying.content import Content
from snf_image_host.copying.disk_copy import CHUNK, Run, split_runs
from snf_image_host.copying.spool import fill_spool, open_spool
from snf_image_host.formats.format import OpenFormat, Room, Workshop
from snf_image_host.formats.image_bytes import ImageBytes, Unfetched, peek, read_file
from snf_image_host.nbd.nbd_disk import NbdDisk, open_nbd_disk
from snf_image_host.nbd.nbd_server import NbdServer, serve

_LEAKS = 3
"""The status of `qemu-img check` when space is wasted, and nothing else is wrong."""
_CHECK_TIMEOUT = 600.0
_CONFINEMENT = Confinement("server", address_space=2 << 30, cpu=24 * 3600, file_size=16 << 10)


@dataclass(frozen=True)
class Layout:
    """How QEMU is to read a container. size: bytes of the disk.

    driver, options: of the block node that lies over the file's. checked: `qemu-img check`
    finds what is missing of one; where it does not know the format, opening it does.
    """

    size: int
    driver: str
    options: Mapping[str, Any] = field(default_factory=dict)
    checked: bool = True


ReadLayout = Callable[[ImageBytes], Layout]
"""Raises ValueError, which goes on where the image's name ends: it is not of the format, not
acceptable or damaged; Unfetched."""


def make_opener(kind: str, read_layout: ReadLayout) -> OpenFormat:
    return lambda content, workshop: Container(kind, read_layout, content, workshop)


class Container:
    """An image of the format `kind`."""

    file = None

    def __init__(
        self, kind: str, read_layout: ReadLayout, content: Content, workshop: Workshop
    ) -> None:
        self._kind = kind
        self._read_layout = read_layout
        self._content = content
        self._workshop = workshop
        self.size: int | None = None
        with contextlib.suppress(Unfetched):
            self.size = self._read(peek(content)).size

    @property
    def least(self) -> int:
        return self.size or 0

    @contextlib.contextmanager
    def open_runs(self, room: Room) -> Iterator[Iterator[Run]]:
        """Everything is fetched, and its checksum verified, before QEMU reads the first byte."""
        jail = self._workshop.jail
        self._content.hold_to(room.size)
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(self._open_file())
            layout = self._read(read_file(file))
            self.size = layout.size
            room.require(self._content.name, layout.size)
            if layout.checked:
                self._require_sound(layout, file)
            node = make_node(layout, file)
            server = stack.enter_context(serve(jail, node, _CONFINEMENT, pass_fds=(file,)))
            with self._telling(server):
                disk = stack.enter_context(open_nbd_disk(server))
            if disk.size != layout.size:
                raise InputError(
                    f"{self._content.name} says that its disk has {layout.size} bytes, and QEMU"
                    f" reads {disk.size}",
                    hint="convert it to qcow2",
                )
            yield self._make_runs(disk, server)

    def _read(self, image: ImageBytes) -> Layout:
        try:
            return self._read_layout(image)
        except ValueError as error:
            raise InputError(f"{self._content.name} {error}") from None

    @contextlib.contextmanager
    def _open_file(self) -> Iterator[int]:
        """A file that the jail can open: the image itself, or a copy."""
        content, workshop = self._content, self._workshop
        file = content.descriptor
        if file is not None and os.fstat(file).st_mode & stat.S_IROTH:
            content.verify_file(file)
            yield file
            return
        with open_spool(workshop.settings.spool_dir, workshop.jail) as spool:
            fill_spool(spool, content.make_runs(), workshop.settings.spool_dir)
            yield spool

    def _require_sound(self, layout: Layout, file: int) -> None:
        """Raises InputError for what QEMU would read as zeros: a file that is cut, or whose
        tables lie."""
        if not is_sound(layout, file, self._workshop.jail):
            raise InputError(
                f"{self._content.name} is a damaged {self._kind} image: part of its data is missing"
            )

    def _make_runs(self, disk: NbdDisk, server: NbdServer) -> Iterator[Run]:
        at = 0
        with self._telling(server):
            for data, end in (*disk.find_data(), (disk.size, disk.size)):
                if data > at:
                    yield Run(at, data - at)
                at = data
                while at < end:
                    buffer = disk.read(at, min(CHUNK, end - at))
                    yield from split_runs(at, memoryview(buffer))
                    at += len(buffer)

    @contextlib.contextmanager
    def _telling(self, server: NbdServer) -> Iterator[None]:
        try:
            yield
        except OSError:
            raise InputError(
                f"{self._content.name} can't be read as {self._kind}: {server.last_message}"
            ) from None


def is_sound(layout: Layout, file: int, jail: Jail) -> bool:
    """Does `qemu-img check` find all of an image's data? Raises CommandError, DeadlineError."""
    done = run_jailed(
        jail,
        make_check_argv(layout, file),
        _CONFINEMENT,
        timeout=_CHECK_TIMEOUT,
        ok=(0, 1, 2, _LEAKS),
        pass_fds=(file,),
    )
    return done.status in (0, _LEAKS)


def make_check_argv(layout: Layout, file: int) -> list[str]:
    options = ",".join(
        (
            f"driver={layout.driver}",
            *("file.driver=file", f"file.filename=/dev/fd/{file}", "file.locking=off"),
        )
    )
    return ["qemu-img", "check", "-q", "--image-opts", options]


def make_node(layout: Layout, file: int) -> dict[str, Any]:
    """The block node of a container that the daemon inherits as descriptor `file`."""
    return {
        "driver": layout.driver,
        "read-only": True,
        **layout.options,
        "file": {
            "driver": "file",
            "filename": f"/dev/fd/{file}",
            "read-only": True,
            "locking": "off",
        },
    }
