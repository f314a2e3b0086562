"""What may reach a NIC: the rules of its profile, the same for routed and for bridged NICs.

Whether a packet is a reply is read from its mark: connection tracking is seen by one chain
for all NICs, because on some kernels the place that knows a bridge's ports can't see it.
"""

from collections.abc import Iterable
from typing import Any

from snf_ganeti_hooks.firewall.expression import (
    Expression,
    Rule,
    Statement,
    accept,
    differs,
    drop,
    field,
    make_prefixes,
    make_ranges,
    masked,
    match,
    meta,
    one_of,
)
from snf_ganeti_hooks.firewall.guard import MARK_REPLY, RARP
from snf_ganeti_hooks.firewall.profile import Opening, Profile
from snf_ganeti_hooks.nic import Kind, Nic

_REPLY = match(masked(meta("mark"), MARK_REPLY), MARK_REPLY)
_GROUP_BIT = "01:00:00:00:00:00"
_PREFIX_MASK = "ff:ff:ff:00:00:00"
_ALL_ZERO = "00:00:00:00:00:00"
_DISCOVERY = ("nd-router-advert", "nd-neighbor-solicit", "nd-neighbor-advert")
"""Without these there is no IPv6 on a shared link, whatever a profile says of ICMP."""


def make_admission(nic: Nic, profile: Profile) -> list[Rule]:
    """The rules for what goes to a NIC; what none of them takes is dropped."""
    rules = [] if nic.kind is Kind.ROUTED else _make_link(nic)
    if profile.open:
        return [*rules, accept()]
    if nic.kind is not Kind.ROUTED:
        rules += [
            *_accept_each(field("ether", "type"), ("arp", RARP)),
            *_make_dhcp(),
        ]
    rules.append(accept(_REPLY))
    if not profile.icmp and nic.kind is not Kind.ROUTED:
        rules += _accept_each(field("icmpv6", "type"), _DISCOVERY)
    if profile.icmp:
        rules += _accept_each(meta("l4proto"), ("icmp", "ipv6-icmp"))
    for opening in profile.openings:
        rules += _make_opening(opening)
    return [*rules, drop(reason=f"profile {profile.name}")]


def _accept_each(left: Expression, values: Iterable[Any]) -> list[Rule]:
    """See expression.none_of for why this is no set."""
    return [accept(match(left, value)) for value in values]


def _make_link(nic: Nic) -> list[Rule]:
    """Isolation on a bridge: no frame for another station, none from another network."""
    rules = [
        drop(
            match(masked(field("ether", "daddr"), _GROUP_BIT), _ALL_ZERO),
            differs(field("ether", "daddr"), nic.mac),
            reason="other station",
        )
    ]
    if nic.kind is Kind.PRIVATE:
        prefix = f"{nic.mac_prefix}:00:00:00"
        outside = differs(masked(field("ether", "saddr"), _PREFIX_MASK), prefix)
        rules.append(drop(outside, reason="other network"))
    return rules


def _make_dhcp() -> list[Rule]:
    """A server's answers: connection tracking can't relate them to what was broadcast."""
    return [
        accept(match(field("udp", "sport"), 67), match(field("udp", "dport"), 68)),
        accept(
            match(field("ip6", "saddr"), {"prefix": {"addr": "fe80::", "len": 10}}),
            match(field("udp", "sport"), 547),
            match(field("udp", "dport"), 546),
        ),
    ]


def _make_opening(opening: Opening) -> list[Rule]:
    sources: list[tuple[Statement, ...]] = []
    if opening.sources4:
        found = one_of(make_prefixes(opening.sources4))
        sources.append((match(field("ip", "saddr"), found),))
    if opening.sources6:
        found = one_of(make_prefixes(opening.sources6))
        sources.append((match(field("ip6", "saddr"), found),))
    port, ports = field(opening.protocol, "dport"), make_ranges(opening.ports)
    limit: tuple[Statement, ...] = ()
    if opening.per_second:
        limit = ({"limit": {"rate": opening.per_second, "burst": 5, "per": "second"}},)
        ports = [one_of(ports)] if ports else []  # one limit for all of them
    ways = [match(port, each) for each in ports] or [match(meta("l4proto"), opening.protocol)]
    return [accept(*source, way, *limit) for source in sources or [()] for way in ways]
