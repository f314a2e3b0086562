"""nftables' JSON expressions, in the form in which libnftables lists them again.

See libnftables-json(5). Because both forms are the same, what the kernel has can be compared
with what it should have.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any

from snf_ganeti_hooks.firewall.reason import Reason

Expression = dict[str, Any]
Statement = dict[str, Any]

ACCEPT: Statement = {"accept": None}
DROP: Statement = {"drop": None}


@dataclass(frozen=True)
class Rule:
    """statements: matches, then what is done. comment: for who reads the rules."""

    statements: tuple[Statement, ...]
    comment: str = ""


def field(protocol: str, name: str) -> Expression:
    return {"payload": {"protocol": protocol, "field": name}}


def meta(key: str) -> Expression:
    return {"meta": {"key": key}}


def raw(base: str, offset: int, length: int) -> Expression:
    """Bits of a packet: offset and length counted in bits from its `ll`, `nh` or `th` header."""
    return {"payload": {"base": base, "offset": offset, "len": length}}


TARGET, TARGET_NAME = raw("th", 64, 128), field("icmpv6", "taddr")
"""The target of a neighbour solicitation or advertisement."""


IIF, OIF = meta("iifname"), meta("oifname")
"""The interface that a packet came by, or leaves by: the first key of every set of ours."""


def with_key(interface: Expression, key: Expression) -> Expression:
    """The two as the key of a set."""
    return {"concat": [interface, key]}


def masked(left: Expression, mask: int | str) -> Expression:
    return {"&": [left, mask]}


def match(left: Expression, right: Any, operator: str = "==") -> Statement:
    return {"match": {"op": operator, "left": left, "right": right}}


def differs(left: Expression, right: Any) -> Statement:
    return match(left, right, "!=")


def one_of(values: Sequence[Any]) -> Any:
    """A set; a single value is listed without one."""
    return values[0] if len(values) == 1 else {"set": list(values)}


def none_of(left: Expression, values: Iterable[Any]) -> list[Statement]:
    """A match for each value. A set would do, but the kernel keeps each set of a rule by
    itself, and libnftables reads all there are before it changes anything."""
    return [differs(left, value) for value in values]


def make_ranges(ranges: Iterable[tuple[int, int]]) -> list[Any]:
    return [first if first == last else {"range": [first, last]} for first, last in ranges]


def make_prefixes(networks: Iterable[IPv4Network | IPv6Network]) -> list[Any]:
    return [
        str(each.network_address)
        if each.prefixlen == each.max_prefixlen
        else {"prefix": {"addr": str(each.network_address), "len": each.prefixlen}}
        for each in networks
    ]


def make_texts(addresses: Iterable[IPv4Address | IPv6Address]) -> list[str]:
    return [str(each) for each in addresses]


def make_hex(addresses: Iterable[IPv6Address]) -> list[str]:
    return [f"0x{int(each):032x}" for each in addresses]


def goto(chain: str) -> Statement:
    return {"goto": {"target": chain}}


def set_mark(value: Any) -> Statement:
    return {"mangle": {"key": meta("mark"), "value": value}}


def normalise(value: Any) -> Any:
    """The same expression in one form: sets in one order, as the kernel lists them in its own,
    and the target of a neighbour message as bits, which newer libnftables has a name for."""
    if value == TARGET_NAME:
        return TARGET
    if isinstance(value, dict):
        if value.get("match", {}).get("left") == TARGET_NAME:
            value = {"match": _make_target_match(value["match"])}
        return {
            key: sorted(map(normalise, item), key=repr) if key == "set" else normalise(item)
            for key, item in value.items()
        }
    return [normalise(each) for each in value] if isinstance(value, list) else value


def _make_target_match(named: dict[str, Any]) -> dict[str, Any]:
    right = named["right"]
    if isinstance(right, dict) and "prefix" in right:
        length = right["prefix"]["len"]
        number = int(IPv6Address(right["prefix"]["addr"])) >> (128 - length)
        return {**named, "left": raw("th", 64, length), "right": number}
    texts = right["set"] if isinstance(right, dict) else [right]
    return {**named, "left": TARGET, "right": one_of(make_hex(map(IPv6Address, texts)))}


def normalise_rule(rule: Rule) -> Rule:
    return Rule(tuple(normalise(each) for each in rule.statements), rule.comment)


def drop(*matches: Statement, reason: Reason) -> Rule:
    """To the chain that counts what it drops, by interface and mark."""
    return Rule((*matches, set_mark(reason.mark), goto("drop")), reason.words)


def accept(*matches: Statement) -> Rule:
    return Rule((*matches, ACCEPT))
