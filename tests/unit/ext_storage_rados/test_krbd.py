"""rbd's list of mapped devices, as Ceph 16 prints it."""

from pathlib import Path

from ext_storage_rados.krbd import is_there, parse_device
from ext_storage_rados.names import ImageName

LISTED = """[{"id":"0","pool":"vms","namespace":"","name":"v","snap":"-","device":"/dev/rbd0"},
{"id":"1","pool":"vms","namespace":"n","name":"v","snap":"-","device":"/dev/rbd1"},
{"id":"2","pool":"vms","namespace":"","name":"w","snap":"s","device":"/dev/rbd2"}]"""


def test_a_device_is_found_by_its_whole_name() -> None:
    assert parse_device(LISTED, ImageName("vms", "", "v")) == Path("/dev/rbd0")
    assert parse_device(LISTED, ImageName("vms", "n", "v")) == Path("/dev/rbd1")
    assert parse_device(LISTED, ImageName("vms", "", "w")) is None  # that is a snapshot
    assert parse_device("[]", ImageName("vms", "", "v")) is None


def test_a_kernel_without_the_client(tmp_path: Path) -> None:
    assert not is_there(tmp_path / "rbd")
