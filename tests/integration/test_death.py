"""Death at any moment, full disks, broken disks: the same again works, nothing is left.

SNF_SOAK=1 kills a hundred times. What is left on a disk is judged by e2fsck. Needs root.
"""

import base64
import contextlib
import json
import os
import random
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from subprocess import Popen, TimeoutExpired

import pytest

from snf_ganeti import process
from testbed import helper_harm, snf_image
from testbed.deadline import wait_for
from testbed.deployed import SETTINGS
from testbed.descendants import find_children
from testbed.failing_disk import open_failing_disk
from testbed.partitioning import MIB
from testbed.snf_image import ANY_STATUS, SCRIPTS, WORK, Node

ROUNDS = 100 if os.environ.get("SNF_SOAK") else 20
SEED = int(os.environ.get("SNF_FUZZ_SEED") or random.randrange(10**9))
SIZE = 64
IMAGE = "mbr-primary"
SMALL = "/srv/small"
SECONDS = 120
HARM = Path(helper_harm.__file__).read_text()

pytestmark = pytest.mark.usefixtures("root", "nothing_is_left")


def make_environment(disk: Path) -> dict[str, str]:
    parameters = {"img_id": f"{IMAGE}.raw", "img_format": "diskdump", "img_passwd": "x"}
    return snf_image.make_script_environment("web", [f"{WORK}/{disk.name}"], parameters)


def create(node: Node, disk: Path) -> None:
    """A whole run of `create`, and what it leaves on the disk is sound."""
    done = node.run_script("create", make_environment(disk))
    assert done.status == 0, done.stderr
    snf_image.check(disk, 1)


@pytest.fixture
def chance(capsys: pytest.CaptureFixture[str]) -> random.Random:
    """Chance that comes again, by the seed that it says."""
    with capsys.disabled():
        print(f"\nSNF_FUZZ_SEED={SEED}", flush=True)
    return random.Random(SEED)


def find_inner(child: Popen[bytes]) -> int:
    """The process that nsenter started, by its id out here; 0 when there is none yet."""
    return next(find_children(child.pid), 0)


def kill_after(node: Node, disk: Path, seconds: float) -> None:
    """Start `create` and kill it when the time has come, wherever it is then."""
    log = node.work / "killed.log"
    argv = (f"{SCRIPTS}/create",)
    with node.machine.spawn(*argv, output=log, env=make_environment(disk)) as child:
        inner = wait_for("the start of create", lambda: find_inner(child), SECONDS)
        with contextlib.suppress(TimeoutExpired):
            child.wait(seconds)
        if child.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                os.kill(inner, signal.SIGKILL)
            child.wait(SECONDS)


def test_create_is_killed_at_any_moment_and_then_works(node: Node, chance: random.Random) -> None:
    disk = node.make_disk("killed", SIZE)
    begun = time.monotonic()
    create(node, disk)
    whole = time.monotonic() - begun
    before = node.list_leftovers()
    for at in range(1, ROUNDS + 1):
        kill_after(node, disk, chance.uniform(0, whole))
        wait_for("an end without traces", lambda: node.list_leftovers() <= before, SECONDS)
        if at % 10 == 0:
            create(node, disk)


@pytest.fixture
def small(node: Node) -> Iterator[str]:
    """A mount point for a small file system; it is unmounted at the end."""
    node.machine.run("mkdir", SMALL)
    yield SMALL
    node.machine.run("umount", "--quiet", SMALL, ok=ANY_STATUS)
    node.machine.run("rmdir", SMALL)


def mount_small(node: Node, kib: int) -> None:
    node.machine.run("mount", "-t", "tmpfs", f"-osize={kib}k", "small", SMALL)
    node.machine.run("truncate", f"--size={SIZE}M", f"{SMALL}/disk")


def deploy_to(
    node: Node, path: str, *options: str, image: str = f"{IMAGE}.raw", kind: str = "diskdump"
) -> str:
    """The one line with which a deployment to a disk that can't take it ends."""
    done = node.machine.run(
        *("snf-image", "deploy", f"--image={image}", f"--format={kind}"),
        *(f"--disk={path}", "--hostname=web", *options),
        timeout=2 * SECONDS,
        ok=ANY_STATUS,
    )
    lines = done.stderr.strip().splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    assert done.status in (2, 4) and errors == lines[-1:], done.stderr
    assert "internal error" not in errors[0]
    return errors[0]


def test_a_full_file_system_under_the_disk_is_one_line(node: Node, small: str) -> None:
    mount_small(node, 256)
    line = deploy_to(node, f"{small}/disk")
    assert line.startswith(f"error: {small}/disk can't be written at byte ")
    assert line.endswith("No space left on device")


def test_a_file_system_that_fills_up_under_the_helper_is_one_line(
    node: Node, small: str, chance: random.Random
) -> None:
    """What the guest wrote and no disk took must not count as done."""
    image = node.work / f"images/{IMAGE}.raw"
    mount_small(node, image.stat().st_blocks // 2 + 64)
    contents = base64.b64encode(chance.randbytes(2 * MIB)).decode()
    personality = json.dumps([{"path": "/srv/large", "contents": contents}])
    params = node.work / "large.json"
    params.write_text(json.dumps({"img_personality": personality}))
    line = deploy_to(node, f"{small}/disk", f"--params={WORK}/{params.name}")
    assert re.match("error: [A-Z]\\w+: .*(did not reach the disk|error|space)", line), line


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "compressed"])
def test_a_spool_without_room_is_one_line(node: Node, small: str, packed: bool) -> None:
    """Where an image is kept that is read out of order; one that the jail may read need not be."""
    mount_small(node, 64)
    image = node.work / "images/spooled"
    convert = ["qemu-img", "convert", "-O", "qcow2", str(node.work / f"images/{IMAGE}.raw")]
    process.run([*convert, str(image)])
    if packed:
        process.run(["zstd", "-q", "--rm", str(image), "-o", f"{image}.zst"])
        Path(f"{image}.zst").rename(image)
    image.chmod(0o600)
    disk = node.make_disk("unspooled", SIZE)
    with disk.open("r+b") as file:
        file.write(b"old")
    node.machine.write(SETTINGS, f'{snf_image.SITE}spool_dir = "{SMALL}"\n')
    try:
        line = deploy_to(node, f"{WORK}/{disk.name}", image=image.name, kind="qcow2")
    finally:
        node.machine.write(SETTINGS, snf_image.SITE)
        image.unlink()
    assert line == (
        f"error: the image can't be kept in {SMALL}: No space left on device; make room there, or"
        " set spool_dir"
    )
    assert disk.read_bytes()[:3] == b"old"
    assert node.machine.run("ls", SMALL).text.split() == ["disk"]


@pytest.mark.parametrize("sound", [1, 36], ids=["copy", "helper"])
def test_a_disk_that_fails_is_one_line(node: Node, sound: int) -> None:
    with open_failing_disk(SIZE * MIB, sound * MIB) as device:
        number = os.minor(device.stat().st_rdev)
        node.machine.run("mknod", str(device), "b", "7", str(number))
        try:
            line = deploy_to(node, str(device))
        finally:
            node.machine.run("rm", str(device))
    assert "Input/output error" in line


def test_the_helper_is_killed_and_the_same_again_works(node: Node, chance: random.Random) -> None:
    disk = node.make_disk("helper-killed", SIZE)
    log = node.work / "helper.log"
    for _ in range(ROUNDS // 10):
        argv = (f"{SCRIPTS}/create",)
        log.unlink(missing_ok=True)
        with node.machine.spawn(*argv, output=log, env=make_environment(disk)) as child:
            pid = wait_for("the helper VM", lambda: find_qemu(node), SECONDS)
            with contextlib.suppress(TimeoutExpired):
                child.wait(chance.uniform(0, 3))
            node.machine.run("kill", "-KILL", pid, ok=(0, 1))
            assert child.wait(SECONDS) in (0, 4), log.read_text()
        assert "Traceback" not in log.read_text()
    create(node, disk)


@pytest.mark.parametrize(
    ("step", "status", "said"),
    [
        ("wake", 0, "the saved helper does not go on"),
        ("attach", 4, "the helper VM ended early"),
        ("attached", 4, "the helper VM ended early"),
        ("Ready", 4, "the helper VM ended early"),
        ("RunResult", 0, ""),
    ],
)
def test_a_helper_that_is_killed_at_a_step_is_one_line(
    node: Node, step: str, status: int, said: str
) -> None:
    """Until its result it has done nothing; after that what it did is on the disk."""
    disk = node.make_disk("killed-at", SIZE)
    argv = ("python3", "-I", "-c", HARM, "KILL", step)
    done = node.machine.run(*argv, timeout=300, env=make_environment(disk), ok=ANY_STATUS)
    assert done.status == status, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == (status != 0)
    if status == 0:
        snf_image.check(disk, 1)
        with snf_image.mounted(disk, 1) as root:
            assert (root / "etc/hostname").read_text() == "web\n"


def find_qemu(node: Node) -> str:
    found = node.machine.run("pgrep", "--newest", "--exact", "qemu-system-x86", ok=(0, 1))
    return found.text.strip()
