"""Events to a progress monitor, which here are real programs of every kind of manners."""

import json
import logging
import sys
import time
import tracemalloc
from pathlib import Path

import pytest

from snf_image_helper import protocol
from snf_image_host import monitor
from snf_image_host.monitor import (
    describe_event,
    make_copy_progress,
    make_error,
    make_info,
    open_monitor,
)


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A monitor gets less time at the end, as it will not use it."""
    monkeypatch.setattr(monitor, "_LAST_WORDS", 0.2)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A monitor gets the time at the end that Python takes to start on a busy machine."""
    monkeypatch.setattr(monitor, "_LAST_WORDS", 60.0)


def write_program(folder: Path, body: str) -> str:
    path = folder / "monitor"
    path.write_text(f"#!{sys.executable} -I\nimport sys, time\nfolder = {str(folder)!r}\n{body}\n")
    path.chmod(0o755)
    return str(path)


def test_events_have_the_predecessors_fields() -> None:
    assert make_info(("a", "b"), 1.5) == {
        "type": "image-info", "timestamp": 1.5, "messages": ["a", "b"]
    }  # fmt: skip
    assert make_error(["a"], 1.5) == {"type": "image-error", "timestamp": 1.5, "messages": ["a"]}
    assert make_copy_progress(512, 2048, 1.5) == {
        "type": "image-copy-progress", "timestamp": 1.5, "position": 512, "total": 2048,
        "progress": 25.0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("position", "total", "percent"), [(0, 100, 0), (100, 100, 100), (150, 100, 100), (5, 0, 0)]
)
def test_progress_stays_within_its_scale(position: int, total: int, percent: float) -> None:
    assert make_copy_progress(position, total, 0)["progress"] == percent


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (make_info(["copying debian", "to /dev/x"], 0), "copying debian; to /dev/x"),
        (make_error(["no space"], 0), "error: no space"),
        (make_copy_progress(3 << 20, 4 << 20, 0), "copied 3 MiB (75 %)"),
        (protocol.make_event(protocol.Ready(1), 0), "ready"),
        (protocol.make_event(protocol.TaskStart("AddSwap"), 0), "AddSwap begins"),
        (protocol.make_event(protocol.TaskEnd("A", "done", "", 0.1), 0), "A: done"),
        (protocol.make_event(protocol.TaskEnd("A", "skipped", "why", 1), 0), "A: skipped (why)"),
        (protocol.make_event(protocol.Warned(("a", "b")), 0), "warning: a; b"),
        (protocol.make_event(protocol.Failed(("a",)), 0), "error: a"),
        (protocol.make_event(protocol.RunResult("ok", ""), 0), "result: ok"),
        (protocol.make_event(protocol.RunResult("error", "why"), 0), "result: error (why)"),
        ({"type": "image-new"}, "image-new"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_event_is_a_line_for_people(event: dict[str, object], line: str) -> None:
    assert describe_event(event) == line


def test_without_a_monitor_events_go_to_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), open_monitor("", "web") as send:
        send(make_info(["hello"], 0))
    assert caplog.messages == ["[MONITOR] hello"]


@pytest.mark.spawn
def test_a_monitor_that_can_not_start_is_the_logs_matter(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    program = str(tmp_path / "absent")
    with caplog.at_level(logging.INFO), open_monitor(program, "web") as send:
        send(make_info(["hello"], 0))
    assert caplog.messages == [
        f"progress monitor: {program} is not installed; events go to the log",
        "[MONITOR] hello",
    ]


@pytest.mark.spawn
@pytest.mark.usefixtures("patient")
def test_a_monitor_reads_every_event_as_a_line(tmp_path: Path) -> None:
    body = "open(folder + '/got', 'w').write('\\n'.join(sys.argv[1:]) + '\\n' + sys.stdin.read())"
    events = [make_copy_progress(n, 500, float(n)) for n in range(500)]
    with open_monitor(write_program(tmp_path, body), "web.example.org") as send:
        for event in events:
            send(event)
    instance, *lines = (tmp_path / "got").read_text().splitlines()
    assert instance == "web.example.org"
    assert [json.loads(line) for line in lines] == events


@pytest.mark.spawn
@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("body", ["sys.exit(3)", "sys.stdin.close(); time.sleep(600)"])
def test_a_monitor_that_leaves_disturbs_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, body: str
) -> None:
    program = write_program(tmp_path, body)
    begun = time.monotonic()
    with open_monitor(program, "web") as send:
        for _ in range(20000):
            send(make_info(["x" * 100], 0))
    assert time.monotonic() - begun < 100  # were each message waited for, it were hours
    (message,) = caplog.messages
    assert message.startswith(f"progress monitor {program} missed ")


@pytest.mark.spawn
@pytest.mark.usefixtures("hurried")
def test_a_monitor_that_does_not_read_costs_memory_and_time_within_bounds(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    program = write_program(tmp_path, "time.sleep(600)")
    tracemalloc.start()
    begun = time.monotonic()
    with open_monitor(program, "web") as send:
        for _ in range(20000):
            send(make_info(["x" * 100], 0))
        _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert time.monotonic() - begun < 100  # were each message waited for, it were hours
    assert peak < 2 << 20
    (message,) = caplog.messages
    # What its pipe took is all that it could still have read.
    assert 19000 < int(message.split()[-2]) < 20000


@pytest.mark.spawn
@pytest.mark.usefixtures("patient")
def test_a_slow_monitor_gets_whole_lines_only(tmp_path: Path) -> None:
    body = (
        "time.sleep(1)\n"
        "open(folder + '/got', 'w').write(sys.stdin.read())"
    )  # fmt: skip
    with open_monitor(write_program(tmp_path, body), "web") as send:
        for number in range(5000):
            send(make_info([f"{number}", "x" * (number % 300)], 0))
    lines = (tmp_path / "got").read_text().splitlines()
    numbers = [int(json.loads(line)["messages"][0]) for line in lines]
    assert numbers == sorted(numbers)
    assert len(numbers) > 500
