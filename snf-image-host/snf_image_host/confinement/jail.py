"""An unprivileged, confined child process: what reads an image's bytes runs in one.

Its user is one of its own, without groups, capabilities or a way to gain any. It sees an
almost empty root with the node's programs and libraries, read-only, and nothing else of the
node: no settings, no data, no other process, no network. It works on the descriptors that it
inherits, within limits, and dies with whoever started it.

bubblewrap makes the namespaces and loads the filter of system calls; setpriv then gives up
root for good; prlimit sets the limits, and what is outermost ties all of it to our own life.
"""

import contextlib
import os
import subprocess
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from snf_ganeti import process
from snf_ganeti.errors import NodeError
from snf_image_helper.protocol import clean_text
from snf_image_host.confinement.cgroup import PROCESSES
from snf_image_host.confinement.syscalls import SyscallProfile, open_filter

_NAMESPACES = ("pid", "net", "ipc", "uts", "cgroup-try")
_DEVICES = tuple(Path("/dev", name) for name in ("null", "zero", "random", "urandom"))
_SHARED_LINKS = ("bin", "lib", "lib64", "sbin")
_SETPRIV_NEEDS = ("CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP")
_ENVIRONMENT = {"MALLOC_ARENA_MAX": "2"}
"""Address space is limited, and glibc takes 64 MiB of it for each of eight arenas a CPU."""
_ENTER = """
[ "$PPID" = "$0" ] || exit
[ -z "$1" ] || echo 0 >"$1" || exit
shift
tied=$1
shift
exec unshare --mount --pid --fork --kill-child=KILL -- sh -c "$tied" "$$" "$0" "$@"
"""
_TIED = """
read -r pid name state parent rest <"/proc/$0/stat" || exit
[ "$state" != Z ] && [ "$parent" = "$1" ] || exit
mount -t proc -o nosuid,nodev,noexec proc /proc || exit
shift
exec "$@"
"""
"""For sh(1). Each asks the kernel to be killed with its parent, and then sees that the parent is
still there: it may have died in between, even if it was for microseconds. 0 is the process that
writes it; bubblewrap looks for its own children in /proc."""
_OUTPUT_LIMIT = 64 << 10
"""Bytes kept of each output of a jailed program that is run to its end."""
_REPORT_LIMIT = 4096
_DESCRIPTORS = 512
"""Open files at once; QEMU gives up ioeventfd when it gets 64."""


@dataclass(frozen=True)
class Jail:
    """Who a jailed program is: ids that own nothing on this node. group: the folder of its
    control group, if this node has such."""

    uid: int
    gid: int
    group: Path | None = None


@dataclass(frozen=True)
class Confinement:
    """What one jailed program may take and see.

    address_space: bytes. cpu: seconds. file_size: bytes that a regular file may have where the
    program writes, or None for no limit. devices: nodes that it opens itself; their groups are
    its supplementary groups. visible: paths of this node that it sees, read-only.
    network: it shares the node's network.
    """

    syscalls: SyscallProfile
    address_space: int
    cpu: int | None = None
    file_size: int | None = 0
    devices: tuple[Path, ...] = ()
    visible: tuple[Path, ...] = ()
    network: bool = False


class Report:
    """What bubblewrap tells of a jailed program's end, on a pipe that the program never sees:
    without that its status may be that of what makes the jail."""

    def __init__(self, reader: int, writer: int) -> None:
        self._reader = reader
        self.writer = writer

    def require_run(self, program: str, said: str) -> None:
        """To be asked when the program has ended. said: what it, or its jail, printed.

        Raises NodeError: it was not the program that ended.
        """
        try:
            told = os.read(self._reader, _REPORT_LIMIT)
        except BlockingIOError:
            told = b""
        if b'"exit-code"' not in told:
            last = clean_text(said.strip().splitlines()[-1]) if said.strip() else "nothing was said"
            raise NodeError(f"the jail of {program} failed: {last}")


@contextlib.contextmanager
def open_report() -> Iterator[Report]:
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        yield Report(reader, writer)
    finally:
        os.close(reader)
        os.close(writer)


@contextlib.contextmanager
def spawn_jailed(
    jail: Jail,
    argv: Sequence[str],
    confinement: Confinement,
    *,
    stdin: int | IO[bytes] = subprocess.DEVNULL,
    stdout: int | IO[bytes] = subprocess.DEVNULL,
    stderr: int | IO[bytes] | None = None,
    env: Mapping[str, str] | None = None,
    pass_fds: Collection[int] = (),
    report: Report | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """A jailed child that does not outlive the block, nor the thread that starts it.

    It is root who calls. report: is told when it was the program that ended.
    Raises NodeError when none can be started.
    """
    groups = tuple(sorted({device.stat().st_gid for device in confinement.devices}))
    with open_filter(confinement.syscalls) as filter_fd:
        told = None if report is None else report.writer
        jailed = make_jail_argv(jail, confinement, argv, filter_fd, groups, told)
        descriptors = (*pass_fds, filter_fd, *(() if told is None else (told,)))
        with process.spawn(
            jailed,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env={**_ENVIRONMENT, **(env or {})},
            pass_fds=descriptors,
            grace=0,
        ) as child:
            yield child


def run_jailed(
    jail: Jail,
    argv: Sequence[str],
    confinement: Confinement,
    *,
    timeout: float,
    ok: Collection[int] = (0,),
    pass_fds: Collection[int] = (),
) -> process.Completed:
    """Run a jailed program to its end. Raises CommandError, DeadlineError, NodeError (among its
    reasons: the jail can't be made)."""
    with open_filter(confinement.syscalls) as filter_fd, open_report() as report:
        done = process.run(
            make_jail_argv(jail, confinement, argv, filter_fd, told=report.writer),
            timeout=timeout,
            ok=ok,
            env=_ENVIRONMENT,
            pass_fds=(*pass_fds, filter_fd, report.writer),
            limit=_OUTPUT_LIMIT,
        )
        report.require_run(argv[0], done.stderr)
    return done


def make_jail_argv(
    jail: Jail,
    confinement: Confinement,
    argv: Sequence[str],
    filter_fd: int,
    groups: Sequence[int] = (),
    told: int | None = None,
) -> list[str]:
    """The whole argument list; bubblewrap reads the filter of system calls from `filter_fd`, and
    writes to `told` how the program ended."""
    return [
        *_make_lifeline(jail),
        *_make_limits(confinement),
        "bwrap",
        *(f"--unshare-{name}" for name in _NAMESPACES if name != "net" or not confinement.network),
        *("--hostname", "jail"),
        "--die-with-parent",
        "--new-session",
        *("--cap-drop", "ALL"),
        *(
            word
            for name in ("SETUID", "SETGID", "SETPCAP")
            for word in ("--cap-add", f"CAP_{name}")
        ),
        *_make_root(confinement),
        *("--chdir", "/"),
        *("--seccomp", str(filter_fd)),
        *(() if told is None else ("--json-status-fd", str(told))),
        "--",
        *_make_setpriv(jail, groups),
        *argv,
    ]


def _make_lifeline(jail: Jail) -> Iterator[str]:
    """Killed with this process, from the first moment on, with all that it has started by then:
    bubblewrap binds what it starts to its own life only when that is about to run. And in the
    run's control group before anything else runs: what is forked then is born in it."""
    yield from ("setpriv", "--pdeathsig=KILL", "--")
    group = "" if jail.group is None else str(jail.group / PROCESSES)
    yield from ("sh", "-c", _ENTER, str(os.getpid()), group, _TIED)


def _make_limits(confinement: Confinement) -> Iterator[str]:
    yield from (
        "prlimit",
        "--core=0",
        f"--nofile={_DESCRIPTORS}",
        f"--as={confinement.address_space}",
    )
    if confinement.cpu is not None:
        yield f"--cpu={confinement.cpu}"
    if confinement.file_size is not None:
        yield f"--fsize={confinement.file_size}"
    yield "--"


def _make_root(confinement: Confinement) -> Iterator[str]:
    """Options that put the root file system together; all of it ends up read-only."""
    yield from ("--ro-bind", "/usr", "/usr")
    for name in _SHARED_LINKS:
        yield from ("--symlink", f"usr/{name}", f"/{name}")
    yield from ("--proc", "/proc")
    yield from ("--perms", "0755", "--dir", "/dev", "--symlink", "/proc/self/fd", "/dev/fd")
    for device in (*_DEVICES, *confinement.devices):
        yield from ("--dev-bind", str(device), str(device))
    folders = {folder for path in confinement.visible for folder in path.parents[:-1]}
    for folder in sorted(folders):  # bubblewrap by itself makes them for root alone
        yield from ("--perms", "0755", "--dir", str(folder))
    for path in confinement.visible:
        yield from ("--ro-bind", str(path), str(path))
    yield from ("--remount-ro", "/")


def _make_setpriv(jail: Jail, groups: Sequence[int]) -> list[str]:
    return [
        "setpriv",
        f"--reuid={jail.uid}",
        f"--regid={jail.gid}",
        f"--groups={','.join(map(str, groups))}" if groups else "--clear-groups",
        "--inh-caps=-all",
        "--ambient-caps=-all",
        "--bounding-set=-all",
        "--no-new-privs",
        "--",
    ]
