"""Images and disks of one file system that shares blocks. Needs root.

What is shared is told by the kernel: filefrag's flags of extents, and the room that is left.
"""

import hashlib
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from snf_ganeti.errors import InputError
from snf_image_host.confinement.jail import Jail
from snf_image_host.customization import make_durable
from snf_image_host.environ import Disk
from snf_image_host.image import ImageOrder, open_image
from snf_image_host.os_parameters.checksum import Checksum
from snf_image_host.settings import Settings
from snf_image_host.targets import open_target

pytestmark = pytest.mark.usefixtures("root")

MIB = 1 << 20
DATA = 16 * MIB
SIZE = 64 * MIB
MAKERS = {
    "xfs": ["mkfs.xfs", "-q", "-m", "reflink=1"],
    "btrfs": ["mkfs.btrfs", "-q"],
    "ext4": ["mkfs.ext4", "-q"],
}
JAIL = Jail(64998, 64997)


@pytest.fixture(params=MAKERS)
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A file system with an image of DATA bytes of data in SIZE + 700, and a disk of old data."""
    device, place = tmp_path / "device", tmp_path / "place"
    with device.open("wb") as file:
        file.truncate(400 * MIB)
    subprocess.run([*MAKERS[request.param], device], check=True)
    place.mkdir()
    subprocess.run(["mount", "-o", "loop", device, place], check=True)
    try:
        with (place / "image").open("wb") as image:
            image.write(os.urandom(DATA // 2))
            image.seek(SIZE // 2)
            image.write(os.urandom(DATA // 2))
            image.seek(SIZE)
            image.write(os.urandom(700))
        (place / "disk").write_bytes(b"\xee" * (SIZE + 2 * MIB))
        subprocess.run(["sync", "-f", place], check=True)
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


def deploy(site: Path, checksum: Checksum | None = None, disk: str = "disk") -> None:
    with (
        open_image(ImageOrder("image", "diskdump", checksum), Settings(image_dir=site), JAIL) as it,
        open_target(Disk(0, 0, path=str(site / disk)), JAIL) as target,
    ):
        it.copy_to(target, lambda position, total: None)
        make_durable([target])


def count_shared(path: Path) -> int:
    """Bytes of extents that another file has, too."""
    argv = ["filefrag", "-v", "-b1", str(path)]
    told = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    rows = re.findall(r"^ *\d+: .*: +(\d+): .*\bshared\b", told, re.M)
    return sum(map(int, rows))


def kind_of(site: Path) -> str:
    argv = ["stat", "-f", "-c", "%T", str(site)]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize("checked", [False, True], ids=["", "checked"])
def test_an_image_on_the_disks_file_system_takes_no_room(site: Path, checked: bool) -> None:
    """ext4 can't: there it is copied."""
    image, disk = site / "image", site / "disk"
    before = image.read_bytes()
    checksum = Checksum("sha256", hashlib.sha256(before).hexdigest()) if checked else None
    deploy(site, checksum)
    assert disk.read_bytes() == before + bytes(2 * MIB - 700)
    if kind_of(site).startswith("ext"):
        assert count_shared(disk) == 0
    else:
        assert count_shared(disk) >= DATA
    assert disk.stat().st_blocks * 512 <= DATA + MIB  # holes are holes
    with disk.open("r+b") as file:
        file.write(b"the instance's own")
    assert image.read_bytes() == before


def test_a_checksum_is_that_of_what_the_disk_got(site: Path) -> None:
    with pytest.raises(InputError, match="img_checksum"):
        deploy(site, Checksum("sha256", "0" * 64))


@pytest.mark.parametrize("site", ["xfs", "btrfs"], indirect=True)
def test_many_disks_of_one_image_fit_where_few_copies_do(site: Path) -> None:
    with (site / "image").open("r+b") as image:
        image.write(os.urandom(2 * DATA))
    for index in range(20):
        (site / f"disk{index}").touch()
        os.truncate(site / f"disk{index}", SIZE + MIB)
        deploy(site, disk=f"disk{index}")
