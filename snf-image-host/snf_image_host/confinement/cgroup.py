"""A control group for each run: what all its jailed programs take together is bounded.

By Linux's Documentation/admin-guide/cgroup-v2.rst. A node that has no cgroup v2, or whose v2
has none of these controllers (v1 may hold them), goes without: the limits of each process stay.
"""

import contextlib
import logging
import time
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from pathlib import Path

from snf_ganeti.errors import NodeError

log = logging.getLogger(__name__)

PROCESSES = "cgroup.procs"
_NAME = "snf-image"
_MOUNTS = Path("/proc/self/mountinfo")
_CONTROL = "cgroup.subtree_control"
_END_TIMEOUT = 10.0
_POLL_INTERVAL = 0.01


@dataclass(frozen=True)
class Limits:
    """What a run may take. memory: bytes, without swap; processes: threads count, too;
    weight: its share of busy processors, where 100 is what others have."""

    memory: int
    processes: int = 1024
    weight: int = 50

    def make_files(self) -> Mapping[str, Mapping[str, str]]:
        """Controller → file → value."""
        return {
            "memory": {
                "memory.max": str(self.memory),
                "memory.swap.max": "0",
                "memory.oom.group": "1",  # half a run is of no use
            },
            "pids": {"pids.max": str(self.processes)},
            "cpu": {"cpu.weight": str(self.weight)},
        }


def find_mount(mountinfo: str) -> Path:
    """Where cgroup v2 is mounted: proc(5), mountinfo. Raises NodeError."""
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        if after.split(" ")[0] == "cgroup2":
            return Path(before.split(" ")[4])
    raise NodeError("cgroup v2 is not mounted")


@dataclass(frozen=True)
class Parent:
    """The group in which the runs' groups are. controllers: those that they can use."""

    folder: Path
    controllers: frozenset[str]


def find_parent(known: Set[str], mounts: Path = _MOUNTS) -> Parent:
    """The parent of all groups, made if it is not there. known: the controllers that are of use.

    Raises NodeError: this node has no cgroup v2 that can be used.
    """
    root = find_mount(mounts.read_text())
    folder = root / _NAME
    try:
        controllers = frozenset(known) & frozenset(
            (root / "cgroup.controllers").read_text().split()
        )
        if not controllers:
            raise NodeError(f"{root} has none of the controllers {', '.join(sorted(known))}")
        _enable(root, controllers)
        folder.mkdir(exist_ok=True)
        _enable(folder, controllers)
    except OSError as error:
        raise NodeError(f"{root} can't be used: {error.strerror}") from None
    return Parent(folder, controllers)


def _enable(folder: Path, controllers: Set[str]) -> None:
    missing = controllers - frozenset((folder / _CONTROL).read_text().split())
    if missing:
        (folder / _CONTROL).write_text(" ".join(f"+{name}" for name in sorted(missing)))


def list_groups(parent: Parent) -> list[str]:
    """The names of the groups that there are, those that killed runs have left among them."""
    return sorted(each.name for each in parent.folder.iterdir() if each.is_dir())


@contextlib.contextmanager
def open_group(parent: Parent, name: str, limits: Limits) -> Iterator[Path]:
    """A group of this name, which is its holder's alone; what is in it ends with the block.

    Raises NodeError.
    """
    folder = parent.folder / name
    remove_group(folder)  # a killed run's
    try:
        folder.mkdir()
        for controller, files in limits.make_files().items():
            if controller in parent.controllers:
                _write(folder, files)
    except OSError as error:
        raise NodeError(f"{folder} can't be made: {error.strerror}") from None
    try:
        yield folder
    finally:
        remove_group(folder)


def _write(folder: Path, files: Mapping[str, str]) -> None:
    for name, value in files.items():
        if (folder / name).exists():  # swap accounting is an option of kernels
            (folder / name).write_text(value)


def remove_group(folder: Path) -> None:
    """Kill what is in a group, and remove it; what can't be removed is left to the next run."""
    if not folder.is_dir():
        return
    try:
        _kill(folder)
        folder.rmdir()
    except OSError as error:
        log.warning("the control group %s stays: %s", folder, error.strerror)


def _kill(folder: Path) -> None:
    """Linux 5.14 has a file for it; before that nothing but the group's own programs does it,
    which die with whoever started them."""
    _write(folder, {"cgroup.kill": "1"})
    deadline = time.monotonic() + _END_TIMEOUT
    while "populated 1" in (folder / "cgroup.events").read_text() and time.monotonic() < deadline:
        time.sleep(_POLL_INTERVAL)
