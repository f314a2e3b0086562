"""qcow2 images that lie, lead elsewhere, or are not what was promised."""

from pathlib import Path

import pytest

from snf_ganeti.errors import InputError
from snf_image_host.os_parameters.checksum import Checksum
from testbed.image_copy import ERASED, MIB, SIZE, deploy, run


def test_a_qcow2_is_not_read_before_its_checksum_is_right(folder: Path, disk: Path) -> None:
    with pytest.raises(InputError, match="img_checksum"):
        deploy(folder, disk, "qcow2", "qcow2", Checksum("sha256", "0" * 64))
    assert disk.read_bytes() == ERASED * (SIZE // MIB + 2)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("-b", "/etc/passwd", "-F", "raw"), "backing file"),
        (("-o", "data_file={folder}/data,data_file_raw=on"), "data in another file"),
        (
            ("--object", "secret,id=k,data=k", "-o", "encrypt.format=aes,encrypt.key-secret=k"),
            "encr",
        ),
    ],
)
def test_a_qcow2_that_leads_elsewhere_is_refused(
    tmp_path: Path, disk: Path, options: tuple[str, ...], reason: str
) -> None:
    make_qcow2(tmp_path / "bad", *(each.format(folder=tmp_path) for each in options))
    with pytest.raises(InputError, match=reason):
        deploy(tmp_path, disk, "bad", "qcow2")
    assert disk.read_bytes() == ERASED * (SIZE // MIB + 2)


def test_a_qcow2_whose_tables_lie_is_told(folder: Path, tmp_path: Path, disk: Path) -> None:
    image = bytearray((folder / "qcow2").read_bytes())
    image[40:48] = (1 << 62).to_bytes(8, "big")  # the first table's offset
    (tmp_path / "bad").write_bytes(image)
    with pytest.raises(InputError, match=r"image bad (is a damaged|can't be read as) qcow2"):
        deploy(tmp_path, disk, "bad", "qcow2")


def test_a_qcow2_that_is_cut_is_told(folder: Path, tmp_path: Path, disk: Path) -> None:
    """QEMU itself would read what is missing as zeros."""
    (tmp_path / "cut").write_bytes((folder / "qcow2").read_bytes()[: 3 * MIB])
    with pytest.raises(InputError, match="image cut is a damaged qcow2 image"):
        deploy(tmp_path, disk, "cut", "qcow2")


def make_qcow2(path: Path, *options: str | Path) -> None:
    run("qemu-img", "create", "-q", "-f", "qcow2", *options, path, str(SIZE))
