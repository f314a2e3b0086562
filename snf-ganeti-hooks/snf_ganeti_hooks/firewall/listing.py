"""What nftables lists of our tables, parsed."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Any

from snf_ganeti_hooks.firewall.chain import Chain
from snf_ganeti_hooks.firewall.element import TABLE, ZONES, Element
from snf_ganeti_hooks.firewall.expression import Rule, normalise_rule
from snf_ganeti_hooks.firewall.part import Zone
from snf_ganeti_hooks.firewall.reason import BY_MARK


@dataclass(frozen=True)
class Ruleset:
    """chains: (family, name) → as listed. sets: (`set` or `map`, family, name). elements and
    dropped: by tap, what a NIC has, and how many packets for which reason."""

    chains: Mapping[tuple[str, str], Chain]
    sets: frozenset[tuple[str, str, str]]
    zones: frozenset[Zone]
    elements: Mapping[str, frozenset[Element]]
    dropped: Mapping[str, Mapping[str, int]]

    def holds(self, chain: Chain) -> bool:
        # libnftables 1.0.6 lists no device; a live tap's chain was bound when the tap came.
        wanted = replace(chain, device="")
        found = self.chains.get((chain.family, chain.name))
        return found == wanted or (
            found is not None and _normalise_chain(found) == _normalise_chain(wanted)
        )


def parse_ruleset(objects: Iterable[Mapping[str, Any]]) -> Ruleset:
    """From libnftables' JSON of our tables."""
    heads: dict[tuple[str, str], dict[str, Any]] = {}
    rules: dict[tuple[str, str], list[Rule]] = {}
    sets: set[tuple[str, str, str]] = set()
    zones: set[Zone] = set()
    elements: dict[str, set[Element]] = {}
    dropped: dict[str, dict[str, int]] = {}
    for item in objects:
        for kind, found in item.items():
            if kind == "chain":
                heads[found["family"], found["name"]] = found
            elif kind == "rule":
                key = found["family"], found["chain"]
                rules.setdefault(key, []).append(
                    Rule(tuple(found["expr"]), found.get("comment", ""))
                )
            elif kind in ("set", "map") and found["table"] == TABLE:
                sets.add((kind, found["family"], found["name"]))
                if found["name"] == ZONES:
                    zones |= _parse_zones(found)
                elif found.get("map") != "verdict":
                    _parse_elements(found, elements, dropped)
    return Ruleset(
        {key: _parse_chain(head, rules.get(key, [])) for key, head in heads.items()},
        frozenset(sets),
        frozenset(zones),
        {tap: frozenset(each) for tap, each in elements.items()},
        dropped,
    )


def _normalise_chain(chain: Chain) -> Chain:
    return replace(chain, rules=tuple(map(normalise_rule, chain.rules)))


def _parse_chain(head: Mapping[str, Any], rules: list[Rule]) -> Chain:
    return Chain(
        family=head["family"],
        name=head["name"],
        rules=tuple(rules),
        hook=head.get("hook", ""),
        priority=head.get("prio", 0),
    )


def _parse_zones(found: Mapping[str, Any]) -> set[Zone]:
    return {
        Zone(found["family"], bridge)
        for bridge, verdict in found.get("elem", [])
        if isinstance(verdict, dict) and "goto" in verdict
    }


def _parse_elements(
    found: Mapping[str, Any],
    elements: dict[str, set[Element]],
    dropped: dict[str, dict[str, int]],
) -> None:
    family, name = found["family"], found["name"]
    for listed in found.get("elem", []):
        key, value = listed if isinstance(listed, list) else (listed, 0)
        packets = 0
        if isinstance(key, dict) and "elem" in key:
            packets = key["elem"].get("counter", {}).get("packets", 0)
            key = key["elem"]["val"]
        tap, beside = key["concat"] if isinstance(key, dict) else (key, "")
        if isinstance(beside, str) and ":" in beside and "." in beside:
            beside = str(ip_address(beside))  # in one form; inet_ntop has two
        elements.setdefault(tap, set()).add(Element(family, name, tap, beside, value))
        if packets and beside in BY_MARK:
            of_nic, words = dropped.setdefault(tap, {}), BY_MARK[beside].words
            of_nic[words] = of_nic.get(words, 0) + packets
