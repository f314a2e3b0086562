"""The processes of a machine, found by a mark in their environment.

Each machine's first process carries `SNF_BED_MACHINE=FOLDER`. The kernel's process table is
then the only record of what runs: it cannot be stale, and it names no one else's process.
"""

import contextlib
import os
import select
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from snf_ganeti.errors import DeadlineError

_MARK = "SNF_BED_MACHINE"
_KILL_SECONDS = 60.0  # a process that waits for a slow disk dies when that has answered


@dataclass(frozen=True)
class Marked:
    """A process that carries a mark. is_init: it is PID 1 of a namespace below ours."""

    folder: Path
    pid: int
    name: str
    is_init: bool


def make_mark(folder: Path) -> dict[str, str]:
    """The environment that marks the processes of the machine at `folder`."""
    return {_MARK: str(folder)}


def find_marked(folder: Path) -> list[Marked]:
    """The living processes marked with `folder` or with a folder below it."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):  # it ended meanwhile
                marked = _parse_mark((entry / "environ").read_bytes())
                if marked is not None and marked.is_relative_to(folder):
                    found.append(_read_marked(entry, marked))
    return found


def find_init(folder: Path) -> int | None:
    """The id, in our PID namespace, of PID 1 of the machine at `folder`."""
    return next((each.pid for each in find_marked(folder) if each.is_init), None)


def kill_marked(folder: Path) -> None:
    """Kill what is marked with `folder` or below, and everything in those PID namespaces.

    The kernel kills a namespace with its PID 1, which ends last: when it is gone, all are.
    """
    while marked := find_marked(folder):
        for each in marked:
            with _open_process(each.pid) as descriptor:
                if descriptor is not None and each in find_marked(folder):
                    with contextlib.suppress(ProcessLookupError):  # it ended by itself
                        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                    if not select.select([descriptor], [], [], _KILL_SECONDS)[0]:
                        raise DeadlineError(f"the end of process {each.pid}", _KILL_SECONDS)


def _parse_mark(environ: bytes) -> Path | None:
    prefix = f"{_MARK}=".encode()
    values = (each for each in environ.split(b"\0") if each.startswith(prefix))
    return next((Path(os.fsdecode(each.removeprefix(prefix))) for each in values), None)


def _read_marked(entry: Path, folder: Path) -> Marked:
    ids = _read_ids(entry)
    name = (entry / "comm").read_text().strip()
    return Marked(folder, int(entry.name), name, len(ids) > 1 and ids[-1] == 1)


def _read_ids(entry: Path) -> list[int]:
    """The process's id in our PID namespace and in each one below (NSpid in proc(5))."""
    for line in (entry / "status").read_text().splitlines():
        if line.startswith("NSpid:"):
            return [int(word) for word in line.split()[1:]]
    return []


@contextlib.contextmanager
def _open_process(pid: int) -> Iterator[int | None]:
    """A descriptor of a process: its id can pass to another one, the descriptor can't."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        yield None
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)
