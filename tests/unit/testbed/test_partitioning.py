"""Disk layouts: where volumes lie, what sfdisk makes of the script, what fstab says."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from testbed.partitioning import (
    FSTAB_STYLES,
    MIB,
    DiskLayout,
    Volume,
    lay_out,
    make_fstab,
    make_sfdisk_script,
)

ROOT = Volume("ext4", 8, "/")
INNER = Volume("ext4", 8, "/", logical=True)
BOOT = Volume("ext2", 2, "/boot")
SWAP = Volume("swap", 2, logical=True)
BIOS = Volume("bios", 1, number=14)


def read_table(layout: DiskLayout, folder: Path) -> dict[int, tuple[int, int, str]]:
    """number → (start MiB, size MiB, type), as sfdisk reads back what it wrote."""
    image = folder / "disk"
    image.touch()
    os.truncate(image, layout.size)
    script = make_sfdisk_script(layout)
    subprocess.run(["sfdisk", "--quiet", image], input=script, text=True, check=True)
    shown = subprocess.run(["sfdisk", "--json", image], capture_output=True, check=True)
    table = json.loads(shown.stdout)["partitiontable"]
    assert layout.disk_id in table["id"].lower()
    return {
        int(each["node"].removeprefix(str(image))): (
            each["start"] * 512 // MIB,
            each["size"] * 512 // MIB,
            each["type"][:8],
        )
        for each in table["partitions"]
    }


@pytest.mark.parametrize(
    ("table", "volumes", "places", "size"),
    [
        ("mbr", [ROOT], {1: (1, 8, "83")}, 9),
        ("gpt", [BIOS, ROOT], {14: (1, 1, "21686148"), 1: (2, 8, "0FC63DAF")}, 11),
        (
            "mbr",
            [BOOT, SWAP, INNER],
            {1: (1, 2, "83"), 2: (3, 12, "5"), 5: (4, 2, "82"), 6: (7, 8, "83")},
            15,
        ),
    ],
)
def test_sfdisk_reads_back_the_layout(
    tmp_path: Path,
    table: str,
    volumes: list[Volume],
    places: dict[int, tuple[int, int, str]],
    size: int,
) -> None:
    layout = lay_out("x", table, volumes)
    assert read_table(layout, tmp_path) == places
    assert layout.size == size * MIB


def test_a_gpt_has_the_partuuids_and_labels_that_an_fstab_names(tmp_path: Path) -> None:
    layout = lay_out("x", "gpt", [BOOT, ROOT])
    read_table(layout, tmp_path)
    shown = subprocess.run(["sfdisk", "--json", tmp_path / "disk"], capture_output=True, check=True)
    table = json.loads(shown.stdout)["partitiontable"]["partitions"]
    assert [each["uuid"].lower() for each in table] == [*map(layout.partuuid, layout.partitions)]
    assert [each["name"] for each in table] == ["boot", "root"]


@pytest.mark.parametrize("style", FSTAB_STYLES)
def test_an_fstab_names_every_volume_in_its_style(style: str) -> None:
    layout = lay_out("x", "gpt", [BIOS, BOOT, Volume("swap", 2), ROOT])
    lines = [line.split() for line in make_fstab(layout, style).splitlines()[1:]]
    assert [line[1:3] for line in lines] == [["/boot", "ext2"], ["none", "swap"], ["/", "ext4"]]
    sign = "/dev/vda" if style == "device" else f"{style}="
    assert all(line[0].startswith(sign) for line in lines)
    assert len({line[0] for line in lines}) == 3


def test_an_mbr_partuuid_is_the_disk_id_and_the_number() -> None:
    layout = lay_out("x", "mbr", [BOOT, INNER])
    assert layout.partuuid(layout.partitions[1]) == f"{layout.disk_id}-05"


def test_the_same_name_gives_the_same_disk_and_another_name_another() -> None:
    one, same, other = (lay_out(name, "gpt", [ROOT]) for name in ("a", "a", "b"))
    assert one == same
    assert make_sfdisk_script(one) != make_sfdisk_script(other)
    assert one.uuid(one.partitions[0]) != other.uuid(other.partitions[0])
