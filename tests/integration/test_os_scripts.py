"""The OS scripts as Ganeti calls them, and runs that are ended half way. Needs root."""

import contextlib
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import Popen

import pytest

from snf_ganeti import process
from testbed import helper_harm, snf_image
from testbed.deadline import wait_for
from testbed.deployed import SETTINGS
from testbed.listening import UNIX_SOCKETS, is_listening
from testbed.partitioning import MIB
from testbed.snf_image import SITE, WORK, Node, make_script_environment, mounted

QEMU = "qemu-system-x86"  # the kernel keeps 15 characters
SECRET = "s3cr3t of the owner"
BEGIN_SECONDS = 120.0
HARM = Path(helper_harm.__file__).read_text()

pytestmark = pytest.mark.usefixtures("nothing_is_left")


def copy_image(node: Node, layout: str, name: str, size: int) -> Path:
    """A disk that holds an image as it is, at its begin, and zeros. size: MiB."""
    disk = node.work / f"{name}.disk"
    disk.write_bytes((node.work / f"images/{layout}.raw").read_bytes())
    os.truncate(disk, size * MIB)
    return disk


def inside(path: Path) -> str:
    return f"{WORK}/{path.name}"


def test_create_deploys_and_tells_the_progress_monitor(node: Node) -> None:
    disk = node.make_disk("create", 64)
    node.machine.write("/run/monitor", f'#!/bin/sh\nexec cat >"{WORK}/events.$1"\n', mode=0o755)
    node.machine.write(SETTINGS, f'{SITE}progress_monitor = "/run/monitor"\n')
    parameters = {"img_id": "mbr-primary.raw", "img_format": "diskdump", "img_passwd": SECRET}
    environment = make_script_environment("web.example.org", [inside(disk)], parameters)
    try:
        done = node.run_script("create", environment)
    finally:
        node.machine.write(SETTINGS, SITE)
        node.machine.run("rm", "/run/monitor")
    assert done.status == 0, done.stderr
    with mounted(disk, 1) as root:
        assert (root / "etc/hostname").read_text() == "web.example.org\n"
    text = (node.work / "events.web.example.org").read_text()
    events = [json.loads(line) for line in text.splitlines()]
    kinds = [(event["type"], event.get("subtype")) for event in events]
    assert ("image-copy-progress", None) in kinds
    assert kinds.count(("image-helper", "task-start")) == 14
    assert kinds.count(("image-helper", "task-end")) == 14
    assert kinds[-1] == ("image-result", None)
    assert events[-1]["status"] == "ok"
    assert all(event["timestamp"] > 1e9 for event in events)
    assert SECRET not in text + done.text + done.stderr


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({"img_format": "diskdump"}, "OS parameter img_id is missing"),
        ({"img_id": "x", "img_format": "floppy"}, "OS parameter img_format: it is not a known"),
        ({"img_id": "x", "img_format": "diskdump", "img_luks_key": SECRET}, "does not support it"),
        ({"img_id": "x", "img_format": "diskdump", "img_passwd_hash": SECRET}, "form of crypt(5)"),
    ],
)
def test_verify_refuses_in_one_line(node: Node, parameters: dict[str, str], reason: str) -> None:
    environment = make_script_environment("web", [], parameters)
    done = node.machine.run(
        f"{snf_image.SCRIPTS}/verify", "parameters", env=environment, ok=range(256)
    )
    assert done.status == 2
    assert done.stderr.startswith("error: ") and reason in done.stderr
    assert done.stderr.count("\n") == 1 and SECRET not in done.stderr


def test_verify_takes_what_can_work(node: Node) -> None:
    parameters = {"img_id": "https://example.org/x", "img_format": "qcow2", "img_passwd": SECRET}
    done = node.run_script("verify", make_script_environment("web", [], parameters))
    assert (done.status, done.text, done.stderr) == (0, "", "")


def test_a_rename_changes_the_name_and_what_follows_from_it_alone(node: Node) -> None:
    disk = copy_image(node, "mbr-logical", "rename", 64)
    old = {"OLD_INSTANCE_NAME": "image"}
    before = snf_image.find_partitions(disk)
    with mounted(disk, 5) as root:
        files = read_files(root)
    done = node.run_script(
        "rename", make_script_environment("db.example.org", [inside(disk)], {}, **old)
    )
    assert done.status == 0, done.stderr
    snf_image.check(disk, 5)
    assert snf_image.find_partitions(disk) == before
    with mounted(disk, 5) as root:
        changed = read_files(root)
        assert (root / "etc/hostname").read_text() == "db.example.org\n"
        assert "127.0.1.1\tdb.example.org db\n" in (root / "etc/hosts").read_text()
    assert {path for path in files if files[path] != changed.get(path)} == {
        "etc/hostname",
        "etc/hosts",
    }
    assert changed.keys() == files.keys()


def read_files(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


def test_a_rename_of_what_holds_no_guest_is_one_line(node: Node) -> None:
    disk = node.make_disk("nothing", 16)
    done = node.run_script("rename", make_script_environment("db", [inside(disk)], {}))
    assert done.status == 2
    last = done.stderr.splitlines()[-1]
    assert last == "error: MountImage: no root file system found: no file system"
    assert disk.read_bytes() == b"\xa5" * (16 * MIB)


def make_transfer_environment(disk: Path, direction: str) -> dict[str, str]:
    return make_script_environment(
        "web",
        [inside(disk)],
        {},
        DISK_0_SIZE=str(disk.stat().st_size // MIB),
        **{
            f"{direction}_INDEX": "0",
            f"{direction}_DEVICE": inside(disk),
            f"{direction}_DISK_PATH": inside(disk),
        },
    )


def export(node: Node, disk: Path) -> tuple[bytes, int]:
    """The dump, and the bytes that EXP_SIZE_FD was told."""
    environment = {**make_transfer_environment(disk, "EXPORT"), "EXP_SIZE_FD": "7"}
    command = f"exec {snf_image.SCRIPTS}/export 7>{WORK}/hint >{WORK}/dump"
    node.machine.run("sh", "-c", command, env=environment, timeout=300)
    return (node.work / "dump").read_bytes(), int((node.work / "hint").read_text())


def import_(node: Node, disk: Path, dump: bytes) -> process.Completed:
    return node.run_script("import", make_transfer_environment(disk, "IMPORT"), dump)


def test_an_export_is_small_and_its_import_is_the_same_disk(node: Node) -> None:
    disk = copy_image(node, "gpt", "export", 512)
    dump, hint = export(node, disk)
    held = disk.stat().st_blocks * 512
    assert len(dump) < held + MIB
    assert len(dump) - MIB < hint <= held
    unpacked = process.run(
        ["tar", "--extract", "--to-stdout", f"--file={node.work}/dump"], limit=1 << 30
    )
    assert unpacked.stdout == disk.read_bytes()
    other = node.make_disk("import", 512)
    done = import_(node, other, dump)
    assert (done.status, done.stderr) == (0, "")
    assert other.read_bytes() == disk.read_bytes()
    assert other.stat().st_blocks * 512 < held + MIB


@contextlib.contextmanager
def served(node: Node, disk: Path) -> Iterator[str]:
    """The URI of a disk that an NBD server in the node has, for the block."""
    socket = f"/run/{disk.stem}.sock"
    argv = ("qemu-nbd", "--format=raw", "--persistent", "--discard=unmap", f"--socket={socket}")
    with node.machine.spawn(*argv, inside(disk), output=node.work / "nbd.log"):
        wait_for(
            "qemu-nbd",
            lambda: is_listening(node.machine.read(UNIX_SOCKETS).decode(), socket),
            BEGIN_SECONDS,
        )
        yield f"nbd+unix:///?socket={socket}"
    node.machine.run("rm", "--force", socket)  # a server that was killed leaves it


def make_uri_environment(uri: str, size: int, direction: str) -> dict[str, str]:
    """Ganeti's, for a disk with userspace access alone. size: MiB."""
    environment = make_script_environment("web", [""], {}, DISK_0_SIZE=str(size), DISK_0_URI=uri)
    return {**environment, f"{direction}_INDEX": "0", f"{direction}_DISK_URI": uri}


def test_disks_that_qemu_reaches_by_uri_are_moved_likewise(node: Node) -> None:
    disk, other = copy_image(node, "gpt", "from", 64), node.make_disk("to", 64)
    with served(node, disk) as uri:
        environment = make_uri_environment(uri, 64, "EXPORT")
        command = f"exec {snf_image.SCRIPTS}/export >{WORK}/dump"
        node.machine.run("sh", "-c", command, env=environment, timeout=300)
    dump = (node.work / "dump").read_bytes()
    assert len(dump) < disk.stat().st_blocks * 512 + MIB
    with served(node, other) as uri:
        done = node.run_script("import", make_uri_environment(uri, 64, "IMPORT"), dump)
    assert (done.status, done.stderr) == (0, "")
    assert other.read_bytes() == disk.read_bytes()


def test_a_plain_dump_is_imported_over_old_data(node: Node) -> None:
    content = (node.work / "images/mbr-primary.raw").read_bytes()
    disk = node.make_disk("plain", 36)
    done = import_(node, disk, content + bytes(36 * MIB - len(content)))
    assert (done.status, done.stderr) == (0, "")
    assert disk.read_bytes() == content + bytes(36 * MIB - len(content))


@pytest.mark.parametrize(
    ("cut", "reason"),
    [
        (lambda dump: dump[: len(dump) // 2], "the dump ends early; the dump is cut off"),
        (lambda dump: dump[:-1024], "the dump ends early; the dump is cut off"),
        (lambda dump: b"", "the dump is empty"),
        (lambda dump: b"\xa5" * MIB, "the dump ends after 1048576 of "),
    ],
    ids=["half", "no end", "nothing", "plain"],
)
def test_a_dump_that_is_cut_off_is_one_line(
    node: Node, cut: Callable[[bytes], bytes], reason: str
) -> None:
    dump, _ = export(node, copy_image(node, "gpt", "export", 64))
    done = import_(node, node.make_disk("import", 64), cut(dump))
    assert done.status == 2
    assert done.stderr.startswith(f"error: {reason}") and done.stderr.count("\n") == 1


@contextlib.contextmanager
def deploying_half_way(node: Node, disk: Path) -> Iterator[tuple[Popen[bytes], Path]]:
    """A deployment whose helper VM was stopped when its first task had begun, and what it prints.
    Nothing more is done by it, however long a test takes for its next step."""
    log = node.work / "log"
    log.write_text("")
    params = node.work / "params.json"
    params.write_text(json.dumps({"img_passwd": SECRET}))
    _, *arguments = snf_image.make_deploy_argv("mbr-primary", disk)
    argv = ("python3", "-I", "-c", HARM, "STOP", "TaskStart", *arguments)
    with node.machine.spawn(*argv, f"--params={inside(params)}", output=log) as child:

        def has_begun() -> bool:
            text = log.read_text()
            assert child.poll() is None, text
            return "FixPartitionTable begins" in text

        wait_for("the first task", has_begun, BEGIN_SECONDS)
        yield child, log


def is_helper_there(node: Node) -> bool:
    return node.machine.run("pgrep", "--exact", QEMU, ok=(0, 1)).status == 0


def test_a_helper_that_hangs_is_ended_at_its_deadline(node: Node) -> None:
    node.machine.write(SETTINGS, f"{SITE}helper_soft_timeout = 8\nhelper_hard_timeout = 1\n")
    try:
        with deploying_half_way(node, node.make_disk("hang", 64)) as (child, log):
            assert child.wait(BEGIN_SECONDS) == 5
    finally:
        node.machine.write(SETTINGS, SITE)
    last = log.read_text().splitlines()[-1]
    assert re.fullmatch(r"error: the helper VM, task \w+, took longer than 8 s", last)


def test_a_helper_that_is_killed_half_way_is_one_line(node: Node) -> None:
    disk = node.make_disk("killed", 64)
    with deploying_half_way(node, disk) as (child, log):
        argvs = node.machine.run("sh", "-c", "cat /proc/[0-9]*/cmdline", ok=range(256)).stdout
        node.machine.run("pkill", "-KILL", "--exact", QEMU)
        assert child.wait(BEGIN_SECONDS) == 4
    assert b"-sandbox" in argvs and SECRET.encode() not in argvs
    last = log.read_text().splitlines()[-1]
    assert re.match(r"error: the helper VM ended early while task \w+; its console said", last)
    # The same again works.
    assert node.deploy("mbr-primary", disk).status == 0
    snf_image.check(disk, 1)


@pytest.mark.parametrize(("signal", "status"), [("TERM", 143), ("KILL", -9)])
def test_a_deployment_that_is_ended_takes_its_helper_along(
    node: Node, signal: str, status: int
) -> None:
    with deploying_half_way(node, node.make_disk("ended", 64)) as (child, log):
        node.machine.run("pkill", f"-{signal}", "--oldest", "--full", "STOP TaskStart deploy")
        assert child.wait(BEGIN_SECONDS) in (status, 128 - status)
    wait_for("the end of the helper VM", lambda: not is_helper_there(node), BEGIN_SECONDS)
    if signal == "TERM":
        assert log.read_text().splitlines()[-1] == "error: ended by SIGTERM"
