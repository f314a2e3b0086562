"""The two virtio-serial ports to the host, found by name."""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from snf_image_helper.protocol import (
    EVENTS_PORT,
    REQUEST_LIMIT,
    REQUEST_PORT,
    Event,
    ProtocolError,
    is_cancel,
    make_event_line,
)

_SYSFS = Path("/sys/class/virtio-ports")
_WAIT = 20.0
"""Seconds that a port may take to appear after its driver was loaded."""


class Ports:
    """The host, as the helper talks with it."""

    def __init__(self, request_fd: int, events_fd: int) -> None:
        self._request_fd = request_fd
        self._events_fd = events_fd
        self._rest = b""

    def send(self, event: Event) -> None:
        """Write one event whole; it is with the host when this returns."""
        line = memoryview(make_event_line(event, time.time()))
        while line:
            line = line[os.write(self._events_fd, line) :]

    def read_line(self) -> bytes:
        """The host's next line. Raises ProtocolError when none comes."""
        return self._read_line(REQUEST_LIMIT)

    def watch_cancel(self, cancel: Callable[[], None]) -> None:
        """Call `cancel`, from a thread, when the host asks for the end."""
        threading.Thread(target=self._wait_cancel, args=(cancel,), daemon=True).start()

    def _wait_cancel(self, cancel: Callable[[], None]) -> None:
        with contextlib.suppress(ProtocolError, OSError):
            if is_cancel(self._read_line(1024)):
                cancel()

    def _read_line(self, limit: int) -> bytes:
        kept = bytearray(self._rest)
        while b"\n" not in kept:
            data = os.read(self._request_fd, 65536)
            if not data or len(kept) > limit:
                raise ProtocolError("the host's line ended early or is too long")
            kept += data
        line, _, self._rest = bytes(kept).partition(b"\n")
        return line


@contextlib.contextmanager
def open_ports() -> Iterator[Ports]:
    """Both ports, open; waits for the kernel to show them. Raises OSError."""
    with _open(REQUEST_PORT, os.O_RDONLY) as request, _open(EVENTS_PORT, os.O_WRONLY) as events:
        yield Ports(request, events)


@contextlib.contextmanager
def _open(name: str, flags: int) -> Iterator[int]:
    descriptor = os.open(_find_device(name), flags | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _find_device(name: str) -> str:
    deadline = time.monotonic() + _WAIT
    while time.monotonic() < deadline:
        for port in _SYSFS.glob("*/name"):
            if port.read_text().strip() == name:
                return f"/dev/{port.parent.name}"
        time.sleep(0.01)
    raise FileNotFoundError(f"no virtio-serial port is named {name}")
