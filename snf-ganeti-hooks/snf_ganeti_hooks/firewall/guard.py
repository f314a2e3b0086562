"""What a NIC may send: rules that all NICs of a family share, and each one's elements for them.

They are the first that see a packet from a tap: of routed NICs before it is routed, with a
table of its own for ARP; of bridged ones before the bridge learns from it. They are stateless;
each drop is counted under its NIC and reason.
"""

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address

from snf_ganeti_hooks.firewall.element import Element, make_dropped
from snf_ganeti_hooks.firewall.expression import (
    IIF,
    Expression,
    Rule,
    accept,
    differs,
    drop,
    field,
    goto,
    make_texts,
    masked,
    match,
    meta,
    none_of,
    one_of,
    set_mark,
    with_key,
)
from snf_ganeti_hooks.firewall.reason import Reason
from snf_ganeti_hooks.nic import LINK_LOCAL, Kind, Nic, make_eui64

MARK_GUEST = 0x20000000
"""The packet comes from a guest of this node."""
MARK_REPLY = 0x40000000
"""The packet belongs to a connection that is known, or comes from this node itself."""
MARK_TABLE_SHIFT = 8
MARK_TABLE_MASK = 0x00FFFF00
"""The routing table of a routed guest's packets, which `ip rule` matches once a table."""
IS_REPLY = match(masked(meta("mark"), MARK_REPLY), MARK_REPLY)

RARP = 0x8035
"""EtherType of the announcements that QEMU makes after a migration."""
ETHER_TYPES: tuple[str | int, ...] = ("ip", "arp", "ip6")
LINK_LOCAL_PREFIX = {"prefix": {"addr": "fe80::", "len": 10}}
_DHCP_SERVER, _DHCP_CLIENT = 67, 68
_DHCP6_SERVER = 547
_NOBODY4, _NOBODY6 = str(IPv4Address(0)), str(IPv6Address(0))
_LINK_LOCAL_MASK, _LINK_LOCAL_START = "ffc0::", "fe80::"
_ICMPV6 = field("icmpv6", "type")
_SOURCE4, _SOURCE6 = field("ip", "saddr"), field("ip6", "saddr")
_ROUTER = ("nd-router-advert", "nd-redirect")
_JOINING = (
    "mld-listener-report",
    "nd-router-solicit",
    "nd-neighbor-solicit",
    "mld2-listener-report",
)
_FOREIGN = [Reason.ADVERT.mark, Reason.DETECTION.mark]
_SERVED = (Reason.DHCP, Reason.DHCP6, Reason.ROUTER)
_SENT = (Reason.IPV4, Reason.IPV6, Reason.FRAGMENT, Reason.ADVERT, Reason.DETECTION)
REASONS: Mapping[str, tuple[Reason, ...]] = {
    "arp": (Reason.MAC, Reason.ARP),
    "inet": (Reason.MAC, *_SERVED, *_SENT),
    "bridge": (Reason.MAC, Reason.ETHER_TYPE, Reason.ARP, *_SERVED, *_SENT),
}
"""Why the guard of a family drops."""


def make_guard(family: str) -> list[Rule]:
    """The rules for what comes from NICs. family: `inet`, `bridge` or `arp`."""
    head = [
        # What the rules at the tap itself have seen, see networks.neighbour.
        Rule((match(meta("mark"), one_of(_FOREIGN)), goto("drop"))),
        Rule((set_mark(_make_mark(family)),)),
        drop(_unlisted(field("ether", "saddr"), "macs"), reason=Reason.MAC),
    ]
    if family == "arp":  # whom the kernel answers for it looks up in the mark's routing table
        return [*head[1:], *_make_arp(family)]
    if family == "bridge":
        types = none_of(field("ether", "type"), (*ETHER_TYPES, RARP))
        head += [drop(*types, reason=Reason.ETHER_TYPE), *_make_arp(family)]
    # What the node itself sends to a group it gets again, as if it came by the tap.
    looped = [accept(IS_REPLY)] if family == "inet" else []
    return [
        *looped,
        *head,
        drop(match(field("udp", "sport"), _DHCP_SERVER), reason=Reason.DHCP),
        drop(match(field("udp", "sport"), _DHCP6_SERVER), reason=Reason.DHCP6),
        drop(match(_ICMPV6, one_of(_ROUTER)), reason=Reason.ROUTER),
        *_make_ipv4(family),
        *_make_ipv6(family),
    ]


def make_guard_elements(nic: Nic, table: int = 0) -> list[Element]:
    """A NIC's elements for these rules. table: a routed NIC's."""
    if nic.kind is Kind.ROUTED:
        mark = MARK_GUEST | table << MARK_TABLE_SHIFT
        return [
            element
            for family in ("inet", "arp")
            for element in (
                Element(family, "marks", nic.tap, value=mark),
                *_make_sources(family, nic),
            )
        ]
    return _make_sources("bridge", nic)


def _make_mark(family: str) -> Expression:
    if family == "bridge":
        return {"|": [meta("mark"), MARK_GUEST]}
    return {"map": {"key": IIF, "data": "@marks"}}


def _make_arp(family: str) -> list[Rule]:
    free = [accept(match(field("ether", "type"), "arp"), match(IIF, "@free4"))]
    return [
        drop(_unlisted(field("arp", "saddr ether"), "macs"), reason=Reason.ARP),
        *(free if family == "bridge" else []),
        # A client that probes whether its address is free asks as 0.0.0.0 (RFC 5227).
        drop(_unlisted(field("arp", "saddr ip"), "sources4"), reason=Reason.ARP),
    ]


def _make_ipv4(family: str) -> list[Rule]:
    free = [accept(match(meta("protocol"), "ip"), match(IIF, "@free4"))]
    return [
        *(free if family == "bridge" else []),
        accept(
            match(_SOURCE4, _NOBODY4),
            match(field("udp", "sport"), _DHCP_CLIENT),
            match(field("udp", "dport"), _DHCP_SERVER),
            _listed(_SOURCE4, "sources4"),
        ),
        drop(match(_SOURCE4, _NOBODY4), reason=Reason.IPV4),
        drop(_unlisted(_SOURCE4, "sources4"), reason=Reason.IPV4),
    ]


def _make_ipv6(family: str) -> list[Rule]:
    free = [accept(match(meta("protocol"), "ip6"), match(IIF, "@free6"))]
    # On a link of its own a guest may call itself what it likes there; among others it is
    # bound to the address made from its MAC, so that it can't speak for their router.
    own_link = [accept(_listed(masked(_SOURCE6, _LINK_LOCAL_MASK), "sources6"))]
    return [
        *(free if family == "bridge" else []),
        # Neighbour discovery is never fragmented (RFC 6980); in pieces it would pass unseen.
        drop(
            match(_SOURCE6, LINK_LOCAL_PREFIX),
            match({"exthdr": {"name": "frag"}}, True),
            reason=Reason.FRAGMENT,
        ),
        accept(
            match(_SOURCE6, _NOBODY6),
            match(_ICMPV6, one_of(_JOINING)),
            _listed(_SOURCE6, "sources6"),
        ),
        drop(match(_SOURCE6, _NOBODY6), reason=Reason.IPV6),
        *(own_link if family == "inet" else []),
        drop(_unlisted(_SOURCE6, "sources6"), reason=Reason.IPV6),
    ]


def _listed(key: Expression, name: str) -> dict[str, object]:
    return match(with_key(IIF, key), f"@{name}")


def _unlisted(key: Expression, name: str) -> dict[str, object]:
    return differs(with_key(IIF, key), f"@{name}")


def _make_sources(family: str, nic: Nic) -> list[Element]:
    found = [
        Element(family, "guests", nic.tap),
        Element(family, "macs", nic.tap, nic.mac),
        *make_dropped(family, nic.tap, REASONS[family]),
    ]
    sources = {"4": _find_sources4(nic), "6": _find_sources6(nic) if family != "arp" else ()}
    for version, addresses in sources.items():
        if addresses is None:
            found.append(Element(family, f"free{version}", nic.tap))
        else:
            found += [Element(family, f"sources{version}", nic.tap, each) for each in addresses]
    return found


def _find_sources4(nic: Nic) -> tuple[str, ...] | None:
    """What a NIC may send from; None: anything."""
    if nic.addresses4 is None:
        return None
    return (_NOBODY4, *make_texts(nic.addresses4)) if nic.addresses4 else ()


def _find_sources6(nic: Nic) -> tuple[str, ...] | None:
    """As _find_sources4; `fe80::` stands for every link-local address."""
    if nic.addresses6 is None:
        return None
    if not nic.addresses6:
        return ()
    routed = nic.kind is Kind.ROUTED
    local = _LINK_LOCAL_START if routed else str(make_eui64(LINK_LOCAL, nic.mac))
    return (_NOBODY6, local, *make_texts(nic.addresses6))
