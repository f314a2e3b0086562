"""The chains and sets that all NICs share.

inet, bridge, arp  guard          what NICs may send, see guard
inet, bridge       profile-NAME   what may reach NICs that have it, see admission
all families       drop           counts a NIC's packet under its reason, and drops it
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from snf_ganeti_hooks.firewall.admission import (
    make_admission,
    make_admission_sets,
    make_dispatch,
    name_profile,
)
from snf_ganeti_hooks.firewall.chain import FAMILIES, Chain
from snf_ganeti_hooks.firewall.element import ZONES, Set
from snf_ganeti_hooks.firewall.expression import (
    DROP,
    IIF,
    OIF,
    Rule,
    Statement,
    accept,
    field,
    goto,
    match,
    meta,
    set_mark,
    with_key,
)
from snf_ganeti_hooks.firewall.guard import MARK_GUEST, MARK_REPLY, make_guard
from snf_ganeti_hooks.firewall.profile import Profile

Tracker = Literal["bridge", "br_netfilter"]
"""What tracks bridged connections: the bridge itself, or IP's tracking shown bridged packets."""

SERVICE_PORT = "snp-"
"""Start of the names of bridge ports behind which this node serves addresses."""
SERVICE = "snf-"
"""Start of the names of interfaces on which it does so."""

_FIRST, _RAW, _MANGLE, _FILTER, _BRIDGE_FILTER = -310, -300, -150, 0, -200
_KNOWN = match({"ct": {"key": "state"}}, {"set": ["established", "related"]})
_MARK_REPLY = set_mark({"|": [meta("mark"), MARK_REPLY]})
_COUNTER: Statement = {"counter": None}


@dataclass(frozen=True)
class Base:
    """What the shared rules are made from."""

    tracker: Tracker
    profiles: tuple[Profile, ...]


def make_base(base: Base) -> tuple[Chain, ...]:
    """The chains that all NICs share."""
    chains = [
        *_make_arriving(),
        *(_make_drop(family) for family in FAMILIES),
        *_make_tracking(base.tracker),
        *_make_inet(base.profiles),
        *_make_bridge(base.profiles),
    ]
    chains += [
        Chain(family, name_profile(profile), tuple(make_admission(family, profile)))
        for family in ("inet", "bridge")
        for profile in base.profiles
    ]
    return tuple(chains)


def make_base_sets(base: Base) -> list[Set]:
    """The sets that those chains look into."""
    return [
        *(Set(family, "dropped", "mark", statement=_COUNTER) for family in FAMILIES),
        *(each for family in ("arp", "bridge", "inet") for each in _make_guard_sets(family)),
        *(Set(family, "marks", value="mark") for family in ("arp", "inet")),
        *(Set(family, ZONES, value="verdict") for family in ("bridge", "inet")),
        Set("bridge", "free4"),
        Set("bridge", "free6"),
        Set("bridge", "private"),
        Set("bridge", "prefixes", "ether_addr"),
        *(
            each
            for family in ("inet", "bridge")
            for profile in base.profiles
            for each in make_admission_sets(family, profile)
        ),
    ]


def _make_arriving() -> list[Chain]:
    """A bridge learns a MAC from frames to its link-local groups that pass `input` alone."""
    guarded = (Rule((match(IIF, "@guests"), goto("guard"))),)
    return [
        *(Chain(each, "guard", tuple(make_guard(each))) for each in ("inet", "bridge", "arp")),
        Chain("inet", "arriving", guarded, "prerouting", _FIRST),
        Chain("bridge", "arriving", guarded, "prerouting", _FIRST),
        Chain("bridge", "input", guarded, "input", _FIRST),
        Chain("arp", "input", guarded, "input", _FIRST),
    ]


def _make_drop(family: str) -> Chain:
    """Only what goes to a NIC has an interface to leave by, and then that is the NIC's."""
    ways = (IIF,) if family in ("netdev", "arp") else (OIF, IIF)
    counting = [Rule((match(with_key(way, meta("mark")), "@dropped"), DROP)) for way in ways]
    return Chain(family, "drop", (*counting, Rule((DROP,))))


def _make_tracking(tracker: Tracker) -> list[Chain]:
    tracking = Rule((_KNOWN, _MARK_REPLY))
    chains = [
        Chain("inet", "reply", (tracking,), "prerouting", _MANGLE),
        Chain("inet", "local", (Rule((_MARK_REPLY,)),), "output", _MANGLE),
    ]
    if tracker == "bridge":
        zone = _make_lookup("ibrname")
        return [
            *chains,
            Chain("bridge", "zone", (zone,), "prerouting", _RAW),
            Chain("bridge", "reply", (tracking,), "prerouting", _MANGLE),
        ]
    zone = _make_lookup("iifname")
    return [*chains, Chain("inet", "zone", (zone,), "prerouting", _RAW)]


def _make_inet(profiles: Sequence[Profile]) -> list[Chain]:
    arriving, leaving = match(IIF, f"{SERVICE}*"), match(OIF, f"{SERVICE}*")
    closed = (Rule((arriving, DROP)), Rule((leaving, DROP)))
    asked = (
        accept(arriving, match(field("udp", "dport"), {"set": [67, 547]})),
        accept(arriving, match(meta("l4proto"), "ipv6-icmp")),
        closed[0],
    )
    forward = (*closed, *make_dispatch("inet", profiles))
    return [
        Chain("inet", "forward", forward, "forward", _FILTER),
        Chain("inet", "input", asked, "input", _FILTER),
    ]


def _make_bridge(profiles: Sequence[Profile]) -> list[Chain]:
    to_guest = Rule((match(OIF, "@guests"), goto("dispatch")))
    from_service = Rule((match(IIF, f"{SERVICE_PORT}*"), DROP))
    guests_only = Rule(
        (
            match(OIF, f"{SERVICE_PORT}*"),
            match({"&": [meta("mark"), MARK_GUEST]}, 0),
            DROP,
        )
    )
    forward = (to_guest, from_service, guests_only)
    return [
        Chain("bridge", "dispatch", tuple(make_dispatch("bridge", profiles))),
        Chain("bridge", "forward", forward, "forward", _BRIDGE_FILTER),
        Chain("bridge", "output", (to_guest,), "output", _BRIDGE_FILTER),
    ]


def _make_guard_sets(family: str) -> list[Set]:
    found = [
        Set(family, "guests"),
        Set(family, "macs", "ether_addr"),
        Set(family, "sources4", "ipv4_addr"),
    ]
    return found if family == "arp" else [*found, Set(family, "sources6", "ipv6_addr")]


def _make_lookup(key: str) -> Rule:
    return Rule(({"vmap": {"key": meta(key), "data": f"@{ZONES}"}},))
