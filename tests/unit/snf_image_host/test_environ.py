"""The environment of an OS script, as a Ganeti 3.1 gave it, and what is refused of it."""

import pytest

from snf_ganeti.errors import SnfError
from snf_image_host.addressing import AddressingSettings, make_nics
from snf_image_host.environ import (
    Disk,
    Instance,
    Nic,
    Transfer,
    parse_instance,
    parse_raw_parameters,
    parse_transfer,
    parse_variant,
)

ENVIRONMENT = {
    "DEBUG_LEVEL": "0",
    "DISK_0_ACCESS": "rw",
    "DISK_0_BACKEND_TYPE": "file:loop",
    "DISK_0_FRONTEND_TYPE": "paravirtual",
    "DISK_0_PATH": "/srv/ganeti/file-storage/web/disk0",
    "DISK_0_SIZE": "5120",
    "DISK_0_UUID": "d0",
    "DISK_1_ACCESS": "ro",
    "DISK_1_NAME": "data",
    "DISK_1_SIZE": "128",
    "DISK_1_URI": "rbd:rbd/data",
    "DISK_1_UUID": "d1",
    "DISK_COUNT": "2",
    "HYPERVISOR": "kvm",
    "INSTANCE_BE_vcpus": "1",
    "INSTANCE_HV_disk_type": "paravirtual",
    "INSTANCE_HV_kernel_path": "",
    "INSTANCE_NAME": "web.example.org",
    "INSTANCE_OS": "snf-image+default",
    "INSTANCE_PRIMARY_NODE": "node1.example.org",
    "INSTANCE_UUID": "i0",
    "NIC_0_BRIDGE": "br0",
    "NIC_0_FRONTEND_TYPE": "paravirtual",
    "NIC_0_IP": "192.0.2.5",
    "NIC_0_LINK": "br0",
    "NIC_0_MAC": "aa:00:00:00:00:01",
    "NIC_0_MODE": "bridged",
    "NIC_0_NETWORK_GATEWAY": "192.0.2.1",
    "NIC_0_NETWORK_GATEWAY6": "fe80::1",
    "NIC_0_NETWORK_MAC_PREFIX": "aa:00:01",
    "NIC_0_NETWORK_NAME": "public",
    "NIC_0_NETWORK_SUBNET": "192.0.2.0/24",
    "NIC_0_NETWORK_SUBNET6": "2001:db8::/64",
    "NIC_0_NETWORK_TAGS": "nfdhcpd dns",
    "NIC_0_NETWORK_UUID": "n0",
    "NIC_0_NAME": "front",
    "NIC_0_UUID": "c0",
    "NIC_1_MAC": "aa:00:00:00:00:02",
    "NIC_1_MODE": "routed",
    "NIC_COUNT": "2",
    "OSP_IMG_FORMAT": "diskdump",
    "OSP_IMG_ID": "debian",
    "OSP_IMG_PASSWD": "s3cr3t",
    "OS_API_VERSION": "20",
    "OS_NAME": "snf-image",
    "OS_VARIANT": "default",
    "PATH": "/sbin:/bin:/usr/sbin:/usr/bin",
}


def parse_without(name: str) -> Instance:
    return parse_instance({key: value for key, value in ENVIRONMENT.items() if key != name})


def test_an_instance_has_all_that_ganeti_says() -> None:
    assert parse_instance(ENVIRONMENT) == Instance(
        name="web.example.org",
        uuid="i0",
        os="snf-image+default",
        variant="default",
        hypervisor="kvm",
        disks=(
            Disk(0, 5 << 30, "rw", "/srv/ganeti/file-storage/web/disk0", "", "d0", "",
                 "paravirtual", "file:loop"),
            Disk(1, 128 << 20, "ro", "", "rbd:rbd/data", "d1", "data"),
        ),
        nics=(
            Nic(
                index=0, mac="aa:00:00:00:00:01", mode="bridged", ip="192.0.2.5", link="br0",
                bridge="br0", name="front", uuid="c0", network_name="public", network_uuid="n0",
                network_tags=("nfdhcpd", "dns"), network_subnet="192.0.2.0/24",
                network_gateway="192.0.2.1", network_subnet6="2001:db8::/64",
                network_gateway6="fe80::1", network_mac_prefix="aa:00:01",
            ),
            Nic(1, "aa:00:00:00:00:02", "routed"),
        ),
        hv={"disk_type": "paravirtual", "kernel_path": ""},
    )  # fmt: skip


def test_parameters_are_apart_from_the_instance() -> None:
    assert parse_raw_parameters(ENVIRONMENT) == {
        "img_format": "diskdump", "img_id": "debian", "img_passwd": "s3cr3t"
    }  # fmt: skip
    assert parse_variant(ENVIRONMENT) == "default"
    assert "s3cr3t" not in repr(parse_instance(ENVIRONMENT))


def test_nics_are_what_addressing_takes() -> None:
    made = make_nics(parse_instance(ENVIRONMENT).nics, AddressingSettings())
    assert [(nic.mac[-1], nic.ipv4) for nic in made] == [("1", "dhcp"), ("2", "dhcp")]


def test_reinstallation_rename_and_debugging_are_told() -> None:
    more = {"INSTANCE_REINSTALL": "1", "OLD_INSTANCE_NAME": "old", "DEBUG_LEVEL": "2"}
    found = parse_instance({**ENVIRONMENT, **more})
    assert (found.reinstall, found.old_name, found.debug_level) == (True, "old", 2)


def test_an_instance_may_have_no_disk_and_no_nic() -> None:
    found = parse_instance({**ENVIRONMENT, "DISK_COUNT": "0", "NIC_COUNT": "0"})
    assert (found.disks, found.nics) == ((), ())


@pytest.mark.parametrize(
    "name",
    ["INSTANCE_NAME", "HYPERVISOR", "DISK_COUNT", "NIC_COUNT", "DISK_1_SIZE", "NIC_1_MAC",
     "NIC_1_MODE", "OS_API_VERSION"],
)  # fmt: skip
def test_what_is_missing_is_named(name: str) -> None:
    with pytest.raises(SnfError, match=rf"^{name} is not set"):
        parse_without(name)


def test_a_disk_is_somewhere() -> None:
    with pytest.raises(SnfError, match="neither DISK_1_PATH nor DISK_1_URI is set"):
        parse_without("DISK_1_URI")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DISK_COUNT", "two"), ("DISK_COUNT", "-1"), ("DISK_COUNT", "1000000"),
        ("NIC_COUNT", "1\n"), ("NIC_COUNT", "²"), ("DISK_0_SIZE", "5G"), ("DISK_0_SIZE", "1.5"),
        ("DISK_0_ACCESS", "w"), ("DEBUG_LEVEL", "x"), ("OS_API_VERSION", "15"),
    ],
)  # fmt: skip
def test_what_is_malformed_is_named_with_its_value(name: str, value: str) -> None:
    with pytest.raises(SnfError) as caught:
        parse_instance({**ENVIRONMENT, name: value})
    assert str(caught.value).startswith(f"{name} is {value!r}, and ")


def test_an_export_has_a_descriptor_for_the_size() -> None:
    given = {
        "EXPORT_DEVICE": "/dev/x", "EXPORT_DISK_PATH": "/dev/x", "EXPORT_DISK_URI": "rbd:rbd/x",
        "EXPORT_INDEX": "1", "EXP_SIZE_FD": "7",
    }  # fmt: skip
    assert parse_transfer(given, "export") == Transfer(1, "/dev/x", "/dev/x", "rbd:rbd/x", 7)
    del given["EXP_SIZE_FD"]
    assert parse_transfer(given, "export").size_fd is None


def test_an_import_says_nothing_about_the_size() -> None:
    given = {"IMPORT_DISK_URI": "rbd:rbd/x", "IMPORT_INDEX": "0", "EXP_SIZE_FD": "7"}
    assert parse_transfer(given, "import") == Transfer(0, uri="rbd:rbd/x")


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"EXPORT_DEVICE": "/dev/x"}, "^EXPORT_INDEX is not set"),
        ({"EXPORT_INDEX": "0"}, "none of EXPORT_DEVICE, EXPORT_DISK_PATH and EXPORT_DISK_URI"),
        ({"EXPORT_INDEX": "0", "EXPORT_DEVICE": "x", "EXP_SIZE_FD": "x"}, "^EXP_SIZE_FD is 'x'"),
        ({"IMPORT_INDEX": "0", "IMPORT_DEVICE": "/dev/x"}, "^EXPORT_INDEX is not set"),
    ],
)
def test_a_transfer_needs_its_disk(given: dict[str, str], reason: str) -> None:
    with pytest.raises(SnfError, match=reason):
        parse_transfer(given, "export")
