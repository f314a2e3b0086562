"""A helper VM that runs, in its jail: booted, or restored from the node's saved state."""

import contextlib
import fcntl
import os
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

from snf_ganeti.errors import NodeError
from snf_image_host.confinement.jail import Confinement, Jail, spawn_jailed
from snf_image_host.helper_vm.appliance import Appliance
from snf_image_host.helper_vm.guest_memory import make_memory, share_memory
from snf_image_host.helper_vm.qmp import Qmp
from snf_image_host.helper_vm.saved_state import DEVICES_LIMIT, SavedState
from snf_image_host.helper_vm.vm import (
    KVM,
    AcceleratorName,
    Boot,
    Restore,
    Vm,
    make_qemu_argv,
    make_restore_commands,
)

_CONTROL_TIMEOUT = 30.0
"""Seconds for a command of QMP; a disk's server may have to answer first."""


@dataclass(frozen=True)
class RunningVm:
    """The host's ends. output: the console; ram: the memory's file."""

    request: socket.socket
    events: socket.socket
    output: IO[bytes]
    control: Qmp
    ram: int


@contextlib.contextmanager
def boot_vm(
    appliance: Appliance, accelerator: AcceleratorName, memory: int, jail: Jail
) -> Iterator[RunningVm]:
    """A VM that boots the appliance; memory: MiB. It is gone when the block ends."""
    with (
        make_memory(memory << 20) as ram,
        appliance.kernel.open("rb") as kernel,
        appliance.initrd.open("rb") as initrd,
        _start(accelerator, memory, ram, Boot(kernel.fileno(), initrd.fileno()), jail) as running,
    ):
        yield running


@contextlib.contextmanager
def restore_vm(
    state: SavedState, accelerator: AcceleratorName, memory: int, jail: Jail
) -> Iterator[RunningVm]:
    """A VM that goes on from a saved state; what is written to it meanwhile, it finds then.

    Raises NodeError (the state is damaged), LockError, OSError.
    """
    with (
        share_memory(state) as shared,
        _filled_pipe(state.read_devices()) as devices,
        _start(accelerator, memory, shared.ram, Restore(devices), jail) as running,
    ):
        shared.wait()
        for command in make_restore_commands(Restore(devices)):
            running.control.post(command)
        yield running


@contextlib.contextmanager
def _start(
    accelerator: AcceleratorName, memory: int, ram: int, start: Boot | Restore, jail: Jail
) -> Iterator[RunningVm]:
    with contextlib.ExitStack() as stack:
        ends = [
            [stack.enter_context(end) for end in socket.socketpair()]
            for _ in ("control", "request", "events")
        ]
        (control, control_vm), (request, request_vm), (events, events_vm) = ends
        vm = Vm(
            accelerator,
            memory,
            ram,
            control_vm.fileno(),
            request_vm.fileno(),
            events_vm.fileno(),
            start,
        )
        confinement = Confinement(
            "machine",
            address_space=vm.address_space,
            file_size=None,  # a disk may be a regular file
            devices=(KVM,) if accelerator == "kvm" else (),
        )
        child = stack.enter_context(
            spawn_jailed(
                jail,
                make_qemu_argv(vm),
                confinement,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=vm.descriptors,
            )
        )
        for _, end in ends:
            end.close()  # the VM's ends are the VM's alone: when it ends, ours see it
        assert child.stdout is not None
        yield RunningVm(request, events, child.stdout, Qmp(control, _CONTROL_TIMEOUT), ram)


@contextlib.contextmanager
def _filled_pipe(data: bytes) -> Iterator[int]:
    """A pipe's end from which all of `data` can be read, now or later. Raises NodeError."""
    out, into = os.pipe()
    try:
        with open(into, "wb", buffering=0) as file:
            fcntl.fcntl(into, fcntl.F_SETPIPE_SZ, DEVICES_LIMIT)
            os.set_blocking(into, False)
            if file.write(data) != len(data):
                raise NodeError("this node's pipes are too small for the saved state")
        yield out
    finally:
        os.close(out)
