"""The OS definition's scripts, as Ganeti calls them: environment in, exit status out.

Ganeti shows the last 20 lines that a script prints: the reason of a failure is the last one.
"""

import contextlib
import os
import sys
from collections.abc import Iterator

from snf_ganeti import log
from snf_image_host import deployment, environ, renaming, settings
from snf_image_host.confinement.identity import open_jail
from snf_image_host.inherited import complete
from snf_image_host.journal import Journal, closing
from snf_image_host.monitor import open_monitor
from snf_image_host.os_parameters.parameters import (
    require_supported,
    verify_parameters,
    verify_properties,
)
from snf_image_host.targets import open_target
from snf_image_host.transfer import make_dump, measure_dump, restore_dump

_PROGRAM = "snf-image"


def create() -> int:
    """Deploy the image of the OS parameters; a reinstallation is the same."""
    with _begin_customization() as (instance, site, journal):
        raw = environ.parse_raw_parameters(os.environ)
        parameters = verify_parameters(raw, instance.variant, site)
        if instance.disks:
            parameters = complete(parameters, instance.disks[0])
        plan = deployment.make_plan(instance, parameters, site)
        deployment.deploy(plan, site, journal)
    return 0


def rename() -> int:
    """Give the guest its new host name."""
    with _begin_customization() as (instance, site, journal):
        raw = environ.parse_raw_parameters(os.environ)
        properties = verify_properties(raw, instance.variant, site)
        renaming.rename(renaming.make_plan(instance, properties), site, journal)
    return 0


def export() -> int:
    """Write a disk to standard output, and to EXP_SIZE_FD about how many bytes come."""
    transfer, disk = _begin_transfer("export")
    with (
        open_jail(settings.read()) as jail,
        open_target(disk, jail, writable=False) as target,
    ):
        if transfer.size_fd is not None:
            with open(transfer.size_fd, "w") as hint:
                hint.write(f"{measure_dump(target)}\n")  # read as bytes by Ganeti
        for data in make_dump(target):
            sys.stdout.buffer.write(data)
    return 0


def import_() -> int:
    """Make a disk what comes from standard input."""
    _, disk = _begin_transfer("import")
    with (
        open_jail(settings.read()) as jail,
        open_target(disk, jail) as target,
        open(sys.stdin.fileno(), "rb", closefd=False) as stream,
    ):
        restore_dump(stream, target, disk.size)
    return 0


def verify() -> int:
    """Check the OS parameters, and all else that an image is not needed for."""
    environ.require_api(os.environ)
    log.configure(_PROGRAM)
    raw = environ.parse_raw_parameters(os.environ)
    require_supported(verify_parameters(raw, environ.parse_variant(os.environ), settings.read()))
    return 0


@contextlib.contextmanager
def _begin_customization() -> Iterator[tuple[environ.Instance, settings.Settings, Journal]]:
    """Whose guest it is, on which site; the block's end, good or bad, is told to the monitor."""
    instance = _read_instance()
    site = settings.read()
    with (
        open_monitor(site.progress_monitor, instance.name) as send,
        closing(Journal(send)) as journal,
    ):
        yield instance, site, journal


def _begin_transfer(direction: environ.Direction) -> tuple[environ.Transfer, environ.Disk]:
    """What to transfer. For an export the disk may be a snapshot that Ganeti made for it."""
    instance = _read_instance()
    transfer = environ.parse_transfer(os.environ, direction)
    size = next((disk.size for disk in instance.disks if disk.index == transfer.index), 0)
    path = transfer.path or ("" if transfer.uri else transfer.device)
    return transfer, environ.Disk(transfer.index, size, path=path, uri=transfer.uri)


def _read_instance() -> environ.Instance:
    """The instance that Ganeti calls for, with the log as detailed as it asks."""
    instance = environ.parse_instance(os.environ)
    log.configure(_PROGRAM, debug=instance.debug_level > 0)
    return instance
