"""A file system without a disk around it becomes a disk that boots."""

import os
from pathlib import Path

import pytest

from snf_image_helper.protocol import VERSION
from snf_image_host.copying.boot_prefix import build_boot_prefix
from snf_image_host.environ import Disk
from snf_image_host.helper_vm import appliance
from snf_image_host.image import ImageOrder, open_image
from snf_image_host.settings import Settings
from snf_image_host.targets import open_target
from testbed import images
from testbed.guest_vm import booted
from testbed.image_copy import JAIL, MIB, run
from testbed.images import RECIPES


@pytest.fixture(scope="module")
def helper_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An appliance of which only the boot prefix is real, by this machine's GRUB."""
    folder = tmp_path_factory.mktemp("helper")
    build = folder / "build"
    build.mkdir()
    for name in (appliance.KERNEL, appliance.INITRD):
        (build / name).touch()
    build_boot_prefix(build / appliance.BOOT_PREFIX, Path("/"))
    files = {name: appliance.make_record(build / name) for name in appliance.FILES}
    manifest = appliance.Manifest(VERSION, "bookworm", "6.1", {}, files)
    (build / appliance.MANIFEST).write_text(manifest.text)
    (folder / appliance.CURRENT).symlink_to("build")
    return folder


def test_a_bare_file_system_becomes_a_disk_that_boots(helper_dir: Path, tmp_path: Path) -> None:
    image = images.build(RECIPES["bookworm-extdump"])
    disk = tmp_path / "disk"
    disk.touch()
    os.truncate(disk, image.stat().st_size + 2 * MIB)
    settings = Settings(image_dir=image.parent, helper_dir=helper_dir)
    with (
        open_image(ImageOrder(image.name, "extdump"), settings, JAIL) as opened,
        open_target(Disk(0, 0, path=str(disk)), JAIL) as target,
    ):
        assert opened.size == image.stat().st_size + MIB
        opened.copy_to(target, lambda position, total: None)
    assert f"start=        2048, size=     {image.stat().st_size // 512}, type=83, bootable" in run(
        "sfdisk", "--dump", disk
    )
    run("cmp", f"--ignore-initial=0:{MIB}", f"--bytes={image.stat().st_size}", image, disk)
    with booted(disk) as vm, vm.log_in(240) as client:
        _, stdout, _ = client.exec_command("findmnt --noheadings --output SOURCE /", timeout=60)
        assert stdout.read().decode().strip() == "/dev/vda1"
