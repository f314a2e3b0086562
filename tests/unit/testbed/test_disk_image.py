"""Disk images put together without root: file systems where they belong, nothing else."""

import subprocess
from pathlib import Path

import pytest

from snf_ganeti.errors import InputError
from testbed import disk_image
from testbed.partitioning import MIB, DiskLayout, Volume, lay_out


def make_tree(folder: Path) -> Path:
    tree = folder / "tree"
    (tree / "etc").mkdir(parents=True)
    (tree / "etc/hostname").write_text("guest\n")
    (tree / "boot").mkdir()
    (tree / "boot/vmlinuz").write_bytes(b"kernel" * 100)
    return tree


def cat(image: Path, layout: DiskLayout, mountpoint: str, path: str) -> str:
    start = next(p.start for p in layout.partitions if p.volume.mountpoint == mountpoint)
    argv = ["debugfs", "-R", f"cat {path}", f"{image}?offset={start}"]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def test_a_tree_is_spread_over_its_file_systems(tmp_path: Path) -> None:
    layout = lay_out("x", "gpt", [Volume("ext2", 4, "/boot"), Volume("ext4", 16, "/")])
    image = tmp_path / "image"
    disk_image.build(layout, make_tree(tmp_path), image)
    assert cat(image, layout, "/", "/etc/hostname") == "guest\n"
    assert cat(image, layout, "/boot", "/vmlinuz") == "kernel" * 100
    assert cat(image, layout, "/", "/boot/vmlinuz") == ""
    for each in layout.partitions:
        argv = ["e2fsck", "-f", "-n", f"{image}?offset={each.start}"]
        subprocess.run(argv, capture_output=True, check=True)
    assert image.stat().st_size == layout.size
    assert image.stat().st_blocks * 512 < 4 * MIB
    assert [each.name for each in tmp_path.iterdir() if each.name != "tree"] == ["image"]


def test_a_disk_without_a_table_is_its_file_system(tmp_path: Path) -> None:
    layout = lay_out("x", "none", [Volume("ext4", 16, "/")])
    image = tmp_path / "image"
    image.write_bytes(b"old" * MIB)
    disk_image.build(layout, make_tree(tmp_path), image)
    assert image.stat().st_size == 16 * MIB
    assert cat(image, layout, "/", "/etc/hostname") == "guest\n"


def test_the_root_alone_is_damaged(tmp_path: Path) -> None:
    layout = lay_out("x", "mbr", [Volume("ext2", 4, "/boot"), Volume("ext4", 16, "/")])
    image = tmp_path / "image"

    def damage(file: Path) -> None:
        with file.open("r+b") as target:
            target.write(b"\xa5" * 4096)

    disk_image.build(layout, make_tree(tmp_path), image, damage)
    assert cat(image, layout, "/boot", "/vmlinuz") == "kernel" * 100
    data = image.read_bytes()
    assert data[layout.partitions[1].start :].startswith(b"\xa5" * 4096)


def test_a_protofile_refuses_what_mkfs_would_read_as_two_words(tmp_path: Path) -> None:
    tree = make_tree(tmp_path)
    (tree / "two words").touch()
    with pytest.raises(InputError, match=r"two words: mkfs\.xfs takes no name with a space"):
        list(disk_image.make_protofile(tree))


def test_a_protofile_has_modes_and_links(tmp_path: Path) -> None:
    tree = make_tree(tmp_path)
    (tree / "etc/link").symlink_to("hostname")
    (tree / "etc/hostname").chmod(0o4750)
    lines = list(disk_image.make_protofile(tree))
    assert any(line.startswith("link l--777 ") and line.endswith(" hostname") for line in lines)
    assert any(line.startswith("hostname -u-750 ") for line in lines)
    assert lines.count("$") == 3
