"""Who a run is: a user id of its own, which owns nothing on this node, and a control group.

Two runs that hostile images have taken over can't signal, trace or look into each other. The
ids are numbers that no account has. One is claimed by a lock on its byte of a file, which goes
when its holder dies; the group has the id as its name, so whoever holds the id owns the group.
"""

import contextlib
import fcntl
import os
import pwd
import signal
import struct
from collections.abc import Iterator
from pathlib import Path

from snf_ganeti.errors import NodeError
from snf_image_host.confinement import cgroup
from snf_image_host.confinement.cgroup import Limits, Parent
from snf_image_host.confinement.jail import Jail
from snf_image_host.settings import Settings

CLAIMS = Path("/var/lib/snf-image-host/uids.lock")
_FLOCK = struct.Struct("hhqqi")
"""struct flock of fcntl(2): type, whence, start, length, pid."""
_MEMORY_BESIDE = 1 << 30
"""Bytes that QEMU, a decoder and the servers of disks may take beside the guest's memory."""


@contextlib.contextmanager
def open_jail(settings: Settings, claims: Path = CLAIMS) -> Iterator[Jail]:
    """An identity for a run's jailed programs, for the block. Raises NodeError."""
    with contextlib.ExitStack() as stack:
        lock = stack.enter_context(_open_claims(claims))
        uid = _claim_one(lock, settings)
        group = None
        with contextlib.suppress(NodeError):
            parent = find_parent(settings)
            _sweep(lock, uid, parent)
            limits = make_limits(settings)
            group = stack.enter_context(cgroup.open_group(parent, str(uid), limits))
        yield Jail(uid, uid, group)


def make_limits(settings: Settings) -> Limits:
    return Limits((settings.helper_memory << 20) + _MEMORY_BESIDE)


def find_parent(settings: Settings) -> Parent:
    """Where runs have their control groups. Raises NodeError: they have none on this node."""
    return cgroup.find_parent(make_limits(settings).make_files().keys())


@contextlib.contextmanager
def _open_claims(path: Path) -> Iterator[int]:
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise NodeError(f"{path} can't be opened: {error.strerror}") from None
    try:
        yield lock
    finally:
        os.close(lock)


def _claim_one(lock: int, settings: Settings) -> int:
    first, last = settings.helper_uids
    busy = find_owners()
    _end_orphans(lock, busy & set(range(first, last + 1)))
    for uid in range(first, last + 1):
        if uid not in busy and _claim(lock, uid):
            require_nobody(uid)
            return uid
    raise NodeError(
        f"all user ids from {first} to {last} are in use", hint="set helper_uids to more of them"
    )


def _claim(lock: int, uid: int) -> bool:
    """A lock of the open file, and not of the process: F_OFD_SETLK of fcntl(2)."""
    try:
        fcntl.fcntl(lock, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, uid, 1, 0))
    except (BlockingIOError, PermissionError):
        return False
    return True


def _release(lock: int, uid: int) -> None:
    fcntl.fcntl(lock, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_UNLCK, os.SEEK_SET, uid, 1, 0))


def find_owners() -> set[int]:
    """The users of all processes: a killed run's programs may take a moment to die."""
    owners = set()
    for entry in os.scandir("/proc"):
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                owners.add(entry.stat().st_uid)
    return owners


def _end_orphans(lock: int, uids: set[int]) -> None:
    """Kill what still runs of runs that were killed: their ids can be claimed. It dies with them
    but for one that dies at the very moment in which it starts a program."""
    for uid in uids:
        if _claim(lock, uid):
            _kill_all(uid)
            _release(lock, uid)


def _kill_all(uid: int) -> None:
    for entry in os.scandir("/proc"):
        with contextlib.suppress(OSError):
            if entry.name.isdecimal() and entry.stat().st_uid == uid:
                os.kill(int(entry.name), signal.SIGKILL)


def require_nobody(uid: int) -> None:
    """Raises NodeError when a user id is an account's."""
    with contextlib.suppress(KeyError):
        name = pwd.getpwuid(uid).pw_name
        raise NodeError(
            f"the user id {uid} is {name}'s", hint="set helper_uids to numbers that nobody has"
        )


def _sweep(lock: int, uid: int, parent: Parent) -> None:
    """Remove the groups of runs that were killed: their ids can be claimed. uid: our own."""
    for other in cgroup.list_groups(parent):
        if other.isdecimal() and int(other) != uid and _claim(lock, int(other)):
            cgroup.remove_group(parent.folder / other)
            _release(lock, int(other))
