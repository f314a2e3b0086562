"""The jail as the kernel sees it: what is asserted is read from /proc, or tried from inside.

Needs root. The user of the tests is a number that nobody has.
"""

import contextlib
import errno
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from snf_image_host.confinement import identity
from snf_image_host.confinement.cgroup import PROCESSES, Limits, Parent, list_groups, open_group
from snf_image_host.confinement.identity import open_jail
from snf_image_host.confinement.jail import Confinement, Jail, spawn_jailed
from snf_image_host.confinement.syscalls import SyscallProfile
from snf_image_host.copying.compression import TABLE, open_decoder
from snf_image_host.helper_vm.vm import Boot, Vm, make_qemu_argv
from snf_image_host.nbd.nbd_disk import open_nbd_disk
from snf_image_host.nbd.nbd_server import serve
from snf_image_host.settings import Settings
from testbed.deadline import wait_for
from testbed.descendants import find_descendants

pytestmark = pytest.mark.usefixtures("root")

JAIL = Jail(64998, 64997)
MIB = 1 << 20
KERNEL_CALLS = {"unshare": 272, "mount": 165, "ptrace": 101, "bpf": 321, "setns": 308}
PROCESS_CALLS = {"fork": 57, "vfork": 58, "socket": 41}
"""Of x86-64: the filter must hold whatever library a program brings along."""


def find_program(child: subprocess.Popen[bytes], name: str) -> int:
    """The pid, on the node, of the jailed program below bubblewrap."""

    def find() -> int:
        for pid in find_descendants(child.pid):
            with contextlib.suppress(OSError):
                if Path(f"/proc/{pid}/exe").readlink().name.startswith(name):
                    return pid
        return 0

    return wait_for(f"{name} in its jail", find, 30)


def read_status(pid: int) -> dict[str, list[str]]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.split() for name, _, value in (line.partition(":") for line in lines)}


def read_limit(pid: int, name: str) -> list[str]:
    lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
    return next(line[26:].split()[:2] for line in lines if line.startswith(name))


def require_confined(pid: int, network: bool = False) -> None:
    status = read_status(pid)
    assert status["Uid"] == [str(JAIL.uid)] * 4
    assert status["Gid"] == [str(JAIL.gid)] * 4
    assert status["Groups"] == []
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(status[name][0], 16) == 0, name
    assert status["NoNewPrivs"] == ["1"]
    assert status["Seccomp"] == ["2"]
    for name in ("pid", "mnt", "ipc", "uts", *(() if network else ("net",))):
        theirs = Path(f"/proc/{pid}/ns/{name}").readlink()
        assert theirs != Path(f"/proc/self/ns/{name}").readlink(), name
    assert sorted(os.listdir(f"/proc/{pid}/root")) == [
        *("bin", "dev", "lib", "lib64", "proc", "sbin", "usr")
    ]
    assert read_limit(pid, "Max core file size") == ["0", "0"]
    assert read_limit(pid, "Max open files") == ["512", "512"]
    assert read_limit(pid, "Max address space")[1] != "unlimited"
    for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines():
        fields = line.split()
        assert "ro" in fields[5].split(",") or fields[4].startswith(("/dev/", "/proc")), line


def read_descriptors(pid: int) -> dict[int, str]:
    found = {}
    for each in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # it was closed meanwhile
            found[int(each.name)] = str(each.readlink())
    return found


def list_files(pid: int) -> set[str]:
    return {each for each in read_descriptors(pid).values() if each.startswith("/")}


def wait_for_descriptors(pid: int, is_all: Callable[[], bool]) -> None:
    """A program opens its libraries, and QEMU its firmware, and closes them again."""
    wait_for("its descriptors alone", is_all, 30, explain=lambda: str(read_descriptors(pid)))


@pytest.mark.parametrize("compression", TABLE, ids=lambda row: str(row.name))
def test_a_decoder_has_two_pipes_and_a_place_for_messages(compression: object) -> None:
    assert isinstance(compression, type(TABLE[0]))
    reader, writer = os.pipe()
    with os.fdopen(reader), os.fdopen(writer), contextlib.ExitStack() as stack:
        decoder = stack.enter_context(open_decoder("image x", compression, JAIL, reader))
        pid = find_program(decoder._child, compression.argv[0])
        require_confined(pid)

        def has_its_own() -> bool:
            targets = [target for _, target in sorted(read_descriptors(pid).items())]
            kinds = [target.partition(":")[0] for target in targets]
            # xz makes a pipe for itself
            return kinds[:3] == ["pipe", "pipe", "/memfd"] and set(kinds[3:]) <= {"pipe"}

        wait_for_descriptors(pid, has_its_own)
        assert read_limit(pid, "Max file size") == ["16384", "16384"]
        assert read_limit(pid, "Max cpu time")[1] != "unlimited"


def test_a_server_of_an_image_has_the_image_and_a_socket(tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(os.urandom(MIB))
    node = {"driver": "raw", "read-only": True}
    confinement = Confinement("server", 1 << 30, file_size=16 << 10)
    with (tmp_path / "image").open("rb") as image:
        filename = f"/dev/fd/{image.fileno()}"
        node |= {"file": {"driver": "file", "filename": filename, "read-only": True}}
        with (
            serve(JAIL, node, confinement, pass_fds=(image.fileno(),)) as server,
            open_nbd_disk(server) as disk,
        ):
            assert disk.read(0, MIB) == (tmp_path / "image").read_bytes()
            pid = find_program(server._child, "qemu-storage-daemon")
            require_confined(pid)
            image_path = str(tmp_path / "image")
            assert list_files(pid) == {"/dev/null", image_path, "/memfd:messages (deleted)"}


def test_qemu_for_the_helper_has_its_descriptors_and_two_filters() -> None:
    """All of its argument list but the kernel: without one it stays in its firmware."""
    with contextlib.ExitStack() as stack:
        ram = os.memfd_create("ram")
        stack.callback(os.close, ram)
        os.truncate(ram, 256 * MIB)
        ports = [stack.enter_context(socket.socketpair()[0]).fileno() for _ in range(3)]
        control, request, events = ports
        vm = Vm("tcg", 256, ram, control, request, events, Boot(0, 0))
        argv = make_qemu_argv(vm)
        for option in ("-kernel", "-initrd", "-append"):
            at = argv.index(option)
            del argv[at : at + 2]
        child = stack.enter_context(
            spawn_jailed(
                JAIL,
                argv,
                Confinement("machine", vm.address_space, file_size=None),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=(ram, *ports),
            )
        )
        pid = find_program(child, "qemu-system")
        wait_for("QEMU's own filter", lambda: read_status(pid)["Seccomp_filters"] == ["2"], 30)
        require_confined(pid)
        allowed = {"/dev/null", "/dev/urandom", "/memfd:ram (deleted)"}
        wait_for_descriptors(pid, lambda: list_files(pid) <= allowed)


@pytest.mark.parametrize(
    ("profile", "calls", "answer"),
    [
        ("decoder", KERNEL_CALLS | PROCESS_CALLS, errno.ENOSYS),
        ("server", KERNEL_CALLS | PROCESS_CALLS, errno.ENOSYS),
        ("machine", KERNEL_CALLS, errno.EPERM),
    ],
)
def test_what_the_kernel_refuses(
    profile: SyscallProfile, calls: dict[str, int], answer: int
) -> None:
    code = "".join(
        f'syscall({n}, 0, 0, 0); print "{name} ", $!+0, "\\n";' for name, n in calls.items()
    )
    said = run_jailed(Confinement(profile, 1 << 30), "perl", "-e", code)
    assert dict(line.split() for line in said.splitlines()) == dict.fromkeys(calls, str(answer))


def run_jailed(confinement: Confinement, *argv: str) -> str:
    with spawn_jailed(
        JAIL, argv, confinement, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as child:
        assert child.stdout is not None
        return child.stdout.read().decode()


def test_nothing_of_the_node_is_seen_or_written() -> None:
    machine = Confinement("machine", 1 << 30)
    for path in ("/etc/passwd", "/var", "/home", "/root", "/sys", "/run", "/tmp"):
        assert "No such file" in run_jailed(machine, "ls", "-d", path)
    for path in ("/x", "/usr/x", "/dev/x"):
        assert "cannot touch" in run_jailed(machine, "touch", path)
    assert run_jailed(machine, "sh", "-c", "ls /proc | grep -c '^[0-9]'").strip() in ("3", "4")
    assert run_jailed(machine, "cat", "/proc/net/dev").count(":") == 1  # loopback, and it is down


def test_limits_end_what_goes_over_them() -> None:
    decoder = Confinement("decoder", 64 * MIB, cpu=1)
    assert "Out of memory" in run_jailed(decoder, "perl", "-e", '$x = "a" x (1 << 28)')
    with spawn_jailed(JAIL, ["perl", "-e", "1 while 1"], decoder) as child:
        assert child.wait(60) != 0


SLEEPER = ("sleep", f"100000.{os.getpid()}")
"""A program that no other run of the tests starts."""
STARTER = f"""
import sys, time
sys.path[:0] = {sys.path!r}
from snf_image_host.confinement.jail import Confinement, Jail, spawn_jailed
jail, confinement = Jail({JAIL.uid}, {JAIL.gid}), Confinement("machine", 1 << 30)
with spawn_jailed(jail, {SLEEPER}, confinement):
    print("started", flush=True)
    time.sleep(float(sys.argv[1]))
"""


def find_sleeper() -> list[str]:
    argv = ["pgrep", "--full", "--list-full", " ".join(SLEEPER)]
    return subprocess.run(argv, capture_output=True, text=True).stdout.splitlines()


@pytest.mark.parametrize("how", ["ends", "is killed"])
def test_what_is_only_being_started_dies_too(how: str) -> None:
    """At every moment of its start: a program that is not confined yet is bound to nobody yet."""
    for step in range(30):
        pause = step * 0.002
        argv = [sys.executable, "-c", STARTER, str(pause if how == "ends" else 1000)]
        with subprocess.Popen(argv, stdout=subprocess.PIPE) as parent:
            assert parent.stdout is not None
            assert parent.stdout.readline() == b"started\n"
            if how == "is killed":
                time.sleep(pause)
                parent.kill()
    wait_for(
        "the end of all jails", lambda: not find_sleeper(), 20, explain=lambda: str(find_sleeper())
    )


def test_the_jail_dies_with_whoever_started_it(tmp_path: Path) -> None:
    script = f"""
import sys, time
sys.path[:0] = {sys.path!r}
from snf_image_host.confinement.jail import Confinement, Jail, spawn_jailed
with spawn_jailed(Jail({JAIL.uid}, {JAIL.gid}), ["sleep", "1000"], Confinement("machine", 1 << 30)):
    print("started", flush=True)
    time.sleep(1000)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        try:
            assert parent.stdout.readline() == b"started\n"
            pid = find_program(parent, "sleep")
        finally:
            parent.send_signal(signal.SIGKILL)
    wait_for("the end of the jail", lambda: not Path(f"/proc/{pid}").exists(), 30)


@pytest.fixture
def groups(tmp_path: Path) -> Iterator[Parent]:
    """A parent of groups in this machine's cgroup v2, whose controllers v1 may hold."""
    mount = tmp_path / "cgroup"
    mount.mkdir()
    subprocess.run(["mount", "-t", "cgroup2", "cgroup2", mount], check=True)
    folder = mount / f"snf-test-{os.getpid()}"
    folder.mkdir()
    try:
        yield Parent(folder, frozenset())
    finally:
        folder.rmdir()  # it fails if a group is left
        subprocess.run(["umount", mount], check=True)


@pytest.fixture
def site(groups: Parent, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr(identity, "find_parent", lambda settings: groups)
    return Settings(helper_uids=(77000, 77010))


def read_group(pid: int) -> str:
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    return next(line for line in lines if line.startswith("0::"))


def test_all_of_a_run_is_in_its_control_group(site: Settings, tmp_path: Path) -> None:
    ours = read_group(os.getpid())
    with open_jail(site, tmp_path / "uids.lock") as jail:
        with spawn_jailed(jail, ["sleep", "1000"], Confinement("machine", 1 << 30)) as child:
            find_program(child, "sleep")
            for pid in (child.pid, *find_descendants(child.pid)):
                assert read_group(pid).endswith(f"/{jail.uid}")
        assert read_group(os.getpid()) == ours


def test_what_outlives_its_run_is_killed_with_the_group(groups: Parent) -> None:
    with open_group(groups, "77000", Limits(1 << 30)) as group:
        child = subprocess.Popen(["sh", "-c", f"echo 0 >{group / PROCESSES}; exec sleep 1000"])
        wait_for("a member of the group", lambda: (group / PROCESSES).read_text(), 30)
    assert child.wait(30) == -signal.SIGKILL
    assert not list_groups(groups)


def test_the_group_of_a_run_that_was_killed_is_swept_by_the_next(
    site: Settings, groups: Parent, tmp_path: Path
) -> None:
    """Those of runs that go on stay."""
    claims = tmp_path / "uids.lock"
    with open_jail(site, claims) as living:
        stale = groups.folder / "77005"
        stale.mkdir()
        child = subprocess.Popen(["sh", "-c", f"echo 0 >{stale / PROCESSES}; exec sleep 1000"])
        wait_for("a member of the group", lambda: (stale / PROCESSES).read_text(), 30)
        with open_jail(site, claims) as next_one:
            assert list_groups(groups) == sorted((str(living.uid), str(next_one.uid)))
        assert child.wait(30) == -signal.SIGKILL
