"""Disks and partitions, found in a sysfs of plain files; names of devices."""

from pathlib import Path

import pytest

from snf_ganeti.errors import DeadlineError
from snf_image_helper import disk
from snf_image_helper.disk import (
    Disk,
    Partition,
    find_disks,
    find_partitions,
    make_partition_path,
    parse_device,
    parse_letters,
)


def add_disk(sysfs: Path, lun: int, name: str) -> None:
    (sysfs / f"class/scsi_disk/0:0:0:{lun}/device/block/{name}").mkdir(parents=True)
    folder = sysfs / "class/block" / name
    (folder / "queue").mkdir(parents=True)
    (folder / "queue/logical_block_size").write_text("4096\n")
    (folder / "size").write_text("2048\n")


def test_disks_are_ordered_by_lun_and_not_by_name(tmp_path: Path) -> None:
    for lun, name in [(1, "sda"), (0, "sdb"), (10, "sdc"), (2, "sdd")]:
        add_disk(tmp_path, lun, name)
    assert find_disks(2, tmp_path) == [
        Disk(0, "/dev/sdb", 1 << 20, 4096),
        Disk(1, "/dev/sda", 1 << 20, 4096),
    ]


def test_a_disk_that_does_not_come_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "_WAIT", 0.05)
    add_disk(tmp_path, 1, "sda")
    add_disk(tmp_path, 0, "sdb")
    (tmp_path / "class/block/sdb/queue/logical_block_size").unlink()  # it is half there
    with pytest.raises(DeadlineError, match="finding the instance's 2 disks took longer"):
        find_disks(2, tmp_path)


def test_partitions_are_ordered_by_number(tmp_path: Path) -> None:
    for number, name in [(14, "sda14"), (1, "sda1")]:
        folder = tmp_path / "class/block/sda" / name
        folder.mkdir(parents=True)
        (folder / "partition").write_text(f"{number}\n")
        (folder / "size").write_text("8\n")
    assert find_partitions(Disk(0, "/dev/sda", 0, 512), tmp_path) == [
        Partition(1, "/dev/sda1", 4096),
        Partition(14, "/dev/sda14", 4096),
    ]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/dev/sda1", (0, 1)),
        ("/dev/vdb", (1, None)),
        ("/dev/xvdc12", (2, 12)),
        ("/dev/hda2", (0, 2)),
        ("/dev/sdaa1", (26, 1)),
        ("/dev/nvme0n1p3", (0, 3)),
        ("/dev/nvme1n1", (1, None)),
        ("/dev/md0", None),
        ("/dev/mapper/vg-root", None),
    ],
)
def test_the_guests_names(path: str, expected: tuple[int, int | None] | None) -> None:
    assert parse_device(path) == expected


def test_letters_and_paths() -> None:
    assert [parse_letters(text) for text in ("a", "z", "aa", "az")] == [0, 25, 26, 51]
    assert make_partition_path("/dev/sda", 5) == "/dev/sda5"
    assert make_partition_path("/dev/loop0", 5) == "/dev/loop0p5"
