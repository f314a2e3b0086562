"""Errors: one line each, and the status of a program that meets them."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from snf_ganeti.errors import (
    CommandError,
    DeadlineError,
    InputError,
    LockError,
    NodeError,
    SettingsError,
    SnfError,
)

LIBRARY = Path(sys.modules["snf_ganeti"].__path__[0]).parent


def run_program(body: str) -> "subprocess.CompletedProcess[str]":
    """A program whose main is `body`, as its caller sees it end."""
    indented = "".join(f"    {line}\n" for line in body.splitlines())
    code = (
        "import os, signal, sys\nfrom snf_ganeti.errors import *\n"
        f"def main():\n{indented}    return 0\nrun_main(main)\n"
    )
    return subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(LIBRARY)},
        capture_output=True,
        text=True,
        timeout=30,
    )


def test_an_error_is_one_line_with_the_way_out_last() -> None:
    error = SnfError("image x\nis  not there", hint="put it\tin /images")
    assert str(error) == "image x is not there; put it in /images"


def test_each_kind_has_a_status_of_its_own_but_commands() -> None:
    kinds: tuple[type[SnfError], ...] = (
        SnfError,
        InputError,
        SettingsError,
        NodeError,
        DeadlineError,
        LockError,
    )
    assert [kind.exit_status for kind in kinds] == [1, 2, 3, 4, 5, 6]
    assert CommandError.exit_status == NodeError.exit_status


def test_a_deadline_gives_what_and_how_long() -> None:
    assert str(DeadlineError("the copy", 2.50)) == "the copy took longer than 2.5 s"


def test_an_unknown_signal_is_a_number() -> None:
    assert "signal 99" in str(CommandError(["tool"], -99, ""))


@pytest.mark.spawn
def test_an_error_ends_a_program_with_its_line_and_status() -> None:
    ended = run_program("raise InputError('no image', hint='name one')")
    assert (ended.returncode, ended.stdout, ended.stderr) == (2, "", "error: no image; name one\n")


@pytest.mark.spawn
def test_a_bug_shows_its_traceback_and_the_reason_last() -> None:
    ended = run_program("{}['key']")
    assert ended.returncode == 1
    assert "Traceback" in ended.stderr
    assert ended.stderr.splitlines()[-1] == "error: internal error: KeyError: 'key'"


@pytest.mark.spawn
def test_a_pipe_that_is_not_the_output_and_breaks_is_a_bug() -> None:
    ended = run_program("reader, writer = os.pipe()\nos.close(reader)\nos.write(writer, b'x')")
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith("error: internal error: BrokenPipeError: ")


@pytest.mark.spawn
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_a_signal_closes_contexts_on_the_way_out(name: str) -> None:
    ended = run_program(
        f"try:\n    os.kill(os.getpid(), signal.{name})\nfinally:\n    print('closed')"
    )
    assert ended.returncode == 128 + signal.Signals[name]
    assert (ended.stdout, ended.stderr) == ("closed\n", f"error: ended by {name}\n")


@pytest.mark.spawn
def test_a_reader_that_left_is_no_traceback() -> None:
    reader, writer = os.pipe()
    code = (
        "from snf_ganeti.errors import run_main\n"
        "def main():\n    print('x' * 200000)\n    return 0\nrun_main(main)\n"
    )
    environ = {"PYTHONPATH": str(LIBRARY)}
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=writer, stderr=subprocess.PIPE, env=environ
    ) as child:
        os.close(writer)
        os.close(reader)
        _, stderr = child.communicate(timeout=30)
    assert (child.returncode, stderr) == (128 + signal.SIGPIPE, b"")
