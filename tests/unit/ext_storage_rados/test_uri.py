"""URIs for QEMU, in the form that each Ganeti takes."""

from pathlib import Path

import pytest

from ext_storage_rados.ceph.access import Access
from ext_storage_rados.names import ImageName
from ext_storage_rados.uri import find_ganeti, make_uri, parse_uri
from snf_ganeti.errors import InputError, NodeError

CONF = Path("/etc/ceph/ceph.conf")
VOLUME = ImageName("vms", "", "v.ext.disk0")


@pytest.mark.parametrize(
    ("ganeti", "image", "user", "expected"),
    [
        ("3.0", VOLUME, "ganeti", "rbd:vms/v.ext.disk0:id=ganeti:conf=/etc/ceph/ceph.conf"),
        ("3.0", ImageName("vm-s", "n", "v"), "g", "rbd:vm-s/n/v:id=g:conf=/etc/ceph/ceph.conf"),
        ("3.1", VOLUME, "admin", "rbd:vms/v.ext.disk0"),
        ("3.2", VOLUME, "ganeti", "rbd:vms/v.ext.disk0:id=ganeti"),
    ],
)
def test_forms(ganeti: str, image: ImageName, user: str, expected: str) -> None:
    assert make_uri(image, Access(CONF, user), ganeti) == expected


@pytest.mark.parametrize(
    ("ganeti", "image", "user", "conf", "what"),
    [
        ("3.1", VOLUME, "ganeti", CONF, "client.ganeti"),
        ("3.1", ImageName("vm-s", "", "v"), "admin", CONF, "the pool vm-s"),
        ("3.2", ImageName("vms", "n", "v"), "admin", CONF, "the namespace of vms/n/v"),
        ("3.2", VOLUME, "admin", Path("/etc/other.conf"), "/etc/other.conf"),
    ],
)
def test_what_a_ganeti_can_not_say(
    ganeti: str, image: ImageName, user: str, conf: Path, what: str
) -> None:
    with pytest.raises(InputError, match=f"Ganeti {ganeti} can't give {what} to QEMU"):
        make_uri(image, Access(conf, user), ganeti)


def test_an_image_is_read_back() -> None:
    for image in (VOLUME, ImageName("vms", "n", "v")):
        assert parse_uri(make_uri(image, Access(CONF, "ganeti"), "3.0")) == image


def test_ganeti_is_found_by_debians_link(tmp_path: Path) -> None:
    share = tmp_path / "share"
    share.symlink_to("/usr/share/ganeti/3.0")
    assert find_ganeti(share) == "3.0"
    with pytest.raises(NodeError, match="set ganeti in the settings"):
        find_ganeti(tmp_path / "nothing")
