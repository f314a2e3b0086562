"""Which address each NIC gets, decided from what Ganeti knows of its network.

    a tag of `dhcp_tags`             IPv4 by DHCP
    an IPv4 `ip` and a subnet        that address, the network's gateway
    an IPv4 `ip`, routed, no subnet  that address alone (/32)
    a tag of `stateful_…_tags`       IPv6 by DHCPv6
    a tag of `stateless_…_tags`      IPv6 by router advertisements and stateless DHCPv6
    an IPv6 `ip`                     that address, in subnet6 or alone (/128)
    a subnet6 and no tag             the address made of subnet6 and the MAC (EUI-64): what
                                     the NIC scripts let pass and what SLAAC would give,
                                     without waiting for a router that may not be there
    nothing at all                   `default_nic_config`

The families are independent. One tag may stand for both (`nfdhcpd`): it says that whatever
the network has is served, so for IPv6 it counts only where there is a subnet6.
"""

import ipaddress
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Literal, Protocol, TypeVar

from snf_ganeti.errors import InputError
from snf_image_helper.protocol import Address, Nic

NicConfig = Literal[
    "", "dhcp", "dhcpv6", "slaac", "slaac_dhcp", "dhcp+dhcpv6", "dhcp+slaac", "dhcp+slaac_dhcp"
]
_Value = TypeVar("_Value")
_Ipv4 = Address | Literal["dhcp"] | None
_Ipv6 = Address | Literal["dhcp", "slaac", "slaac_dhcp"] | None

_MAC = re.compile(r"([0-9a-f]{2}:){5}[0-9a-f]{2}")
_IPV6_WORDS: dict[str, Literal["dhcp", "slaac", "slaac_dhcp"]] = {
    "dhcpv6": "dhcp",
    "slaac": "slaac",
    "slaac_dhcp": "slaac_dhcp",
}


@dataclass(frozen=True)
class AddressingSettings:
    """The site's tags of networks, and what a NIC gets of which Ganeti knows no address."""

    dhcp_tags: tuple[str, ...] = ("auto", "dhcp", "nfdhcpd")
    stateful_dhcpv6_tags: tuple[str, ...] = ("dhcpv6", "stateful_dhcpv6")
    stateless_dhcpv6_tags: tuple[str, ...] = ("nfdhcpd", "stateless_dhcpv6")
    default_nic_config: NicConfig = "dhcp"


class GanetiNic(Protocol):
    """What is read here of a NIC as Ganeti describes it; a field is empty when absent."""

    @property
    def mac(self) -> str: ...
    @property
    def ip(self) -> str: ...
    @property
    def mode(self) -> str: ...
    @property
    def network_tags(self) -> tuple[str, ...]: ...
    @property
    def network_subnet(self) -> str: ...
    @property
    def network_gateway(self) -> str: ...
    @property
    def network_subnet6(self) -> str: ...
    @property
    def network_gateway6(self) -> str: ...


@dataclass(frozen=True)
class _Facts:
    """A NIC of Ganeti, parsed."""

    index: int
    mac: str
    ip: IPv4Address | IPv6Address | None
    routed: bool
    tags: frozenset[str]
    subnet: IPv4Network | None
    gateway: IPv4Address | None
    subnet6: IPv6Network | None
    gateway6: IPv6Address | None


def make_nics(nics: Sequence[GanetiNic], settings: AddressingSettings) -> tuple[Nic, ...]:
    """What the guest shall configure, NIC by NIC.

    Raises InputError: a malformed value, an address outside its subnet, a subnet6 that
    leaves no room for an EUI-64.
    """
    return tuple(_make_nic(_parse(index, nic), settings) for index, nic in enumerate(nics))


def _make_nic(facts: _Facts, settings: AddressingSettings) -> Nic:
    ipv4 = _choose_ipv4(facts, settings)
    ipv6 = _choose_ipv6(facts, settings)
    unknown = facts.subnet is None and facts.subnet6 is None
    if ipv4 is None and ipv6 is None and unknown:
        words = settings.default_nic_config.split("+")
        ipv4 = "dhcp" if "dhcp" in words else None
        ipv6 = next((_IPV6_WORDS[word] for word in words if word in _IPV6_WORDS), None)
    return Nic(facts.mac, ipv4, ipv6)


def _choose_ipv4(facts: _Facts, settings: AddressingSettings) -> _Ipv4:
    if facts.tags & set(settings.dhcp_tags):
        return "dhcp"
    if not isinstance(facts.ip, IPv4Address) or not (facts.subnet or facts.routed):
        return None  # a bridged NIC's address is of no use without its netmask
    return _make_address(facts.ip, facts.subnet, facts.gateway)


def _choose_ipv6(facts: _Facts, settings: AddressingSettings) -> _Ipv6:
    tags = facts.tags
    if facts.subnet6 is None:
        tags -= set(settings.dhcp_tags)
    if tags & set(settings.stateful_dhcpv6_tags):
        return "dhcp"
    if tags & set(settings.stateless_dhcpv6_tags):
        return "slaac_dhcp"
    if isinstance(facts.ip, IPv6Address):
        return _make_address(facts.ip, facts.subnet6, facts.gateway6)
    if facts.subnet6 is None:
        return None
    if facts.subnet6.prefixlen > 64:
        raise InputError(
            f"NIC {facts.index}: network_subnet6 {facts.subnet6} has no room for an address"
            " made from the MAC",
            hint="use a /64, or tag the network for DHCPv6",
        )
    return _make_address(make_eui64(facts.subnet6, facts.mac), facts.subnet6, facts.gateway6)


def make_eui64(subnet: IPv6Network, mac: str) -> IPv6Address:
    """The address of a MAC in a subnet of /64 or larger (RFC 4291, appendix A)."""
    octets = bytes.fromhex(mac.replace(":", ""))
    identifier = bytes((octets[0] ^ 0x02, *octets[1:3], 0xFF, 0xFE, *octets[3:]))
    return subnet[int.from_bytes(identifier, "big")]


def _make_address(
    ip: IPv4Address | IPv6Address,
    subnet: IPv4Network | IPv6Network | None,
    gateway: IPv4Address | IPv6Address | None,
) -> Address:
    prefix = subnet.prefixlen if subnet else ip.max_prefixlen
    return Address(str(ip), prefix, str(gateway or ""))


def _parse(index: int, nic: GanetiNic) -> _Facts:
    mac = nic.mac.lower()
    if not _MAC.fullmatch(mac) or int(mac[1], 16) & 1:
        raise InputError(f"NIC {index}: mac {nic.mac!r} is not the address of a NIC")
    facts = _Facts(
        index=index,
        mac=mac,
        ip=_parse_field(index, "ip", nic.ip, ipaddress.ip_address),
        routed=nic.mode == "routed",
        tags=frozenset(nic.network_tags),
        subnet=_parse_field(index, "network_subnet", nic.network_subnet, IPv4Network),
        gateway=_parse_field(index, "network_gateway", nic.network_gateway, IPv4Address),
        subnet6=_parse_field(index, "network_subnet6", nic.network_subnet6, IPv6Network),
        gateway6=_parse_field(index, "network_gateway6", nic.network_gateway6, IPv6Address),
    )
    own = facts.subnet if isinstance(facts.ip, IPv4Address) else facts.subnet6
    if facts.ip is not None and own is not None and facts.ip not in own:
        raise InputError(f"NIC {index}: ip {facts.ip} is outside its network's subnet {own}")
    return facts


def _parse_field(index: int, name: str, text: str, kind: Callable[[str], _Value]) -> _Value | None:
    """A value, or None when it is empty; a scope (`fe80::1%eth0`) is no part of an address."""
    try:
        if "%" in text:
            raise ValueError("a scope is not allowed")
        return kind(text) if text else None
    except ValueError as error:
        raise InputError(f"NIC {index}: {name} {text!r} is refused: {error}") from None
