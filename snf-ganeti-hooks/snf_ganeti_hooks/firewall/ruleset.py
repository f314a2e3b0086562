"""The transactions that nftables gets: what all NICs share, and each NIC's own part.

    inet, bridge, arp  snf   guard          what NICs may send, see guard
    inet, bridge       snf   profile-NAME   what may reach NICs that have it, see admission
    all                snf   drop           counts a NIC's packet under its reason, and drops it
    netdev             snf   ingress-TAP    a NIC's own rules, see networks.neighbour
    inet or bridge     snf   zone-BRIDGE    conntrack zone of a bridge whose addresses are its
                                            tenants', found by the map `zones`

All else of a NIC is elements of sets, see element.
"""

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from snf_ganeti_hooks.firewall.admission import (
    make_admission,
    make_admission_elements,
    make_admission_sets,
    make_dispatch,
    make_name,
)
from snf_ganeti_hooks.firewall.element import (
    TABLE,
    Command,
    Element,
    Set,
    make_dropped,
    make_element_commands,
    make_set_command,
)
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
    raw,
    set_mark,
    with_key,
)
from snf_ganeti_hooks.firewall.guard import (
    MARK_GUEST,
    MARK_REPLY,
    make_guard,
    make_guard_elements,
)
from snf_ganeti_hooks.firewall.profile import Profile
from snf_ganeti_hooks.firewall.reason import Reason
from snf_ganeti_hooks.networks.neighbour import make_neighbour
from snf_ganeti_hooks.nic import Kind, Nic

Tracker = Literal["bridge", "br_netfilter"]
"""What tracks bridged connections: the bridge itself, or IP's tracking shown bridged packets."""

FAMILIES = ("netdev", "arp", "bridge", "inet")
SERVICE_PORT = "snp-"
"""Start of the names of bridge ports behind which this node serves addresses."""
SERVICE = "snf-"
"""Start of the names of interfaces on which it does so."""

_FIRST, _RAW, _MANGLE, _FILTER, _BRIDGE_FILTER = -310, -300, -150, 0, -200
_KNOWN = match({"ct": {"key": "state"}}, {"set": ["established", "related"]})
_MARK_REPLY = set_mark({"|": [meta("mark"), MARK_REPLY]})
_DROPPED = "@dropped"
_COUNTER: Statement = {"counter": None}


@dataclass(frozen=True)
class Base:
    """What the shared rules are made from."""

    tracker: Tracker
    profiles: tuple[Profile, ...]


@dataclass(frozen=True)
class Chain:
    """hook: empty for a chain that others lead to; device: of the netdev family."""

    family: str
    name: str
    rules: tuple[Rule, ...] = ()
    hook: str = ""
    priority: int = 0
    device: str = ""


@dataclass(frozen=True)
class Zone:
    """An element of the map `zones`: a bridge leads to its chain."""

    family: str
    bridge: str

    @property
    def chain(self) -> str:
        return f"zone-{self.bridge}"


@dataclass(frozen=True)
class Part:
    """What a NIC has: elements of the shared sets, the chain at its tap, and the zone of its
    bridge with its chain."""

    elements: frozenset[Element] = frozenset()
    chains: tuple[Chain, ...] = ()
    zone: Zone | None = None


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
        Chain(family, make_name(profile), tuple(make_admission(family, profile)))
        for family in ("inet", "bridge")
        for profile in base.profiles
    ]
    return tuple(chains)


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
    counting = [Rule((match(with_key(way, meta("mark")), _DROPPED), DROP)) for way in ways]
    return Chain(family, "drop", (*counting, Rule((DROP,))))


def _make_tracking(tracker: Tracker) -> list[Chain]:
    tracking = Rule((_KNOWN, _MARK_REPLY))
    chains = [
        Chain("inet", "reply", (tracking,), "prerouting", _MANGLE),
        Chain("inet", "local", (Rule((_MARK_REPLY,)),), "output", _MANGLE),
    ]
    if tracker == "bridge":
        zone = _make_lookup("ibrname", "zones")
        return [
            *chains,
            Chain("bridge", "zone", (zone,), "prerouting", _RAW),
            Chain("bridge", "reply", (tracking,), "prerouting", _MANGLE),
        ]
    zone = _make_lookup("iifname", "zones")
    return [*chains, Chain("inet", "zone", (zone,), "prerouting", _RAW)]


def _make_inet(profiles: Sequence[Profile]) -> list[Chain]:
    arriving, leaving = match(meta("iifname"), f"{SERVICE}*"), match(meta("oifname"), f"{SERVICE}*")
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
    from_service = Rule((match(meta("iifname"), f"{SERVICE_PORT}*"), DROP))
    guests_only = Rule(
        (
            match(meta("oifname"), f"{SERVICE_PORT}*"),
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


def make_base_sets(base: Base) -> list[Set]:
    """The sets that those chains look into."""
    return [
        *(_make_dropped_set(family) for family in FAMILIES),
        *(each for family in ("arp", "bridge", "inet") for each in _make_guard_sets(family)),
        *(Set(family, "marks", value="mark") for family in ("arp", "inet")),
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


def _make_dropped_set(family: str) -> Set:
    return Set(family, "dropped", "mark", statement=_COUNTER)


def _make_guard_sets(family: str) -> list[Set]:
    found = [
        Set(family, "guests"),
        Set(family, "macs", "ether_addr"),
        Set(family, "sources4", "ipv4_addr"),
    ]
    return found if family == "arp" else [*found, Set(family, "sources6", "ipv6_addr")]


def make_part(nic: Nic, profile: Profile, tracker: Tracker, tap_mac: str, table: int = 0) -> Part:
    """What a NIC has. tap_mac: of routed taps; table: a routed NIC's."""
    elements = {
        *make_guard_elements(nic, table),
        *make_admission_elements(nic, profile),
    }
    chains = []
    own = make_neighbour(nic, tap_mac)
    if own:
        chains.append(Chain("netdev", name_ingress(nic.tap), tuple(own), "ingress", -10, nic.tap))
        elements |= set(make_dropped("netdev", nic.tap, (Reason.ETHER_TYPE,)))
    rule = make_zone(nic)
    if rule is None:
        return Part(frozenset(elements), tuple(chains))
    zone = Zone("bridge" if tracker == "bridge" else "inet", nic.link)
    chains.append(Chain(zone.family, zone.chain, (rule,)))
    return Part(frozenset(elements), tuple(chains), zone)


def name_ingress(tap: str) -> str:
    """Of the chain at a tap."""
    return f"ingress-{tap}"


def make_zone(nic: Nic) -> Rule | None:
    """Tenants choose the addresses of their own networks, so the same connection can exist
    twice on a node; in one zone each would pass as the other's reply.

    A private network's zone is the end of its MAC prefix, read from the packet; a VLAN's is a
    number made from the bridge's name. What is bridged otherwise shares the node's own.
    """
    zone: Any = None
    if nic.kind is Kind.PRIVATE:
        zone = raw("ll", 56, 16)
    elif nic.kind is Kind.BRIDGED and "physical-vlan" in nic.network_tags:
        zone = max(1, zlib.crc32(nic.link.encode()) & 0xFFFF)
    if zone is None:
        return None
    return Rule(({"mangle": {"key": {"ct": {"key": "zone"}}, "value": zone}},))


def make_base_commands(base: Base) -> list[Command]:
    """Write what all share, whatever of it is there."""
    commands: list[Command] = [_add("table", family=family, name=TABLE) for family in FAMILIES]
    commands += [
        _add("map", family=family, table=TABLE, name="zones", type="ifname", map="verdict")
        for family in ("inet", "bridge")
    ]
    commands += map(make_set_command, make_base_sets(base))
    chains = make_base(base)
    commands += map(_make_head, chains)  # all, before a rule leads to one
    return commands + [command for chain in chains for command in _make_content(chain)]


def make_change(tap: str, present: Iterable[Element], wanted: Part) -> list[Command]:
    """Make a NIC's part of what is present of it; chains are written whatever they were."""
    had = frozenset(present)
    commands = make_element_commands("delete", had - wanted.elements)
    commands += make_element_commands("create", wanted.elements - had)
    families = {each.family for each in wanted.elements}
    for family in {"inet", "bridge"} - families:
        # Refused when an earlier tap of this name was a NIC of the other kind, and is there yet.
        nothing = [Element(family, "guests", tap)]
        commands += make_element_commands("create", nothing)
        commands += make_element_commands("delete", nothing)
    if not any(each.device for each in wanted.chains):
        commands += make_chain_removal("netdev", name_ingress(tap))
    for chain in wanted.chains:
        commands += [_make_head(chain), *_make_content(chain)]
    if wanted.zone:
        commands.append(_make_zone_element("add", wanted.zone))
    return commands


def make_zone_removal(zone: Zone) -> list[Command]:
    return [
        _make_zone_element("delete", zone),
        *make_chain_removal(zone.family, zone.chain),
    ]


def make_chain_removal(family: str, name: str) -> list[Command]:
    """Adding first makes the deletion succeed where there was nothing."""
    chain = {"family": family, "table": TABLE, "name": name}
    return [{"add": {"chain": chain}}, {"flush": {"chain": chain}}, {"delete": {"chain": chain}}]


def make_foreign_removal(
    chains: Iterable[tuple[str, str]], sets: Iterable[tuple[str, str, str]]
) -> list[Command]:
    """Remove chains (family, name) and sets or maps (kind, family, name) of our tables that are
    not ours, or not any more: first what leads from one to another."""
    heads = [{"family": family, "table": TABLE, "name": name} for family, name in sorted(chains)]
    return [
        *({"flush": {"chain": head}} for head in heads),
        *(
            {"delete": {kind: {"family": family, "table": TABLE, "name": name}}}
            for kind, family, name in sorted(sets)
        ),
        *({"delete": {"chain": head}} for head in heads),
    ]


def _make_head(chain: Chain) -> Command:
    hook: dict[str, Any] = {}
    if chain.hook:
        hook = {"type": "filter", "hook": chain.hook, "prio": chain.priority, "policy": "accept"}
        if chain.device:
            hook["dev"] = chain.device
    return _add("chain", family=chain.family, table=TABLE, name=chain.name, **hook)


def _make_content(chain: Chain) -> list[Command]:
    names = {"family": chain.family, "table": TABLE}
    return [
        {"flush": {"chain": {**names, "name": chain.name}}},
        *(
            _add("rule", **names, chain=chain.name, expr=list(rule.statements), **_comment(rule))
            for rule in chain.rules
        ),
    ]


def _make_zone_element(verb: str, zone: Zone) -> Command:
    element = [zone.bridge, goto(zone.chain)]
    names = {"family": zone.family, "table": TABLE, "name": "zones"}
    return {verb: {"element": {**names, "elem": [element]}}}


def _make_lookup(key: str, name: str) -> Rule:
    statement: Statement = {"vmap": {"key": meta(key), "data": f"@{name}"}}
    return Rule((statement,))


def _add(kind: str, **fields: Any) -> Command:
    return {"add": {kind: fields}}


def _comment(rule: Rule) -> dict[str, str]:
    return {"comment": rule.comment} if rule.comment else {}
