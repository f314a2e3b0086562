"""What an export shows of itself, and how it is found again."""

from pathlib import Path

from ext_storage_rados.ceph.access import Access, Mode
from ext_storage_rados.export.folder import Export, find_folder, format_export, parse_export
from ext_storage_rados.mark import is_about, make_mark
from ext_storage_rados.names import ImageName
from ext_storage_rados.parameters import Parameters
from snf_ganeti.lock import lock_file

IMAGE = ImageName("vms", "team", "v.ext.disk0")


def test_an_export_reads_back() -> None:
    access = Access(Path("/etc/ceph/ceph.conf"), "ganeti")
    export = Export(IMAGE, access, Mode.EXCLUSIVE, fenced=True, client="10.0.0.1:0/7")
    assert parse_export(format_export(export)) == export


def test_folders_are_apart_and_short_enough_for_a_socket(tmp_path: Path) -> None:
    long = "x" * 94
    names = [IMAGE, *(ImageName("vms", "", name) for name in ("v.ext.disk0", long, f"{long}y"))]
    assert len({find_folder(name, tmp_path).path for name in names}) == len(names)
    assert all(len(str(find_folder(name).control)) < 108 for name in names)


def test_a_keeper_is_one_that_holds_the_lock(tmp_path: Path) -> None:
    folder = find_folder(IMAGE, tmp_path)
    folder.path.mkdir()
    assert folder.find_keeper() is None
    folder.pid.write_text("12345\n")
    with lock_file(folder.lock):
        assert folder.find_keeper() == 12345
    assert folder.find_keeper() is None


def test_a_mark_is_about_one_image() -> None:
    mark = make_mark(IMAGE, 1 << 30, Parameters("vms", "team", "ganeti"))
    assert is_about(mark, IMAGE)
    assert not is_about(mark, ImageName("vms", "team", "clone"))
    assert not is_about("", IMAGE)
    assert not is_about("[1]", IMAGE)
