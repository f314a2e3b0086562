"""Events of a deployment, to the site's progress monitor or to the log.

A monitor is a program that gets the instance's name as its argument and one JSON object a
line on its standard input. It is a courtesy: when it dies, hangs or does not read, messages
are dropped and counted, and the deployment goes on at its own pace.
"""

import contextlib
import json
import logging
import os
import select
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from snf_ganeti.errors import NodeError
from snf_ganeti.process import spawn

log = logging.getLogger(__name__)

Event = Mapping[str, Any]
Send = Callable[[Event], None]

BACKLOG_LIMIT = 256 << 10
"""Bytes kept for a monitor that is slow to read, beside what its pipe holds."""
_LAST_WORDS = 2.0
"""Seconds that a monitor gets to read the rest, and as many to end by itself."""


def make_info(messages: Sequence[str], timestamp: float) -> dict[str, Any]:
    """Something that went well. timestamp: seconds since the epoch, here and below."""
    return {"type": "image-info", "timestamp": timestamp, "messages": list(messages)}


def make_error(messages: Sequence[str], timestamp: float) -> dict[str, Any]:
    """Why the host's part of a deployment failed."""
    return {"type": "image-error", "timestamp": timestamp, "messages": list(messages)}


def make_copy_progress(position: int, total: int, timestamp: float) -> dict[str, Any]:
    """How far the copy is. position, total: bytes; total is 0 while nobody knows it."""
    percent = min(100.0, 100 * position / total) if total > 0 else 0.0
    return {
        "type": "image-copy-progress",
        "timestamp": timestamp,
        "position": position,
        "total": total,
        "progress": round(percent, 2),
    }


def describe_event(event: Event) -> str:
    """An event as a line for people."""
    match event:
        case {"type": "image-copy-progress", "progress": progress, "position": position}:
            return f"copied {position >> 20} MiB ({progress:.0f} %)"
        case {"subtype": "task-start", "task": task}:
            return f"{task} begins"
        case {"subtype": "task-end", "task": task, "result": result, "reason": reason}:
            return f"{task}: {result}" + (f" ({reason})" if reason else "")
        case {"subtype": "found", "properties": properties}:
            return "found " + ", ".join(f"{name}={value}" for name, value in properties.items())
        case {"subtype": "warning" | "error" as kind, "messages": messages}:
            return f"{kind}: {'; '.join(messages)}"
        case {"type": "image-error", "messages": messages}:
            return f"error: {'; '.join(messages)}"
        case {"messages": messages}:
            return "; ".join(messages)
        case {"type": "image-result", "status": status, "reason": reason}:
            return f"result: {status}" + (f" ({reason})" if reason else "")
    return str(event.get("subtype") or event.get("type"))


def log_event(event: Event) -> None:
    log.info("[MONITOR] %s", describe_event(event))


@contextlib.contextmanager
def open_monitor(program: str, instance: str) -> Iterator[Send]:
    """A function that sends an event and returns at once.

    program: absolute path, or empty for the log, which also stands in for a program that can't
    be started. At the end of the block the monitor reads end of file, and is ended if it stays.
    """
    with contextlib.ExitStack() as stack:
        send: Send = log_event
        if program:
            try:
                # What it prints would push the reason of a failure out of Ganeti's last lines.
                child = stack.enter_context(
                    spawn([program, instance], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
                )
            except NodeError as error:
                log.warning("progress monitor: %s; events go to the log", error)
            else:
                pipe = _Pipe(child, program)
                stack.callback(pipe.close)
                send = pipe.send
        yield send


class _Pipe:
    """The standard input of a monitor, never waited for."""

    def __init__(self, child: "subprocess.Popen[bytes]", program: str) -> None:
        assert child.stdin is not None
        self._child = child
        self._program = program
        self._descriptor = child.stdin.fileno()
        self._unsent: deque[bytes] = deque()
        self._dropped = 0
        self._broken = False
        os.set_blocking(self._descriptor, False)

    def send(self, event: Event) -> None:
        line = json.dumps(dict(event)).encode() + b"\n"
        self._flush()
        if self._broken or len(line) + sum(map(len, self._unsent)) > BACKLOG_LIMIT:
            self._dropped += 1
            return
        self._unsent.append(line)
        self._flush()

    def close(self) -> None:
        """Give the monitor its last words' time, then say what it missed."""
        deadline = time.monotonic() + _LAST_WORDS
        while self._unsent and (left := deadline - time.monotonic()) > 0:
            select.select([], [self._descriptor], [], left)
            self._flush()
        assert self._child.stdin is not None
        self._child.stdin.close()
        dropped = self._dropped + len(self._unsent)
        if dropped:
            log.warning("progress monitor %s missed %d messages", self._program, dropped)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(_LAST_WORDS)

    def _flush(self) -> None:
        """Write what the pipe takes now. A line that is begun stays first until it is whole."""
        try:
            while self._unsent:
                line = self._unsent[0]
                sent = os.write(self._descriptor, line)
                if sent < len(line):
                    self._unsent[0] = line[sent:]
                    return
                self._unsent.popleft()
        except BlockingIOError:
            return
        except OSError:  # it has left; nothing that waits will be read
            self._broken = True
            self._dropped += len(self._unsent)
            self._unsent.clear()
