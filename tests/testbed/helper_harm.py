"""Runs in a node in the place of `create` or `snf-image`: does harm to the helper's QEMU at a step.

Arguments: the signal, KILL or STOP; the step; then those of `snf-image`, none for `create`. The
steps: "wake", before a restored helper is told to go on; "attach" and "attached", around the
disks; or the name of an event, before the host acts upon it. What the host does next comes when
QEMU is gone, with all that it had open, or stands still.
"""

import contextlib
import os
import select
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from snf_ganeti.errors import run_main
from snf_image_helper.protocol import Event, RunResult
from snf_image_host import cli, scripts
from snf_image_host.helper_vm import helper
from snf_image_host.helper_vm.qmp import Command
from snf_image_host.helper_vm.session import Session
from snf_image_host.helper_vm.vm import VmDisk


class HarmedSession(Session):
    """A session whose VM is killed or stopped at the step that was asked for."""

    harm = signal.SIGKILL
    step = ""

    def wake(self) -> None:
        self._pass("wake")
        super().wake()

    def attach(self, disks: Sequence[VmDisk]) -> None:
        self._pass("attach")
        super().attach(disks)
        if self.harm is signal.SIGSTOP:
            self._hold(len(disks))
        self._pass("attached")

    def converse(self, request_line: bytes, on_event: Callable[[Event], None]) -> RunResult:
        def hear(event: Event) -> None:
            self._pass(type(event).__name__)
            on_event(event)

        return super().converse(request_line, hear)

    def _hold(self, count: int) -> None:
        """Let it write no more than a byte a second: however late it is stopped, its tasks are
        not over. Its kernel has to read the disks before the first of them."""
        limits = {"bps": 0, "bps_rd": 0, "bps_wr": 1, "iops": 0, "iops_rd": 0, "iops_wr": 0}
        for index in range(count):
            disk: dict[str, Any] = {"id": f"lun{index}"}
            self.vm.control.execute(Command("block_set_io_throttle", disk | limits))

    def _pass(self, step: str) -> None:
        if step != self.step:
            return
        if self.harm is signal.SIGSTOP:
            send_to_qemus(self.harm)
            return
        ended = select.poll()
        ended.register(self.vm.request, 0)  # an end that was closed is told unasked
        while not ended.poll(10):  # QEMU may be on its way, or ending by itself
            send_to_qemus(self.harm)


def send_to_qemus(number: signal.Signals) -> None:
    for pid in find_qemus():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def find_qemus() -> Iterator[int]:
    """The node has no other."""
    for path in Path("/proc").glob("[1-9]*/comm"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            if path.read_text() == "qemu-system-x86\n":
                yield int(path.parent.name)


if __name__ == "__main__":
    name, HarmedSession.step, *arguments = sys.argv[1:]
    HarmedSession.harm = signal.Signals[f"SIG{name}"]
    vars(helper)["Session"] = HarmedSession
    sys.argv[1:] = arguments
    run_main(cli.main if arguments else scripts.create)
