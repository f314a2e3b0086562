"""One deployment: an image on the first of an instance's disks, customized by the helper VM.

`make_plan` decides everything that can be decided without the image, from the instance, the OS
parameters and the settings, and touches nothing. `deploy` carries a plan out, in stages:

    verify   this node has a helper appliance that boots, and a user id of its own
    open     the image is there, and every disk; the image fits
    copy     the image's bytes go to the first disk
    helper   the helper VM, on its way since the image is known to be there, customizes it while
             the disks still take what was copied; it ends when they have all of it
    sync     the same wait, where nothing is to be customized

What is opened is closed on the way out, whichever that is.
"""

import contextlib
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

from snf_ganeti.errors import InputError
from snf_image_helper.protocol import Request, is_hostname
from snf_image_host.addressing import make_nics
from snf_image_host.confinement.identity import open_jail
from snf_image_host.customization import customize, find_helper, flushing, make_durable
from snf_image_host.environ import Disk, Instance
from snf_image_host.helper_vm.helper import Helper, HelperVm, start_helper
from snf_image_host.host_key import HostKey, start_host_key
from snf_image_host.image import Image, ImageOrder, make_order, open_image
from snf_image_host.journal import Journal
from snf_image_host.os_parameters.parameters import Parameters, require_supported
from snf_image_host.os_parameters.properties import find_doubtful_flags, is_set
from snf_image_host.settings import Settings
from snf_image_host.targets import Target, open_target


@dataclass(frozen=True)
class Plan:
    """What a deployment does. request: for the helper, None when nothing is to be customized;
    the moment adds time, entropy and a key to it."""

    order: ImageOrder
    disks: tuple[Disk, ...]
    request: Request | None
    warnings: tuple[str, ...] = ()


def make_plan(instance: Instance, parameters: Parameters, settings: Settings) -> Plan:
    """Decide; touch nothing. An instance without a name keeps the image's host name.

    Raises InputError: no disk, a read-only one, no host name, a NIC's address that can't be,
    something that this version does not do.
    """
    require_supported(parameters)
    if not instance.disks:
        raise InputError(f"{instance.name or 'the instance'} has no disk", hint="add one")
    if instance.disks[0].access != "rw":
        raise InputError("disk 0 is read-only, and the image belongs there")
    if instance.name and not is_hostname(instance.name):
        raise InputError(f"{instance.name!r} is not a host name")
    properties = parameters.properties
    doubtful = find_doubtful_flags(properties)
    return Plan(
        order=make_order(parameters),
        disks=instance.disks,
        request=None
        if is_set(properties, "EXCLUDE_ALL_TASKS")
        else _make_request(instance, parameters, settings),
        warnings=tuple(f"property {name} is neither yes nor no: it is a yes" for name in doubtful),
    )


def _make_request(instance: Instance, parameters: Parameters, settings: Settings) -> Request:
    return Request(
        action="create",
        hostname=instance.name,
        disk_count=len(instance.disks),
        nics=make_nics(instance.nics, settings.addressing),
        password=parameters.img_passwd,
        password_hash=parameters.img_passwd_hash,
        auth_keys=parameters.auth_keys,
        personality=parameters.img_personality,
        properties=parameters.properties,
    )


def deploy(plan: Plan, settings: Settings, journal: Journal, *, dry_run: bool = False) -> None:
    """Carry a plan out, each stage told to the journal. dry_run: stop before the first write.

    Raises SnfError; then nothing runs any more, and what is on the first disk is not whole.
    """
    for warning in plan.warnings:
        journal.warn(warning)
    with contextlib.ExitStack() as stack:
        with journal.stage("verify"):
            jail = stack.enter_context(open_jail(settings))
            vm = find_helper(settings, jail) if plan.request is not None else None
        with contextlib.ExitStack() as image_only:
            with journal.stage("open"):
                image = image_only.enter_context(open_image(plan.order, settings, jail))
                targets = [
                    stack.enter_context(open_target(disk, jail, writable=disk.access == "rw"))
                    for disk in plan.disks
                ]
            if dry_run:
                image.require_room(targets[0])
                return
            prepared = stack.enter_context(_prepare(vm)) if vm is not None else None
            _copy(image, targets[0], journal)
        if plan.request is not None and prepared is not None:
            with journal.stage("helper"), flushing(targets[0]):
                helper, key = prepared
                request = dataclasses.replace(plan.request, rsa_key=key.read())
                customize(request, helper, targets, journal.follow_helper)
        else:
            with journal.stage("sync"):
                make_durable(targets)


@contextlib.contextmanager
def _prepare(vm: HelperVm) -> Iterator[tuple[Helper, HostKey]]:
    """What is on its way while the image is copied."""
    with start_helper(vm) as helper, start_host_key() as key:
        yield helper, key


def _copy(image: Image, target: Target, journal: Journal) -> None:
    if image.null:
        journal.tell("disk 0 holds the image already")
    else:
        with journal.stage("copy"):
            image.copy_to(target, journal.show_copied)
