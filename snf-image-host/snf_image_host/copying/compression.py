"""Compressed streams: told by their first bytes, unpacked by the usual tools in a jail."""

import contextlib
import fcntl
import os
import select
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO

from snf_ganeti.errors import DeadlineError, InputError, SnfError
from snf_image_helper.protocol import clean_text
from snf_image_host.confinement.jail import Confinement, Jail, Report, open_report, spawn_jailed

PIPE_SIZE = 1 << 20
"""Bytes of a pipe: the most that a user may ask for by default."""

_MEBIBYTE = 1 << 20
_STALL_TIMEOUT = 120.0
"""Seconds in which a decoder that has input must give output."""
_EXIT_TIMEOUT = 10.0
_F_SETPIPE_SZ = 1031
_MESSAGES_SIZE = 16 << 10
"""Bytes that a decoder may say; its limit on the size of files keeps it to that."""
_CONFINEMENT = Confinement(
    "decoder", address_space=768 * _MEBIBYTE, cpu=24 * 3600, file_size=_MESSAGES_SIZE
)


@dataclass(frozen=True)
class Compression:
    """A row of the table. magic: how a stream begins; argv: decodes stdin to stdout."""

    name: str
    magic: bytes
    argv: tuple[str, ...]


TABLE = (
    Compression("gz", b"\x1f\x8b\x08", ("gzip", "-dc")),
    Compression(
        "xz",
        b"\xfd7zXZ\0",
        (
            *("xz", "--format=xz", "--threads=0", "-dc"),
            *("--memlimit-decompress=256MiB", "--memlimit-mt-decompress=256MiB"),
        ),
    ),
    Compression("zst", b"\x28\xb5\x2f\xfd", ("zstd", "--quiet", "--memory=256MB", "-dc")),
    Compression("lz4", b"\x04\x22\x4d\x18", ("lz4", "-q", "-dc")),
)
"""An image whose own first bytes are one of these does not exist: they are no boot code."""


def find_compression(head: bytes) -> Compression | None:
    return next((row for row in TABLE if head.startswith(row.magic)), None)


class Decoder:
    """A jailed decoder, its output read like a file."""

    def __init__(
        self,
        name: str,
        compression: Compression,
        child: subprocess.Popen[bytes],
        messages: int,
        report: Report,
    ) -> None:
        self._name = name
        self._report = report
        self._compression = compression
        self._child = child
        self._messages = messages
        assert child.stdout is not None
        self._output = child.stdout.fileno()
        self.feed_error: SnfError | None = None

    def read_into(self, buffer: memoryview) -> int:
        """Read some bytes; 0 at the stream's end. Raises InputError, NodeError, DeadlineError,
        and what the feeding raised."""
        readable, _, _ = select.select([self._output], [], [], _STALL_TIMEOUT)
        if not readable:
            raise DeadlineError(f"{self._name}: unpacking {self._compression.name}", _STALL_TIMEOUT)
        count = os.readv(self._output, [buffer])
        if not count:
            self._require_success()
        return count

    def _require_success(self) -> None:
        try:
            status = self._child.wait(_EXIT_TIMEOUT)
        except subprocess.TimeoutExpired:
            raise DeadlineError(
                f"{self._name}: {self._compression.argv[0]}, at its end,", _EXIT_TIMEOUT
            ) from None
        if self.feed_error is not None:
            raise self.feed_error
        if status:
            said = os.pread(self._messages, _MESSAGES_SIZE, 0).decode("utf-8", "replace").strip()
            self._report.require_run(self._compression.argv[0], said)
            last = clean_text(said.splitlines()[-1]) if said else f"it ended with {status}"
            raise InputError(f"{self._name} is no sound {self._compression.name} stream: {last}")


@contextlib.contextmanager
def open_decoder(
    name: str,
    compression: Compression,
    jail: Jail,
    source: int | Callable[[memoryview], int],
) -> Iterator[Decoder]:
    """Decode a stream. source: a descriptor at the stream's start, which the decoder reads
    itself, or what fills a buffer with the next bytes and gives 0 at the end."""
    with contextlib.ExitStack() as stack:
        messages = os.memfd_create("messages", os.MFD_CLOEXEC)
        stack.callback(os.close, messages)
        report = stack.enter_context(open_report())
        child = stack.enter_context(
            spawn_jailed(
                jail,
                compression.argv,
                _CONFINEMENT,
                stdin=source if isinstance(source, int) else subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=messages,
                report=report,
            )
        )
        decoder = Decoder(name, compression, child, messages, report)
        _widen(child.stdout)
        if not isinstance(source, int):
            _widen(child.stdin)
            stack.enter_context(_feeding(decoder, child, source))
        yield decoder


def _widen(pipe: IO[bytes] | None) -> None:
    """A large pipe lets both ends run ahead; over the user's quota it stays as it is."""
    assert pipe is not None
    with contextlib.suppress(PermissionError):
        fcntl.fcntl(pipe.fileno(), _F_SETPIPE_SZ, PIPE_SIZE)


@contextlib.contextmanager
def _feeding(
    decoder: Decoder, child: subprocess.Popen[bytes], fill: Callable[[memoryview], int]
) -> Iterator[None]:
    """A thread that hands the source's bytes on; `fill` has a deadline of its own."""
    assert child.stdin is not None
    stdin = child.stdin

    def feed() -> None:
        buffer = memoryview(bytearray(PIPE_SIZE))
        try:
            while count := fill(buffer):
                at = 0
                while at < count:
                    at += os.write(stdin.fileno(), buffer[at:count])
        except BrokenPipeError:
            pass  # its status tells why
        except SnfError as error:
            decoder.feed_error = error
        finally:
            with contextlib.suppress(BrokenPipeError):
                stdin.close()

    thread = threading.Thread(target=feed, name="feed", daemon=True)
    thread.start()
    try:
        yield
    finally:
        child.kill()
        thread.join()
