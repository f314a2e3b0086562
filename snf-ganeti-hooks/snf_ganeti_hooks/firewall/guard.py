"""What a NIC may send: the rules at the tap itself, before anything else sees a packet.

They hang on the netdev family's ingress hook of the tap, so that ARP, IPv4 and IPv6, routed
and bridged, pass one place, and a packet costs the same however many NICs a node has. They
are stateless; each drop is counted under its reason.
"""

from ipaddress import IPv4Address

from snf_ganeti_hooks.firewall.expression import (
    Rule,
    accept,
    differs,
    drop,
    field,
    make_hex,
    make_texts,
    masked,
    match,
    meta,
    none_of,
    raw,
    set_mark,
)
from snf_ganeti_hooks.nic import LINK_LOCAL, Kind, Nic, make_eui64

MARK_GUEST = 0x20000000
"""The packet comes from a guest of this node."""
MARK_REPLY = 0x40000000
"""The packet belongs to a connection that is known, or comes from this node itself."""
MARK_TABLE_SHIFT = 8
MARK_TABLE_MASK = 0x00FFFF00
"""The routing table of a routed guest's packets, which `ip rule` matches once a table."""

RARP = 0x8035
"""EtherType of the announcements that QEMU makes after a migration."""
_DHCP_SERVER, _DHCP_CLIENT = 67, 68
_DHCP6_SERVER = 547
_ND_TARGET = raw("th", 64, 128)
_ND_TARGET_START = masked(raw("th", 64, 16), 0xFFC0)  # the ten bits of fe80::/10
_LINK_LOCAL_START = 0xFE80
_LINK_LOCAL_PREFIX = {"prefix": {"addr": "fe80::", "len": 10}}
_ICMPV6 = field("icmpv6", "type")
_SOLICIT = match(_ICMPV6, "nd-neighbor-solicit")
_ADVERT = match(_ICMPV6, "nd-neighbor-advert")
_ROUTER = ("nd-router-advert", "nd-redirect")
_UNSPECIFIED = match(field("ip6", "saddr"), "::")
_JOINING = (
    "mld-listener-report",
    "nd-router-solicit",
    "nd-neighbor-solicit",
    "mld2-listener-report",
)


def make_guard(nic: Nic, table: int = 0) -> list[Rule]:
    """The rules for what comes from a NIC. table: a routed NIC's."""
    mark = MARK_GUEST | table << MARK_TABLE_SHIFT
    types: list[str | int] = ["ip", "arp", "ip6"]
    if nic.kind is not Kind.ROUTED:
        types.insert(2, RARP)
    return [
        Rule((set_mark(mark),)),
        drop(differs(field("ether", "saddr"), nic.mac), reason="source MAC"),
        drop(*none_of(field("ether", "type"), types), reason="EtherType"),
        *_make_arp(nic),
        drop(match(field("udp", "sport"), _DHCP_SERVER), reason="DHCP server"),
        drop(match(field("udp", "sport"), _DHCP6_SERVER), reason="DHCPv6 server"),
        *(drop(match(_ICMPV6, each), reason="router advertisement") for each in _ROUTER),
        *_make_ipv4(nic),
        *_make_ipv6(nic),
    ]


def _make_arp(nic: Nic) -> list[Rule]:
    rules = [drop(differs(field("arp", "saddr ether"), nic.mac), reason="ARP")]
    if nic.addresses4 is not None:
        # A client that probes whether its address is free asks as 0.0.0.0 (RFC 5227).
        known = make_texts((IPv4Address(0), *nic.addresses4))
        rules.append(drop(*none_of(field("arp", "saddr ip"), known), reason="ARP"))
    return rules


def _make_ipv4(nic: Nic) -> list[Rule]:
    if nic.addresses4 is None:
        return []
    if not nic.addresses4:
        return [drop(match(meta("protocol"), "ip"), reason="IPv4")]
    return [
        accept(
            match(field("ip", "saddr"), str(IPv4Address(0))),
            match(field("udp", "sport"), _DHCP_CLIENT),
            match(field("udp", "dport"), _DHCP_SERVER),
        ),
        drop(*none_of(field("ip", "saddr"), make_texts(nic.addresses4)), reason="source IPv4"),
    ]


def _make_ipv6(nic: Nic) -> list[Rule]:
    if nic.addresses6 is None:
        return []
    if not nic.addresses6:
        return [drop(match(meta("protocol"), "ip6"), reason="IPv6")]
    # On a link of its own a guest may call itself what it likes there; among others it is
    # bound to the address made from its MAC, so that it can't speak for their router.
    shared = nic.kind is not Kind.ROUTED
    own = (*nic.addresses6, *((make_eui64(LINK_LOCAL, nic.mac),) if shared else ()))
    sources = [*make_texts(own), *([] if shared else [_LINK_LOCAL_PREFIX])]
    foreign = none_of(_ND_TARGET, make_hex(own))
    elsewhere = [] if shared else [differs(_ND_TARGET_START, _LINK_LOCAL_START)]
    return [
        # Neighbour discovery is never fragmented (RFC 6980); in pieces it would pass unseen.
        drop(
            match(field("ip6", "saddr"), _LINK_LOCAL_PREFIX),
            match({"exthdr": {"name": "frag"}}, True),
            reason="fragment",
        ),
        drop(_ADVERT, *elsewhere, *foreign, reason="neighbour advertisement"),
        drop(_UNSPECIFIED, _SOLICIT, *elsewhere, *foreign, reason="duplicate address detection"),
        *(accept(_UNSPECIFIED, match(_ICMPV6, each)) for each in _JOINING),
        drop(*none_of(field("ip6", "saddr"), sources), reason="source IPv6"),
    ]
