"""What the service does for NIC scripts, one after the other; see `request`."""

import contextlib
import logging
import select
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from snf_ganeti.errors import InputError, SnfError
from snf_ganeti_hooks import request, scripts, setup, state
from snf_ganeti_hooks.environ import is_ours
from snf_ganeti_hooks.kernel.uplinks import UplinkWatch
from snf_ganeti_hooks.node import Node, read_node
from snf_ganeti_hooks.settings import SettingsReader

log = logging.getLogger(__name__)

_BACKLOG = 1024
_READ_SECONDS = 1.0
_STOP_SECONDS = 15.0
_CREDENTIALS = struct.Struct("=iII")  # struct ucred, unix(7)


class RequestServer:
    """Answers between the start and the end of its context, from a thread of its own."""

    def __init__(self, settings: SettingsReader, path: Path = Path(request.SOCKET)) -> None:
        self._settings = settings
        self._path = path
        self._uplinks = UplinkWatch()
        self._stopping = False

    def __enter__(self) -> "RequestServer":
        self._listener = open_listener(self._path)
        self._thread = threading.Thread(target=self._serve, name="requests", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """What was begun is ended first."""
        self._stopping = True
        self._path.unlink(missing_ok=True)
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(_STOP_SECONDS)
        self._listener.close()
        self._uplinks.close()

    def _serve(self) -> None:
        while not self._stopping:
            try:
                connection, _ = self._listener.accept()
            except OSError as error:
                if not self._stopping:
                    log.error("NIC scripts can't be heard: %s", error.strerror)
                    time.sleep(1)
                continue
            with connection:
                try:
                    self._answer(connection)
                except (SnfError, OSError, ValueError) as error:
                    log.warning("a NIC script gets no answer: %s", error)
                except Exception:  # the script does it again, and shows the bug
                    log.exception("this is a bug")

    def _answer(self, connection: socket.socket) -> None:
        """Do what one script asks. Without an answer it does so itself."""
        connection.settimeout(_READ_SECONDS)
        if (user := read_user(connection)) != 0:
            raise InputError(f"it runs as user {user}")
        environ = request.parse_request(connection.recv(request.LIMIT + 1))
        if not is_ours(environ):
            return
        with state.locked():
            if has_left(connection):
                raise InputError("it has left")
            made = None
            with collect_lines() as lines:
                try:
                    node = self._read_node()
                    made, status = scripts.act(node, environ), 0
                except SnfError as error:
                    status = error.exit_status
                    lines.append(f"error: {error}")
            try:
                connection.send(request.make_answer(status, lines))
            except OSError:
                if made is not None:
                    setup.withdraw(node, made)
                raise
        if made is not None:
            nic = made.nic
            log.info("%s of %s is up, by its script's request", nic.tap, nic.instance)

    def _read_node(self) -> Node:
        return read_node(self._settings.read(), self._uplinks.read())


def open_listener(path: Path) -> socket.socket:
    """A socket that only root can connect to."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(str(path))
    path.chmod(0o600)
    listener.listen(_BACKLOG)
    return listener


def read_user(connection: socket.socket) -> int:
    """The user id of who connected."""
    size = _CREDENTIALS.size
    data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    return int(_CREDENTIALS.unpack(data)[1])


def has_left(connection: socket.socket) -> bool:
    poll = select.poll()
    poll.register(connection, 0)
    return any(events & select.POLLHUP for _, events in poll.poll(0))


class _Lines(logging.Handler):
    """Keeps what a thread logs."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.kept: list[str] = []
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread:
            self.kept.append(record.getMessage())


@contextlib.contextmanager
def collect_lines() -> Iterator[list[str]]:
    """What this thread logs in the block; it is still logged, too."""
    handler, root = _Lines(), logging.getLogger()
    root.addHandler(handler)
    try:
        yield handler.kept
    finally:
        root.removeHandler(handler)
