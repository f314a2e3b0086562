"""The quick answer to `attach`: right, or none."""

from pathlib import Path

import pytest

from ext_storage_rados.ceph.access import Access
from ext_storage_rados.export.folder import Export, Folder, find_folder
from ext_storage_rados.export.known import find_device
from ext_storage_rados.names import ImageName
from snf_ganeti.lock import lock_file

IMAGE = ImageName("ganeti", "", "a7b9b7a0-53c5-4ab0-b0f1-1f8f4b2c7b1e.ext.disk0")
NAMED = {"VOL_NAME": IMAGE.name, "EXTP_PROVIDER": "rados"}


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """A served export, but for the keeper's lock."""
    found = find_folder(IMAGE, tmp_path / "run")
    found.path.mkdir(parents=True)
    found.lock.touch()
    found.write_export(Export(IMAGE, Access(Path("/etc/ceph/ceph.conf"), "ganeti")))
    found.device.symlink_to("/dev/loop5")
    backing = tmp_path / "sys/loop5/loop/backing_file"
    backing.parent.mkdir(parents=True)
    backing.write_text(f"{found.disk}\n")
    return found


def ask(folder: Folder, **environ: str) -> str:
    run = folder.path.parent
    return find_device({**NAMED, **environ}, str(run), str(run.parent / "sys"))


def test_a_served_export_is_found(folder: Folder) -> None:
    with lock_file(folder.lock):
        assert ask(folder) == ask(folder, EXTP_POOL="ganeti") == "/dev/loop5"
        assert ask(folder, EXTP_POOL="None", EXTP_NAMESPACE="None") == "/dev/loop5"


def test_another_place_or_way_is_not(folder: Folder) -> None:
    with lock_file(folder.lock):
        assert ask(folder, EXTP_POOL="other") == ask(folder, EXTP_NAMESPACE="team") == ""
        assert ask(folder, EXTP_ACCESS="userspace") == ask(folder, VOL_NAME="other") == ""
        assert ask(folder, VOL_NAME="") == ""


def test_what_does_not_work_is_not(folder: Folder) -> None:
    assert ask(folder) == ""  # no keeper
    with lock_file(folder.lock):
        fenced = Export(IMAGE, Access(Path("/etc/ceph/ceph.conf"), "ganeti"), fenced=True)
        folder.write_export(fenced)
        assert ask(folder) == ""
    folder.write_export(Export(IMAGE, Access(Path("/etc/ceph/ceph.conf"), "ganeti")))
    folder.device.unlink()
    folder.device.symlink_to("/dev/loop6")
    with lock_file(folder.lock):
        assert ask(folder) == ""  # another file's device
