"""A helper VM for one request: restored where the node has a saved state that fits, else booted."""

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from snf_ganeti.errors import InputError, SnfError
from snf_image_helper.protocol import Event, Request, make_request_line
from snf_image_host.confinement.jail import Jail
from snf_image_host.helper_vm.appliance import BUILD_ANEW, Appliance
from snf_image_host.helper_vm.console import Console
from snf_image_host.helper_vm.running_vm import boot_vm, restore_vm
from snf_image_host.helper_vm.saved_state import SavedState, make_conditions, read_state
from snf_image_host.helper_vm.session import HelperLimits, Session
from snf_image_host.helper_vm.vm import AcceleratorName, VmDisk

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class HelperVm:
    """All that a run needs beside its request and disks."""

    appliance: Appliance
    accelerator: AcceleratorName
    jail: Jail
    limits: HelperLimits


def find_state(vm: HelperVm) -> SavedState:
    """The state that this node has saved for the helper. Raises NodeError: none that fits."""
    conditions = make_conditions(vm.appliance, vm.accelerator, vm.limits.memory)
    return read_state(vm.appliance, conditions)


@contextlib.contextmanager
def start_helper(vm: HelperVm) -> Iterator["Helper"]:
    """A helper on its way: restored where this node has a saved state that fits, else booting.

    It is gone when the block ends; what the block does before it `run`s costs no time.
    """
    with contextlib.ExitStack() as stack:
        yield Helper(vm, stack)


@contextlib.contextmanager
def boot_helper(vm: HelperVm) -> Iterator[Session]:
    """A helper that boots, whatever was saved; it is gone when the block ends."""
    with boot_vm(vm.appliance, vm.accelerator, vm.limits.memory, vm.jail) as running:
        yield Session(running, vm.limits)


class Helper:
    """A helper VM that goes on where it was saved, and is booted instead if it doesn't."""

    def __init__(self, vm: HelperVm, stack: contextlib.ExitStack) -> None:
        self._vm = vm
        self._start = stack.enter_context(contextlib.ExitStack())
        self._session = self._restore() or self._boot()

    @property
    def console(self) -> Console:
        return self._session.console

    @property
    def restored(self) -> bool:
        return self._session.restored

    def wait_ready(self) -> bool:
        """Does the runner announce itself in time? One that was restored has a second chance."""
        self._require_going_on()
        return self._session.wait_ready()

    def attach(self, disks: Sequence[VmDisk]) -> None:
        """Plug the instance's disks in, the first as LUN 0. Raises NodeError, DeadlineError."""
        self._require_going_on()
        self._session.attach(disks)

    def run(self, request: Request, on_event: Callable[[Event], None]) -> None:
        """Do one request on the disks; every event is handed on as it comes.

        Raises InputError (a task failed: its reason), DeadlineError, NodeError (the VM ended
        early, or said what the protocol does not know).
        """
        result = self._session.converse(make_request_line(request), on_event)
        if result.status != "ok":
            raise InputError(result.reason or "the helper failed without a reason")

    def _require_going_on(self) -> None:
        """Boot it anew if it was restored and does not answer."""
        if self._session.restored and not self._session.wait_ready():
            log.warning(
                "the saved helper does not go on (its console said last: %s): booting it; %s",
                self.console.last_line,
                BUILD_ANEW,
            )
            self._start.close()
            self._session = self._boot()

    def _restore(self) -> Session | None:
        vm = self._vm
        try:
            state = find_state(vm)
            running = self._start.enter_context(
                restore_vm(state, vm.accelerator, vm.limits.memory, vm.jail)
            )
        except (SnfError, OSError) as error:
            log.info("the helper is booted: %s", error)
            return None
        session = Session(running, vm.limits, restored=True)
        session.wake()
        return session

    def _boot(self) -> Session:
        return self._start.enter_context(boot_helper(self._vm))
