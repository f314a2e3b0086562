"""The one place that starts programs.

An argument list and nothing else: no shell, no terminal, no inherited environment, no
descriptor that was not named. A secret goes in by `stdin` or a descriptor, never in argv.
"""

import contextlib
import logging
import os
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
    with spawn(
        argv,
        stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=env,
        pass_fds=pass_fds,
    ) as child:
        out, err = _communicate(child, stdin, time.monotonic() + timeout, timeout, limit)
        status = child.wait()
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
    and killed after `grace` seconds. Raises NodeError when the program is not installed."""
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
    try:
        yield child
    finally:
        end(child, grace=grace)
        for stream in (child.stdin, child.stdout, child.stderr):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()


def end(child: subprocess.Popen[bytes], *, grace: float = 2) -> None:
    """Terminate a child's session if the child still runs; kill it after `grace` seconds."""
    if child.poll() is not None:
        return
    for number, seconds in ((signal.SIGTERM, grace), (signal.SIGKILL, None)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(seconds)
            return


def _communicate(
    child: subprocess.Popen[bytes], stdin: bytes, deadline: float, timeout: float, limit: int
) -> tuple[bytes, bytes]:
    """Feed and drain a child until both outputs are closed, keeping `limit` bytes of each."""
    kept = {child.stdout: bytearray(), child.stderr: bytearray()}
    unsent = memoryview(stdin)
    with selectors.DefaultSelector() as selector:
        for stream in kept:
            assert stream is not None
            selector.register(stream, selectors.EVENT_READ)
        if child.stdin is not None:
            os.set_blocking(child.stdin.fileno(), False)
            selector.register(child.stdin, selectors.EVENT_WRITE)
        while selector.get_map():
            left = deadline - time.monotonic()
            if left <= 0:
                raise DeadlineError(str(child.args[0]), timeout)  # type: ignore[index]
            for key, _ in selector.select(left):
                stream = key.fileobj  # type: ignore[assignment]
                if stream is child.stdin:
                    unsent = _feed(child, unsent, selector)
                    continue
                data = os.read(key.fd, 65536)
                if not data:
                    selector.unregister(key.fileobj)
                buffer = kept[stream]
                buffer += data[: max(0, limit - len(buffer))]
    return bytes(kept[child.stdout]), bytes(kept[child.stderr])


def _feed(
    child: subprocess.Popen[bytes], unsent: memoryview, selector: selectors.BaseSelector
) -> memoryview:
    assert child.stdin is not None
    try:
        unsent = unsent[os.write(child.stdin.fileno(), unsent) :]
    except BrokenPipeError:
        unsent = unsent[:0]
    if not unsent:
        selector.unregister(child.stdin)
        child.stdin.close()
    return unsent
