"""What Ganeti says of a NIC, understood or refused."""

import re
from ipaddress import ip_address

import pytest

from snf_ganeti.errors import InputError
from snf_ganeti_hooks.environ import is_ours
from snf_ganeti_hooks.nic import Kind
from unit.snf_ganeti_hooks.nics import BRIDGED, PRIVATE, ROUTED, make_nic

EUI64 = ip_address("2001:db8:1:0:a800:1ff:fe00:7")
LONG = "n" * 300


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ({"MODE": "tunnel"}, "MODE is 'tunnel', and not bridged, routed, openvswitch"),
        ({"INSTANCE": ""}, "INSTANCE is not set; Ganeti runs this script, not people"),
        ({"INTERFACE": "../tap0"}, "INTERFACE is '../tap0', and not the name of an interface"),
        ({"INTERFACE": LONG}, "and not the name of an interface"),
        ({"INTERFACE": ".."}, "INTERFACE is '..'"),
        ({"INTERFACE_INDEX": "-1"}, "INTERFACE_INDEX is '-1', and not a number"),
        ({"MAC": "aa:00:01:00:00"}, "MAC is 'aa:00:01:00:00', and not the address of a NIC"),
        ({"MAC": "01:00:5e:00:00:01"}, "and not the address of a NIC"),
        ({"IP": "198.51.100.256"}, "IP '198.51.100.256' is refused"),
        ({"IP": "fe80::1%eth0"}, "IP 'fe80::1%eth0' is refused: a scope is not allowed"),
        ({"IP": "192.0.2.1"}, "NIC 0 of web1.example.org: 192.0.2.1 is outside 198.51.100.0/24"),
        ({"NETWORK_SUBNET": "198.51.100.7/24"}, "has host bits set"),
        ({"NETWORK_SUBNET6": "2001:db8::/80"}, "no room for an address made from a MAC"),
        ({"NETWORK_GATEWAY": "gateway"}, "NETWORK_GATEWAY 'gateway' is refused"),
        ({"NETWORK_MAC_PREFIX": "aa:00"}, "NETWORK_MAC_PREFIX is 'aa:00', and not three octets"),
        ({"LINK": "a b"}, "LINK is 'a b', and not a routing table"),
        ({"IP": "", "NETWORK_NAME": ""}, "is routed, and has no address to route"),
    ],
)
def test_what_can_not_be_meant_is_refused(words: dict[str, str], reason: str) -> None:
    with pytest.raises(InputError, match=re.escape(reason)) as refused:
        make_nic(ROUTED, **words)
    assert len(str(refused.value)) < 250


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ({"LINK": ""}, "is bridged, and LINK names no bridge"),
        ({"LINK": "br0; reboot"}, "and not the name of a bridge"),
        ({"MAC": "aa:00:02:00:00:07"}, "is outside the private network's prefix aa:00:01"),
        ({"VLAN": ":10:20"}, "not an access VLAN; a trunk needs openvswitch"),
        ({"VLAN": "4095"}, "VLAN is '4095', and not an access VLAN"),
    ],
)
def test_bridged_nics_that_can_not_be_meant(words: dict[str, str], reason: str) -> None:
    with pytest.raises(InputError, match=re.escape(reason)):
        make_nic(PRIVATE, **words)


def test_kinds_and_addresses() -> None:
    routed = make_nic(ROUTED)
    assert routed.kind is Kind.ROUTED
    assert routed.addresses4 == (ip_address("198.51.100.7"),)
    assert routed.addresses6 == (EUI64,)
    assert make_nic(PRIVATE).kind is Kind.PRIVATE
    assert make_nic(BRIDGED, VLAN=".10").vlan == 10


@pytest.mark.parametrize(
    ("words", "ipv4", "ipv6"),
    [
        # A family that the network does not declare was not promised.
        ({"NETWORK_SUBNET6": "", "NETWORK_GATEWAY6": ""}, ("198.51.100.7",), ()),
        ({"IP": ""}, (), (str(EUI64),)),
        ({"IP": "2001:db8:1::5"}, (), ("2001:db8:1::5", str(EUI64))),
        ({"IP": str(EUI64)}, (), (str(EUI64),)),
        # A network without subnets leaves addresses to its users.
        ({"IP": "", "NETWORK_SUBNET": "", "NETWORK_SUBNET6": ""}, None, None),
        # Without a network an address is a note of one family.
        ({"NETWORK_NAME": ""}, ("198.51.100.7",), None),
    ],
)
def test_addresses_of_bridged_nics(
    words: dict[str, str], ipv4: tuple[str, ...] | None, ipv6: tuple[str, ...] | None
) -> None:
    nic = make_nic(BRIDGED, **words)
    assert (None if nic.addresses4 is None else tuple(map(str, nic.addresses4))) == ipv4
    assert (None if nic.addresses6 is None else tuple(map(str, nic.addresses6))) == ipv6


def test_what_ganeti_sets_up_itself() -> None:
    assert is_ours(ROUTED)
    assert not is_ours({**ROUTED, "MODE": "openvswitch"})
    assert not is_ours({**ROUTED, "INTERFACE": "gnt.com.0"})
