"""diskdump: a whole disk as it is."""

import contextlib
from collections.abc import Iterator

from snf_ganeti.errors import InputError
from snf_image_host.copying.content import Content
from snf_image_host.copying.disk_copy import Run
from snf_image_host.formats.format import Room, Workshop


class Diskdump:
    def __init__(self, content: Content, workshop: Workshop) -> None:
        if not content.head:
            raise InputError(f"{content.name} is empty")
        self._content = content
        self.size = content.size
        self.file = content.descriptor
        self.least = content.least

    def open_runs(self, room: Room) -> contextlib.AbstractContextManager[Iterator[Run]]:
        self._content.hold_to(room.size)
        return contextlib.nullcontext(self._content.make_runs())
