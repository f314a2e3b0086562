"""What should be, compared with what is; and what has to be done about each difference.

What should be follows from the NICs' states and from Ganeti's own files. The comparison is
pure; `repair` acts on what it found. A healthy node is only read.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial

from snf_ganeti.errors import SnfError
from snf_ganeti_hooks import setup, state
from snf_ganeti_hooks.cluster import ganeti
from snf_ganeti_hooks.firewall.base import make_base, make_base_sets
from snf_ganeti_hooks.firewall.element import make_element_commands
from snf_ganeti_hooks.firewall.listing import Ruleset
from snf_ganeti_hooks.firewall.part import Part, name_ingress
from snf_ganeti_hooks.firewall.profile import Choice
from snf_ganeti_hooks.firewall.transaction import (
    make_base_commands,
    make_foreign_removal,
    make_zone_removal,
)
from snf_ganeti_hooks.inventory import Inventory, read_inventory, uncollected
from snf_ganeti_hooks.kernel import forwarding, link, nft
from snf_ganeti_hooks.networks import bridging, routing
from snf_ganeti_hooks.nic import Kind
from snf_ganeti_hooks.node import Node
from snf_ganeti_hooks.state import NicState

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Finding:
    """One difference: whose it is, in words, and what removes it."""

    subject: str
    problem: str
    repair: Callable[[], object]


@dataclass(frozen=True)
class Wanted:
    """A live NIC and all that it should have."""

    state: NicState
    choice: Choice
    part: Part
    table: int
    uplinks: routing.Uplinks


@uncollected()
def find_differences(node: Node) -> list[Finding]:
    """Read everything and compare; the caller holds the lock. Raises SnfError."""
    states, broken = state.read_states(node.run)
    inventory = read_inventory(each.nic for each in states.values())
    live = {
        tap: each
        for tap, each in states.items()
        if tap in inventory.links and inventory.links[tap].index == each.ifindex
    }
    gone = [each for tap, each in states.items() if tap not in live]
    findings = [
        Finding(each.nic.tap, "its tap has gone", partial(setup.take_down, node, each))
        for each in gone
    ]
    findings += [
        Finding(tap, "its state can't be read", partial(state.remove_state, tap, node.run))
        for tap in broken
    ]
    found, wanted = find_wanted(node, live)
    findings += found
    findings += compare_base(node, inventory)
    findings += [finding for each in wanted for finding in compare_nic(node, inventory, each)]
    findings += compare_leftovers(inventory, wanted)
    findings += compare_foreign(node, inventory, wanted, states.values())
    return findings + find_lost(node, inventory, set(live))


def find_wanted(node: Node, live: Mapping[str, NicState]) -> tuple[list[Finding], list[Wanted]]:
    findings, wanted = [], []
    for tap, each in live.items():
        try:
            table = setup.read_table(each.nic)
        except SnfError as error:
            findings.append(Finding(tap, str(error), lambda: None))
            continue
        choice = setup.choose(node, each)
        part = setup.build_part(node, each, choice, table)
        wanted.append(Wanted(each, choice, part, table, node.find_uplinks(table)))
    return findings, wanted


def compare_base(node: Node, inventory: Inventory) -> list[Finding]:
    ruleset = inventory.ruleset
    sets = {(each.family, each.name) for each in make_base_sets(node.base)}
    present = {(family, name) for _, family, name in ruleset.sets}
    if sets <= present and all(ruleset.holds(each) for each in make_base(node.base)):
        return []
    if not ruleset.chains and not state.read_states(node.run)[0]:
        return []  # no NIC was ever set up here
    rebuild = partial(nft.run, make_base_commands(node.base))
    return [Finding("nftables", "the rules that all NICs share differ", rebuild)]


def compare_nic(node: Node, inventory: Inventory, wanted: Wanted) -> list[Finding]:
    nic = wanted.state.nic
    find = partial(Finding, nic.tap)
    findings = []
    if not has_rules(inventory.ruleset, wanted):
        present = inventory.ruleset.elements.get(nic.tap, ())
        rewrite = partial(nft.change, node.base, nic.tap, present, wanted.part)
        findings.append(find("its rules differ", rewrite))
    reconnect = partial(setup.connect, node, nic, wanted.table)
    if nic.kind is Kind.ROUTED:
        routes = set(routing.make_routes(nic, wanted.table))
        proxies = set(routing.make_proxies(nic, wanted.uplinks))
        selectors = set(routing.make_selectors(wanted.table, wanted.uplinks))
        if (
            routes - inventory.routes
            or proxies - inventory.proxies
            or selectors - inventory.selectors
        ):
            findings.append(find("its routes or proxy entries are missing", reconnect))
    elif inventory.links[nic.tap].master != nic.link:
        findings.append(find(f"it is not on bridge {nic.link}", reconnect))
    elif nic.vlan and not bridging.is_in_vlan(
        nic, bridging.find_uplinks(inventory.links, nic.link), inventory.vlans
    ):
        findings.append(find(f"its port is not in VLAN {nic.vlan} alone", reconnect))
    elif node.tracker == "br_netfilter" and not inventory.links[nic.link].shows_netfilter:
        line = bridging.make_netfilter_line(nic.link)
        findings.append(
            find(f"bridge {nic.link} hides packets from netfilter", partial(link.run_batch, [line]))
        )
    if not findings and not inventory.links[nic.tap].is_up:
        findings.append(find("its tap is down", reconnect))
    return findings


def has_rules(ruleset: Ruleset, wanted: Wanted) -> bool:
    part = wanted.part
    return (
        ruleset.elements.get(wanted.state.nic.tap) == part.elements
        and all(ruleset.holds(each) for each in part.chains)
        and (part.zone is None or part.zone in ruleset.zones)
    )


def compare_leftovers(inventory: Inventory, wanted: list[Wanted]) -> list[Finding]:
    """Routes, proxy entries and rules of tables that nobody owns."""
    routed = [each for each in wanted if each.state.nic.kind is Kind.ROUTED]
    routes = {r for each in routed for r in routing.make_routes(each.state.nic, each.table)}
    proxies = {p for each in routed for p in routing.make_proxies(each.state.nic, each.uplinks)}
    selectors = {s for each in routed for s in routing.make_selectors(each.table, each.uplinks)}
    left_over: list[forwarding.Entry] = [
        *sorted(inventory.routes - routes),
        *sorted(inventory.proxies - proxies),
        *sorted(inventory.selectors - selectors),
    ]
    return [
        Finding("routing", f"nobody owns: {each}", partial(forwarding.remove, [each]))
        for each in left_over
    ]


def compare_foreign(
    node: Node, inventory: Inventory, wanted: list[Wanted], states: Iterable[NicState]
) -> list[Finding]:
    """What our tables have beside the base and the NICs' own; of a NIC that has a state, other
    findings tell."""
    ruleset = inventory.ruleset
    findings = []
    for tap in sorted(ruleset.elements.keys() - {each.nic.tap for each in states}):
        remove = partial(nft.run, make_element_commands("delete", ruleset.elements[tap]))
        findings.append(Finding(tap, "rules are left of it", remove))
    parts = [each.part for each in wanted]
    for zone in ruleset.zones.difference(each.zone for each in parts if each.zone):
        remove = partial(nft.run, make_zone_removal(zone))
        findings.append(Finding(zone.bridge, "its zone is left", remove))
    return findings + _compare_objects(node, ruleset, parts, states)


def _compare_objects(
    node: Node, ruleset: Ruleset, parts: list[Part], states: Iterable[NicState]
) -> list[Finding]:
    owned = [*make_base(node.base), *(chain for part in parts for chain in part.chains)]
    chains = ruleset.chains.keys() - {(each.family, each.name) for each in owned}
    chains -= {(each.family, each.chain) for each in ruleset.zones}
    chains -= {("netdev", name_ingress(each.nic.tap)) for each in states}
    own = {(each.family, each.name) for each in make_base_sets(node.base)}
    sets = {each for each in ruleset.sets if each[1:] not in own}
    if not chains and not sets:
        return []
    said = sorted([*(("chain", *each) for each in chains), *sets])
    listed = ", ".join(" ".join(each) for each in said[:5])
    remove = partial(nft.run, make_foreign_removal(chains, sets))
    return [Finding("nftables", f"nobody owns: {listed}", remove)]


def find_lost(node: Node, inventory: Inventory, known: set[str]) -> list[Finding]:
    """NICs that Ganeti runs here and that have no state: set up again from Ganeti's files."""
    findings = []
    for environ in ganeti.find_running_nics():
        tap = environ["INTERFACE"]
        if tap in inventory.links and tap not in known:
            again = partial(set_up_lost, node, environ)
            findings.append(
                Finding(tap, f"{environ['INSTANCE']} runs it, and it has no state", again)
            )
    return findings


def set_up_lost(node: Node, environ: Mapping[str, str]) -> None:
    """Ganeti's files hold no tags; until they are read, the NIC is protected."""
    setup.set_up(node, environ, tags_known=False)


def repair(findings: list[Finding]) -> list[tuple[Finding, str]]:
    """Repair each; gives those that could not be, with the reason."""
    failed = []
    for each in findings:
        try:
            each.repair()
        except SnfError as error:
            failed.append((each, str(error)))
            log.error("%s: %s, and can't be repaired: %s", each.subject, each.problem, error)
        else:
            log.info("%s: %s: repaired", each.subject, each.problem)
    return failed
