"""Waiting for a condition, never for a time."""

import time
from collections.abc import Callable
from typing import TypeVar

from snf_ganeti.errors import DeadlineError

Value = TypeVar("Value")


def wait_for(
    what: str,
    probe: Callable[[], Value],
    seconds: float,
    *,
    interval: float = 0.05,
    explain: Callable[[], str] = lambda: "",
) -> Value:
    """Call `probe` until what it gives is true, and give that.

    what: names the condition in the DeadlineError that comes after `seconds`; explain: called
    then for what was seen last.
    """
    deadline = time.monotonic() + seconds
    while True:
        value = probe()
        if value:
            return value
        if time.monotonic() >= deadline:
            raise DeadlineError(what, seconds, hint=explain())
        time.sleep(interval)
