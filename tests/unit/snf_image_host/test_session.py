"""The host's side of a run, against a scripted VM that may lie, stall or vanish."""

import base64
import dataclasses
import itertools
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest

from snf_ganeti.errors import DeadlineError, NodeError, SnfError
from snf_image_helper.protocol import (
    VERSION,
    Event,
    Failed,
    Ready,
    Request,
    RunResult,
    TaskEnd,
    TaskStart,
    make_event_line,
    make_request_line,
    parse_request,
    parse_wake,
)
from snf_image_host.helper_vm.qmp import Qmp
from snf_image_host.helper_vm.running_vm import RunningVm
from snf_image_host.helper_vm.session import HelperLimits, Session

REQUEST = Request("create", "web.example.org", 1, password="s3cret")


class FakeVm:
    """The far ends of a session, played by a thread."""

    def __init__(self) -> None:
        self.host_request, self.request = socket.socketpair()
        self._lines = self.request.makefile("rb")
        self.host_events, self.events = socket.socketpair()
        output, self.console = os.pipe()
        self.output = os.fdopen(output, "rb")

    def send(self, *events: Event) -> None:
        for event in events:
            self.events.sendall(make_event_line(event, 1.0))

    def read_line(self) -> bytes:
        return self._lines.readline()

    def power_off(self) -> None:
        self.events.close()
        os.close(self.console)

    def session(self, **limits: Any) -> Session:
        bounds = dataclasses.replace(HelperLimits(boot_timeout=60, soft_timeout=60), **limits)
        control, self.control = socket.socketpair()
        vm = RunningVm(self.host_request, self.host_events, self.output, Qmp(control, 5), -1)
        return Session(vm, bounds)


@pytest.fixture
def play() -> Iterator[Callable[[Callable[[FakeVm], None]], FakeVm]]:
    threads: list[threading.Thread] = []

    def start(script: Callable[[FakeVm], None]) -> FakeVm:
        vm = FakeVm()
        threads.append(threading.Thread(target=script, args=(vm,)))
        threads[-1].start()
        return vm

    yield start
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()


Play = Callable[[Callable[[FakeVm], None]], FakeVm]


def converse(vm: FakeVm, **limits: Any) -> tuple[RunResult, list[Event]]:
    events: list[Event] = []
    result = vm.session(**limits).converse(make_request_line(REQUEST), events.append)
    return result, events


def test_the_request_follows_ready_and_events_are_handed_on(play: Play) -> None:
    got: list[Request] = []

    def script(vm: FakeVm) -> None:
        vm.send(Ready(VERSION))
        got.append(parse_request(vm.read_line()))
        vm.send(TaskStart("AddSwap"), TaskEnd("AddSwap", "done", "", 0.1), RunResult("ok", ""))
        vm.power_off()

    result, events = converse(play(script))
    assert got == [REQUEST]
    assert result == RunResult("ok", "")
    assert [type(event) for event in events] == [Ready, TaskStart, TaskEnd, RunResult]


def test_a_vm_that_is_ready_gets_its_request_at_once(play: Play) -> None:
    got: list[Request] = []

    def script(vm: FakeVm) -> None:
        vm.send(Ready(VERSION))
        got.append(parse_request(vm.read_line()))
        vm.send(RunResult("ok", ""))
        vm.power_off()

    session = play(script).session()
    assert session.wait_ready()
    assert session.converse(make_request_line(REQUEST), lambda event: None).status == "ok"
    assert got == [REQUEST]


def test_what_comes_with_ready_is_kept_for_the_conversation(play: Play) -> None:
    """One chunk, as a VM in the hands of its image may send it: nothing of it is lost."""

    def script(vm: FakeVm) -> None:
        line = make_event_line(Ready(VERSION), 1.0) + make_event_line(Failed(("broken",)), 1.0)
        vm.events.sendall(line)
        vm.read_line()
        vm.send(RunResult("ok", ""))
        vm.power_off()

    session, events = play(script).session(), list[Event]()
    assert session.wait_ready()
    session.converse(make_request_line(REQUEST), events.append)
    assert events == [Ready(VERSION), Failed(("broken",)), RunResult("ok", "")]


def test_a_second_ready_in_the_chunk_of_the_first_breaks_the_protocol(play: Play) -> None:
    def script(vm: FakeVm) -> None:
        vm.events.sendall(2 * make_event_line(Ready(VERSION), 1.0))

    session = play(script).session()
    assert session.wait_ready()
    with pytest.raises(NodeError, match="out of its order"):
        session.converse(make_request_line(REQUEST), lambda event: None)


def test_what_wakes_a_vm_is_fresh_and_answered_anew(play: Play) -> None:
    lines: list[bytes] = []

    def script(vm: FakeVm) -> None:
        for _ in range(2):
            lines.append(vm.read_line())
            vm.send(Ready(VERSION))

    session = play(script).session()
    for _ in range(2):
        session.wake()
        assert not session.ready
        assert session.wait_ready()
    first, second = map(parse_wake, lines)
    assert first is not None and second is not None
    assert first.entropy != second.entropy
    assert len(base64.b64decode(first.entropy)) >= 32  # 256 bits: the kernel's whole key
    assert abs(first.time - time.time()) < 600


def test_a_vm_that_ended_before_it_was_woken_is_not_ready(play: Play) -> None:
    def script(vm: FakeVm) -> None:
        vm.request.shutdown(socket.SHUT_RDWR)
        vm.power_off()
        ended.set()

    ended = threading.Event()
    session = play(script).session()
    assert ended.wait(10)
    session.wake()
    assert not session.wait_ready()


def test_deadlines_count_from_when_the_host_listens(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = play(lambda vm: vm.send(Ready(VERSION))).session(boot_timeout=5)
    clock = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: clock() + 1000)  # an image was copied
    assert session.wait_ready()


def test_a_vm_that_never_answers_meets_the_boot_deadline(play: Play) -> None:
    with pytest.raises(DeadlineError, match="booting"):
        converse(play(lambda vm: None), boot_timeout=0.3)


def test_a_stuck_task_is_asked_to_stop_before_it_is_given_up(play: Play) -> None:
    lines: list[bytes] = []

    def script(vm: FakeVm) -> None:
        vm.send(Ready(VERSION), TaskStart("MountImage"))
        lines.append(vm.read_line())
        lines.append(vm.read_line())

    session = play(script).session(soft_timeout=0.3, hard_timeout=0.5)
    assert session.wait_ready()
    with pytest.raises(DeadlineError, match="task MountImage"):
        session.converse(make_request_line(REQUEST), lambda event: None)
    assert lines[1] == b'{"type": "cancel"}\n'


def test_a_deadline_that_passes_while_the_host_stands_still_is_the_one_that_is_told(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = time.monotonic

    def stand_still(event: Event) -> None:
        monkeypatch.setattr(time, "monotonic", lambda: clock() + 1000)

    session = play(lambda vm: vm.send(Ready(VERSION))).session(soft_timeout=50)
    assert session.wait_ready()
    with pytest.raises(DeadlineError, match="took longer than 50 s"):
        session.converse(make_request_line(REQUEST), stand_still)


def test_a_request_comes_before_what_cancels_it(play: Play) -> None:
    """The VM took longer to boot than its tasks may take."""
    lines: list[bytes] = []

    def script(vm: FakeVm) -> None:
        time.sleep(0.5)
        vm.send(Ready(VERSION))
        lines.extend(vm.read_line() for _ in range(2))
        vm.send(RunResult("error", "the host's deadline passed"))
        vm.power_off()

    result, _ = converse(play(script), soft_timeout=0.01, hard_timeout=60)
    assert lines == [make_request_line(REQUEST), b'{"type": "cancel"}\n']
    assert result.status == "error"


def test_a_vm_that_dies_is_told_by_its_console(play: Play) -> None:
    def script(vm: FakeVm) -> None:
        vm.send(Ready(VERSION), TaskStart("MountImage"))
        os.write(vm.console, b"mount: bad superblock\r\n[   3.1] Kernel panic\n")
        vm.power_off()

    with pytest.raises(NodeError, match=r"task MountImage.*mount: bad superblock"):
        converse(play(script))


@pytest.mark.parametrize(
    "line",
    [
        b"not json\n",
        b'{"type": "image-helper", "subtype": "surprise"}\n',
        b'{"type": "image-result", "status": "fine", "reason": ""}\n',
        b"x" * 40000,
        b'{"type": "image-helper", "subtype": "task-start", "task": "A"}\n' * 2100,
    ],
)
def test_what_the_protocol_does_not_know_ends_the_run(play: Play, line: bytes) -> None:
    def script(vm: FakeVm) -> None:
        try:
            vm.events.sendall(line)
            vm.power_off()
        except BrokenPipeError:
            pass

    with pytest.raises(SnfError, match="helper VM"):
        converse(play(script))


def test_another_protocol_version_names_the_way_out(play: Play) -> None:
    with pytest.raises(NodeError, match="build-helper"):
        converse(play(lambda vm: vm.send(Ready(VERSION + 1))))


def test_work_that_is_done_counts_even_if_the_vm_stays(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("snf_image_host.helper_vm.session._EXIT_TIMEOUT", 0.3)
    result, _ = converse(play(lambda vm: vm.send(Ready(VERSION), RunResult("ok", ""))))
    assert result.status == "ok"


END_STEPS: Mapping[str, Callable[[FakeVm], None]] = {
    "request": lambda vm: vm.request.shutdown(socket.SHUT_RDWR),
    "events": lambda vm: vm.events.close(),
    "console": lambda vm: os.close(vm.console),
}


@pytest.mark.parametrize("order", list(itertools.permutations(END_STEPS)))
def test_the_vm_may_end_in_any_order_after_its_result(play: Play, order: Sequence[str]) -> None:
    def script(vm: FakeVm) -> None:
        vm.send(Ready(VERSION))
        vm.read_line()
        vm.send(RunResult("ok", ""))
        for step in order:
            END_STEPS[step](vm)

    assert converse(play(script))[0].status == "ok"


@pytest.mark.parametrize("kept", [0, 1, -1], ids=["none", "first byte", "all but the last"])
def test_a_result_that_is_not_whole_is_none(play: Play, kept: int) -> None:
    def script(vm: FakeVm) -> None:
        vm.send(Ready(VERSION), TaskStart("UmountImage"), TaskEnd("UmountImage", "done", "", 0.1))
        vm.events.sendall(make_event_line(RunResult("ok", ""), 1.0)[:kept])
        vm.power_off()

    with pytest.raises(NodeError, match="ended early while task UmountImage"):
        converse(play(script))


def test_an_endless_console_is_read_and_forgotten(play: Play) -> None:
    def script(vm: FakeVm) -> None:
        vm.send(Ready(VERSION))
        for _ in range(200):
            os.write(vm.console, b"spam " * 4096)
        vm.send(RunResult("ok", ""))
        vm.power_off()

    assert converse(play(script))[0].status == "ok"
