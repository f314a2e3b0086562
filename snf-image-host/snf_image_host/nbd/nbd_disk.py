"""A disk that an NBD server serves, as the server's client sees it."""

import contextlib
import errno
import os
import threading
import time
from collections.abc import Iterator

import nbd
from snf_image_host.nbd.nbd_server import NbdServer

_ALLOCATION = "base:allocation"
_STEP = 1 << 30
"""Bytes asked about, or zeroed, at once."""
_REQUEST_TIMEOUT = 120.0
"""Seconds that a request may take; then the server is ended, and the request fails."""
_WATCH_INTERVAL = 1.0


class NbdDisk:
    """Offsets and lengths are bytes. What fails raises OSError."""

    def __init__(self, server: NbdServer, handle: nbd.NBD) -> None:
        self._server = server
        self._handle = handle
        self._since: float | None = None
        self._closed = threading.Event()
        self.size: int = handle.get_size()

    def read(self, start: int, length: int) -> bytearray:
        with self._request():
            data: bytearray = self._handle.pread(length, start)
        return data

    def write(self, start: int, data: memoryview) -> None:
        with self._request():
            self._handle.pwrite(data, start)

    def zero(self, start: int, length: int, *, fast: bool = False) -> bool:
        """Make a range zeros, as holes where the server can. fast: only if that is quick, and
        False if it is not."""
        flags = nbd.CMD_FLAG_FAST_ZERO if fast else 0
        if fast and not self._handle.can_fast_zero():
            return False
        try:
            for at in range(start, start + length, _STEP):
                with self._request():
                    self._handle.zero(min(_STEP, start + length - at), at, flags)
        except OSError as error:
            if fast and error.errno == errno.EOPNOTSUPP:
                return False
            raise
        return True

    def flush(self) -> None:
        with self._request():
            self._handle.flush()

    def find_data(self) -> Iterator[tuple[int, int]]:
        """Start and end of each range that may hold more than zeros, in order."""
        at = 0
        while at < self.size:
            for length, flags in self._ask_status(at):
                end = min(at + length, self.size)
                if not flags & nbd.STATE_ZERO:
                    yield at, end
                at = end

    def _ask_status(self, start: int) -> list[tuple[int, int]]:
        """Length and flags of the ranges from `start` on: one at least, none of them empty."""
        if not self._handle.can_meta_context(_ALLOCATION):
            return [(self.size - start, 0)]
        found: list[tuple[int, int]] = []

        def take(context: str, offset: int, entries: list[int], error: object) -> int:
            if context == _ALLOCATION and offset == start:
                found.extend(zip(entries[::2], entries[1::2], strict=False))
            return 0

        with self._request():
            self._handle.block_status(min(_STEP, self.size - start), start, take)
        if not found or not all(length for length, _ in found):
            raise OSError(errno.EPROTO, os.strerror(errno.EPROTO))
        return found

    @contextlib.contextmanager
    def _request(self) -> Iterator[None]:
        self._since = time.monotonic()
        try:
            yield
        except nbd.Error as error:
            number = error.errnum or errno.EIO
            raise OSError(number, os.strerror(number)) from None
        finally:
            self._since = None

    def watch(self) -> None:
        """End the server when a request takes too long; ends with `close`."""
        while not self._closed.wait(_WATCH_INTERVAL):
            since = self._since
            if since is not None and time.monotonic() - since > _REQUEST_TIMEOUT:
                self._server.kill()

    def close(self) -> None:
        self._closed.set()


@contextlib.contextmanager
def open_nbd_disk(server: NbdServer) -> Iterator[NbdDisk]:
    """A connection to the server, with which it has agreed on the export. Raises OSError."""
    handle = nbd.NBD()
    handle.add_meta_context(_ALLOCATION)
    starting = threading.Timer(_REQUEST_TIMEOUT, server.kill)
    starting.daemon = True
    starting.start()
    try:
        handle.connect_socket(server.connect().detach())
    except nbd.Error as error:
        raise OSError(errno.ECONNRESET, str(error)) from None
    finally:
        starting.cancel()
    disk = NbdDisk(server, handle)
    watch = threading.Thread(target=disk.watch, name="watch", daemon=True)
    watch.start()
    try:
        yield disk
    finally:
        disk.close()
        watch.join()
        with contextlib.suppress(nbd.Error):
            handle.shutdown(nbd.SHUTDOWN_ABANDON_PENDING)
