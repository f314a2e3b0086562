"""Which address a NIC gets, case by case."""

from dataclasses import dataclass
from typing import Any

import pytest

from snf_ganeti.errors import InputError
from snf_image_helper.protocol import Address, Nic
from snf_image_host.addressing import AddressingSettings, NicConfig, make_nics

MAC = "aa:00:00:12:34:56"
SUBNET6 = "2001:db8:1:2::/64"
EUI64 = "2001:db8:1:2:a800:ff:fe12:3456"  # worked out by hand from RFC 4291, appendix A


@dataclass(frozen=True)
class GivenNic:
    mac: str = MAC
    ip: str = ""
    mode: str = "bridged"
    network_tags: tuple[str, ...] = ()
    network_subnet: str = ""
    network_gateway: str = ""
    network_subnet6: str = ""
    network_gateway6: str = ""


def make_nic(default: NicConfig = "dhcp", **fields: Any) -> Nic:
    settings = AddressingSettings(default_nic_config=default)
    (nic,) = make_nics([GivenNic(**fields)], settings)
    return nic


STATIC = {"ip": "192.0.2.5", "network_subnet": "192.0.2.0/24", "network_gateway": "192.0.2.1"}
IPV6 = {"network_subnet6": SUBNET6, "network_gateway6": "fe80::1"}
CASES: list[tuple[dict[str, Any], Any, Any]] = [
    (STATIC, Address("192.0.2.5", 24, "192.0.2.1"), None),
    ({**STATIC, "network_gateway": ""}, Address("192.0.2.5", 24), None),
    ({**STATIC, "network_tags": ("dhcp",)}, "dhcp", None),
    ({**STATIC, "network_tags": ("nfdhcpd",)}, "dhcp", None),
    ({**STATIC, **IPV6, "network_tags": ("nfdhcpd",)}, "dhcp", "slaac_dhcp"),
    ({**STATIC, "network_tags": ("stateless_dhcpv6",)}, Address("192.0.2.5", 24, "192.0.2.1"),
     "slaac_dhcp"),
    ({**STATIC, **IPV6, "network_tags": ("auto", "dhcpv6")}, "dhcp", "dhcp"),
    ({**STATIC, **IPV6}, Address("192.0.2.5", 24, "192.0.2.1"), Address(EUI64, 64, "fe80::1")),
    ({"network_subnet6": SUBNET6}, None, Address(EUI64, 64)),
    ({**IPV6, "ip": "2001:db8:1:2::7"}, None, Address("2001:db8:1:2::7", 64, "fe80::1")),
    ({"ip": "2001:db8::7", "mode": "routed"}, None, Address("2001:db8::7", 128)),
    ({"ip": "192.0.2.5", "mode": "routed"}, Address("192.0.2.5", 32), None),
    ({"ip": "192.0.2.5", "mode": "routed", "network_gateway": "198.51.100.1"},
     Address("192.0.2.5", 32, "198.51.100.1"), None),
    ({"ip": "192.0.2.5"}, "dhcp", None),
    ({"network_subnet": "192.0.2.0/24"}, None, None),
    ({"mac": MAC.upper()}, "dhcp", None),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "ipv4", "ipv6"), CASES)
def test_what_ganeti_knows_decides(fields: dict[str, Any], ipv4: Any, ipv6: Any) -> None:
    assert make_nic(**fields) == Nic(MAC, ipv4, ipv6)


@pytest.mark.parametrize(
    ("default", "ipv4", "ipv6"),
    [
        ("", None, None),
        ("dhcp", "dhcp", None),
        ("dhcpv6", None, "dhcp"),
        ("slaac", None, "slaac"),
        ("slaac_dhcp", None, "slaac_dhcp"),
        ("dhcp+dhcpv6", "dhcp", "dhcp"),
        ("dhcp+slaac", "dhcp", "slaac"),
        ("dhcp+slaac_dhcp", "dhcp", "slaac_dhcp"),
    ],
)
def test_the_default_is_for_nics_without_a_known_network(
    default: NicConfig, ipv4: Any, ipv6: Any
) -> None:
    assert make_nic(default) == Nic(MAC, ipv4, ipv6)
    assert make_nic(default, **STATIC) == Nic(MAC, Address("192.0.2.5", 24, "192.0.2.1"), None)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"mac": "aa:00:00:12:34"}, "mac"),
        ({"mac": "01:00:5e:00:00:01"}, "mac"),
        ({"mac": MAC + "\n"}, "mac"),
        ({"ip": "192.0.2.500"}, "ip"),
        ({"ip": "fe80::1%eth0", "mode": "routed"}, "ip"),
        ({**STATIC, "ip": "192.0.3.5"}, "ip"),
        ({"ip": "2001:db8:9::1", "network_subnet6": SUBNET6}, "ip"),
        ({**STATIC, "network_subnet": "192.0.2.0/33"}, "network_subnet"),
        ({**STATIC, "network_subnet": "192.0.2.1/24"}, "network_subnet"),
        ({**STATIC, "network_subnet": SUBNET6}, "network_subnet"),
        ({**STATIC, "network_gateway": "fe80::1"}, "network_gateway"),
        ({**IPV6, "network_gateway6": "192.0.2.1"}, "network_gateway6"),
        ({"network_subnet6": "2001:db8::/80"}, "network_subnet6"),
    ],
)
def test_a_bad_value_names_its_nic_and_field(fields: dict[str, Any], field: str) -> None:
    nics = [GivenNic(), GivenNic(**fields)]
    with pytest.raises(InputError, match=rf"^NIC 1: {field} "):
        make_nics(nics, AddressingSettings())


def test_a_long_subnet6_is_fine_where_dhcpv6_serves_it() -> None:
    nic = make_nic(network_subnet6="2001:db8::/80", network_tags=("dhcpv6",))
    assert nic.ipv6 == "dhcp"
