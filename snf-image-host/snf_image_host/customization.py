"""A customization: the helper VM of this node at work on open disks."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from snf_image_helper.protocol import Event, Request
from snf_image_host.confinement.jail import Jail
from snf_image_host.helper_vm.accelerator import find_accelerator
from snf_image_host.helper_vm.appliance import read_appliance
from snf_image_host.helper_vm.helper import Helper, HelperVm
from snf_image_host.helper_vm.session import HelperLimits, make_entropy
from snf_image_host.settings import Settings
from snf_image_host.targets import Target
from snf_image_host.targets.target import telling


def find_helper(settings: Settings, jail: Jail) -> HelperVm:
    """This node's helper: its appliance, its accelerator, the settings' limits.

    Raises NodeError (no appliance was built), LockError (another run's proof of KVM hangs).
    """
    limits = HelperLimits(
        memory=settings.helper_memory,
        boot_timeout=settings.helper_boot_timeout,
        soft_timeout=settings.helper_soft_timeout,
        hard_timeout=settings.helper_hard_timeout,
    )
    vm = HelperVm(read_appliance(settings.helper_dir), "tcg", jail, limits)
    accelerator = find_accelerator(settings.accelerator, vm)
    return dataclasses.replace(vm, accelerator=accelerator)


def customize(
    request: Request,
    helper: Helper,
    targets: Sequence[Target],
    on_event: Callable[[Event], None],
) -> None:
    """Do a request on open disks, and have what the helper wrote reach them.

    Time and entropy are this moment's. Raises InputError (a task's reason), DeadlineError,
    NodeError.
    """
    helper.attach([target.vm_disk for target in targets])
    request = dataclasses.replace(request, time=time.time(), entropy=make_entropy())
    helper.run(request, on_event)
    make_durable(targets)


@contextlib.contextmanager
def flushing(target: Target) -> Iterator[None]:
    """Have a disk take what was written to it while the block goes on.

    Raises NodeError, also in place of what failed in the block: a disk that lost its writes is
    the reason of that.
    """
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(make_durable, [target])
        try:
            yield
        finally:
            done.result()


def make_durable(targets: Sequence[Target]) -> None:
    """Have all that was written reach the disks. Raises NodeError."""
    for target in targets:
        with telling(target, "made durable"):
            target.flush()
