"""Chains of our tables, and the commands that write and remove them."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from snf_ganeti_hooks.firewall.element import TABLE, Command
from snf_ganeti_hooks.firewall.expression import Rule

FAMILIES = ("netdev", "arp", "bridge", "inet")
"""Of each we have a table."""


@dataclass(frozen=True)
class Chain:
    """hook: empty for a chain that others lead to; device: of the netdev family."""

    family: str
    name: str
    rules: tuple[Rule, ...] = ()
    hook: str = ""
    priority: int = 0
    device: str = ""


def make_chain_commands(chains: Iterable[Chain]) -> list[Command]:
    """Write chains, whatever they were: all heads, before a rule leads to one."""
    made = list(chains)
    return [*map(_make_head, made), *(each for chain in made for each in _make_content(chain))]


def make_chain_removal(family: str, name: str) -> list[Command]:
    """Adding first makes the deletion succeed where there was nothing."""
    chain = {"family": family, "table": TABLE, "name": name}
    return [{"add": {"chain": chain}}, {"flush": {"chain": chain}}, {"delete": {"chain": chain}}]


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


def _add(kind: str, **fields: Any) -> Command:
    return {"add": {kind: fields}}


def _comment(rule: Rule) -> dict[str, str]:
    return {"comment": rule.comment} if rule.comment else {}
