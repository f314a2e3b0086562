"""Runs in a node in the place of the script `create`: kills the helper's QEMU at an exact step.

The steps: "wake", before a restored helper is told to go on; "attach" and "attached", around the
disks; "Ready", before the request; "RunResult", when the host has heard it. What the host does
next comes when QEMU is gone, with all that it had open.
"""

import contextlib
import os
import select
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from snf_ganeti.errors import run_main
from snf_image_helper.protocol import Event, RunResult
from snf_image_host import scripts
from snf_image_host.helper_vm import helper
from snf_image_host.helper_vm.session import Session
from snf_image_host.helper_vm.vm import VmDisk


class KilledSession(Session):
    """A session whose VM is killed at the step that was asked for."""

    step = ""

    def wake(self) -> None:
        self._pass("wake")
        super().wake()

    def attach(self, disks: Sequence[VmDisk]) -> None:
        self._pass("attach")
        super().attach(disks)
        self._pass("attached")

    def converse(self, request_line: bytes, on_event: Callable[[Event], None]) -> RunResult:
        def hear(event: Event) -> None:
            on_event(event)
            self._pass(type(event).__name__)

        return super().converse(request_line, hear)

    def _pass(self, step: str) -> None:
        if step != self.step:
            return
        ended = select.poll()
        ended.register(self.vm.request, 0)  # an end that was closed is told unasked
        while not ended.poll(10):  # QEMU may be on its way, or ending by itself
            for pid in find_qemus():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def find_qemus() -> Iterator[int]:
    """The node has no other."""
    for path in Path("/proc").glob("[1-9]*/comm"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            if path.read_text() == "qemu-system-x86\n":
                yield int(path.parent.name)


if __name__ == "__main__":
    KilledSession.step = sys.argv[1]
    vars(helper)["Session"] = KilledSession
    run_main(scripts.create)
