"""The file system's requests, answered with librbd as they are done, in any order."""

import errno
import logging
import os
from collections.abc import Callable
from typing import Any

import rbd

from ext_storage_rados.export import fuse
from ext_storage_rados.export.fuse import Opcode
from ext_storage_rados.export.served_image import ServedImage

log = logging.getLogger(__name__)

_NO_LONGER_OURS = (errno.ESHUTDOWN, errno.EROFS)
_CLOSED = (errno.ENODEV, errno.ENOTCONN)
_KEEP_SIZE = 1  # FALLOC_FL_KEEP_SIZE


class Server:
    """Reads requests until the file system is unmounted."""

    def __init__(self, descriptor: int, served: ServedImage) -> None:
        self.descriptor = descriptor
        self.served = served
        self._told: set[int] = set()
        self._handlers: dict[int, Callable[[fuse.Request, memoryview], None]] = {
            Opcode.GETATTR: self._get_attributes,
            Opcode.SETATTR: self._set_attributes,
            Opcode.OPEN: self._open,
            Opcode.READ: self._read,
            Opcode.WRITE: self._write,
            Opcode.FSYNC: self._flush,
            Opcode.FLUSH: self._acknowledge,
            Opcode.FALLOCATE: self._zero,
            Opcode.STATFS: self._get_statistics,
            Opcode.RELEASE: self._release,
        }

    def serve(self) -> None:
        buffer = bytearray(fuse.BUFFER_SIZE)
        view = memoryview(buffer)
        while True:
            try:
                length = os.readv(self.descriptor, [buffer])
            except OSError as error:
                if error.errno in _CLOSED:
                    return
                if error.errno in (errno.EINTR, errno.ENOENT, errno.EAGAIN):
                    continue  # a request was taken back before we had it
                raise
            self._dispatch(view[:length])

    def _dispatch(self, message: memoryview) -> None:
        request = fuse.parse_request(message)
        handler = self._handlers.get(request.opcode)
        if handler is not None:
            try:
                with self.served.gate:
                    handler(request, message)
            except rbd.Error as error:
                self._fail(request, getattr(error, "errno", None) or errno.EIO)
        elif request.opcode not in fuse.UNANSWERED:
            self._answer(request, error=errno.ENOSYS)

    def _answer(self, request: fuse.Request, data: bytes = b"", *, error: int = 0) -> None:
        """From any thread: the kernel takes each reply whole."""
        try:
            os.writev(self.descriptor, [fuse.make_header(request.unique, len(data), error), data])
        except OSError as lost:
            if lost.errno not in (errno.ENOENT, *_CLOSED):  # whoever asked is gone
                raise

    def _fail(self, request: fuse.Request, number: int) -> None:
        """number: librbd's, of errno. A block device has one error for all, the log has each."""
        if number not in self._told:
            self._told.add(number)
            log.error("request %d fails: %s", request.opcode, os.strerror(number))
        if number in _NO_LONGER_OURS:
            self.served.note_fenced(os.strerror(number))
        self._answer(request, error=errno.EIO)

    def _complete(
        self, request: fuse.Request, make_reply: Callable[[Any], bytes]
    ) -> Callable[..., None]:
        """What librbd calls when an operation is done: with the completion, and data if it
        read any."""

        def done(completion: rbd.Completion, data: bytes | None = None) -> None:
            result = completion.get_return_value()
            if result < 0:
                self._fail(request, -result)
            else:
                self._answer(request, make_reply(data))

        return done

    def _acknowledge(self, request: fuse.Request, message: memoryview) -> None:
        self._answer(request)

    def _get_attributes(self, request: fuse.Request, message: memoryview) -> None:
        self._answer(request, fuse.make_attributes(self.served.size))

    def _set_attributes(self, request: fuse.Request, message: memoryview) -> None:
        if fuse.changes_size(message):
            return self._answer(request, error=errno.EPERM)
        return self._get_attributes(request, message)

    def _get_statistics(self, request: fuse.Request, message: memoryview) -> None:
        self._answer(request, fuse.make_statfs(self.served.size))

    def _open(self, request: fuse.Request, message: memoryview) -> None:
        self._answer(request, fuse.make_open_reply())

    def _release(self, request: fuse.Request, message: memoryview) -> None:
        self._answer(request)

    def _read(self, request: fuse.Request, message: memoryview) -> None:
        extent = fuse.parse_extent(message)
        length = max(0, min(extent.length, self.served.size - extent.offset))
        if not length:
            return self._answer(request)
        done = self._complete(request, bytes)
        self.served.image.aio_read(extent.offset, length, done)
        return None

    def _write(self, request: fuse.Request, message: memoryview) -> None:
        if self.served.export.fenced:
            return self._answer(request, error=errno.EIO)
        extent = fuse.parse_extent(message)
        reply = fuse.make_write_reply(extent.length)
        done = self._complete(request, lambda _: reply)
        data = bytes(fuse.find_data(message))
        self.served.image.aio_write(data, extent.offset, done)
        return None

    def _zero(self, request: fuse.Request, message: memoryview) -> None:
        """A hole or a range of zeroes: librbd deallocates what it can, and zeroes the rest."""
        extent, mode = fuse.parse_fallocate(message)
        if self.served.export.fenced:
            return self._answer(request, error=errno.EIO)
        if not mode & _KEEP_SIZE:
            return self._answer(request, error=errno.EOPNOTSUPP)
        done = self._complete(request, lambda _: b"")
        self.served.image.aio_write_zeroes(extent.offset, extent.length, done)
        return None

    def _flush(self, request: fuse.Request, message: memoryview) -> None:
        """A write is answered when the cluster has it, so there is never anything to flush; and
        librbd would want the lock for it."""
        self._answer(request, error=errno.EIO if self.served.export.fenced else 0)
