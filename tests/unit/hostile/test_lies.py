"""A helper that lies, in every way that the corpus knows, against the host's session."""

import contextlib
import dataclasses
import re
import threading
import tracemalloc

import pytest

from hostile.lies import LIES, FarEnd, Lie
from snf_ganeti.errors import SnfError
from snf_image_helper.protocol import Event, Request, make_request_line
from snf_image_host.helper_vm.session import HelperLimits, Session

_REQUEST = make_request_line(Request("create", "web", 1, auth_keys="x" * (64 << 10)))
_LIMITS = HelperLimits(boot_timeout=30, soft_timeout=30)
_MEMORY = 4 << 20
"""Bytes: some copies of the request, and some bounded lines."""


def listen(lie: Lie) -> str:
    """What the host makes of a lie: its line, empty when it believes that all is done."""
    vm = FarEnd()

    def play() -> None:
        with contextlib.closing(vm), contextlib.suppress(OSError):
            lie.play(vm)

    events: list[Event] = []
    limits = dataclasses.replace(_LIMITS, **lie.limits)
    thread = threading.Thread(target=play)
    thread.start()
    try:
        session = Session(vm.host_vm, limits)
        result = session.converse(_REQUEST, events.append)
    except SnfError as error:
        return str(error)
    finally:
        vm.close_host()
        thread.join(30)
        assert not thread.is_alive()
    return result.reason or ("without a reason" if result.status == "error" else "")


@pytest.mark.parametrize("name", LIES)
def test_a_lie_ends_in_one_line_or_in_nothing(name: str) -> None:
    lie = LIES[name]
    tracemalloc.start()
    try:
        line = listen(lie)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert line.isprintable()
    assert re.search(lie.reason, line) if lie.reason else not line
    assert peak < _MEMORY
