"""`snf-image` and the OS scripts, run in a machine, and what they left on a disk."""

import contextlib
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snf_ganeti import process
from testbed import appliance
from testbed.bed import Bed
from testbed.deployed import write_settings
from testbed.machine import Bind, Machine
from testbed.partitioning import MIB

SCRIPTS = "/usr/share/ganeti/os/snf-image"
WORK = "/srv/work"
"""Where a node sees its working folder."""
SITE = f'image_dir = "{WORK}/images"\naccelerator = "tcg"\n'
ANY_STATUS = range(256)


@dataclass(frozen=True)
class Outcome:
    """How a run ended. document: what --json prints; log: standard error."""

    status: int
    document: Mapping[str, Any]
    log: str

    @property
    def last_line(self) -> str:
        """What Ganeti shows last."""
        return self.log.strip().splitlines()[-1]

    @property
    def tasks(self) -> dict[str, str]:
        return {each["task"]: each["result"] for each in self.document["tasks"]}


@dataclass(frozen=True)
class Node:
    """A machine with the packages; `work` is seen inside as WORK, its `images` hold guests."""

    machine: Machine
    work: Path

    def make_disk(self, name: str, size: int) -> Path:
        """A disk full of old data. size: MiB."""
        disk = self.work / f"{name}.disk"
        with disk.open("wb") as file:
            for _ in range(size):
                file.write(b"\xa5" * MIB)
        return disk

    def deploy(self, layout: str, disk: Path, *options: str, timeout: float = 300) -> Outcome:
        """Run `snf-image deploy --json`, however it ends."""
        argv = (*make_deploy_argv(layout, disk), "--json", *options)
        done = self.machine.run(*argv, timeout=timeout, ok=ANY_STATUS)
        return Outcome(done.status, json.loads(done.text), done.stderr)

    def run_script(
        self, name: str, environment: Mapping[str, str], stdin: bytes = b""
    ) -> process.Completed:
        """Run an OS script, however it ends."""
        return self.machine.run(
            f"{SCRIPTS}/{name}", stdin=stdin, env=environment, timeout=300, ok=ANY_STATUS
        )

    def list_leftovers(self) -> set[str]:
        """Processes, mounts and files that a run could leave."""
        processes = self.machine.run("ps", "-eo", "args=").text.splitlines()
        mounts = self.machine.read("/proc/mounts").decode().splitlines()
        places = ("/run", "/tmp", "/var/tmp", "/var/lib/snf-image", "/etc")
        files = self.machine.run("find", *places, "-xdev", "-ignore_readdir_race").text.splitlines()
        own = {line for line in processes if not line.startswith(("ps ", "find "))}
        return own | set(mounts) | set(files)


@contextlib.contextmanager
def powered_node(bed: Bed, work: Path) -> Iterator[Node]:
    """A node of its own beside the bed's, on for the block, with the helper's appliance."""
    appliance.build(bed)
    (work / "images").mkdir(exist_ok=True)
    binds = (appliance.BIND, Bind(work, WORK, writable=True))
    with Machine("deploy", bed.folder / "deploy", bed.layers, binds).powered() as machine:
        write_settings(machine, SITE)
        yield Node(machine, work)


def make_deploy_argv(layout: str, disk: Path) -> tuple[str, ...]:
    image = (f"--image={layout}.raw", "--format=diskdump")
    return ("snf-image", "deploy", *image, f"--disk={WORK}/{disk.name}")


def make_script_environment(
    name: str, disks: Sequence[str], parameters: Mapping[str, str], **more: str
) -> dict[str, str]:
    """What Ganeti 3.0 gives an OS script, as far as one reads it. disks: paths."""
    return {
        "OS_API_VERSION": "20",
        "OS_NAME": "snf-image",
        "OS_VARIANT": "default",
        "DEBUG_LEVEL": "0",
        "INSTANCE_NAME": name,
        "HYPERVISOR": "kvm",
        "DISK_COUNT": str(len(disks)),
        **{f"DISK_{index}_PATH": path for index, path in enumerate(disks)},
        **{f"DISK_{index}_ACCESS": "rw" for index in range(len(disks))},
        **{f"DISK_{index}_SIZE": "1" for index in range(len(disks))},
        "NIC_COUNT": "0",
        **{f"OSP_{key.upper()}": text for key, text in parameters.items()},
        **more,
    }


def find_partitions(disk: Path) -> dict[int, tuple[int, int]]:
    """Number → start and size in bytes, as sfdisk reads the table. Without a table: none."""
    table = json.loads(process.run(["sfdisk", "--json", str(disk)]).text)["partitiontable"]
    sector = table.get("sectorsize", 512)
    return {
        int(each["node"].removeprefix(str(disk)).removeprefix("p")): (
            each["start"] * sector,
            each["size"] * sector,
        )
        for each in table["partitions"]
    }


def read_tags(disk: Path, partition: int) -> dict[str, str]:
    """What blkid tells of a partition."""
    start, size = find_partitions(disk)[partition]
    argv = ["blkid", "--probe", f"--offset={start}", f"--size={size}", "--output=export", str(disk)]
    lines = (line.partition("=") for line in process.run(argv, ok=(0, 2)).text.splitlines())
    return {name: value for name, _, value in lines}


@contextlib.contextmanager
def attached(disk: Path, partition: int) -> Iterator[Path]:
    """A partition of a disk in a file as a loop device, read-only, for the block."""
    start, size = find_partitions(disk)[partition]
    argv = ["losetup", "--find", "--show", "--read-only", f"--offset={start}"]
    device = process.run([*argv, f"--sizelimit={size}", str(disk)]).text.strip()
    try:
        yield Path(device)
    finally:
        process.run(["losetup", "--detach", device])


@contextlib.contextmanager
def mounted(disk: Path, partition: int) -> Iterator[Path]:
    """The files of a partition, read by the kernel, for the block."""
    with attached(disk, partition) as device, tempfile.TemporaryDirectory() as place:
        process.run(["mount", "--options=ro,nodev,nosuid,noexec", str(device), place])
        try:
            yield Path(place)
        finally:
            process.run(["umount", place])


CHECKS: Mapping[str, Sequence[str]] = {
    "ext2": ("e2fsck", "-f", "-n"),
    "ext3": ("e2fsck", "-f", "-n"),
    "ext4": ("e2fsck", "-f", "-n"),
    "xfs": ("xfs_repair", "-n"),
    "btrfs": ("btrfs", "check", "--readonly"),
}
"""What judges a file system, by its type."""


def check(disk: Path, partition: int) -> None:
    """Have a file system's own tool judge it. Raises CommandError."""
    with attached(disk, partition) as device:
        process.run([*CHECKS[read_tags(disk, partition)["TYPE"]], str(device)], timeout=120)
