"""QEMU's control channel, against a QEMU that may lie, stall or vanish."""

import contextlib
import json
import os
import socket
import threading
from typing import Any

import pytest

from snf_ganeti.errors import DeadlineError, NodeError
from snf_image_host.helper_vm.qmp import Command, QemuEnded, Qmp

GREETING = b'{"QMP": {"version": {}, "capabilities": []}}\n'
DONE = b'{"return": {}}\n'
ASK = Command("query-status")


@pytest.fixture
def ends() -> Any:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def ask(ends: Any, answers: bytes, timeout: float = 5) -> Any:
    ours, theirs = ends
    theirs.sendall(answers)
    return Qmp(ours, timeout).execute(ASK)


def test_an_answer_is_found_among_events(ends: Any) -> None:
    event = b'{"event": "RESUME", "data": {}}\n'
    answers = GREETING + event + DONE + event + b'{"return": {"status": "running"}}\n'
    assert ask(ends, answers) == {"status": "running"}


def test_commands_are_sent_without_waiting_for_answers(ends: Any) -> None:
    ours, theirs = ends
    control = Qmp(ours, 5)
    control.post(Command("cont"))
    sent = [json.loads(line)["execute"] for line in theirs.recv(65536).splitlines()]
    assert sent == ["qmp_capabilities", "cont"]


def test_a_command_that_failed_earlier_is_told_by_name(ends: Any) -> None:
    ours, theirs = ends
    control = Qmp(ours, 5)
    control.post(Command("migrate-incoming"))
    refusal = b'{"error": {"class": "GenericError", "desc": "no such fd"}}\n'
    theirs.sendall(GREETING + DONE + refusal + DONE)
    with pytest.raises(NodeError, match=r"migrate-incoming.*no such fd"):
        control.execute(ASK)


def test_descriptors_go_with_their_command(ends: Any) -> None:
    ours, theirs = ends
    control = Qmp(ours, 5)
    theirs.recv(65536)
    out, into = os.pipe()
    control.post(Command("getfd", {"fdname": "a"}, (out,)))
    data, fds, *_ = socket.recv_fds(theirs, 65536, 4)
    os.write(into, b"the same pipe")
    assert json.loads(data)["execute"] == "getfd"
    assert os.read(fds[0], 100) == b"the same pipe"
    for each in (out, into, *fds):
        os.close(each)


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        (b"not json\n", "not QMP"),
        (b"[]\n", "not QMP"),
        (b"[" * 100_000 + b"\n", "not QMP"),
    ],
)
def test_what_is_not_qmp_ends_the_conversation(ends: Any, answers: bytes, reason: str) -> None:
    with pytest.raises(NodeError, match=reason):
        ask(ends, answers)


def test_a_line_has_a_limit(ends: Any) -> None:
    ours, theirs = ends
    control = Qmp(ours, 5)
    sender = threading.Thread(target=theirs.sendall, args=(b"x" * (300 << 10),))
    sender.start()
    with pytest.raises(NodeError, match="too long"):
        control.execute(ASK)
    sender.join(10)


def test_a_qemu_that_says_nothing_meets_the_deadline(ends: Any) -> None:
    with pytest.raises(DeadlineError, match="qmp_capabilities"):
        ask(ends, GREETING, timeout=0.2)


def test_a_qemu_that_only_sends_events_meets_the_deadline(ends: Any) -> None:
    ours, theirs = ends
    control = Qmp(ours, 0.3)

    def chatter() -> None:
        with contextlib.suppress(OSError):
            while True:
                theirs.sendall(b'{"event": "RESUME"}\n')

    sender = threading.Thread(target=chatter)
    sender.start()
    with pytest.raises(DeadlineError):
        control.execute(ASK)
    ours.close()
    sender.join(10)
    assert not sender.is_alive()


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_qemu_that_ended_is_told(ends: Any, when: str) -> None:
    ours, theirs = ends
    if when == "before":
        theirs.close()
    control = Qmp(ours, 5)
    theirs.close()
    with pytest.raises(QemuEnded, match="qmp_capabilities"):
        control.execute(ASK)
