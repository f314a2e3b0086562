"""What should be, compared with what is; and what has to be done about each difference.

What should be follows from the NICs' states and from Ganeti's own files. The comparison is
pure; `repair` acts on what it found. A healthy node is only read.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from snf_ganeti.errors import SnfError
from snf_ganeti_hooks import setup, state
from snf_ganeti_hooks.cluster import ganeti
from snf_ganeti_hooks.firewall.profile import Choice
from snf_ganeti_hooks.firewall.ruleset import (
    Part,
    find_taps,
    make_base,
    make_base_commands,
    make_down_commands,
    make_part_commands,
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
    findings += compare_leftovers(node, inventory, wanted, {each.nic.tap for each in gone})
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
        part = setup.build_part(node, each, choice)
        wanted.append(Wanted(each, choice, part, table, node.find_uplinks(table)))
    return findings, wanted


def compare_base(node: Node, inventory: Inventory) -> list[Finding]:
    ruleset = inventory.ruleset
    if all(ruleset.holds(each) for each in make_base(node.tracker)):
        return []
    if not ruleset.chains and not state.read_states(node.run)[0]:
        return []  # no NIC was ever set up here
    rebuild = partial(nft.run, make_base_commands(node.tracker))
    return [Finding("nftables", "the rules that all NICs share differ", rebuild)]


def compare_nic(node: Node, inventory: Inventory, wanted: Wanted) -> list[Finding]:
    nic = wanted.state.nic
    find = partial(Finding, nic.tap)
    findings = []
    ruleset = inventory.ruleset
    if not all(ruleset.holds(each) for each in wanted.part.chains) or not (
        ruleset.entries.issuperset(wanted.part.entries)
    ):
        rewrite = partial(nft.apply, make_part_commands(wanted.part), node.tracker)
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


def compare_leftovers(
    node: Node, inventory: Inventory, wanted: list[Wanted], going: set[str]
) -> list[Finding]:
    """What nobody owns: chains, entries, routes, proxy entries, rules of tables.

    going: taps whose removal is a finding already.
    """
    own = {each.state.nic.tap for each in wanted}
    chains = {name for _, name in inventory.ruleset.chains}
    entries = {each.interface for each in inventory.ruleset.entries if each.map == "to_guest"}
    left = sorted((find_taps(chains) | entries) - own - going)
    findings = [
        Finding(tap, "rules are left of it", partial(remove_rules, node, tap)) for tap in left
    ]
    findings += _compare_families(node, inventory, wanted)
    parts = [each.part for each in wanted]
    zones = {entry for part in parts for entry in part.entries if entry.map == "zones"}
    for entry in inventory.ruleset.entries:
        if entry.map == "zones" and entry not in zones:
            remove = partial(nft.run, make_zone_removal(entry.family, entry.interface))
            findings.append(Finding(entry.interface, "its zone is left", remove))
    routed = [each for each in wanted if each.state.nic.kind is Kind.ROUTED]
    routes = {r for each in routed for r in routing.make_routes(each.state.nic, each.table)}
    proxies = {p for each in routed for p in routing.make_proxies(each.state.nic, each.uplinks)}
    selectors = {s for each in routed for s in routing.make_selectors(each.table, each.uplinks)}
    left_over: list[forwarding.Entry] = [
        *sorted(inventory.routes - routes),
        *sorted(inventory.proxies - proxies),
        *sorted(inventory.selectors - selectors),
    ]
    return findings + [
        Finding("routing", f"nobody owns: {each}", partial(forwarding.remove, [each]))
        for each in left_over
    ]


def remove_rules(node: Node, tap: str) -> None:
    nft.apply(make_down_commands(tap), node.tracker)


def _compare_families(node: Node, inventory: Inventory, wanted: list[Wanted]) -> list[Finding]:
    """A routed NIC has nothing among the bridge's rules, and the other way round."""
    findings = []
    for each in wanted:
        tap = each.state.nic.tap
        other = "bridge" if each.state.nic.kind is Kind.ROUTED else "inet"
        if (other, f"to-{tap}") in inventory.ruleset.chains:
            commands = [*make_down_commands(tap), *make_part_commands(each.part)]
            rewrite = partial(nft.apply, commands, node.tracker)
            findings.append(Finding(tap, "rules of another kind are left of it", rewrite))
    return findings


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
