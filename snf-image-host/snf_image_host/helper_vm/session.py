"""The host's side of one run: the request goes in, events come out, deadlines hold.

The VM has touched an image, so nothing that it says is believed: lines are bounded in
length and number, the console in bytes, the whole run in seconds.
"""

import base64
import contextlib
import logging
import math
import os
import selectors
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from snf_ganeti.errors import DeadlineError, NodeError
from snf_image_helper.protocol import (
    EVENT_LIMIT,
    EVENTS_LIMIT,
    VERSION,
    Event,
    ProtocolError,
    Ready,
    RunResult,
    TaskEnd,
    TaskStart,
    Wake,
    make_cancel_line,
    make_wake_line,
    parse_event,
)
from snf_image_host.helper_vm.appliance import BUILD_ANEW
from snf_image_host.helper_vm.console import Console
from snf_image_host.helper_vm.qmp import QemuEnded
from snf_image_host.helper_vm.running_vm import RunningVm
from snf_image_host.helper_vm.vm import VmDisk, make_disk_commands

log = logging.getLogger(__name__)

_EXIT_TIMEOUT = 10.0
"""Seconds for the VM to power off after its result."""
_WAKE_TIMEOUT = 30.0
"""Seconds for a restored VM to answer; it takes a third of one."""
_ENTROPY = 512
"""Random bytes for the helper's kernel, at a time."""


@dataclass(frozen=True)
class HelperLimits:
    """What a run may take. memory: MiB of the VM; the rest in seconds: until the runner
    answers, until it is asked to stop, and from then until the VM is killed."""

    memory: int = 512
    boot_timeout: float = 60
    soft_timeout: float = 120
    hard_timeout: float = 10


class Session:
    """One VM's run, as the host follows it. Deadlines count from when the host begins to listen:
    it may have had other work while the VM started."""

    def __init__(self, vm: RunningVm, limits: HelperLimits, *, restored: bool = False) -> None:
        self.vm = vm
        self._limits = limits
        self.restored = restored
        self.console = Console()
        self._unsent = b""
        self._partial = b""
        self._lines: deque[bytes] = deque()
        self._count = 0
        self.ready = False
        self._doing = "starting" if restored else "booting"
        self._cancel_at = self._give_up_at = math.inf
        self._cancelled = False
        vm.request.setblocking(False)

    def wait_ready(self) -> bool:
        """Does the runner announce itself in time?"""
        if self.ready:
            return True
        timeout = self._limits.boot_timeout
        if self.restored:
            timeout = min(timeout, _WAKE_TIMEOUT)
        self._give_up_at = time.monotonic() + timeout
        with contextlib.suppress(DeadlineError, NodeError):
            for event in self._read_events():
                if isinstance(event, Ready):
                    self.ready = event.version == VERSION
                    break
        return self.ready

    def wake(self) -> None:
        """Have the runner take over this moment, and announce itself anew. If the VM has ended,
        `wait_ready` says so."""
        self.ready = False
        self._unsent += make_wake_line(Wake(make_entropy(), time.time()))
        self._send()

    def attach(self, disks: Sequence[VmDisk]) -> None:
        """Plug the instance's disks in; the VM may still be booting. If it has ended, `converse`
        says why. Raises NodeError, DeadlineError."""
        with contextlib.suppress(QemuEnded):
            for index, disk in enumerate(disks):
                for command in make_disk_commands(index, disk):
                    self.vm.control.execute(command)

    def converse(self, request_line: bytes, on_event: Callable[[Event], None]) -> RunResult:
        """Send the request when the runner is ready; hand events on until the VM has ended."""
        begun = time.monotonic()
        cancel_at = begun + self._limits.soft_timeout
        self._give_up_at = begun + self._limits.boot_timeout
        if self.ready:
            on_event(Ready(VERSION))
            self._order(request_line, cancel_at)
        result = None
        try:
            for event in self._read_events():
                self._require_order(event, result)
                on_event(event)
                match event:
                    case Ready():
                        self._require_version(event)
                        self.ready = True
                        self._order(request_line, cancel_at)
                    case TaskStart() | TaskEnd():
                        self._doing = f"task {event.task}"
                    case RunResult():
                        result = event
                        self._give_up_at = time.monotonic() + _EXIT_TIMEOUT
        except DeadlineError:
            if result is None:
                raise
            log.warning("the helper VM did not power off and was killed; its work is done")
        if result is None:
            raise NodeError(
                f"the helper VM ended early while {self._doing}; its console said last: "
                f"{self.console.last_line}"
            )
        return result

    def _order(self, request_line: bytes, cancel_at: float) -> None:
        """What cancels a request comes after it, however late that is."""
        self._unsent += request_line
        self._cancel_at = cancel_at
        self._give_up_at = cancel_at + self._limits.hard_timeout

    def _read_events(self) -> Iterator[Event]:
        """Events until the VM closes its end; one that is not taken waits for the next call.

        Raises DeadlineError, NodeError.
        """
        yield from self._take_events()
        with selectors.DefaultSelector() as selector:
            selector.register(self.vm.events, selectors.EVENT_READ)
            selector.register(self.vm.output, selectors.EVENT_READ)
            while selector.get_map():
                self._check_deadlines()
                self._send()
                for key, _ in selector.select(0.2):
                    data = os.read(key.fd, 65536)
                    if not data:
                        selector.unregister(key.fileobj)
                    elif key.fileobj is self.vm.output:
                        self.console.keep(data)
                    else:
                        self._lines += self._split_lines(data)
                yield from self._take_events()

    def _take_events(self) -> Iterator[Event]:
        while self._lines:
            self._count += 1
            yield _parse(self._lines.popleft(), self._count)

    def _check_deadlines(self) -> None:
        now = time.monotonic()
        if now >= self._give_up_at:
            limits = self._limits
            ordered = self._cancel_at < math.inf
            limit = limits.soft_timeout if ordered else limits.boot_timeout
            raise DeadlineError(f"the helper VM, {self._doing},", limit)
        if now >= self._cancel_at and not self._cancelled:
            self._cancelled = True
            self._unsent += make_cancel_line()

    def _send(self) -> None:
        """Write what the port takes now; a VM that doesn't read meets its deadline."""
        with contextlib.suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
            while self._unsent:
                self._unsent = self._unsent[self.vm.request.send(self._unsent) :]

    def _split_lines(self, data: bytes) -> list[bytes]:
        *lines, self._partial = (self._partial + data).split(b"\n")
        if len(self._partial) > EVENT_LIMIT:
            raise NodeError("the helper VM sent a line that is too long")
        return lines

    def _require_order(self, event: Event, result: RunResult | None) -> None:
        """Ready is the first event and comes once, the result is the last: a second one of
        either would have the host send more, or wait longer."""
        if result is not None or isinstance(event, Ready) is self.ready:
            raise NodeError("the helper VM broke the protocol: an event out of its order")

    def _require_version(self, ready: Ready) -> None:
        if ready.version != VERSION:
            raise NodeError(
                f"the helper speaks protocol {ready.version}, this host {VERSION}",
                hint=BUILD_ANEW,
            )


def make_entropy() -> str:
    """Random bytes as a request and a line that wakes take them."""
    return base64.b64encode(os.urandom(_ENTROPY)).decode()


def _parse(line: bytes, count: int) -> Event:
    try:
        if count > EVENTS_LIMIT:
            raise ProtocolError(f"more than {EVENTS_LIMIT} events")
        return parse_event(line)
    except ProtocolError as error:
        raise NodeError(f"the helper VM broke the protocol: {error}") from None
