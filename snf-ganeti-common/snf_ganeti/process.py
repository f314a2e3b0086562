"""The one place that starts programs.

An argument list and nothing else: no shell, no terminal, no inherited environment, no
descriptor that was not named. A secret goes in by `stdin` or a descriptor, never in argv.
"""

import contextlib
import logging
import os
import select
import selectors
import shlex
import signal
import subprocess
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO

from snf_ganeti.errors import CommandError, DeadlineError, NodeError

log = logging.getLogger(__name__)

ENVIRONMENT: Mapping[str, str] = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C.UTF-8",
    "HOME": "/",
}
OUTPUT_LIMIT = 4 << 20
"""Bytes kept of each output stream of a command; what comes after is dropped."""


@dataclass(frozen=True)
class Completed:
    """A command that ended with an accepted status; outputs are cut at the caller's limit."""

    status: int
    stdout: bytes
    stderr: str

    @property
    def text(self) -> str:
        return self.stdout.decode("utf-8", "replace")


def run(
    argv: Sequence[str],
    *,
    stdin: bytes = b"",
    timeout: float = 60,
    ok: Collection[int] = (0,),
    env: Mapping[str, str] | None = None,
    pass_fds: Collection[int] = (),
    limit: int = OUTPUT_LIMIT,
) -> Completed:
    """Run a command to its end and give what it printed.

    timeout: seconds; env: added to ENVIRONMENT; limit: bytes kept of each output.
    Raises CommandError (a status not in `ok`), DeadlineError, NodeError (not installed).
    """
    deadline = time.monotonic() + timeout
    with spawn(
        argv,
        stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=env,
        pass_fds=pass_fds,
    ) as child:
        try:
            out, err = _communicate(child, stdin, deadline, limit)
            status = child.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise DeadlineError(argv[0], timeout) from None
    stderr = err.decode("utf-8", "replace")
    if status not in ok:
        log.debug("failed with %d: %s\n%s", status, shlex.join(argv), stderr)
        raise CommandError(argv, status, stderr or out[-4096:].decode("utf-8", "replace"))
    return Completed(status, out, stderr)


@contextlib.contextmanager
def spawn(
    argv: Sequence[str],
    *,
    stdin: int | IO[bytes] = subprocess.DEVNULL,
    stdout: int | IO[bytes] = subprocess.DEVNULL,
    stderr: int | IO[bytes] | None = None,
    env: Mapping[str, str] | None = None,
    pass_fds: Collection[int] = (),
    grace: float = 2,
) -> Iterator[subprocess.Popen[bytes]]:
    """A child that does not outlive the block: at its end the whole session is terminated,
    and killed after `grace` seconds. Raises NodeError when the program can't be started."""
    log.debug("run: %s", shlex.join(argv))
    try:
        child = subprocess.Popen(
            list(argv),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env={**ENVIRONMENT, **(env or {})},
            pass_fds=tuple(pass_fds),
            start_new_session=True,
        )
    except FileNotFoundError:
        raise NodeError(f"{argv[0]} is not installed") from None
    except OSError as error:
        raise NodeError(f"{argv[0]} can't be started: {error.strerror}") from None
    try:
        yield child
    finally:
        end(child, grace=grace)
        for stream in (child.stdin, child.stdout, child.stderr):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()


def end(child: subprocess.Popen[bytes], *, grace: float = 2) -> None:
    """Terminate a child's whole session; kill what is left `grace` seconds later, or at once
    when the child itself has ended.

    A child that was waited for is left alone: its number may be another process's by now.
    """
    if child.returncode is not None:
        return
    _signal_session(child, signal.SIGTERM)
    _await_exit(child, grace)
    _signal_session(child, signal.SIGKILL)
    child.wait()


def _signal_session(child: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, number)


def _await_exit(child: subprocess.Popen[bytes], seconds: float) -> None:
    """Wait without reaping: as long as the child is a zombie its number is nobody else's."""
    descriptor = os.pidfd_open(child.pid)
    try:
        select.select([descriptor], [], [], seconds)
    finally:
        os.close(descriptor)


def _communicate(
    child: subprocess.Popen[bytes], stdin: bytes, deadline: float, limit: int
) -> tuple[bytes, bytes]:
    """Feed and drain a child until its streams are closed, keeping `limit` bytes of each
    output. Raises TimeoutExpired."""
    assert child.stdout is not None and child.stderr is not None
    out, err, unsent = bytearray(), bytearray(), memoryview(stdin)
    with selectors.DefaultSelector() as selector:
        selector.register(child.stdout, selectors.EVENT_READ, out)
        selector.register(child.stderr, selectors.EVENT_READ, err)
        if child.stdin is not None:
            os.set_blocking(child.stdin.fileno(), False)
            selector.register(child.stdin, selectors.EVENT_WRITE)
        while selector.get_map():
            left = deadline - time.monotonic()
            if left <= 0:
                raise subprocess.TimeoutExpired(child.args, left)
            for key, _ in selector.select(left):
                if key.fileobj is child.stdin:
                    unsent = _feed(child.stdin, unsent, selector)
                else:
                    _drain(key, limit, selector)
    return bytes(out), bytes(err)


def _drain(key: selectors.SelectorKey, limit: int, selector: selectors.BaseSelector) -> None:
    """Read once; what is over the limit is dropped, so that the child never stalls."""
    data = os.read(key.fd, 65536)
    if not data:
        selector.unregister(key.fileobj)
    kept: bytearray = key.data
    kept += data[: max(0, limit - len(kept))]


def _feed(stream: IO[bytes], unsent: memoryview, selector: selectors.BaseSelector) -> memoryview:
    """Write once; at the end, or when the child reads no more, close its input."""
    try:
        unsent = unsent[os.write(stream.fileno(), unsent) :]
    except BrokenPipeError:
        unsent = unsent[:0]
    if not unsent:
        selector.unregister(stream)
        stream.close()
    return unsent
