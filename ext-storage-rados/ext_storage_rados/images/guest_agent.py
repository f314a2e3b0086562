"""QEMU's agent in a guest, which can hold the guest's file systems still for a moment.

The protocol is QMP's form over a socket, one JSON object a line: qemu-ga-ref(7). What comes
from it comes from the guest.
"""

import contextlib
import json
import logging
import secrets
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from snf_ganeti.errors import NodeError

log = logging.getLogger(__name__)

CONTROL = Path("/run/ganeti/kvm-hypervisor/ctrl")
RUNTIMES = Path("/run/ganeti/kvm-hypervisor/conf")

_LIMIT = 1 << 16
_SECONDS = 15.0


def find_instance(volume: str, runtimes: Path = RUNTIMES) -> str:
    """The instance that runs on this node with a volume as its disk, empty when none does.

    Ganeti keeps what it started an instance with in INSTANCE.runtime: four parts, the last of
    which is its disks, each with its links and the disk as in the configuration.
    """
    for path in sorted(runtimes.glob("*.runtime")):
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
            _, _, _, disks = json.loads(path.read_text())
            if any(volume in disk["logical_id"] for disk, *_ in disks):
                return path.name.removesuffix(".runtime")
    return ""


@contextlib.contextmanager
def frozen(path: Path, timeout: float = _SECONDS) -> Iterator[bool]:
    """Freeze the guest's file systems for the block; gives whether that was possible.

    They are thawed whatever happens. timeout: seconds for each answer.
    """
    with contextlib.ExitStack() as stack:
        try:
            agent = stack.enter_context(_connect(path, timeout))
            agent.ask("guest-fsfreeze-freeze")
        except NodeError as error:
            log.warning("the guest's file systems are not frozen: %s", error)
            yield False
            return
        try:
            yield True
        finally:
            agent.ask("guest-fsfreeze-thaw")


class Agent:
    """A connection to an agent."""

    def __init__(self, connection: socket.socket, timeout: float) -> None:
        self._connection = connection
        self._timeout = timeout
        self._unread = b""

    def synchronize(self) -> None:
        """Skip what an earlier client left unread. Raises NodeError."""
        number = secrets.randbelow(1 << 31)
        self._send("guest-sync", {"id": number})
        deadline = time.monotonic() + self._timeout
        while self._receive(deadline).get("return") != number:
            pass

    def ask(self, command: str) -> Any:
        """Raises NodeError."""
        self._send(command, {})
        answer = self._receive(time.monotonic() + self._timeout)
        if "return" not in answer:
            reason = str(answer.get("error", {}))[:200]
            raise NodeError(f"the guest agent refuses {command}: {reason}")
        return answer["return"]

    def _send(self, command: str, arguments: dict[str, Any]) -> None:
        message: dict[str, Any] = {"execute": command}
        if arguments:
            message["arguments"] = arguments
        try:
            self._connection.sendall(json.dumps(message).encode() + b"\n")
        except OSError as error:
            raise NodeError(f"the guest agent: {error.strerror or error}") from None

    def _receive(self, deadline: float) -> dict[str, Any]:
        while b"\n" not in self._unread:
            self._connection.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                data = self._connection.recv(4096)
            except OSError as error:
                raise NodeError(f"the guest agent: {error.strerror or error}") from None
            self._unread += data
            if not data or len(self._unread) > _LIMIT or time.monotonic() > deadline:
                raise NodeError("the guest agent does not answer in order")
        line, _, self._unread = self._unread.partition(b"\n")
        try:
            answer = json.loads(line)
        except ValueError:
            return {}
        return answer if isinstance(answer, dict) else {}


@contextlib.contextmanager
def _connect(path: Path, timeout: float) -> Iterator[Agent]:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(timeout)
        try:
            connection.connect(str(path))
        except OSError as error:
            raise NodeError(f"{path}: {error.strerror or error}") from None
        agent = Agent(connection, timeout)
        agent.synchronize()
        yield agent
