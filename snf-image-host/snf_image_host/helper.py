"""One run of the helper VM: the request goes in, events come out, deadlines hold.

The VM has touched an image, so nothing that it says is believed: lines are bounded in
length and number, the console in bytes, the whole run in seconds.
"""

import contextlib
import logging
import os
import selectors
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO

from snf_ganeti.errors import DeadlineError, InputError, NodeError
from snf_image_helper.protocol import (
    EVENT_LIMIT,
    EVENTS_LIMIT,
    VERSION,
    Event,
    ProtocolError,
    Ready,
    Request,
    RunResult,
    TaskEnd,
    TaskStart,
    make_cancel_line,
    make_request_line,
    parse_event,
)
from snf_image_host.appliance import Appliance
from snf_image_host.console import Console
from snf_image_host.jail import Confinement, Jail, spawn_jailed
from snf_image_host.vm import KVM, AcceleratorName, Vm, VmDisk, make_qemu_argv

log = logging.getLogger(__name__)

_EXIT_TIMEOUT = 10.0
"""Seconds for the VM to power off after its result."""


@dataclass(frozen=True)
class HelperLimits:
    """What a run may take. memory: MiB of the VM; the rest in seconds: until the runner
    answers, until it is asked to stop, and from then until the VM is killed."""

    memory: int = 512
    boot_timeout: float = 60
    soft_timeout: float = 120
    hard_timeout: float = 10


@dataclass(frozen=True)
class HelperVm:
    """All that a run needs beside its request and disks."""

    appliance: Appliance
    accelerator: AcceleratorName
    jail: Jail
    limits: HelperLimits


def run_helper(
    vm: HelperVm,
    request: Request,
    disks: tuple[VmDisk, ...],
    on_event: Callable[[Event], None],
) -> None:
    """Do one request on `disks`; every event is handed on as it comes.

    Raises InputError (a task failed: its reason), DeadlineError, NodeError (the VM ended
    early, or said what the protocol does not know).
    """
    line = make_request_line(request)
    with start_helper(vm, disks) as session:
        result = session.converse(line, on_event)
    if result.status != "ok":
        raise InputError(result.reason or "the helper failed without a reason")


@contextlib.contextmanager
def start_helper(vm: HelperVm, disks: tuple[VmDisk, ...] = ()) -> Iterator["Session"]:
    """The VM, starting; it is gone when the block ends."""
    with contextlib.ExitStack() as stack:
        request, request_vm = (stack.enter_context(end) for end in socket.socketpair())
        events, events_vm = (stack.enter_context(end) for end in socket.socketpair())
        machine = Vm(
            accelerator=vm.accelerator,
            memory=vm.limits.memory,
            kernel=stack.enter_context(vm.appliance.kernel.open("rb")).fileno(),
            initrd=stack.enter_context(vm.appliance.initrd.open("rb")).fileno(),
            request=request_vm.fileno(),
            events=events_vm.fileno(),
            disks=disks,
        )
        confinement = Confinement(
            "machine",
            address_space=machine.address_space,
            file_size=None,  # a disk may be a regular file
            devices=(KVM,) if vm.accelerator == "kvm" else (),
        )
        child = stack.enter_context(
            spawn_jailed(
                vm.jail,
                make_qemu_argv(machine),
                confinement,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=machine.descriptors,
            )
        )
        request_vm.close()  # the VM's ends are the VM's alone: when it ends, ours see it
        events_vm.close()
        assert child.stdout is not None
        yield Session(request, events, child.stdout, vm.limits)


class Session:
    """The host's side of one run."""

    def __init__(
        self,
        request: socket.socket,
        events: socket.socket,
        output: IO[bytes],
        limits: HelperLimits,
    ) -> None:
        self._request = request
        self._events = events
        self._output = output
        self.console = Console()
        self._limits = limits
        self._unsent = b""
        self._partial = b""
        self._doing = "booting"
        self._cancelled = False
        self._ready = False
        begun = time.monotonic()
        self._cancel_at = begun + limits.soft_timeout
        self._give_up_at = begun + limits.boot_timeout
        request.setblocking(False)

    def converse(self, request_line: bytes, on_event: Callable[[Event], None]) -> RunResult:
        """Send the request when the runner is ready; hand events on until the VM has ended."""
        result = None
        try:
            for event in self._read_events():
                self._require_order(event, result)
                on_event(event)
                match event:
                    case Ready():
                        self._require_version(event)
                        self._ready = True
                        self._unsent += request_line
                        self._give_up_at = self._cancel_at + self._limits.hard_timeout
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

    def wait_ready(self) -> bool:
        """Does the runner announce itself before the boot's deadline?"""
        with contextlib.suppress(DeadlineError, NodeError):
            return any(isinstance(event, Ready) for event in self._read_events())
        return False

    def _read_events(self) -> Iterator[Event]:
        """Events until the VM closes its end. Raises DeadlineError, NodeError."""
        count = 0
        with selectors.DefaultSelector() as selector:
            selector.register(self._events, selectors.EVENT_READ)
            selector.register(self._output, selectors.EVENT_READ)
            while selector.get_map():
                self._check_deadlines()
                self._send()
                for key, _ in selector.select(0.2):
                    data = os.read(key.fd, 65536)
                    if not data:
                        selector.unregister(key.fileobj)
                    elif key.fileobj is self._output:
                        self.console.keep(data)
                    else:
                        for line in self._split_lines(data):
                            count += 1
                            yield _parse(line, count)

    def _check_deadlines(self) -> None:
        now = time.monotonic()
        if now >= self._give_up_at:
            limits = self._limits
            limit = limits.soft_timeout if self._cancelled else limits.boot_timeout
            raise DeadlineError(f"the helper VM, {self._doing},", limit)
        if now >= self._cancel_at and not self._cancelled:
            self._cancelled = True
            self._unsent += make_cancel_line()

    def _send(self) -> None:
        """Write what the port takes now; a VM that doesn't read meets its deadline."""
        with contextlib.suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
            while self._unsent:
                self._unsent = self._unsent[self._request.send(self._unsent) :]

    def _split_lines(self, data: bytes) -> list[bytes]:
        *lines, self._partial = (self._partial + data).split(b"\n")
        if len(self._partial) > EVENT_LIMIT:
            raise NodeError("the helper VM sent a line that is too long")
        return lines

    def _require_order(self, event: Event, result: RunResult | None) -> None:
        """Ready is the first event and comes once, the result is the last: a second one of
        either would have the host send more, or wait longer."""
        if result is not None or isinstance(event, Ready) is self._ready:
            raise NodeError("the helper VM broke the protocol: an event out of its order")

    def _require_version(self, ready: Ready) -> None:
        if ready.version != VERSION:
            raise NodeError(
                f"the helper speaks protocol {ready.version}, this host {VERSION}",
                hint="run: snf-image build-helper",
            )


def _parse(line: bytes, count: int) -> Event:
    try:
        if count > EVENTS_LIMIT:
            raise ProtocolError(f"more than {EVENTS_LIMIT} events")
        return parse_event(line)
    except ProtocolError as error:
        raise NodeError(f"the helper VM broke the protocol: {error}") from None
