"""The scripts that Ganeti runs, as functions for `snf_ganeti.errors.run_main`.

Ganeti runs `attach` before nearly everything, and takes its failure for "the volume is gone":
when it was about to remove a volume it then forgets it. So `attach` fails only when Ceph says
that there is no such volume. In every other case it succeeds without a device, and what comes
next - `open`, `grow`, `remove` - fails with the reason.
"""

import logging
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ext_storage_rados import settings as settings_module
from ext_storage_rados.ceph.access import Access, Mode
from ext_storage_rados.deadline import limited
from ext_storage_rados.device import choose
from ext_storage_rados.environ import Request, parse_request
from ext_storage_rados.names import ImageName
from ext_storage_rados.parameters import Parameters, parse_location, parse_parameters
from ext_storage_rados.settings import Settings
from snf_ganeti.errors import DeadlineError, SnfError
from snf_ganeti.log import configure

if TYPE_CHECKING:
    import rados

log = logging.getLogger(__name__)

_SCRIPT_SECONDS = 600.0
"""Ganeti gives up after 900."""


@dataclass(frozen=True)
class Job:
    """A request with what the settings make of it."""

    request: Request
    settings: Settings
    parameters: Parameters

    @property
    def image(self) -> ImageName:
        return self.name(self.request.volume)

    @property
    def access(self) -> Access:
        return self.settings.make_access(self.parameters.user)

    @property
    def is_userspace(self) -> bool:
        return self.parameters.access == "userspace"

    def name(self, volume: str) -> ImageName:
        return ImageName(self.parameters.pool, self.parameters.namespace, volume)


def create() -> int:
    from ext_storage_rados import volume

    job = _read_job(parse_parameters)
    if job.is_userspace:
        _make_uri(job)  # refused before anything is made
    return _ask(job, lambda ceph: volume.create(ceph, job.image, job.request.size, job.parameters))


def remove() -> int:
    from ext_storage_rados import volume

    job = _read_job()
    choose(job.settings).detach(job.image, job.access, job.settings.timeout)
    return _ask(job, lambda ceph: volume.remove(ceph, job.image, job.settings.trash_delay))


def grow() -> int:
    from ext_storage_rados import volume

    job = _read_job()
    size = job.request.new_size
    _ask(job, lambda ceph: volume.grow(ceph, job.image, size))
    choose(job.settings).update_size(job.image, size, job.settings.timeout)
    return 0


def setinfo() -> int:
    from ext_storage_rados import volume

    job = _read_job()
    return _ask(job, lambda ceph: volume.set_info(ceph, job.image, job.request.metadata))


def snapshot() -> int:
    from ext_storage_rados import volume

    job = _read_job(parse_parameters)
    target = job.name(job.request.snapshot)
    return _ask(job, lambda ceph: volume.snapshot(ceph, job.image, target, job.parameters))


def verify() -> int:
    from ext_storage_rados import verification

    job = _read_job(parse_parameters)
    return _ask(job, lambda ceph: verification.verify(ceph, job.parameters))


def attach() -> int:
    configure("attach")
    with limited("attach", _SCRIPT_SECONDS, _say_unknown):
        try:
            print(_attach(_read_job()))
        except SnfError as error:
            if _is_gone(error):
                raise
            log.error("error: %s", error)
            print()
    return 0


def detach() -> int:
    job = _read_job()
    with limited(f"detaching {job.image}", _SCRIPT_SECONDS, _say_error):
        choose(job.settings).detach(job.image, job.access, job.settings.timeout)
    return 0


def open_volume() -> int:
    """Ganeti's `open`: from now on this node writes, alone or, in a migration, with another."""
    from ext_storage_rados import volume

    job = _read_job()
    mode = Mode.EXCLUSIVE if job.request.exclusive else Mode.SHARED
    device, timeout = choose(job.settings), job.settings.timeout
    if not job.is_userspace:
        with limited(f"opening {job.image}", _SCRIPT_SECONDS, _say_error):
            device.attach(job.image, job.access, timeout)  # says why, if `attach` could not
            if device.set_mode(job.image, job.access, mode, timeout):
                return 0
    if mode is Mode.SHARED:
        return 0
    return _ask(job, lambda ceph: volume.fence_others(ceph, job.image))


def close() -> int:
    job = _read_job()
    with limited(f"closing {job.image}", _SCRIPT_SECONDS, _say_error):
        choose(job.settings).set_mode(job.image, job.access, Mode.SHARED, job.settings.timeout)
    return 0


def _attach(job: Job) -> str:
    """What Ganeti reads: a device's path, or an empty line and QEMU's URI."""
    if job.is_userspace:
        _require(job)
        return f"\nkvm:{_make_uri(job)}"
    device = choose(job.settings)
    found = device.find(job.image, job.access)
    if found is None:
        _require(job)
        found = device.attach(job.image, job.access, job.settings.timeout)
    return str(found)


def _make_uri(job: Job) -> str:
    from ext_storage_rados import uri

    ganeti = job.settings.ganeti
    version = uri.find_ganeti() if ganeti == "auto" else ganeti
    return uri.make_uri(job.image, job.access, version)


def _require(job: Job) -> None:
    """Raises GoneError when Ceph says that there is no such volume."""
    from ext_storage_rados import volume

    _ask(job, lambda ceph: volume.require(ceph, job.image), _say_unknown)


def _is_gone(error: SnfError) -> bool:
    from ext_storage_rados.ceph.cluster import GoneError

    return isinstance(error, GoneError)


def _read_job(
    parse: Callable[[dict[str, str], Settings], Parameters] | None = None,
) -> Job:
    configure("rados")
    request = parse_request(os.environ)
    settings = settings_module.read()
    parameters = (parse or parse_location)(dict(request.parameters), settings)
    return Job(request, settings, parameters)


def _say_error(error: DeadlineError) -> int:
    print(f"error: {error}", file=sys.stderr)
    return error.exit_status


def _say_unknown(error: DeadlineError) -> int:
    """`attach` does not know, and must not say that the volume is gone."""
    _say_error(error)
    print()
    return 0


def _ask(
    job: Job,
    act: "Callable[[rados.Rados], None]",
    say: Callable[[DeadlineError], int] = _say_error,
) -> int:
    """Do something with the cluster, in the time that a script has."""
    from ext_storage_rados.ceph import cluster, predecessor

    with (
        limited(f"work on {job.image}", _SCRIPT_SECONDS, say),
        cluster.connect(job.access) as ceph,
        cluster.explained("the blocklist"),
        predecessor.replaced(ceph, job.request.volume),
        cluster.explained(str(job.image)),
    ):
        act(ceph)
    return 0
