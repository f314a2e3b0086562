"""Growth of partition tables, judged by sfdisk on real, sparse disks in plain files."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from snf_image_helper.disk import Disk
from snf_image_helper.partition_table import (
    Swap,
    parse_swap,
    plan_growth,
    read_table,
    write_table,
)
from snf_image_helper.task import TaskFailed

MIB = 2048
BIOS = "21686148-6449-6E6F-744E-656564454649"
MBR = "label: dos\nstart=2048, size=20480, type=83, bootable\n"
LOGICAL = """label: dos
start=2048, size=20480, type=83, bootable
start=24576, size=40960, type=5
start=22528, size=1024, type=83
start=26624, size=10240, type=83
start=38912, size=10240, type=83
"""
BEHIND = """label: dos
start=2048, size=20480, type=5
start=40960, size=2048, type=83
start=4096, size=2048, type=83
"""
GPT = f"""label: gpt
1: start=20480, size=20480, name="ro ot"
14: start=2048, size=2048, type={BIOS}
"""


def make_disk(path: Path, script: str, size: int) -> Disk:
    """A disk of `size` bytes whose table was made when it had less, as an image's was."""
    path.touch()
    os.truncate(path, min(size, 101 << 20))
    if script:
        argv = ["/sbin/sfdisk", "--quiet", str(path)]
        subprocess.run(argv, input=script.encode(), check=True)
    os.truncate(path, size)
    return Disk(0, str(path), size, 512)


def dump(disk: Disk) -> dict[int, dict[str, Any]]:
    done = subprocess.run(["/sbin/sfdisk", "--json", disk.path], capture_output=True, check=True)
    found = json.loads(done.stdout)["partitiontable"]["partitions"]
    return {int(each.pop("node").removeprefix(disk.path)): each for each in found}


def grow(disk: Disk, swap: Swap | None = None) -> None:
    old = read_table(disk)
    write_table(disk, old, plan_growth(old, disk.size, swap))
    verified = subprocess.run(["/sbin/sfdisk", "--verify", disk.path], capture_output=True)
    assert b"No errors detected" in verified.stdout


def read_ends(disk: Disk) -> bytes:
    """Where tables are: in front, and a backup at the end."""
    with open(disk.path, "rb") as file:
        front = file.read(32 << 20)
        file.seek(-(1 << 20), os.SEEK_END)
        return front + file.read()


def ends(disk: Disk) -> dict[int, int]:
    return {number: each["start"] + each["size"] for number, each in dump(disk).items()}


@pytest.mark.parametrize(
    ("script", "swap", "moved"),
    [
        (MBR, "", {1: 300 * MIB}),
        (MBR, "2:64", {1: 236 * MIB, 2: 300 * MIB}),
        (LOGICAL, "", {2: 300 * MIB, 6: 300 * MIB}),
        (LOGICAL, "7:64", {2: 300 * MIB, 6: 235 * MIB, 7: 300 * MIB}),
        (LOGICAL, "4:64", {2: 236 * MIB, 6: 236 * MIB, 4: 300 * MIB}),
        (BEHIND, "", {2: 300 * MIB}),
        (GPT, "", {1: 299 * MIB}),
        (GPT, "5:64", {1: 235 * MIB, 5: 299 * MIB}),
    ],
)
def test_the_last_partition_grows(
    tmp_path: Path, script: str, swap: str, moved: dict[int, int]
) -> None:
    disk = make_disk(tmp_path / "disk", script, 300 << 20)
    before = dump(disk)
    grow(disk, parse_swap(swap))
    after = dump(disk)
    assert ends(disk) == {n: p["start"] + p["size"] for n, p in before.items()} | moved
    for number, old in before.items():  # name, type, UUID, flags and start stay
        assert after[number] | {"size": 0} == old | {"size": 0}


def test_growing_again_changes_nothing(tmp_path: Path) -> None:
    disk = make_disk(tmp_path / "disk", GPT, 300 << 20)
    grow(disk)
    before = dump(disk)
    grow(disk)
    assert dump(disk) == before


def test_the_backup_gpt_moves_to_the_end(tmp_path: Path) -> None:
    disk = make_disk(tmp_path / "disk", GPT, 300 << 20)
    grow(disk)
    with open(disk.path, "rb") as file:
        file.seek(-512, os.SEEK_END)
        assert file.read(8) == b"EFI PART"


def test_a_size_of_odd_sectors_ends_on_a_whole_mib(tmp_path: Path) -> None:
    disk = make_disk(tmp_path / "disk", GPT, (300 << 20) + 12345 * 512)
    grow(disk)
    assert ends(disk)[1] == 306 * MIB  # of 306.03 MiB, less the backup's 33 sectors


def test_an_mbr_stops_at_two_tib(tmp_path: Path) -> None:
    disk = make_disk(tmp_path / "disk", MBR, 3 << 40)
    grow(disk)
    assert ends(disk)[1] == 2**32 - MIB


@pytest.mark.parametrize("size", [202751, 202752, 202000, 203000])
def test_what_is_nearly_at_the_end_stays(tmp_path: Path, size: int) -> None:
    script = f"label: dos\nstart=2048, size={size}, type=83\n"
    disk = make_disk(tmp_path / "disk", script, (100 << 20) + 512 * 1000)
    grow(disk)
    assert ends(disk) == {1: 2048 + size}


@pytest.mark.parametrize("size", range(14336, 18433, 511))
def test_every_end_can_be_grown_from(tmp_path: Path, size: int) -> None:
    script = f"label: dos\nstart=2048, size={size}, type=83\n"
    disk = make_disk(tmp_path / "disk", script, 12 << 20)
    grow(disk)
    assert ends(disk) == {1: 12 * MIB}


@pytest.mark.parametrize(
    ("script", "swap", "reason"),
    [
        ("", "", "disk 0 has no partition table"),
        ("label: dos\n", "", "the partition table of disk 0 is empty"),
        ("label: gpt\n", "", "the partition table of disk 0 is empty"),
        ("label: sun\nsize=20M\n", "", "partition table of type sun; only MBR"),
        ("label: dos\nsize=20M, type=5\n", "", "nothing but an empty extended partition"),
        (MBR, "1:64", "partition 1, which the image already has"),
        (MBR, "2:640", "640 MiB of swap do not fit behind partition 1"),
        (MBR, "5:64", "logical partition 5; no logical partition ends the disk"),
        (LOGICAL, "8:64", "logical partition 8; the next one is 7"),
        (MBR, "2:x", "SWAP=2:x is neither"),
        (MBR, "0:5", "SWAP=0:5 is neither"),
    ],
)
def test_what_is_refused_stays_as_it_was(
    tmp_path: Path, script: str, swap: str, reason: str
) -> None:
    disk = make_disk(tmp_path / "disk", script, 300 << 20)
    before = read_ends(disk)
    with pytest.raises(TaskFailed, match=reason):
        grow(disk, parse_swap(swap))
    assert read_ends(disk) == before
