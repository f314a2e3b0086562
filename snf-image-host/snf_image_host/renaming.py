"""A renaming: the host name, and what follows from it, inside the instance's disks."""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass

from snf_ganeti.errors import InputError
from snf_image_helper.protocol import Request, is_hostname
from snf_image_host.confinement.identity import open_jail
from snf_image_host.customization import customize, find_helper
from snf_image_host.environ import Disk, Instance
from snf_image_host.helper_vm.helper import start_helper
from snf_image_host.journal import Journal
from snf_image_host.os_parameters.properties import is_set
from snf_image_host.settings import Settings
from snf_image_host.targets import open_target


@dataclass(frozen=True)
class Plan:
    """What a renaming does. request: None when the properties exclude it."""

    disks: tuple[Disk, ...]
    request: Request | None


def make_plan(instance: Instance, properties: Mapping[str, str]) -> Plan:
    """Decide; touch nothing. Raises InputError: no disk, no host name."""
    if not is_hostname(instance.name):
        raise InputError(f"{instance.name!r} is not a host name")
    if not instance.disks:
        raise InputError(f"{instance.name} has no disk")
    excluded = any(
        is_set(properties, name)
        for name in ("EXCLUDE_ALL_TASKS", "EXCLUDE_MOUNTED_TASKS", "EXCLUDE_TASK_ASSIGNHOSTNAME")
    )
    request = Request(
        action="rename",
        hostname=instance.name,
        old_hostname=instance.old_name,
        disk_count=len(instance.disks),
        properties=properties,
    )
    return Plan(instance.disks, None if excluded else request)


def rename(plan: Plan, settings: Settings, journal: Journal) -> None:
    """Carry a plan out. Raises SnfError; then the disks are as they were, or the helper says
    what it did."""
    if plan.request is None:
        journal.tell("the properties exclude a host name: nothing to rename inside the disk")
        return
    with contextlib.ExitStack() as stack:
        with journal.stage("verify"):
            jail = stack.enter_context(open_jail(settings))
            vm = find_helper(settings, jail)
        with journal.stage("open"):
            targets = [
                stack.enter_context(open_target(disk, jail, writable=disk.access == "rw"))
                for disk in plan.disks
            ]
        with journal.stage("helper"), start_helper(vm) as helper:
            customize(plan.request, helper, targets, journal.follow_helper)
