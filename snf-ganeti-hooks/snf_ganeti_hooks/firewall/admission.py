"""What may reach a NIC: the rules of each profile, the same for routed and for bridged NICs.

Whether a packet is a reply is read from its mark: connection tracking is seen by one chain
for all NICs, because on some kernels the place that knows a bridge's ports can't see it.
"""

from collections.abc import Sequence

from snf_ganeti_hooks.firewall.element import Element, Set, make_dropped
from snf_ganeti_hooks.firewall.expression import (
    OIF,
    Rule,
    Statement,
    accept,
    differs,
    drop,
    field,
    goto,
    make_prefixes,
    make_ranges,
    masked,
    match,
    meta,
    one_of,
    with_key,
)
from snf_ganeti_hooks.firewall.guard import IS_REPLY, LINK_LOCAL_PREFIX, RARP
from snf_ganeti_hooks.firewall.profile import Opening, Profile
from snf_ganeti_hooks.firewall.reason import Reason
from snf_ganeti_hooks.nic import Kind, Nic

_DESTINATION, _SOURCE = field("ether", "daddr"), field("ether", "saddr")
_GROUP_BIT = "01:00:00:00:00:00"
_PREFIX_MASK = "ff:ff:ff:00:00:00"
_ALL_ZERO = "00:00:00:00:00:00"
_DISCOVERY = ("nd-router-advert", "nd-neighbor-solicit", "nd-neighbor-advert")
"""Without these there is no IPv6 on a shared link, whatever a profile says of ICMP."""


def make_dispatch(family: str, profiles: Sequence[Profile]) -> list[Rule]:
    """To each NIC's profile; a NIC without one gets nothing. family: `inet` or `bridge`."""
    return [
        *(_make_link() if family == "bridge" else []),
        *(Rule((match(OIF, f"@{name}"), goto(name))) for name in map(name_profile, profiles)),
        drop(match(OIF, "@guests"), reason=Reason.PROFILE),
    ]


def make_admission(family: str, profile: Profile) -> list[Rule]:
    """The rules of a profile; what none of them takes is dropped."""
    if profile.open:
        return [accept()]
    rules = []
    if family == "bridge":
        rules += [accept(match(field("ether", "type"), each)) for each in ("arp", RARP)]
        rules += _make_dhcp()
    rules.append(accept(IS_REPLY))
    if not profile.icmp and family == "bridge":
        rules.append(accept(match(field("icmpv6", "type"), one_of(_DISCOVERY))))
    if profile.icmp:
        rules += [accept(match(meta("l4proto"), each)) for each in ("icmp", "ipv6-icmp")]
    for number, opening in enumerate(profile.openings):
        rules += _make_opening(opening, _name_limit(profile, number, opening))
    return [*rules, drop(reason=Reason.PROFILE)]


def make_admission_sets(family: str, profile: Profile) -> list[Set]:
    limits = [
        Set(
            family,
            _name_limit(profile, number, each),
            statement={"limit": {"rate": each.per_second, "burst": 5, "per": "second"}},
        )
        for number, each in enumerate(profile.openings)
        if each.per_second
    ]
    return [Set(family, name_profile(profile)), *limits]


def make_admission_elements(nic: Nic, profile: Profile) -> list[Element]:
    """A NIC's elements for these rules."""
    family = "inet" if nic.kind is Kind.ROUTED else "bridge"
    reasons = [Reason.PROFILE]
    found = [Element(family, each.name, nic.tap) for each in make_admission_sets(family, profile)]
    if family == "bridge":
        reasons.append(Reason.STATION)
    if nic.kind is Kind.PRIVATE:
        reasons.append(Reason.NETWORK)
        found.append(Element(family, "private", nic.tap))
        found.append(Element(family, "prefixes", nic.tap, f"{nic.mac_prefix}:00:00:00"))
    return [*found, *make_dropped(family, nic.tap, reasons)]


def name_profile(profile: Profile) -> str:
    """Of a profile's chain, and of the set of its NICs."""
    return f"profile-{profile.name}"


def _name_limit(profile: Profile, number: int, opening: Opening) -> str:
    """With its rate, because that of a set that is there can't be changed."""
    return f"limit-{profile.name}-{number}-{opening.per_second}"


def _make_link() -> list[Rule]:
    """Isolation on a bridge: no frame for another station, none from another network."""
    return [
        drop(
            match(masked(_DESTINATION, _GROUP_BIT), _ALL_ZERO),
            differs(with_key(OIF, _DESTINATION), "@macs"),
            reason=Reason.STATION,
        ),
        drop(
            match(OIF, "@private"),
            differs(with_key(OIF, masked(_SOURCE, _PREFIX_MASK)), "@prefixes"),
            reason=Reason.NETWORK,
        ),
    ]


def _make_dhcp() -> list[Rule]:
    """A server's answers: connection tracking can't relate them to what was broadcast."""
    return [
        accept(match(field("udp", "sport"), 67), match(field("udp", "dport"), 68)),
        accept(
            match(field("ip6", "saddr"), LINK_LOCAL_PREFIX),
            match(field("udp", "sport"), 547),
            match(field("udp", "dport"), 546),
        ),
    ]


def _make_opening(opening: Opening, limit: str) -> list[Rule]:
    sources: list[tuple[Statement, ...]] = []
    if opening.sources4:
        found = one_of(make_prefixes(opening.sources4))
        sources.append((match(field("ip", "saddr"), found),))
    if opening.sources6:
        found = one_of(make_prefixes(opening.sources6))
        sources.append((match(field("ip6", "saddr"), found),))
    port, ports = field(opening.protocol, "dport"), make_ranges(opening.ports)
    way = match(port, one_of(ports)) if ports else match(meta("l4proto"), opening.protocol)
    # An element of a set with a limit is found as long as the limit is kept: each NIC's own.
    limited = (match(OIF, f"@{limit}"),) if opening.per_second else ()
    return [accept(*source, way, *limited) for source in sources or [()]]
