"""The helper VM's console: its end is kept, in case the VM ends without a word."""

import logging
import re

from snf_image_helper.protocol import clean_text

log = logging.getLogger(__name__)

_LIMIT = 64 << 10
"""Bytes kept of the console's end; the VM may print as much as it likes."""
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1bc")
_KERNEL = re.compile(r"\[ *\d+\.\d+\]")


class Console:
    """What the VM printed last, as clean lines; each goes to the debug log as it comes."""

    def __init__(self) -> None:
        self._tail = b""
        self._logged = b""

    def keep(self, data: bytes) -> None:
        self._tail = (self._tail + data)[-_LIMIT:]
        if log.isEnabledFor(logging.DEBUG):
            *lines, self._logged = (self._logged + data)[-_LIMIT:].split(b"\n")
            for line in filter(None, map(_clean, lines)):
                log.debug("console: %s", line)

    @property
    def last_line(self) -> str:
        """The last line of a program, else of the kernel, else `nothing`."""
        lines = [line for line in map(_clean, self._tail.split(b"\n")) if line]
        programs = [line for line in lines if not _KERNEL.match(line)]
        return next(iter((programs or lines)[-1:]), "nothing")


def _clean(line: bytes) -> str:
    return clean_text(_CONTROL.sub("", line.decode("utf-8", "replace")))
