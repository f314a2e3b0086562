"""nftables' JSON expressions, in the form in which libnftables lists them again.

See libnftables-json(5). Because both forms are the same, what the kernel has can be compared
with what it should have.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any

Expression = dict[str, Any]
Statement = dict[str, Any]

ACCEPT: Statement = {"accept": None}


@dataclass(frozen=True)
class Rule:
    """statements: matches, then what is done. reason: why it drops, shown to operators."""

    statements: tuple[Statement, ...]
    reason: str = ""


def field(protocol: str, name: str) -> Expression:
    return {"payload": {"protocol": protocol, "field": name}}


def meta(key: str) -> Expression:
    return {"meta": {"key": key}}


def raw(base: str, offset: int, length: int) -> Expression:
    """Bits of a packet: offset and length counted in bits from its `ll`, `nh` or `th` header."""
    return {"payload": {"base": base, "offset": offset, "len": length}}


def masked(left: Expression, mask: int | str) -> Expression:
    return {"&": [left, mask]}


def match(left: Expression, right: Any, operator: str = "==") -> Statement:
    return {"match": {"op": operator, "left": left, "right": right}}


def differs(left: Expression, right: Any) -> Statement:
    return match(left, right, "!=")


def one_of(values: Sequence[Any]) -> Any:
    """A set; a single value is listed without one."""
    return values[0] if len(values) == 1 else {"set": list(values)}


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


def set_mark(value: Any) -> Statement:
    return {"mangle": {"key": meta("mark"), "value": value}}


def normalise(value: Any) -> Any:
    """The same expression with sets in one order: the kernel lists them in its own."""
    if isinstance(value, dict):
        return {
            key: sorted(map(normalise, item), key=repr) if key == "set" else normalise(item)
            for key, item in value.items()
        }
    return [normalise(each) for each in value] if isinstance(value, list) else value


def normalise_rule(rule: Rule) -> Rule:
    return Rule(tuple(normalise(each) for each in rule.statements), rule.reason)


def drop(*matches: Statement, reason: str) -> Rule:
    return Rule((*matches, {"counter": {"packets": 0, "bytes": 0}}, {"drop": None}), reason)


def accept(*matches: Statement) -> Rule:
    return Rule((*matches, ACCEPT))
