"""Block devices, and disks and spools without room."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from snf_ganeti.errors import NodeError
from snf_image_host.environ import Disk
from snf_image_host.image import ImageOrder, open_image
from snf_image_host.settings import Settings
from snf_image_host.targets import open_target
from testbed.image_copy import ERASED, JAIL, MIB, SIZE, deploy, run


@pytest.fixture
def loop(disk: Path) -> Iterator[Path]:
    device = run("losetup", "--find", "--show", disk).strip()
    yield Path(device)
    run("losetup", "--detach", device)


def test_a_block_device_gets_real_zeros(folder: Path, loop: Path, disk: Path) -> None:
    deploy(folder, loop, "raw", "diskdump")
    run("cmp", f"--bytes={SIZE}", folder / "raw", loop)
    assert disk.read_bytes()[SIZE : SIZE + MIB] == ERASED  # behind the image
    assert not any(disk.read_bytes()[-MIB:])  # but for the end, where backups of tables lie


def test_a_device_that_fails_is_one_line(folder: Path, small: Path) -> None:
    """A loop device whose file has no room: the kernel says EIO, here or at the end."""
    (small / "file").touch()
    os.truncate(small / "file", SIZE)
    device = run("losetup", "--find", "--show", small / "file").strip()
    try:
        with pytest.raises(NodeError, match=rf"{device} can't be .*: (Input/output|No space)"):
            deploy(folder, Path(device), "raw.lz4", "diskdump")
    finally:
        run("losetup", "--detach", device)


def test_a_full_file_system_is_one_line(folder: Path, small: Path) -> None:
    (small / "disk").touch()
    os.truncate(small / "disk", SIZE)
    with pytest.raises(NodeError, match="No space left on device"):
        deploy(folder, small / "disk", "raw", "diskdump")


def test_a_full_spool_is_one_line(folder: Path, small: Path, disk: Path) -> None:
    settings = Settings(image_dir=folder, spool_dir=small)
    with (
        pytest.raises(NodeError, match=r"can't be kept in .*No space left"),
        open_image(ImageOrder("qcow2.gz", "qcow2"), settings, JAIL) as image,
        open_target(Disk(0, 0, path=str(disk)), JAIL) as target,
    ):
        image.copy_to(target, lambda position, total: None)
    assert not list(small.iterdir())
