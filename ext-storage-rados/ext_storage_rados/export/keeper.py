"""The keeper: holds what has to outlive a worker, and replaces workers that die.

    python3 -m ext_storage_rados.export.keeper FOLDER BUSY

It prints the loop device's path, or `error: …`, as the only line of its output; then it stays
until SIGTERM, and until nobody uses the device any more. BUSY is the descriptor of the lock on
changes of the export, which it holds until it can be found and ended.
"""

import contextlib
import logging
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from socket import socket

from ext_storage_rados.ceph import predecessor
from ext_storage_rados.export import control, fuse, loop
from ext_storage_rados.export.folder import Folder
from ext_storage_rados.export.mount import mount, unmount
from snf_ganeti import process
from snf_ganeti.errors import NodeError, SnfError
from snf_ganeti.lock import lock_file
from snf_ganeti.log import configure

log = logging.getLogger(__name__)

_DRAIN_SECONDS = 10.0
_LEAVE_SECONDS = 5.0
_PAUSES = (0.0, 0.2, 1.0, 2.0, 5.0)
_LOCK_SECONDS = 2.0


class Stop:
    """SIGTERM as something that a selector can wait for."""

    def __init__(self) -> None:
        self.reader, self._writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.signal(signal.SIGTERM, lambda *_: None)
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)

    def take(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self.reader, 64)


class Keeper:
    """One export, from its mount to its end."""

    def __init__(
        self, folder: Folder, descriptor: int, session: fuse.Session, listener: socket
    ) -> None:
        self.folder = folder
        self.descriptor = descriptor
        self.session = session
        self.listener = listener
        self.stop = Stop()
        self._hold = -1

    def keep(self) -> None:
        """Serve until the file system is gone. Raises NodeError when it can't begin."""
        for pause in self._make_pauses():
            if pause and self._wait(None, pause) and self._end():
                return
            with self._start_worker() as worker:
                if self._hold < 0:
                    self._attach()
                status = self._supervise(worker)
            if status == 0:
                return
            log.error("the worker ended with %d", status)
            if not self.session.resends:
                # What it had read is lost, and whoever asked would wait for ever.
                raise NodeError("the worker died, and this kernel can't repeat its requests")
            os.write(self.descriptor, fuse.make_resend())

    def _make_pauses(self) -> Iterator[float]:
        """Longer and longer ones, from the start again after a worker that lived."""
        count = 0
        while True:
            began = time.monotonic()
            yield _PAUSES[min(count, len(_PAUSES) - 1)]
            count = 0 if time.monotonic() > began + 60 else count + 1

    @contextlib.contextmanager
    def _start_worker(self) -> Iterator[subprocess.Popen[bytes]]:
        """A worker that has opened the image."""
        ready, ready_writer = os.pipe2(os.O_CLOEXEC)
        passed = (self.descriptor, self.listener.fileno(), ready_writer)
        module = "ext_storage_rados.export.worker"
        argv = [*make_python_argv(module), str(self.folder.path), *map(str, passed)]
        with process.spawn(argv, stderr=sys.stderr.buffer, pass_fds=passed) as worker:
            os.close(ready_writer)
            try:
                opened = os.read(ready, 1)
            finally:
                os.close(ready)
            if not opened and self._hold < 0:
                status = worker.wait()
                raise NodeError(f"the worker ended with {status}: {self._read_last_line()}")
            yield worker

    def _read_last_line(self) -> str:
        lines = self.folder.log.read_text(errors="replace").splitlines() or [""]
        return lines[-1].removeprefix("error: ")

    def _attach(self) -> None:
        """Put the loop device on the file, and tell whoever waits for it."""
        device, self._hold = loop.attach(self.folder.disk)
        self.folder.device.symlink_to(device)
        with contextlib.suppress(BrokenPipeError):  # killed; the next run finds the device itself
            print(device, flush=True)
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)

    def _supervise(self, worker: subprocess.Popen[bytes]) -> int:
        """Until the worker ends; gives its status."""
        descriptor = os.pidfd_open(worker.pid)
        try:
            while not self._wait(descriptor, None):
                if self._end():
                    return self._finish(worker)
        finally:
            os.close(descriptor)
        return worker.wait()

    def _finish(self, worker: subprocess.Popen[bytes]) -> int:
        """All that was written is in the cluster; a worker that can't take its leave of it,
        because it does not answer, is ended."""
        try:
            return worker.wait(_LEAVE_SECONDS)
        except subprocess.TimeoutExpired:
            export = self.folder.read_export()
            assert export is not None
            log.warning("%s is left without a word to Ceph", export.image)
            predecessor.note(export.image.name, export.client)
            return 0

    def _wait(self, ended: int | None, seconds: float | None) -> bool:
        """Wait; True: for a worker's end it came, for a pause SIGTERM came in it."""
        with selectors.DefaultSelector() as selector:
            selector.register(self.stop.reader, selectors.EVENT_READ)
            if ended is not None:
                selector.register(ended, selectors.EVENT_READ)
            ready = {key.fd for key, _ in selector.select(seconds)}
        if self.stop.reader in ready:
            self.stop.take()
        return ended in ready if ended is not None else bool(ready)

    def _end(self) -> bool:
        """Let go of the loop device, and unmount once nobody else has it; then the worker
        finds the file system gone. False: somebody has it, and all goes on."""
        device = self.folder.device.readlink()
        os.close(self._hold)
        deadline = time.monotonic() + _DRAIN_SECONDS
        while not unmount(self.folder.disk):
            if time.monotonic() > deadline:
                log.warning("%s is in use by %s", device, ", ".join(loop.find_users(device)))
                self._hold = os.open(device, os.O_RDWR | os.O_CLOEXEC)
                return False
            time.sleep(0.02)
        return True


def main() -> int:
    folder, busy = Folder(Path(sys.argv[1])), int(sys.argv[2])
    os.set_inheritable(busy, False)
    configure("keeper")
    try:
        with lock_file(folder.lock, timeout=_LOCK_SECONDS), control.listen(folder) as listener:
            folder.pid.write_text(f"{os.getpid()}\n")
            with mount(folder.disk) as descriptor:
                session = shake_hands(descriptor)
                keeper = Keeper(folder, descriptor, session, listener)
                os.close(busy)
                keeper.keep()
            folder.remove_files()
    except SnfError as error:
        print(f"error: {error}", flush=True)
        log.error("%s", error)
        return error.exit_status
    return 0


def make_python_argv(module: str) -> list[str]:
    return [sys.executable, "-I", "-m", module]


def shake_hands(descriptor: int) -> fuse.Session:
    """The kernel's first request, once for all workers."""
    message = memoryview(os.read(descriptor, fuse.BUFFER_SIZE))
    session = fuse.parse_init(message)
    reply = fuse.make_init_reply(session)
    request = fuse.parse_request(message)
    os.write(descriptor, fuse.make_header(request.unique, len(reply)) + reply)
    return session


if __name__ == "__main__":
    sys.exit(main())
