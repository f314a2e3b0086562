"""Disks by their URI, as text; served ones are in tests/integration/image_copy/."""

import json
from pathlib import Path

import pytest

from snf_ganeti.errors import InputError, NodeError
from snf_image_host.ceph import RbdImage, find_key, parse_keyring, parse_rbd_uri
from snf_image_host.confinement.jail import Jail
from snf_image_host.environ import Disk
from snf_image_host.nbd.nbd_server import make_server_argv
from snf_image_host.targets import open_target
from snf_image_host.targets.uri import parse_uri

KEYRING = """\
[client.ganeti]
\tkey = QUJDREVGR0g=
\tcaps mon = "profile rbd"
[client.admin]
\tkey = c2VjcmV0
"""


@pytest.mark.parametrize(
    ("uri", "socket", "name"),
    [
        ("nbd+unix:///?socket=/run/a.sock", "/run/a.sock", ""),
        ("nbd+unix:///a%20b?socket=/run/a.sock", "/run/a.sock", "a b"),
        ("nbd:unix:/run/a.sock", "/run/a.sock", ""),
        ("nbd:unix:/run/a.sock:exportname=x", "/run/a.sock", "x"),
    ],
)
def test_an_nbd_server_of_this_node_is_reached_for_the_jail(
    uri: str, socket: str, name: str
) -> None:
    export = parse_uri(uri)
    assert export.socket == socket
    assert export.node == {"driver": "nbd", "export": name}
    assert not export.visible


@pytest.mark.parametrize(
    ("uri", "host", "port", "name"),
    [
        ("nbd://store/disk", "store", "10809", "disk"),
        ("nbd+tcp://[fd00::1]:99/", "fd00::1", "99", ""),
        ("nbd:store:99", "store", "99", ""),
        ("nbd:[fd00::1]:99:exportname=a", "fd00::1", "99", "a"),
    ],
)
def test_an_nbd_server_elsewhere_is_named(uri: str, host: str, port: str, name: str) -> None:
    server = {"type": "inet", "host": host, "port": port}
    assert parse_uri(uri).node == {"driver": "nbd", "server": server, "export": name}


@pytest.mark.parametrize(
    "uri",
    [
        *("nbd:", "nbd://", "nbd:store", "nbd:unix:", "nbd+unix:///", "nbd+unix:///?socket=x"),
        *("rbd:", "rbd:image", "rbd:pool/", "rbd:pool/image:keyring-of=x", "nbd://h:x/"),
    ],
)
def test_a_malformed_uri_is_told(uri: str) -> None:
    with pytest.raises(InputError, match="URI is malformed"):
        parse_uri(uri)


def test_an_unknown_scheme_names_the_known() -> None:
    with (
        pytest.raises(InputError, match=r"gopher:; known are rbd, nbd"),
        open_target(Disk(0, 0, uri="gopher://x"), Jail(1, 1)),
    ):
        pass


@pytest.mark.parametrize(
    ("uri", "image"),
    [
        ("rbd:vms/web", RbdImage("vms", "web")),
        ("rbd:vms/tenant/web@golden", RbdImage("vms", "web", "tenant", "golden")),
        (
            "rbd:vms/web:id=ganeti:conf=/etc/ceph/b.conf",
            RbdImage("vms", "web", user="ganeti", conf="/etc/ceph/b.conf"),
        ),
        (r"rbd:vms/a\:b:keyring=/k", RbdImage("vms", "a:b", keyring="/k")),
    ],
)
def test_an_rbd_uri_is_what_qemu_makes_of_it(uri: str, image: RbdImage) -> None:
    assert parse_rbd_uri(uri) == image


def test_the_key_comes_from_the_keyring_and_not_into_argv(tmp_path: Path) -> None:
    (tmp_path / "ring").write_text(KEYRING)
    uri = f"rbd:vms/web:id=ganeti:keyring={tmp_path}/ring"
    export = parse_uri(uri)
    assert export.secret == "QUJDREVGR0g="
    assert "key" not in export.name
    argv = make_server_argv(export.node, 5, writable=True, secret=6)
    assert "QUJDREVGR0g=" not in " ".join(argv)
    assert "secret,id=key,format=base64,file=/dev/fd/6" in argv
    node = json.loads(argv[argv.index("--blockdev") + 1])
    assert (node["driver"], node["key-secret"]) == ("rbd", "key")


def test_a_keyring_without_the_user_is_told(tmp_path: Path) -> None:
    assert parse_keyring(KEYRING, "admin") == "c2VjcmV0"
    (tmp_path / "ring").write_text(KEYRING)
    with pytest.raises(NodeError, match=r"no key of client\.nobody"):
        find_key(RbdImage("vms", "web", user="nobody", keyring=str(tmp_path / "ring")))
    assert find_key(RbdImage("vms", "web", keyring=str(tmp_path / "absent"))) == ""


def test_a_disk_that_is_not_there_is_told(tmp_path: Path) -> None:
    with (
        pytest.raises(NodeError, match="can't be opened: No such file"),
        open_target(Disk(0, 0, path=str(tmp_path / "absent")), Jail(1, 1)),
    ):
        pass
    with (
        pytest.raises(InputError, match="neither a regular file nor a block device"),
        open_target(Disk(0, 0, path="/dev/null"), Jail(1, 1)),
    ):
        pass
