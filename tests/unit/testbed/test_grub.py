"""What is patched into GRUB's images, and where a core goes."""

from pathlib import Path

import pytest

from testbed.grub import find_room, make_core_argv, make_settings, patch_boot, patch_core
from testbed.partitioning import MIB, Volume, lay_out

ROOT = Volume("ext4", 8, "/")


def test_boot_code_leaves_the_partition_table_alone_and_finds_the_core() -> None:
    code = patch_boot(bytes(range(256)) * 2, 0x123456)
    assert len(code) == 440
    assert code[0x5C:0x64] == (0x123456).to_bytes(8, "little")
    assert code[:0x5C] == bytes(range(0x5C))


def test_a_core_goes_on_in_the_sector_behind_its_first() -> None:
    core = patch_core(bytes(1024), 2048)
    assert core[500:508] == (2049).to_bytes(8, "little")
    assert not any(core[:500]) and not any(core[508:])


@pytest.mark.parametrize(
    ("table", "volumes", "room"),
    [
        ("mbr", [ROOT], (512, MIB - 512)),
        ("gpt", [Volume("bios", 1, number=14), ROOT], (MIB, MIB)),
    ],
)
def test_room_for_the_core(table: str, volumes: list[Volume], room: tuple[int, int]) -> None:
    assert find_room(lay_out("x", table, volumes)) == room


def test_the_core_and_the_kernel_are_told_the_same_root() -> None:
    layout = lay_out("x", "mbr", [Volume("ext4", 8, "/", logical=True)])
    root = layout.partitions[0]
    assert "--prefix=(hd0,msdos5)/boot/grub" in make_core_argv("mbr", 5, Path("core"))
    assert f" root=PARTUUID={layout.disk_id}-05 " in make_settings(layout, root, "PARTUUID")
