"""The runner of programs, judged by what real programs see and leave."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from snf_ganeti import process
from snf_ganeti.errors import CommandError, DeadlineError, NodeError

pytestmark = pytest.mark.spawn
SECONDS = 60.0


def is_alive(pid: int) -> bool:
    """Is there such a process, not counting one that is dead and not yet reaped?"""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in "ZX"


def await_end(pid: int) -> bool:
    deadline = time.monotonic() + SECONDS
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not is_alive(pid)


def read_pid(path: Path) -> int:
    deadline = time.monotonic() + SECONDS
    while not (path.exists() and path.read_text().endswith("\n")):
        assert time.monotonic() < deadline, f"{path} was not written"
        time.sleep(0.01)
    return int(path.read_text())


def test_both_outputs_and_the_status_are_kept() -> None:
    done = process.run(["sh", "-c", "echo out; echo err >&2; exit 3"], ok=(0, 3))
    assert (done.status, done.stdout, done.stderr, done.text) == (3, b"out\n", "err\n", "out\n")


def test_a_status_that_is_not_ok_names_program_status_and_last_line() -> None:
    with pytest.raises(CommandError) as caught:
        process.run(["sh", "-c", "echo first >&2; echo the reason >&2; exit 7"])
    assert str(caught.value) == "sh failed (7): the reason"
    assert caught.value.status == 7


def test_a_signal_is_named() -> None:
    with pytest.raises(CommandError, match="sh was ended by SIGKILL: it printed nothing"):
        process.run(["sh", "-c", "kill -KILL $$"])


def test_a_program_that_is_not_there_is_the_nodes_fault() -> None:
    with pytest.raises(NodeError, match=r"^no-such-program is not installed$"):
        process.run(["no-such-program"])


def test_a_program_that_may_not_run_is_the_nodes_fault(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("#!/bin/sh\n")
    with pytest.raises(NodeError, match="plain can't be started: Permission denied"):
        process.run([str(plain)])


def test_output_over_the_limit_is_dropped_and_stalls_nobody() -> None:
    done = process.run(["sh", "-c", "head -c 3000000 /dev/zero; echo end >&2"], limit=1000)
    assert done.stdout == bytes(1000)
    assert done.stderr == "end\n"


def test_a_large_input_passes_while_output_is_read() -> None:
    data = os.urandom(3 << 20)
    assert process.run(["cat"], stdin=data).stdout == data


def test_input_that_nobody_reads_is_dropped() -> None:
    assert process.run(["true"], stdin=bytes(1 << 20)).status == 0


def test_a_secret_given_as_input_is_not_in_argv_or_environment() -> None:
    script = "read secret; tr '\\0' '\\n' </proc/self/cmdline; env; echo got $secret"
    seen = process.run(["sh", "-c", script], stdin=b"s3cr3t\n").text
    assert seen.splitlines()[-1] == "got s3cr3t"
    assert seen.count("s3cr3t") == 1


def test_the_environment_is_not_inherited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OSP_IMG_PASSWD", "s3cr3t")
    printed = process.run(["env"], env={"EXTRA": "1"}).text.splitlines()
    assert "EXTRA=1" in printed
    assert {line.partition("=")[0] for line in printed} == {*process.ENVIRONMENT, "EXTRA"}


def test_only_named_descriptors_are_inherited() -> None:
    kept, other = os.open("/dev/null", os.O_RDONLY), os.open("/dev/null", os.O_RDONLY)
    try:
        os.set_inheritable(other, True)
        listed = process.run(["ls", "/proc/self/fd"], pass_fds=[kept]).text.split()
        assert str(kept) in listed
        assert str(other) not in listed
    finally:
        os.close(kept)
        os.close(other)


def test_the_deadline_ends_the_whole_session(tmp_path: Path) -> None:
    script = f"sleep 600 & echo $! >{tmp_path}/pid; wait"
    with pytest.raises(DeadlineError, match=r"^sh took longer than 3 s$"):
        process.run(["sh", "-c", script], timeout=3)  # of which it needs some to start
    assert await_end(read_pid(tmp_path / "pid"))


def test_the_deadline_ends_a_child_left_behind(tmp_path: Path) -> None:
    script = f"sleep 600 & echo $! >{tmp_path}/pid"  # it holds the output; its parent has left
    with pytest.raises(DeadlineError):
        process.run(["sh", "-c", script], timeout=3)
    assert await_end(read_pid(tmp_path / "pid"))


def test_the_deadline_holds_for_a_child_that_closed_its_outputs() -> None:
    begun = time.monotonic()
    with pytest.raises(DeadlineError):
        process.run(["sh", "-c", "exec >&- 2>&-; sleep 600"], timeout=0.3)
    assert time.monotonic() - begun < SECONDS


def test_what_ignores_the_polite_signal_is_killed(tmp_path: Path) -> None:
    script = f"trap '' TERM; echo $$ >{tmp_path}/pid; while :; do sleep 1; done"
    with process.spawn(["sh", "-c", script], grace=0.2):
        pid = read_pid(tmp_path / "pid")
    assert not is_alive(pid)


def test_a_child_does_not_outlive_an_exception() -> None:
    with pytest.raises(KeyboardInterrupt), process.spawn(["sleep", "600"]) as child:
        raise KeyboardInterrupt
    assert child.returncode == -15


def test_a_child_has_a_session_of_its_own() -> None:
    code = "import os; print(os.getsid(0) == os.getpid())"
    assert process.run([sys.executable, "-c", code]).text == "True\n"


def test_a_child_that_was_waited_for_is_not_signalled(monkeypatch: pytest.MonkeyPatch) -> None:
    signalled: list[int] = []
    with process.spawn(["true"], stdout=subprocess.DEVNULL) as child:
        child.wait()
        monkeypatch.setattr(os, "killpg", lambda pid, number: signalled.append(pid))
    assert signalled == []
