"""The errors that an operator can meet, and the one place that shows them.

    SnfError                  1   anything that the suite gives up on
    ├── InputError            2   what the user or the image brought is not acceptable
    ├── SettingsError         3   a file under /etc is wrong
    ├── NodeError             4   this node lacks something, or a tool of it failed
    │   └── CommandError      4   a command ended with a status that it should not
    ├── DeadlineError         5   something took longer than it may
    └── LockError             6   another run holds what this one needs

The number is the exit status. An exception carries what is known as fields and renders
its own line; `run_main` turns it into text and status.
"""

import logging
import os
import select
import signal
import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import ClassVar, NoReturn

from snf_ganeti.log import make_prefix

log = logging.getLogger(__name__)


class SnfError(Exception):
    """A reason to stop, in one line: what failed, on what, why; `hint` is the way out."""

    exit_status: ClassVar[int] = 1

    def __init__(self, reason: str, *, hint: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint

    def __str__(self) -> str:
        text = f"{self.reason}; {self.hint}" if self.hint else self.reason
        return " ".join(text.split())


class InputError(SnfError):
    exit_status = 2


class SettingsError(SnfError):
    exit_status = 3


class NodeError(SnfError):
    exit_status = 4


class CommandError(NodeError):
    """A command ended with a status that its caller did not list as good."""

    def __init__(self, argv: Sequence[str], status: int, output: str) -> None:
        self.argv = tuple(argv)
        self.status = status
        self.output = output
        ended = f"was ended by {_signal_name(-status)}" if status < 0 else f"failed ({status})"
        last = output.strip().splitlines()[-1:] or ["it printed nothing"]
        super().__init__(f"{argv[0]} {ended}: {last[0]}")


class DeadlineError(SnfError):
    exit_status = 5

    def __init__(self, what: str, seconds: float, *, hint: str = "") -> None:
        self.what = what
        self.seconds = seconds
        super().__init__(f"{what} took longer than {seconds:g} s", hint=hint)


class LockError(SnfError):
    exit_status = 6


class Terminated(BaseException):
    """SIGTERM, SIGINT or SIGHUP asked for the end; contexts close on the way out."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _raise_terminated(number: int, frame: FrameType | None) -> None:
    for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)  # the way out is taken once
    raise Terminated(number)


def _say(text: str) -> None:
    print(f"{make_prefix(logging.ERROR)}error: {text}", file=sys.stderr)


def run_main(main: Callable[[], int]) -> NoReturn:
    """Run a program's `main` and exit: errors become one line on stderr and a status.

    What is not a SnfError is a bug and shows its traceback before the line that says so.
    """
    for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(each, _raise_terminated)
    try:
        status = main()
        sys.stdout.flush()
    except SnfError as error:
        _say(str(error))
        status = error.exit_status
    except Terminated as stop:
        _say(f"ended by {_signal_name(stop.number)}")
        status = 128 + stop.number
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _has_lost_reader():
            # What Python would still flush at exit has nowhere to go.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            status = 128 + signal.SIGPIPE
        else:
            log.exception("this is a bug in %s", sys.argv[0])
            _say(f"internal error: {type(error).__name__}: {error}")
            status = SnfError.exit_status
    sys.exit(status)


def _has_lost_reader() -> bool:
    """Has who reads standard output left? Any other pipe that breaks unawaited is a bug."""
    output = select.poll()
    output.register(sys.stdout, 0)  # errors and hang-ups are told unasked
    return bool(output.poll(0))
