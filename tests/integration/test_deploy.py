"""`snf-image` and the OS scripts, installed, with the real helper VM. Needs root.

The images are small guests that don't boot. What reached a disk is judged by sfdisk, by each
file system's own checker, and by the kernel, which mounts it read-only.
"""

import base64
import json
import os
import re
import stat
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from snf_ganeti import process
from testbed import snf_image
from testbed.guests import HOSTNAME, LAYOUTS, MACHINE_ID, OLD_HASH
from testbed.partitioning import MIB
from testbed.snf_image import WORK, Node, Outcome, mounted, read_tags

MAC = "52:54:00:12:34:56"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFm8VFNXhlUr1eMsTmZ2+XY3zCxPsH1wbJGD5ANyGWfD owner"
PASSWORD = "s3cr3t of the owner"
READY_HASH = "$5$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc8"
AT_ONCE = 2

pytestmark = pytest.mark.usefixtures("nothing_is_left")


@dataclass(frozen=True)
class Case:
    """size: MiB of the disk. parameters: OS parameters. options: further ones of deploy."""

    layout: str
    size: int
    parameters: Mapping[str, str] = field(default_factory=dict)
    options: Sequence[str] = ()


STATIC = (
    f"--nic=mac={MAC},mode=bridged,ip=192.0.2.5,network_subnet=192.0.2.0/24,"
    "network_gateway=192.0.2.1,network_subnet6=2001:db8::/64,network_gateway6=2001:db8::1"
)
PERSONALITY = json.dumps(
    [
        {"path": "/etc/motd", "contents": base64.b64encode(b"hello\n").decode(), "mode": "0644"},
        {
            "path": "/srv/app/key",
            "contents": base64.b64encode(bytes(range(256))).decode(),
            "owner": "debian",
            "group": "debian",
            "mode": 384,
        },
    ]
)
EXCLUSIONS = ("ASSIGNHOSTNAME", "DELETESSHKEYS", "CHANGEMACHINEID")
GOOD = {
    "mbr-logical": Case(
        "mbr-logical",
        256,
        {
            "img_passwd": PASSWORD,
            "auth_keys": KEY,
            "img_personality": PERSONALITY,
            "img_properties": '{"USERS": "root debian"}',
        },
        ("--hostname=web.example.org", STATIC),
    ),
    "gpt-partlabel": Case(
        "gpt-partlabel",
        128,
        {"inst_properties": '{"swap": "3:16"}'},
        ("--hostname=web", STATIC),
    ),
    "xfs": Case("xfs", 640, {"img_passwd_hash": READY_HASH}, ("--hostname=web",)),
    "btrfs": Case("btrfs", 400, {"img_passwd": PASSWORD}, ("--hostname=web",)),
    "gpt-partuuid": Case(
        "gpt-partuuid",
        96,
        {"img_properties": '{"SWAP": "b"}'},
        (f"--disk={WORK}/second.disk", "--hostname=web", STATIC),
    ),
    "mbr-device": Case(
        "mbr-device",
        128,
        {
            "img_properties": json.dumps(
                {
                    "EXCLUDE_FILESYSTEMRESIZE_TASKS": "yes",
                    **{f"EXCLUDE_TASK_{name}": True for name in EXCLUSIONS},
                }
            )
        },
        ("--hostname=web",),
    ),
    "needs-check": Case(
        "needs-check", 128, {"img_passwd_hash": "!", "img_properties": '{"USERS": "debian"}'}
    ),
}
BAD = {
    "corrupt-ext4": (Case("corrupt-ext4", 96), "FilesystemResizeUnmounted: ext4 on .* is corrupt"),
    "corrupt-xfs": (Case("corrupt-xfs", 400), "MountImage: no root .* xfs can't be mounted"),
    "corrupt-btrfs": (Case("corrupt-btrfs", 200), "MountImage: no root .* btrfs can't be mounted"),
    "small-btrfs": (
        Case("btrfs", 200),
        r"FilesystemResizeMounted: btrfs on /dev/sda\d can't grow to 19\d MiB: .* larger disk, or",
    ),
    "no-superblock": (Case("no-superblock", 96), "MountImage: no root file system found"),
    "no-table": (Case("no-table", 96), "FixPartitionTable: disk 0 has no partition table"),
    "unknown-user": (
        Case("mbr-primary", 96, {"img_passwd": "x", "img_properties": '{"USERS": "nobody2"}'}),
        "ChangePassword: user nobody2 does not exist in /etc/passwd",
    ),
}


def run(node: Node, name: str, case: Case) -> Outcome:
    disk = node.make_disk(name, case.size)
    params = node.work / f"{name}.json"
    params.write_text(json.dumps(case.parameters))
    return node.deploy(case.layout, disk, f"--params={WORK}/{params.name}", *case.options)


@pytest.fixture(scope="module")
def outcomes(node: Node) -> Mapping[str, Outcome]:
    """Every case's, two deployed at once: most of a deployment is one emulated processor."""
    node.make_disk("second", 32)
    cases = {**GOOD, **{name: case for name, (case, _) in BAD.items()}}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        runs = {name: pool.submit(run, node, name, case) for name, case in cases.items()}
        return {name: done.result() for name, done in runs.items()}


def find_root(layout: str) -> int:
    return next(
        each.number for each in LAYOUTS[layout].disk.partitions if each.volume.mountpoint == "/"
    )


@pytest.fixture
def disk(node: Node, outcomes: Mapping[str, Outcome], request: pytest.FixtureRequest) -> Path:
    """The disk of a case that went well."""
    outcome = outcomes[request.param]
    assert (outcome.status, outcome.document["status"]) == (0, "ok"), outcome.log
    return node.work / f"{request.param}.disk"


def on(name: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("disk", [name], indirect=True)


@pytest.mark.parametrize("disk", GOOD, indirect=True)
def test_every_file_system_is_sound(disk: Path) -> None:
    for partition in snf_image.find_partitions(disk):
        if read_tags(disk, partition).get("TYPE") in snf_image.CHECKS:
            snf_image.check(disk, partition)


@pytest.mark.parametrize("name", ["mbr-logical", "xfs", "btrfs", "gpt-partuuid", "needs-check"])
def test_the_root_grew_to_the_end_of_the_disk(
    node: Node, outcomes: Mapping[str, Outcome], name: str
) -> None:
    disk, number = node.work / f"{name}.disk", find_root(GOOD[name].layout)
    start, size = snf_image.find_partitions(disk)[number]
    assert GOOD[name].size * MIB - 2 * MIB <= start + size <= GOOD[name].size * MIB
    with mounted(disk, number) as root:
        held = os.statvfs(root)
    assert held.f_blocks * held.f_frsize > 0.75 * size


@on("mbr-logical")
def test_what_lies_beside_the_image_is_zero(disk: Path) -> None:
    """The disk was full of old data, which is nobody's business any more."""
    with disk.open("rb") as file:
        file.seek(200 * MIB)
        assert b"\xa5" * 4096 not in file.read(32 * MIB)


@on("mbr-logical")
def test_the_guest_has_its_name_and_an_identity_of_its_own(disk: Path) -> None:
    with mounted(disk, 5) as root:
        assert (root / "etc/hostname").read_text() == "web.example.org\n"
        assert "127.0.1.1\tweb.example.org web\n" in (root / "etc/hosts").read_text()
        made = (root / "etc/machine-id").read_text().strip()
        assert re.fullmatch("[0-9a-f]{32}", made) and made != MACHINE_ID


@on("mbr-logical")
def test_the_password_opens_the_users_accounts_and_is_nowhere_in_clear(disk: Path) -> None:
    with mounted(disk, 5) as root:
        hashes = read_hashes(root)
        assert stat.S_IMODE((root / "etc/shadow").stat().st_mode) == 0o640
    for user in ("root", "debian"):
        assert hashes[user].startswith("$6$")
        assert hash_by_perl(PASSWORD, hashes[user]) == hashes[user]
    assert hashes["daemon"] == "*"
    assert PASSWORD.encode() not in disk.read_bytes()


def hash_by_perl(password: str, setting: str) -> str:
    """crypt(3), which perl calls."""
    program = ["perl", "-e", "chomp($_ = <STDIN>); print crypt($_, $ARGV[0])", setting]
    return process.run(program, stdin=f"{password}\n".encode()).text


def read_hashes(root: Path) -> dict[str, str]:
    lines = (line.split(":") for line in (root / "etc/shadow").read_text().splitlines())
    return {name: hashed for name, hashed, *_ in lines}


@on("xfs")
def test_a_ready_hash_is_taken_as_it_is(disk: Path) -> None:
    with mounted(disk, 1) as root:
        assert read_hashes(root) == {**read_hashes(root), "root": READY_HASH, "debian": OLD_HASH}


@on("needs-check")
def test_a_mark_instead_of_a_hash_locks_the_account(disk: Path) -> None:
    with mounted(disk, 1) as root:
        assert read_hashes(root)["debian"] == "!"


@on("mbr-logical")
def test_the_key_lets_both_users_in(disk: Path) -> None:
    with mounted(disk, 5) as root:
        for home, uid in (("root", 0), ("home/debian", 1000)):
            file = root / home / ".ssh/authorized_keys"
            assert file.read_text() == f"{KEY}\n"
            assert (file.stat().st_uid, stat.S_IMODE(file.stat().st_mode)) == (uid, 0o600)
            assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


@on("mbr-logical")
def test_the_host_keys_are_new_and_real(disk: Path, node: Node, tmp_path: Path) -> None:
    image = node.work / "images/mbr-logical.raw"
    for kind in ("ed25519", "ecdsa"):
        with mounted(image, 5) as old, mounted(disk, 5) as new:
            path = f"etc/ssh/ssh_host_{kind}_key"
            assert (new / path).read_bytes() != (old / path).read_bytes()
            assert stat.S_IMODE((new / path).stat().st_mode) == 0o600
            private = tmp_path / kind
            private.write_bytes((new / path).read_bytes())
            private.chmod(0o600)
            public = (new / f"{path}.pub").read_text().split()[:2]
        shown = node.machine.run(
            "ssh-keygen", "-y", "-f", "/dev/stdin", stdin=private.read_bytes(), ok=range(256)
        )
        assert shown.text.split()[:2] == public, shown.stderr


@on("mbr-logical")
def test_the_personality_has_its_owners_and_modes(disk: Path) -> None:
    with mounted(disk, 5) as root:
        motd, key = root / "etc/motd", root / "srv/app/key"
        assert motd.read_bytes() == b"hello\n"
        assert (motd.stat().st_uid, stat.S_IMODE(motd.stat().st_mode)) == (0, 0o644)
        assert key.read_bytes() == bytes(range(256))
        assert (key.stat().st_uid, key.stat().st_gid) == (1000, 1000)
        assert stat.S_IMODE(key.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("disk", "number", "file"),
    [
        ("mbr-logical", 5, "etc/network/interfaces"),
        ("gpt-partlabel", 2, "etc/netplan/*.yaml"),
        ("gpt-partuuid", 1, "etc/systemd/network/*.network"),
    ],
    indirect=["disk"],
)
def test_the_guests_own_network_system_has_the_addresses(
    disk: Path, number: int, file: str
) -> None:
    """What it makes of them, test_guest_network has judged by the systems' own programs."""
    with mounted(disk, number) as root:
        text = "".join(path.read_text() for path in sorted(root.glob(file)))
    assert {"192.0.2.5", "192.0.2.1", "2001:db8::5054:ff:fe12:3456"} <= set(
        re.findall(r"[0-9a-f:.]{8,}", text)
    )


@on("gpt-partlabel")
def test_a_swap_partition_is_made_behind_the_root(disk: Path) -> None:
    partitions = snf_image.find_partitions(disk)
    assert partitions[3][1] == 16 * MIB and partitions[3][0] > partitions[2][0]
    assert partitions[3][0] + partitions[3][1] > 126 * MIB
    tags = read_tags(disk, 3)
    with mounted(disk, 2) as root:
        fstab = (root / "etc/fstab").read_text()
    assert tags["TYPE"] == "swap"
    assert f"UUID={tags['UUID']} none swap sw 0 0\n" in fstab


@on("gpt-partuuid")
def test_a_second_disk_is_swap_as_a_whole(disk: Path, node: Node) -> None:
    head = (node.work / "second.disk").read_bytes()[4086:4096]
    assert head == b"SWAPSPACE2"  # mkswap(8)
    with mounted(disk, 1) as root:
        assert " none swap sw 0 0\n" in (root / "etc/fstab").read_text()


@on("mbr-device")
def test_what_is_excluded_stays_as_it_was(
    disk: Path, node: Node, outcomes: Mapping[str, Outcome]
) -> None:
    image = node.work / "images/mbr-device.raw"
    with mounted(image, 3) as old, mounted(disk, 3) as new:
        for name in ("hostname", "hosts", "machine-id", "ssh/ssh_host_ed25519_key"):
            assert (new / "etc" / name).read_bytes() == (old / "etc" / name).read_bytes()
        assert os.statvfs(new).f_blocks == os.statvfs(old).f_blocks
    tasks = outcomes["mbr-device"].document["tasks"]
    reasons = {each["task"]: each["reason"] for each in tasks if each["result"] == "skipped"}
    assert reasons["AssignHostname"] == "excluded by EXCLUDE_TASK_ASSIGNHOSTNAME"
    assert reasons["FilesystemResizeUnmounted"] == "excluded by EXCLUDE_FILESYSTEMRESIZE_TASKS"


@on("needs-check")
def test_without_a_name_the_images_stays(disk: Path) -> None:
    with mounted(disk, 1) as root:
        assert (root / "etc/hostname").read_text() == f"{HOSTNAME}\n"


@on("mbr-logical")
def test_the_document_has_every_stage_and_task(disk: Path, outcomes: Mapping[str, Outcome]) -> None:
    document = outcomes["mbr-logical"].document
    assert document["reason"] is None and document["warnings"] == []
    assert [each["name"] for each in document["stages"]] == ["verify", "open", "copy", "helper"]
    assert all(each["seconds"] >= 0 for each in (*document["stages"], *document["tasks"]))
    assert outcomes["mbr-logical"].tasks == {
        **dict.fromkeys(("FixPartitionTable", "FilesystemResizeUnmounted", "MountImage"), "done"),
        **dict.fromkeys(("AssignHostname", "ChangeMachineId", "ChangePassword"), "done"),
        **dict.fromkeys(("ConfigureNetwork", "DeleteSSHKeys", "InstallSSHKeys"), "done"),
        **dict.fromkeys(("EnforcePersonality", "UmountImage"), "done"),
        **dict.fromkeys(("FilesystemResizeMounted", "AddSwap", "SELinuxAutorelabel"), "skipped"),
    }


@pytest.mark.parametrize("name", BAD)
def test_a_bad_image_is_one_line(name: str, outcomes: Mapping[str, Outcome]) -> None:
    outcome = outcomes[name]
    assert outcome.status == 2, outcome.log
    assert re.match(f"error: {BAD[name][1]}", outcome.last_line)
    assert (outcome.document["status"], "error: " + outcome.document["reason"]) == (
        "error",
        outcome.last_line,
    )
    assert "Traceback" not in outcome.log


@pytest.mark.parametrize(
    ("layout", "options", "reason"),
    [
        ("absent", (), "absent.raw"),
        ("mbr-primary", ("--param=img_passwd_hash=s3cr3t",), "OS parameter img_passwd_hash: it"),
        ("mbr-primary", ('--param=img_properties={"a"',), "img_properties: it is not valid JSON"),
        ("mbr-primary", ('--param=inst_properties={"SWAP": "x:1"}',), "property SWAP does not fit"),
        ("mbr-primary", ("--nic=mac=52",), "NIC 0: mac '52' is not the address of a NIC"),
        ("mbr-primary", ("--hostname=a_b",), "'a_b' is not a host name"),
        ("xfs", (), "bytes"),
        ("xfs", ("--dry-run",), "bytes"),
    ],
)
def test_bad_input_is_refused_before_a_byte_is_written(
    node: Node, layout: str, options: Sequence[str], reason: str
) -> None:
    disk = node.make_disk("untouched", 64)
    outcome = node.deploy(layout, disk, *options)
    assert outcome.status == 2, outcome.log
    assert reason in outcome.last_line and outcome.last_line.startswith("error: ")
    assert outcome.document["reason"] == outcome.last_line.removeprefix("error: ")
    assert "s3cr3t" not in outcome.log
    assert disk.read_bytes() == b"\xa5" * (64 * MIB)


def test_a_dry_run_writes_nothing(node: Node) -> None:
    disk = node.make_disk("untouched", 64)
    outcome = node.deploy("mbr-primary", disk, "--dry-run")
    assert (outcome.status, outcome.document["status"]) == (0, "ok"), outcome.log
    assert disk.read_bytes() == b"\xa5" * (64 * MIB)


def test_without_any_task_the_image_is_what_is_on_the_disk(node: Node) -> None:
    disk = node.make_disk("plain", 64)
    exclude = '--param=img_properties={"EXCLUDE_ALL_TASKS": "yes"}'
    outcome = node.deploy("mbr-primary", disk, exclude)
    assert (outcome.status, outcome.document["tasks"]) == (0, []), outcome.log
    image = (node.work / "images/mbr-primary.raw").read_bytes()
    assert disk.read_bytes() == image + bytes(64 * MIB - len(image))
