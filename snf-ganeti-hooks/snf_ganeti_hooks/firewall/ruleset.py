"""The transactions that nftables gets: what all NICs share, and each NIC's own part.

A NIC's part can be written whatever was there before: each chain is made if it is absent,
emptied and filled, and the map entry that leads to it is always the same. So a tap starts
from a clean sheet although an earlier one of its name left everything behind.

    netdev snf  guard-TAP          ingress of the tap: what the NIC may send
    inet   snf  to-TAP             forwarded to a routed NIC, found by the map `to_guest`
    bridge snf  to-TAP             forwarded to a bridged NIC, likewise
    inet or bridge  zone-BRIDGE    conntrack zone of a bridge whose addresses are its tenants'
"""

import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from snf_ganeti_hooks.firewall.admission import make_admission
from snf_ganeti_hooks.firewall.expression import (
    Rule,
    Statement,
    accept,
    field,
    match,
    meta,
    raw,
    set_mark,
)
from snf_ganeti_hooks.firewall.guard import MARK_GUEST, MARK_REPLY, make_guard
from snf_ganeti_hooks.firewall.profile import Profile
from snf_ganeti_hooks.networks.neighbour import make_answer
from snf_ganeti_hooks.nic import Kind, Nic

Command = dict[str, Any]
Tracker = Literal["bridge", "br_netfilter"]
"""What tracks bridged connections: the bridge itself, or IP's tracking shown bridged packets."""

TABLE = "snf"
FAMILIES = ("netdev", "bridge", "inet")
SERVICE_PORT = "snp-"
"""Start of the names of bridge ports behind which this node serves addresses."""
SERVICE = "snf-"
"""Start of the names of interfaces on which it does so."""

_RAW, _MANGLE, _FILTER, _BRIDGE_FILTER = -300, -150, 0, -200
_KNOWN = match({"ct": {"key": "state"}}, {"set": ["established", "related"]})
_MARK_REPLY = set_mark({"|": [meta("mark"), MARK_REPLY]})


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
class Entry:
    """An element of a verdict map: an interface leads to a chain."""

    family: str
    map: str
    interface: str
    chain: str


@dataclass(frozen=True)
class Part:
    """Chains with their rules, and the entries that lead to them."""

    chains: tuple[Chain, ...]
    entries: tuple[Entry, ...] = ()


def make_base(tracker: Tracker) -> tuple[Chain, ...]:
    """The chains that all NICs share."""
    to_guest = _lookup("oifname", "to_guest")
    guests_only = Rule(
        (
            match(meta("oifname"), f"{SERVICE_PORT}*"),
            match({"&": [meta("mark"), MARK_GUEST]}, 0),
            {"drop": None},
        )
    )
    from_service = Rule((match(meta("iifname"), f"{SERVICE_PORT}*"), {"drop": None}))
    arriving, leaving = match(meta("iifname"), f"{SERVICE}*"), match(meta("oifname"), f"{SERVICE}*")
    closed = (Rule((arriving, {"drop": None})), Rule((leaving, {"drop": None})))
    asked = (
        accept(arriving, match(field("udp", "dport"), {"set": [67, 547]})),
        accept(arriving, match(meta("l4proto"), "ipv6-icmp")),
        closed[0],
    )
    tracking = Rule((_KNOWN, _MARK_REPLY))
    chains = [
        Chain("inet", "reply", (tracking,), "prerouting", _MANGLE),
        Chain("inet", "local", (Rule((_MARK_REPLY,)),), "output", _MANGLE),
        Chain("inet", "forward", (*closed, to_guest), "forward", _FILTER),
        Chain("inet", "input", asked, "input", _FILTER),
        Chain(
            "bridge", "forward", (to_guest, from_service, guests_only), "forward", _BRIDGE_FILTER
        ),
        Chain("bridge", "output", (to_guest,), "output", _BRIDGE_FILTER),
    ]
    if tracker == "bridge":
        zone = _lookup("ibrname", "zones")
        chains += [
            Chain("bridge", "zone", (zone,), "prerouting", _RAW),
            Chain("bridge", "reply", (tracking,), "prerouting", _MANGLE),
        ]
    else:
        chains.append(Chain("inet", "zone", (_lookup("iifname", "zones"),), "prerouting", _RAW))
    return tuple(chains)


def make_part(nic: Nic, profile: Profile, tracker: Tracker, tap_mac: str, table: int = 0) -> Part:
    """A NIC's own rules. tap_mac: of routed taps; table: a routed NIC's routing table."""
    family = "inet" if nic.kind is Kind.ROUTED else "bridge"
    sent = (*make_guard(nic, table), *make_answer(nic, tap_mac))
    guard = Chain("netdev", f"guard-{nic.tap}", sent, "ingress", -10, nic.tap)
    to = Chain(family, f"to-{nic.tap}", tuple(make_admission(nic, profile)))
    entry = Entry(family, "to_guest", nic.tap, to.name)
    zone = make_zone(nic)
    if zone is None:
        return Part((guard, to), (entry,))
    zoned = Chain("bridge" if tracker == "bridge" else "inet", f"zone-{nic.link}", (zone,))
    return Part((guard, to, zoned), (entry, Entry(zoned.family, "zones", nic.link, zoned.name)))


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


def make_base_commands(tracker: Tracker) -> list[Command]:
    commands: list[Command] = [_add("table", family=family, name=TABLE) for family in FAMILIES]
    for family, name in (("inet", "to_guest"), ("inet", "zones"), ("bridge", "to_guest"),
                         ("bridge", "zones")):  # fmt: skip
        commands.append(
            _add("map", family=family, table=TABLE, name=name, type="ifname", map="verdict")
        )
    for chain in make_base(tracker):
        commands += make_chain_commands(chain)
    return commands


def make_part_commands(part: Part) -> list[Command]:
    """Write a part, whatever was there under its names."""
    commands: list[Command] = []
    for chain in part.chains:
        commands += make_chain_commands(chain)
    return commands + [_make_element("add", entry) for entry in part.entries]


def make_up_commands(nic: Nic, part: Part) -> list[Command]:
    """Write a NIC's part, and remove what an earlier tap of its name left elsewhere."""
    family = "bridge" if nic.kind is Kind.ROUTED else "inet"
    stale = Entry(family, "to_guest", nic.tap, f"to-{nic.tap}")
    return [*_make_removal(stale), *make_part_commands(part)]


def make_down_commands(tap: str) -> list[Command]:
    """Remove all that is kept under a tap's name, whether it is there or not."""
    commands: list[Command] = []
    for family in ("inet", "bridge"):
        commands += _make_removal(Entry(family, "to_guest", tap, f"to-{tap}"))
    guard = Chain("netdev", f"guard-{tap}")
    return commands + _make_chain_removal(guard)


def make_admission_commands(part: Part) -> list[Command]:
    """Only what a change of profile changes; the guard and its counters stay."""
    chains = tuple(each for each in part.chains if each.name.startswith("to-"))
    return make_part_commands(Part(chains, part.entries[:1]))


def make_zone_removal(family: str, bridge: str) -> list[Command]:
    return _make_removal(Entry(family, "zones", bridge, f"zone-{bridge}"))


def make_chain_commands(chain: Chain) -> list[Command]:
    names = {"family": chain.family, "table": TABLE}
    hook: dict[str, Any] = {}
    if chain.hook:
        hook = {"type": "filter", "hook": chain.hook, "prio": chain.priority, "policy": "accept"}
        if chain.device:
            hook["dev"] = chain.device
    return [
        _add("chain", **names, name=chain.name, **hook),
        {"flush": {"chain": {**names, "name": chain.name}}},
        *(
            _add("rule", **names, chain=chain.name, expr=list(rule.statements), **_comment(rule))
            for rule in chain.rules
        ),
    ]


def _make_removal(entry: Entry) -> list[Command]:
    """Adding first makes the deletion succeed where there was nothing."""
    names = {"family": entry.family, "table": TABLE}
    return [
        _add("chain", **names, name=entry.chain),
        _make_element("add", entry),
        _make_element("delete", entry),
        *_make_chain_removal(Chain(entry.family, entry.chain), made=True),
    ]


def _make_chain_removal(chain: Chain, *, made: bool = False) -> list[Command]:
    named = {"family": chain.family, "table": TABLE, "name": chain.name}
    return [
        *([] if made else [_add("chain", **named)]),
        {"flush": {"chain": named}},
        {"delete": {"chain": named}},
    ]


def _make_element(verb: str, entry: Entry) -> Command:
    element = [entry.interface, {"goto": {"target": entry.chain}}]
    names = {"family": entry.family, "table": TABLE, "name": entry.map}
    return {verb: {"element": {**names, "elem": [element]}}}


def _lookup(key: str, name: str) -> Rule:
    statement: Statement = {"vmap": {"key": meta(key), "data": f"@{name}"}}
    return Rule((statement,))


def _add(kind: str, **fields: Any) -> Command:
    return {"add": {kind: fields}}


def _comment(rule: Rule) -> dict[str, str]:
    return {"comment": rule.reason} if rule.reason else {}


def find_taps(names: Iterable[str]) -> set[str]:
    """The taps that chains of these names belong to."""
    starts = ("guard-", "to-")
    return {
        name.removeprefix(start) for name in names for start in starts if name.startswith(start)
    }
