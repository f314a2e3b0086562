"""Images of every form make the same disk, and only what has a form is taken for it.

What reached a disk is judged by cmp and the file system's own count of blocks.
"""

from pathlib import Path

import pytest

from snf_ganeti.errors import InputError
from snf_image_host.os_parameters.checksum import Checksum
from testbed.image_copy import COMPRESSORS, CONTAINERS, PACKED, deploy, make_checksum, require_same

FORMS = [
    *[(f"raw.{name}", "diskdump") for name in COMPRESSORS],
    *[(f"qcow2.{name}", "qcow2") for name in COMPRESSORS],
    *[
        ("raw", "diskdump"),
        ("qcow2", "qcow2"),
        ("packed.qcow2", "qcow2"),
        ("secret.qcow2", "qcow2"),
        ("footer.vmdk", "vmdk"),
    ],
    *[(name, name.partition(".")[2]) for name in CONTAINERS],
    *[(f"{name}.{packer}", name.partition(".")[2]) for name in PACKED for packer in COMPRESSORS],
]


@pytest.mark.parametrize(("name", "kind"), FORMS)
@pytest.mark.parametrize("checked", [False, True], ids=["", "checked"])
def test_every_form_makes_the_same_sparse_disk(
    folder: Path, disk: Path, name: str, kind: str, checked: bool
) -> None:
    checksum = make_checksum(folder / name) if checked else None
    told = deploy(folder, disk, name, kind, checksum)
    require_same(folder, disk)
    qcow2_blocks = (folder / "raw").stat().st_blocks
    assert disk.stat().st_blocks <= qcow2_blocks + 256
    assert told[-1][0] == told[-1][1] > 0
    assert not list(folder.glob("tmp*"))


@pytest.mark.parametrize(("name", "kind"), FORMS)
def test_a_wrong_checksum_is_told(folder: Path, disk: Path, name: str, kind: str) -> None:
    with pytest.raises(InputError, match="img_checksum"):
        deploy(folder, disk, name, kind, Checksum("sha512", "0" * 128))


@pytest.mark.parametrize("kind", ["extdump", "ntfsdump", "qcow2", "vmdk", "vhd", "vhdx"])
def test_what_is_not_of_its_format_is_refused(folder: Path, disk: Path, kind: str) -> None:
    with pytest.raises(InputError, match="image raw is no "):
        deploy(folder, disk, "raw", kind)
