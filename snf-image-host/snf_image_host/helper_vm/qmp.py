"""QEMU's control channel: QMP over a socket whose other end QEMU inherited.

QEMU may be in the hands of an image's bytes, so its lines are bounded in length and every
command in time. Protocol: docs/interop/qmp-spec.txt of QEMU.
"""

import json
import logging
import socket
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from snf_ganeti.errors import DeadlineError, NodeError

log = logging.getLogger(__name__)

_LINE_LIMIT = 256 << 10
"""Bytes of a line; the longest that QEMU has reason to send are a few thousand."""


class QemuEnded(NodeError):
    """QEMU closed its end: what it said last on its console is the reason."""


@dataclass(frozen=True)
class Command:
    """A command of QMP. fds: descriptors that go to QEMU with it."""

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)
    fds: tuple[int, ...] = ()


class Qmp:
    """One conversation, from its beginning. `timeout`: seconds that QEMU may take to take a
    command, and then to answer."""

    def __init__(self, channel: socket.socket, timeout: float) -> None:
        self._channel = channel
        self._timeout = timeout
        self._partial = b""
        self._unanswered: deque[str] = deque()
        self.post(Command("qmp_capabilities"))

    def post(self, command: Command) -> None:
        """Send a command and go on; if it fails, or QEMU has ended, the next `execute` says so.

        Raises DeadlineError.
        """
        fields = {"execute": command.name, "arguments": command.arguments}
        line = json.dumps(fields).encode() + b"\n"
        self._unanswered.append(command.name)
        try:
            self._channel.settimeout(self._timeout)
            sent = socket.send_fds(self._channel, [line], command.fds)
            self._channel.sendall(line[sent:])
        except TimeoutError:
            raise DeadlineError(f"QEMU's {command.name}", self._timeout) from None
        except (BrokenPipeError, ConnectionResetError):
            log.debug("QEMU ended before %s", command.name)

    def execute(self, command: Command) -> Any:
        """What the command returns. Raises NodeError (it failed), QemuEnded, DeadlineError."""
        self.post(command)
        deadline = time.monotonic() + self._timeout
        while self._unanswered:
            name = self._unanswered.popleft()
            answer = self._await_answer(deadline, name)
            if "error" in answer:
                raise NodeError(f"QEMU refused {name}: {answer['error']}")
        return answer["return"]

    def _await_answer(self, deadline: float, name: str) -> dict[str, Any]:
        """The next object that is an answer: the greeting and events are none."""
        while True:
            message = self._read_message(deadline, name)
            if "return" in message or "error" in message:
                return message
            if time.monotonic() > deadline:
                raise DeadlineError(f"QEMU's {name}", self._timeout)

    def _read_message(self, deadline: float, name: str) -> dict[str, Any]:
        while b"\n" not in self._partial:
            try:
                self._channel.settimeout(_find_time_left(deadline))
                data = self._channel.recv(65536)
            except TimeoutError:
                raise DeadlineError(f"QEMU's {name}", self._timeout) from None
            except ConnectionResetError:
                data = b""
            self._partial += data
            if not data:
                raise QemuEnded(f"QEMU ended before it answered {name}")
            if len(self._partial) > _LINE_LIMIT:
                raise NodeError("QEMU sent a line that is too long")
        line, _, self._partial = self._partial.partition(b"\n")
        return _parse(line)


def _find_time_left(deadline: float) -> float:
    """Seconds, more than 0. Raises TimeoutError."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _parse(line: bytes) -> dict[str, Any]:
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        message = None
    if not isinstance(message, dict):
        raise NodeError("QEMU sent what is not QMP")
    return message
