"""The small guests are what they say, as each file system's own offline tool sees them."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from testbed import guests
from testbed.guests import LAYOUTS, Layout
from testbed.partitioning import MIB, Partition

CHECKS = {
    "ext": ["e2fsck", "-f", "-n"],
    "xfs": ["xfs_repair", "-n", "-f"],
    "btr": ["btrfs", "check"],
}
UNHARMED = [name for name, layout in LAYOUTS.items() if not layout.damage]


@pytest.fixture(scope="module", autouse=True)
def need_root() -> None:
    assert os.geteuid() == 0, "guests have files of several owners: run the tests as root"


def cut_out(image: Path, partition: Partition) -> Path:
    """A partition's bytes in a file of their own."""
    file = image.with_suffix(f".{partition.number}")
    with image.open("rb") as source, file.open("wb") as target:
        source.seek(partition.start)
        for _ in range(partition.size // MIB):
            piece = source.read(MIB)
            if any(piece):
                target.write(piece)
            else:
                target.seek(MIB, os.SEEK_CUR)
        target.truncate(partition.size)
    return file


def check(file: Path, kind: str) -> subprocess.CompletedProcess[str]:
    argv = [*CHECKS[kind[:3]], str(file)]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def read_tags(file: Path) -> dict[str, str]:
    argv = ["blkid", "--probe", "--output", "export", str(file)]
    text = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    return dict(re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE))


@pytest.mark.parametrize("name", UNHARMED)
def test_every_file_system_is_sound_and_has_its_names(name: str, tmp_path: Path) -> None:
    image = tmp_path / "image"
    disk = guests.build(LAYOUTS[name], image)
    assert image.stat().st_blocks * 512 < 16 * MIB
    for partition in disk.partitions:
        file, kind = cut_out(image, partition), partition.volume.kind
        tags = read_tags(file)
        assert (tags["TYPE"], tags["UUID"]) == (kind, disk.uuid(partition))
        assert tags["LABEL"] == partition.volume.label
        if kind != "swap":
            done = check(file, kind)
            assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("corrupt-ext4", "corrupt|invalid"),
        ("no-superblock", "Bad magic number in super-block"),
        ("corrupt-xfs", "bad CRC in superblock"),
        ("corrupt-btrfs", "superblock checksum mismatch"),
    ],
)
def test_harm_is_found(name: str, found: str, tmp_path: Path) -> None:
    image = tmp_path / "image"
    disk = guests.build(LAYOUTS[name], image)
    done = check(cut_out(image, disk.partitions[-1]), LAYOUTS[name].filesystem)
    assert done.returncode != 0
    assert re.search(found, done.stdout + done.stderr)


def test_a_guest_that_needs_its_check_says_so(tmp_path: Path) -> None:
    image = tmp_path / "image"
    disk = guests.build(LAYOUTS["needs-check"], image)
    argv = ["dumpe2fs", "-h", str(cut_out(image, disk.partitions[-1]))]
    state = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    assert re.search(r"^Filesystem state:\s+.*with errors$", state, re.MULTILINE)


def test_a_guest_is_owned_as_a_guest_is(tmp_path: Path) -> None:
    image = tmp_path / "image"
    disk = guests.build(Layout(), image)
    where = f"{image}?offset={disk.partitions[-1].start}"

    def stat(path: str) -> tuple[str, ...]:
        argv = ["debugfs", "-R", f"stat {path}", where]
        text = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
        match = re.search(r"Mode:\s+(\d+).*?User:\s+(\d+)\s+Group:\s+(\d+)", text, re.DOTALL)
        assert match, text
        return match.groups()

    assert stat("/etc/shadow") == ("0640", "0", "42")
    assert stat("/home/debian") == ("0755", "1000", "1000")
    assert stat("/tmp") == ("01777", "0", "0")
