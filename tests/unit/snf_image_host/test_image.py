"""Images from order to disk; what needs a jail is in tests/integration/image_copy/."""

import hashlib
import os
from pathlib import Path

import pytest

from snf_ganeti.errors import InputError
from snf_image_host.confinement.jail import Jail
from snf_image_host.image import ImageOrder, make_order, open_image
from snf_image_host.os_parameters.checksum import Checksum
from snf_image_host.os_parameters.parameters import parse_parameters
from snf_image_host.settings import Settings
from snf_image_host.targets.local import open_local_target

JAIL = Jail(65534, 65534)
MIB = 1 << 20
CONTENT = os.urandom(MIB) + bytes(3 * MIB) + os.urandom(MIB)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    with (folder / "debian").open("wb") as file:
        file.write(CONTENT[:MIB])
        file.seek(4 * MIB)
        file.write(CONTENT[4 * MIB :])
    return folder


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk"
    path.write_bytes(b"\xee" * 6 * MIB)
    return path


def deploy(folder: Path, disk: Path, order: ImageOrder) -> list[tuple[int, int]]:
    told: list[tuple[int, int]] = []
    with (
        open_image(order, Settings(image_dir=folder), JAIL) as image,
        open_local_target(disk) as target,
    ):
        image.copy_to(target, lambda position, total: told.append((position, total)))
    return told


def test_an_order_is_made_of_the_parameters() -> None:
    raw = {"img_id": "debian", "img_format": "diskdump", "img_checksum": "sha256:" + "0" * 64}
    order = make_order(parse_parameters(raw))
    assert order == ImageOrder("debian", "diskdump", Checksum("sha256", "0" * 64))


@pytest.mark.parametrize("name", ["debian", "local://debian", "LOCAL://debian"])
def test_an_image_reaches_the_disk(folder: Path, disk: Path, name: str) -> None:
    told = deploy(folder, disk, ImageOrder(name, "diskdump"))
    assert disk.read_bytes()[: 5 * MIB] == CONTENT
    assert disk.stat().st_blocks * 512 < 3 * MIB
    assert told[-1] == (5 * MIB, 5 * MIB)


def test_the_size_is_known_before_the_copy(folder: Path) -> None:
    order = ImageOrder("debian", "diskdump")
    with open_image(order, Settings(image_dir=folder), JAIL) as image:
        assert image.size == len(CONTENT)
        assert not image.null


def test_a_disk_that_is_too_small_is_refused_untouched(folder: Path, tmp_path: Path) -> None:
    disk = tmp_path / "small"
    disk.write_bytes(b"\xee" * (5 * MIB - 512))
    with pytest.raises(InputError, match="at least 5 MiB"):
        deploy(folder, disk, ImageOrder("debian", "diskdump"))
    assert disk.read_bytes() == b"\xee" * (5 * MIB - 512)


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_the_checksum_is_that_of_the_bytes_holes_included(
    folder: Path, disk: Path, algorithm: str
) -> None:
    digest = hashlib.new(algorithm, CONTENT).hexdigest()
    deploy(folder, disk, ImageOrder("debian", "diskdump", Checksum(algorithm, digest)))
    assert disk.read_bytes()[: 5 * MIB] == CONTENT


def test_a_wrong_checksum_is_told(folder: Path, disk: Path) -> None:
    with pytest.raises(InputError, match="img_checksum"):
        deploy(folder, disk, ImageOrder("debian", "diskdump", Checksum("sha256", "0" * 64)))


def test_null_copies_nothing(folder: Path, disk: Path) -> None:
    assert deploy(folder, disk, ImageOrder("null", "diskdump")) == []
    assert disk.read_bytes() == b"\xee" * 6 * MIB


def test_an_empty_image_is_refused(folder: Path, disk: Path) -> None:
    (folder / "empty").touch()
    with pytest.raises(InputError, match="empty"):
        deploy(folder, disk, ImageOrder("empty", "diskdump"))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("absent", "No such file"),
        ("../secret", "no name of an image"),
        ("/etc/passwd", "no name of an image"),
        ("local:///etc/passwd", "no name of an image"),
        ("a/../../secret", "no name of an image"),
        ("outside", "leads out of there"),
        ("folder/outside", "leads out of there"),
        ("loop", "symlinks lead nowhere"),
        ("folder", "no regular file"),
        ("fifo", "no regular file"),
        ("debian/x", "Not a directory"),
        ("gopher://x/y", "known are"),
    ],
)
def test_a_name_that_is_no_image_is_told(folder: Path, disk: Path, name: str, reason: str) -> None:
    (folder / "../secret").write_text("secret")
    (folder / "folder").mkdir()
    (folder / "outside").symlink_to("../secret")
    (folder / "folder/outside").symlink_to(folder / "../secret")
    (folder / "loop").symlink_to("loop")
    os.mkfifo(folder / "fifo")
    with pytest.raises(InputError, match=reason):
        deploy(folder, disk, ImageOrder(name, "diskdump"))


def test_a_symlink_inside_the_folder_is_an_image(folder: Path, disk: Path) -> None:
    (folder / "stable").symlink_to("debian")
    deploy(folder, disk, ImageOrder("stable", "diskdump"))
    assert disk.read_bytes()[: 5 * MIB] == CONTENT


def test_an_unknown_format_names_the_known(folder: Path, disk: Path) -> None:
    with pytest.raises(InputError, match=r"'tarball' is not supported; use one of diskdump"):
        deploy(folder, disk, ImageOrder("debian", "tarball"))
