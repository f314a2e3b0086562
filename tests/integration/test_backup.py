"""Ganeti renames, exports and imports an instance, through the OS scripts. Needs root."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed import guests, snf_image
from testbed.ganeti import Cluster, find_disk
from testbed.guests import LAYOUTS
from testbed.snf_image import mounted

OPTIONS = ("--os-type=snf-image+default", "--disk-template=file", "--no-start")
SIZE = "64M"
IDENTITY = "--os-parameters=img_id=null,img_format=diskdump"


@pytest.fixture
def instance(deployer: Cluster, tmp_path: Path) -> Iterator[str]:
    """An instance that is off, with a small guest on its disk: Ganeti need not install it."""
    name = "old.example.org"
    deployer.add_instance(
        name, *OPTIONS, "--no-install", f"--disk=0:size={SIZE}", IDENTITY, "--no-nics"
    )
    disk = find_disk(deployer, name)
    size = disk.stat().st_size
    guests.build(LAYOUTS["mbr-logical"], tmp_path / "image")
    shutil.copyfile(tmp_path / "image", disk)
    with disk.open("r+b") as file:
        file.truncate(size)
    yield name


def test_rename_export_and_import(deployer: Cluster, instance: str) -> None:
    renamed, restored = "new.example.org", "restored.example.org"
    checks = ("--no-name-check", "--no-ip-check")
    deployer.run("gnt-instance", "rename", "--force", *checks, instance, renamed)
    disk = find_disk(deployer, renamed)
    snf_image.check(disk, 5)
    with mounted(disk, 5) as root:
        assert (root / "etc/hostname").read_text() == f"{renamed}\n"

    node = deployer.node.hostname
    deployer.run("gnt-backup", "export", f"--node={node}", renamed)
    argv = (
        "gnt-backup",
        "import",
        *checks,
        f"--node={node}",
        f"--src-node={node}",
        f"--src-dir={renamed}",
    )
    deployer.run(*argv, "--disk-template=file", restored)
    copy = find_disk(deployer, restored)
    # Ganeti runs rename after an import: the guest has its instance's name again.
    with mounted(copy, 5) as root, mounted(disk, 5) as original:
        assert (root / "etc/hostname").read_text() == f"{restored}\n"
        assert (root / "etc/shadow").read_bytes() == (original / "etc/shadow").read_bytes()
    snf_image.check(copy, 5)
    for name in (renamed, restored):
        deployer.remove_instance(name)
