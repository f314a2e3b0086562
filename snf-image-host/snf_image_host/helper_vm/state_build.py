"""Saves the helper's state: boots it once, in its jail, and keeps it as it waits.

QEMU 7.2 and later write what is not in the memory's file as for a migration
(`x-ignore-shared`): the same device models read it again in every run.
"""

import os
import select
import time

from snf_ganeti.errors import DeadlineError, NodeError
from snf_ganeti.lock import lock_file
from snf_image_host.helper_vm.helper import HelperVm, boot_helper, start_helper
from snf_image_host.helper_vm.qmp import Command
from snf_image_host.helper_vm.saved_state import (
    DEVICES_LIMIT,
    SavedState,
    make_conditions,
    remove_state,
    write_state,
)
from snf_image_host.helper_vm.session import Session
from snf_image_host.helper_vm.vm import IGNORE_MEMORY

_SAVE_TIMEOUT = 30.0


def save_state(vm: HelperVm) -> SavedState:
    """Boot the helper, save it beside the appliance, and see that it goes on from there.

    Raises NodeError, DeadlineError, LockError (another build runs).
    """
    with lock_file(vm.appliance.folder.parent / ".lock", timeout=5):
        state = _save(vm)
        with start_helper(vm) as helper:
            if not (helper.wait_ready() and helper.restored):
                remove_state(vm.appliance)
                raise NodeError(f"the saved helper does not go on under {vm.accelerator}")
    return state


def _save(vm: HelperVm) -> SavedState:
    conditions = make_conditions(vm.appliance, vm.accelerator, vm.limits.memory)
    with boot_helper(vm) as session:
        if not (session.wait_ready() and _rehearse(session)):
            raise NodeError(
                f"the helper VM does not start under {vm.accelerator}; its console said last: "
                f"{session.console.last_line}"
            )
        devices = _save_devices(session)
        try:
            return write_state(vm.appliance, conditions, session.vm.ram, devices)
        except OSError as error:
            raise NodeError(f"the state can't be written: {error}") from None


def _rehearse(session: Session) -> bool:
    """Wake it once before it is saved: what that loads need not be loaded in every run."""
    session.wake()
    return session.wait_ready()


def _save_devices(session: Session) -> bytes:
    """What QEMU writes of the machine beside its memory; the machine is stopped by that."""
    out, into = os.pipe()
    with open(out, "rb", buffering=0) as pipe:
        control = session.vm.control
        try:
            control.execute(IGNORE_MEMORY)
            control.execute(Command("getfd", {"fdname": "devices"}, (into,)))
        finally:
            os.close(into)
        control.execute(Command("migrate", {"uri": "fd:devices"}))
        devices = _read_all(pipe.fileno())
        outcome = control.execute(Command("query-migrate"))
    if outcome.get("status") != "completed" or not devices:
        raise NodeError(f"QEMU did not save the helper: {outcome.get('error-desc', outcome)}")
    return devices


def _read_all(pipe: int) -> bytes:
    """Until QEMU closes its end. Raises NodeError, DeadlineError."""
    deadline = time.monotonic() + _SAVE_TIMEOUT
    kept = bytearray()
    while True:
        if not select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))[0]:
            raise DeadlineError("saving the helper VM", _SAVE_TIMEOUT)
        data = os.read(pipe, 1 << 16)
        if not data:
            return bytes(kept)
        kept += data
        if len(kept) > DEVICES_LIMIT:
            raise NodeError("QEMU's state of the devices is too large to be kept")
