"""The helper VM itself, installed: what it can't reach, and that it is restored as if booted anew.
Needs root.

What confines QEMU is asked of the kernel that runs it, what is inside the VM of the kernel there.
"""

import json
import re
import shutil
import signal
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from snf_ganeti import process
from testbed import appliance, helper_vm
from testbed.deployed import SETTINGS
from testbed.helper_vm import Process, running_helpers
from testbed.snf_image import SITE, WORK, Node, Outcome, mounted

PASSWORD = "--param=img_passwd=s3cr3t"
MOTD = '--param=img_personality=[{"path": "/etc/motd", "contents": "aGkK"}]'
BOOTED = "the helper is booted: "
PCI = {"0600", "0601", "0106", "0c05", "0780", "0100", "00ff"}
"""Classes of what q35 has by itself (bridges, SATA, SMBus) and of what carries virtio's serial,
SCSI and random numbers; no NIC, display, USB or audio."""

UIDS = range(90000, 90256)
"""The default of the setting helper_uids."""
ATTEMPTS = """
my $pid = shift;
my %done = (
    signal => kill(0, $pid),
    environ => open(my $environ, "<", "/proc/$pid/environ"),
    memory => open(my $memory, "+<", "/proc/$pid/mem"),
    trace => syscall(101, 0x4206, $pid, 0, 0) == 0,
);
print "$_ ", $done{$_} ? 1 : 0, "\\n" for keys %done;
"""
"""101 is ptrace on x86-64, 0x4206 is PTRACE_SEIZE."""

pytestmark = pytest.mark.usefixtures("nothing_is_left")


@pytest.fixture
def own_helper(node: Node) -> Iterator[Path]:
    """A copy of the appliance that a test may damage; the node uses it meanwhile."""
    current = (appliance.FOLDER / "current").resolve()
    folder = node.work / "helper" / current.name
    shutil.copytree(current, folder)
    (folder.parent / "current").symlink_to(current.name)
    node.machine.write(SETTINGS, f'{SITE}helper_dir = "{WORK}/helper"\n')
    yield folder
    node.machine.write(SETTINGS, SITE)
    shutil.rmtree(folder.parent)


def check(node: Node) -> dict[str, str]:
    """What `snf-image check` finds, by name; the node is able."""
    document = json.loads(node.machine.run("snf-image", "check", "--json", timeout=300).text)
    assert document["status"] == "ok", document
    return {each["name"]: each["detail"] for each in document["checks"]}


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def edit_record(folder: Path, **changes: Any) -> None:
    record = folder / "state/state.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), **changes}))


def test_check_tells_that_the_helper_is_restored(node: Node) -> None:
    found = check(node)
    assert re.fullmatch(r"[0-9a-f]{16}, \d+ MiB, under tcg", found["state"])
    assert found["helper"].startswith("restored in ")


def test_damaged_memory_is_not_restored(node: Node, own_helper: Path) -> None:
    damage(own_helper / "state/memory")
    found = check(node)
    assert re.search(r"boots the helper: .*state/memory is damaged.*build-helper", found["state"])
    assert found["helper"].startswith("booted in ")


def test_a_state_of_another_qemu_is_not_restored(node: Node, own_helper: Path) -> None:
    record = json.loads((own_helper / "state/state.json").read_text())
    edit_record(own_helper, conditions={**record["conditions"], "QEMU": "/usr/bin/qemu 1 2"})
    found = check(node)
    assert "the saved state was made with another QEMU" in found["state"]
    assert found["helper"].startswith("booted in ")


def test_what_qemu_can_not_restore_is_booted(node: Node, own_helper: Path) -> None:
    """A state whose checksums are right, and which QEMU refuses all the same."""
    devices = own_helper / "state/devices"
    damaged = devices.read_bytes().replace(b"virtio", b"volvio")
    devices.write_bytes(damaged)
    edit_record(own_helper, devices_crc=zlib.crc32(damaged))
    disk = node.make_disk("refused", 64)
    outcome = node.deploy("mbr-primary", disk, "--hostname=web")
    assert outcome.status == 0, outcome.log
    assert "the saved helper does not go on" in outcome.log
    with mounted(disk, 1) as root:
        assert (root / "etc/hostname").read_text() == "web\n"


def append_byte(folder: Path) -> None:
    with (folder / "initrd").open("ab") as file:
        file.write(b"x")


def speak_another_protocol(folder: Path) -> None:
    manifest = folder / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "protocol": 99}))


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (append_byte, "initrd is not the one that was built"),
        (lambda folder: (folder / "kernel").unlink(), "incomplete: .*kernel is missing"),
        (speak_another_protocol, "the helper appliance speaks protocol 99, this host"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "manifest.json is damaged"),
    ],
    ids=["size", "absent", "protocol", "manifest"],
)
def test_an_appliance_that_was_changed_is_not_run(
    node: Node, own_helper: Path, harm: Callable[[Path], object], reason: str
) -> None:
    """Neither are the disk's old data touched."""
    harm(own_helper)
    disk = node.make_disk("doctored", 64)
    with disk.open("r+b") as file:
        file.write(b"old")
    outcome = node.deploy("mbr-primary", disk, "--hostname=web")
    assert outcome.status == 4
    assert re.search(rf"^error: .*{reason}.*; run: snf-image build-helper$", outcome.last_line)
    assert disk.read_bytes()[:3] == b"old"


@pytest.fixture(scope="module")
def twins(node: Node) -> list[tuple[Path, Outcome]]:
    """Four deployments of one image, two at a time, so that two share their memory."""
    disks = [node.make_disk(f"twin{index}", 128) for index in range(4)]

    def deploy(disk: Path) -> Outcome:
        return node.deploy("mbr-logical", disk, "--hostname=web", PASSWORD, MOTD)

    with ThreadPoolExecutor(2) as pool:
        return list(zip(disks, pool.map(deploy, disks), strict=True))


def read_secrets(root: Path) -> list[str]:
    """What must be each guest's own: host keys, machine id, the salt of a password."""
    keys = sorted((root / "etc/ssh").glob("ssh_host_*_key"))
    (hashed,) = re.findall(r"^root:(\$[^:]+):", (root / "etc/shadow").read_text(), re.M)
    machine_id = (root / "etc/machine-id").read_text()
    return [*(key.read_text() for key in keys), machine_id, hashed.split("$")[2]]


def test_no_two_restored_helpers_make_the_same_secret(twins: list[tuple[Path, Outcome]]) -> None:
    secrets = []
    for disk, outcome in twins:
        assert outcome.status == 0, outcome.log
        assert BOOTED not in outcome.log
        with mounted(disk, 5) as root:
            secrets.append(read_secrets(root))
    assert [len(each) for each in secrets] == [4] * 4
    for values in zip(*secrets, strict=True):
        assert len(set(values)) == 4


def test_a_restored_helper_has_the_hosts_clock(twins: list[tuple[Path, Outcome]]) -> None:
    """The state is older than any of the disks."""
    for disk, outcome in twins:
        with mounted(disk, 5) as root:
            written = (root / "etc/motd").stat().st_mtime
        ended = disk.stat().st_mtime
        seconds = sum(each["seconds"] for each in outcome.document["stages"])
        assert ended - seconds - 5 < written < ended + 5


def test_qemu_has_no_right_that_it_does_not_need(node: Node) -> None:
    """As proc(5) tells it: who it is, what it may call, see and take."""
    with running_helpers(node, 1) as (qemu,):
        status = qemu.read_status()
        (uid,) = set(status["Uid"].split())
        assert int(uid) in UIDS
        assert status["Gid"].split() == [uid] * 4
        for names in ("passwd", "group"):
            node.machine.run("getent", names, uid, ok=(2,))  # there is none
        assert status["Groups"].split() == []
        for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb"):
            assert int(status[f"Cap{kind}"], 16) == 0
        assert status["NoNewPrivs"] == "1"
        assert status["Seccomp"] == "2"  # SECCOMP_MODE_FILTER
        assert int(status["Seccomp_filters"]) == 2  # the jail's, and QEMU's own
        limits = qemu.read_limits()
        assert limits["Max core file size"] == 0
        assert limits["Max open files"] == 512
        assert limits["Max address space"] < 4 << 30


def test_two_runs_can_do_nothing_to_each_other(node: Node) -> None:
    """Tried from outside their namespaces, where each could name the other's processes."""
    with running_helpers(node, 2) as qemus:
        first, second = (each.read_status()["Uid"].split()[0] for each in qemus)
        assert first != second
        attempts = {"signal", "environ", "memory", "trace"}
        assert attempt_as(first, qemus[1].pid) == dict.fromkeys(attempts, False)
        assert attempt_as(second, qemus[1].pid) == dict.fromkeys(attempts, True)


def attempt_as(uid: str, pid: int) -> dict[str, bool]:
    """What a user's program can do to a process: see kill(2), ptrace(2)."""
    ids = (f"--reuid={uid}", f"--regid={uid}", "--clear-groups")
    said = process.run(["setpriv", *ids, "perl", "-e", ATTEMPTS, str(pid)]).text
    return {name: bool(int(done)) for name, done in (line.split() for line in said.splitlines())}


def test_qemu_sees_nothing_of_the_node(node: Node) -> None:
    with running_helpers(node, 1) as (qemu,):
        init = Process(node.machine.pid)
        for kind in ("mnt", "pid", "net", "ipc", "uts"):
            assert qemu.read_namespace(kind) != init.read_namespace(kind)
        assert qemu.list_interfaces() == ["lo"]
        assert qemu.list_root() == {"usr", "bin", "lib", "lib64", "sbin", "proc", "dev"}
        assert all(
            mount.read_only
            for mount in qemu.read_mounts()
            if mount.point != "/proc" and not mount.point.startswith("/dev/")
        )
        assert {mount.point for mount in qemu.read_mounts() if mount.point.startswith("/dev/")} == {
            f"/dev/{name}" for name in ("null", "zero", "random", "urandom")
        }


def test_qemu_holds_only_what_it_works_on(node: Node) -> None:
    disk = node.make_disk("held", 1)
    with running_helpers(node, 1, disk) as (qemu,):
        files = [path for path in qemu.list_descriptors() if path.startswith("/")]
    own = {path for path in files if not path.startswith(("/dev/null", "/memfd:"))}
    assert own == {f"{WORK}/held.disk"}


def test_helpers_share_their_memory_and_nobody_can_change_it(node: Node) -> None:
    with running_helpers(node, 2) as qemus:
        memories = [qemu.find_memory() for qemu in qemus]
        for memory in memories:
            assert memory.private
            with pytest.raises(PermissionError), memory.path.open("r+b") as file:
                file.write(b"x")
    assert memories[0].inode == memories[1].inode


def test_a_program_inside_reaches_nothing(node: Node) -> None:
    """A helper that an image has taken over: all that it could talk to, as its kernel sees it."""
    found = helper_vm.take_over(node, node.make_disk("inside", 1))
    assert found["interfaces"] == ["lo"]
    assert found["routes"] == []
    assert set(found["connections"].values()) == {"ENETUNREACH"}
    assert found["vsock"] == "EAFNOSUPPORT"
    assert found["shares"] == []
    assert sorted(found["virtio"]) == [3, 4, 8]  # console, random numbers, SCSI: virtio_ids.h
    assert sorted(found["ports"]) == ["org.snf.events", "org.snf.request"]
    assert {each[:4] for each in found["pci"]} <= PCI
    assert found["disks"] == ["sda"]


def test_what_a_run_takes_is_bounded_by_its_control_group(node: Node) -> None:
    """Under the helper's own kernel, which has cgroup v2 to itself."""
    found = helper_vm.take_over(node, node.make_disk("groups", 1), helper_vm.LIMIT_GROUPS)
    assert found["controllers"] == ["cpu", "memory", "pids"]
    assert found["little memory"] == 0
    assert found["much memory"] == -signal.SIGKILL
    assert found["swap"] in ("0", "absent")
    assert 10 < found["processes"] < 20
    assert found["weight"] == "50"
    assert found["what was left"] == -signal.SIGKILL
    assert found["groups"] == []


def test_many_disks_are_found(node: Node) -> None:
    """More than the driver has buffers for events: it looks for itself then."""
    image = node.make_disk("image", 64)
    more = (node.make_disk(f"many{index}", 1) for index in range(12))
    outcome = node.deploy("mbr-primary", image, *(f"--disk={WORK}/{disk.name}" for disk in more))
    assert outcome.status == 0, outcome.log
    assert BOOTED not in outcome.log
