"""What `snf-image deploy` makes of its options."""

import argparse
from pathlib import Path

import pytest

from snf_ganeti.errors import InputError
from snf_image_host.cli import make_instance, make_parameters, make_parser, parse_nic
from snf_image_host.environ import Disk, Nic

NEEDED = ["deploy", "--image", "debian", "--format", "qcow2", "--disk", "/srv/a"]
MAC = "52:54:00:00:00:01"


def parse(*more: str) -> argparse.Namespace:
    return make_parser().parse_args([*NEEDED, *more])


def test_what_is_needed_is_enough() -> None:
    instance = make_instance(parse())
    assert (instance.name, instance.nics) == ("", ())
    assert instance.disks == (Disk(0, 0, path="/srv/a"),)
    assert make_parameters(parse()) == {"img_id": "debian", "img_format": "qcow2"}


def test_disks_and_nics_have_the_order_of_their_options() -> None:
    nics = (f"--nic=mac={MAC},ip=192.0.2.5,network_subnet=192.0.2.0/24", f"--nic=mac={MAC}")
    instance = make_instance(parse("--disk=/dev/b", "--hostname=web", *nics))
    assert [disk.path for disk in instance.disks] == ["/srv/a", "/dev/b"]
    assert instance.name == "web"
    assert [(nic.index, nic.ip, nic.network_subnet) for nic in instance.nics] == [
        (0, "192.0.2.5", "192.0.2.0/24"),
        (1, "", ""),
    ]


def test_a_nic() -> None:
    text = f"mac={MAC},mode=routed,network_tags=dhcp  auto,network_gateway6=2001:db8::1"
    assert parse_nic(3, text) == Nic(
        3, MAC, "routed", network_tags=("dhcp", "auto"), network_gateway6="2001:db8::1"
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("ip=192.0.2.5", "has no mac"),
        (f"mac={MAC},adress=x", "unknown key 'adress'; known are mac, mode, ip, "),
        (f"mac={MAC},index=1", "unknown key 'index'"),
        ("mac", "expected NAME=VALUE"),
        ("", "expected NAME=VALUE"),
    ],
)
def test_what_is_no_nic_is_refused(text: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        parse_nic(0, text)


def test_parameters_come_from_a_file_and_options_win(tmp_path: Path) -> None:
    file = tmp_path / "params.json"
    file.write_text('{"img_id": "x", "img_passwd": "s3cr3t", "auth_keys": "y"}')
    given = make_parameters(parse(f"--params={file}", "--param=auth_keys=a=b", "--param=x="))
    assert given == {
        "img_id": "debian",
        "img_format": "qcow2",
        "img_passwd": "s3cr3t",
        "auth_keys": "a=b",
        "x": "",
    }


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'{"a": "s3cr3t"', "it is not valid JSON"),
        (b'{"a": 1}', "expected a JSON object whose values are text"),
        (b'["s3cr3t"]', "expected a JSON object whose values are text"),
        (b'{"a": "s3cr3t", "a": "x"}', "same key twice"),
        (b"\xff", "it is not UTF-8"),
    ],
)
def test_a_file_of_no_parameters_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    file = tmp_path / "params.json"
    file.write_bytes(content)
    with pytest.raises(InputError, match=reason) as caught:
        make_parameters(parse(f"--params={file}"))
    assert str(caught.value).startswith(f"--params {file}")
    assert "s3cr3t" not in str(caught.value)


def test_a_parameter_without_a_value_is_refused_unquoted() -> None:
    with pytest.raises(InputError) as caught:
        make_parameters(parse("--param=s3cr3t"))
    assert str(caught.value) == "--param: expected NAME=VALUE"
