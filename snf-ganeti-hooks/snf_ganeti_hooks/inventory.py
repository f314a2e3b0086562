"""What this node has for NICs, read from the kernel at one moment."""

import contextlib
import gc
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from snf_ganeti_hooks import setup
from snf_ganeti_hooks.firewall.expression import COUNTER, Rule, normalise_rule
from snf_ganeti_hooks.firewall.ruleset import TABLE, Chain, Entry
from snf_ganeti_hooks.kernel import link, nft
from snf_ganeti_hooks.kernel.link import Link
from snf_ganeti_hooks.networks.routing import (
    PROTOCOL,
    Proxy,
    Route,
    Selector,
    parse_proxies,
    parse_routes,
)
from snf_ganeti_hooks.nic import Nic


@dataclass(frozen=True)
class Drop:
    """A rule that drops, and what it dropped."""

    reason: str
    packets: int


@dataclass(frozen=True)
class Ruleset:
    """Our tables. chains: (family, name) → as listed, counters at zero; drops: (family,
    name) → what each rule of a chain dropped."""

    chains: Mapping[tuple[str, str], Chain]
    entries: frozenset[Entry]
    drops: Mapping[tuple[str, str], tuple[Drop, ...]]

    def holds(self, chain: Chain) -> bool:
        # libnftables 1.0.6 lists no device; a live tap's guard was bound when the tap came.
        wanted = replace(chain, device="")
        found = self.chains.get((chain.family, chain.name))
        return found == wanted or (
            found is not None and normalise_chain(found) == normalise_chain(wanted)
        )


@dataclass(frozen=True)
class Inventory:
    """vlans: of the ports of bridges, see `link.find_vlans`; none where no NIC is in one."""

    links: Mapping[str, Link]
    ruleset: Ruleset
    routes: frozenset[Route]
    proxies: frozenset[Proxy]
    selectors: frozenset[Selector]
    vlans: Mapping[str, Mapping[int, bool]]


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Python looks for garbage while a thousand NICs become a million objects, none of them
    garbage, and takes as long as all the rest; not so in the block."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def read_inventory(nics: Iterable[Nic]) -> Inventory:
    """nics: for which it is read. Raises NodeError, CommandError."""
    shown = ("-N", "route", "show", "table", "all", "proto", str(PROTOCOL))
    # libnftables takes half of the time, and Python can do the rest meanwhile.
    with ThreadPoolExecutor(1) as beside:
        tables = beside.submit(nft.read_tables)
        links = link.find_links()
        routes = frozenset(parse_routes([*link.query(*shown), *link.query("-6", *shown)]))
        proxies = frozenset(parse_proxies(link.query("-N", "neigh", "show", "proxy")))
        selectors = frozenset(setup.read_selectors())
        vlans = link.find_vlans() if any(nic.vlan for nic in nics) else {}
        ruleset = parse_ruleset(tables.result())
    return Inventory(links, ruleset, routes, proxies, selectors, vlans)


def parse_ruleset(objects: Iterable[Mapping[str, Any]]) -> Ruleset:
    """From libnftables' JSON of our tables."""
    heads: dict[tuple[str, str], dict[str, Any]] = {}
    rules: dict[tuple[str, str], list[Rule]] = {}
    drops: dict[tuple[str, str], list[Drop]] = {}
    entries: set[Entry] = set()
    for item in objects:
        if "chain" in item:
            chain = item["chain"]
            heads[chain["family"], chain["name"]] = chain
        elif "rule" in item:
            rule = item["rule"]
            key = rule["family"], rule["chain"]
            rules.setdefault(key, []).append(_parse_rule(rule))
            if (drop := _parse_drop(rule)) is not None:
                drops.setdefault(key, []).append(drop)
        elif "map" in item:
            entries |= _parse_entries(item["map"])
    chains = {key: _parse_chain(head, rules.get(key, [])) for key, head in heads.items()}
    return Ruleset(chains, frozenset(entries), {key: tuple(value) for key, value in drops.items()})


def normalise_chain(chain: Chain) -> Chain:
    return replace(chain, rules=tuple(map(normalise_rule, chain.rules)))


def _parse_chain(head: Mapping[str, Any], rules: list[Rule]) -> Chain:
    return Chain(
        family=head["family"],
        name=head["name"],
        rules=tuple(rules),
        hook=head.get("hook", ""),
        priority=head.get("prio", 0),
    )


def _parse_rule(rule: Mapping[str, Any]) -> Rule:
    statements = tuple([COUNTER if "counter" in each else each for each in rule["expr"]])
    return Rule(statements, rule.get("comment", ""))


def _parse_drop(rule: Mapping[str, Any]) -> Drop | None:
    counters = [each["counter"] for each in rule["expr"] if "counter" in each]
    if not counters or "comment" not in rule:
        return None
    return Drop(rule["comment"], counters[0]["packets"])


def _parse_entries(found: Mapping[str, Any]) -> set[Entry]:
    return {
        Entry(found["family"], found["name"], interface, verdict["goto"]["target"])
        for interface, verdict in found.get("elem", [])
        if found["table"] == TABLE and isinstance(verdict, dict) and "goto" in verdict
    }
