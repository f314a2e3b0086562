"""A helper that was taken over by an image, and what it may try to do to the host.

Each lie is played by a thread on the far ends of a session; docs/hostile-images.md tells what
the host does not believe.
"""

import contextlib
import json
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import IO, Any

from snf_image_helper.protocol import (
    EVENT_LIMIT,
    EVENTS_LIMIT,
    VERSION,
    Event,
    Ready,
    RunResult,
    TaskEnd,
    TaskStart,
    Warned,
    make_event_line,
)
from snf_image_host.helper_vm.qmp import Qmp
from snf_image_host.helper_vm.running_vm import RunningVm


class FarEnd:
    """The VM's ends of a session, and the host's for whoever makes the session."""

    def __init__(self) -> None:
        self.host_request, self.request = socket.socketpair()
        self.host_events, self.events = socket.socketpair()
        self.host_control, self.control = socket.socketpair()
        output, console = os.pipe()
        self.host_output: IO[bytes] = os.fdopen(output, "rb")
        self.console: IO[bytes] = os.fdopen(console, "wb", buffering=0)

    @property
    def host_vm(self) -> RunningVm:
        control = Qmp(self.host_control, 30)
        return RunningVm(self.host_request, self.host_events, self.host_output, control, -1)

    def send(self, *events: Event) -> None:
        for event in events:
            self.write(make_event_line(event, 1.0))

    def write(self, data: bytes) -> None:
        self.events.sendall(data)

    def read_request(self) -> bytes:
        with self.request.makefile("rb") as file:
            return file.readline()

    def wait_for_host(self) -> None:
        """Until the host has had enough of it."""
        with contextlib.suppress(OSError):
            while self.events.recv(4096):
                pass

    def close(self) -> None:
        self.events.close()
        self.request.close()
        self.control.close()
        self.console.close()

    def close_host(self) -> None:
        self.host_request.close()
        self.host_events.close()
        self.host_control.close()
        self.host_output.close()


Play = Callable[[FarEnd], None]


@dataclass(frozen=True)
class Lie:
    """reason: a pattern of the host's line; empty when the run counts as well done.

    limits: of the session, in seconds, where it is a deadline that must hold.
    """

    name: str
    what: str
    play: Play
    reason: str
    limits: Mapping[str, Any] = field(default_factory=dict)


def _say(*lines: bytes) -> Play:
    """After it is ready and was asked, the runner says these lines and ends."""

    def play(vm: FarEnd) -> None:
        vm.send(Ready(VERSION))
        vm.read_request()
        for line in lines:
            vm.write(line + b"\n")

    return play


def _send(*events: Event) -> Play:
    return lambda vm: vm.send(*events)


def _say_event(**fields: object) -> Play:
    return _say(json.dumps(fields).encode())


def _stay(*events: Event) -> Play:
    """It says this, and then nothing more."""

    def play(vm: FarEnd) -> None:
        vm.send(*events)
        vm.wait_for_host()

    return play


def _write(**fields: object) -> Play:
    """It says this instead of being ready."""
    return lambda vm: vm.write(json.dumps(fields).encode() + b"\n")


def _end_task(**fields: object) -> Play:
    event = {"type": "image-helper", "subtype": "task-end", "task": "A", "result": "done"}
    return _say_event(**{**event, "reason": "", "seconds": 1, **fields})


def _flood_console(vm: FarEnd) -> None:
    vm.send(Ready(VERSION))
    for _ in range(2000):
        vm.console.write(b"\x1b[2J spam " * 4096)
    vm.send(RunResult("ok", ""))


def _endless_line(vm: FarEnd) -> None:
    while True:
        vm.write(b"x" * 65536)


def _one_byte_at_a_time(vm: FarEnd) -> None:
    """Each byte is a sign of life; none of them may buy time."""
    vm.send(Ready(VERSION))
    vm.events.settimeout(0.05)
    while True:
        vm.write(b" ")
        with contextlib.suppress(TimeoutError):
            if not vm.events.recv(1):
                return


def _many_ready(vm: FarEnd) -> None:
    for _ in range(EVENTS_LIMIT - 1):
        vm.send(Ready(VERSION))
    vm.wait_for_host()


def _results_without_end(vm: FarEnd) -> None:
    """Each result would give it some seconds more to power off."""
    vm.send(Ready(VERSION))
    vm.events.settimeout(0.1)
    while True:
        vm.send(RunResult("ok", ""))
        with contextlib.suppress(TimeoutError):
            if not vm.events.recv(1):
                return


def _never_read(vm: FarEnd) -> None:
    vm.send(Ready(VERSION), TaskStart("MountImage"))
    vm.wait_for_host()


def _close_ports_only(vm: FarEnd) -> None:
    vm.send(Ready(VERSION))
    vm.events.shutdown(socket.SHUT_WR)
    with contextlib.suppress(OSError):
        while vm.request.recv(65536):
            pass


_READY, _OK = Ready(VERSION), RunResult("ok", "")
_BEGIN = make_event_line(TaskStart("A"), 1.0).strip()
_WARN = make_event_line(Warned(("x" * 1000,)), 1.0).strip()
_BROKE = "broke the protocol"
_DEEP = b"[" * (EVENT_LIMIT - 10)
_STUCK = {"soft_timeout": 0.3, "hard_timeout": 0.3}
_LIES = (
    Lie("silent", "it never says a word", _stay(), "booting.* took longer", {"boot_timeout": 0.3}),
    Lie("stuck", "it is ready, and then silent", _stay(_READY), "took longer", _STUCK),
    Lie("deaf", "it never reads its request", _never_read, "took longer", _STUCK),
    Lie("slow", "a byte now and then", _one_byte_at_a_time, "took longer", _STUCK),
    Lie("gone", "it ends at once", lambda vm: None, "ended early while booting"),
    Lie("killed", "the runner is killed in a task", _send(_READY, TaskStart("A")), "task A"),
    Lie(
        "hung-up",
        "it closes its events and lives on",
        _close_ports_only,
        "took longer|ended early",
        _STUCK,
    ),
    Lie("unready-result", "all is well before it was asked", _send(_OK), _BROKE),
    Lie("unready-task", "a task before it was asked", _send(TaskStart("A")), _BROKE),
    Lie("ready-twice", "it wants its request twice", _send(_READY, _READY), _BROKE),
    Lie("ready-often", "it wants its request 2000 times", _many_ready, _BROKE),
    Lie("result-often", "a result again and again, to live longer", _results_without_end, _BROKE),
    Lie("after-result", "a task after the result", _send(_READY, _OK, TaskStart("A")), _BROKE),
    Lie("two-results", "well, then not", _send(_READY, _OK, RunResult("error", "x")), _BROKE),
    Lie("other-version", "it speaks another version", _send(Ready(VERSION + 1)), "build-helper"),
    Lie(
        "no-version",
        "it is ready for nothing",
        _write(type="image-helper", subtype="ready"),
        _BROKE,
    ),
    Lie(
        "true-version",
        "its version is a truth",
        _write(type="image-helper", subtype="ready", version=True),
        _BROKE,
    ),
    Lie("not-json", "a line that is not JSON", _say(b"hello"), _BROKE),
    Lie("blank", "a blank line", _say(b""), _BROKE),
    Lie("null", "null", _say(b"null"), _BROKE),
    Lie("list", "a list", _say(b"[]"), _BROKE),
    Lie("text", "a text", _say(b'"image-result"'), _BROKE),
    Lie("bytes", "bytes in no encoding", _say(b"\xff\xfe\x00\x80"), _BROKE),
    Lie("deep", "lists in lists, 16000 deep", _say(_DEEP), _BROKE),
    Lie("deep-objects", "objects in objects", _say(b'{"a":' * 3000), _BROKE),
    Lie("digits", "a number of 16000 digits", _say(b'{"type": ' + b"9" * 16000 + b"}"), _BROKE),
    Lie(
        "long-line",
        "a line longer than any may be",
        _say(b'{"a": "' + b"x" * EVENT_LIMIT + b'"}'),
        _BROKE,
    ),
    Lie("endless-line", "a line without an end", _endless_line, "line that is too long"),
    Lie(
        "flood",
        "more events than a run may have",
        _say(*[_BEGIN] * (EVENTS_LIMIT + 1)),
        "more than 2000 events",
    ),
    Lie("flood-warnings", "2000 warnings", _say(*[_WARN] * EVENTS_LIMIT), "more than 2000 events"),
    Lie("flood-console", "100 MB on its console", _flood_console, ""),
    Lie("type", "a type that nobody knows", _say_event(type="image-copy-progress"), _BROKE),
    Lie(
        "subtype",
        "a subtype that is a list",
        _say_event(type="image-helper", subtype=["ready"]),
        _BROKE,
    ),
    Lie("task-list", "a task that is a list", _end_task(task=[]), _BROKE),
    Lie(
        "task-missing",
        "an end of no task",
        _say_event(type="image-helper", subtype="task-end"),
        _BROKE,
    ),
    Lie("result-word", "a result that nobody knows", _end_task(result="fine"), _BROKE),
    Lie("result-object", "a result that is an object", _end_task(result={}), _BROKE),
    Lie("seconds-nan", "seconds that are no number", _end_task(seconds=float("nan")), _BROKE),
    Lie("seconds-infinite", "seconds without end", _end_task(seconds=float("inf")), _BROKE),
    Lie("seconds-digits", "seconds of 4000 digits", _end_task(seconds=10**4000), _BROKE),
    Lie("seconds-true", "seconds that are a truth", _end_task(seconds=True), _BROKE),
    Lie(
        "messages",
        "a warning that is no list",
        _say_event(type="image-helper", subtype="warning", messages="x"),
        _BROKE,
    ),
    Lie(
        "status",
        "a status that nobody knows",
        _say_event(type="image-result", status="OK", reason=""),
        _BROKE,
    ),
    Lie(
        "reason-missing",
        "a failure without a reason",
        _say_event(type="image-result", status="error", reason=""),
        "without a reason",
    ),
    Lie(
        "reason-terminal",
        "a reason that moves the terminal's cursor",
        _send(_READY, RunResult("error", "\x1b[2J\r\nerror: all\u2028is\u202ewell")),
        r"^\[2J error: all is well$",
    ),
    Lie(
        "reason-surrogate",
        "a reason in half a surrogate pair",
        _say(b'{"type": "image-result", "status": "error", "reason": "a\\ud800b"}'),
        "^a b$",
    ),
    Lie(
        "false-done",
        "tasks done that do not exist",
        _send(_READY, TaskEnd("Rule", "done", "", 1e300), _OK),
        "",
    ),
    Lie("false-ok", "all is well, and nothing was done", _send(_READY, _OK), ""),
)
LIES = {lie.name: lie for lie in _LIES}
