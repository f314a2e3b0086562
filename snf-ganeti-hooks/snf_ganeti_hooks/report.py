"""What operators see of this node's NICs: a readable table, or JSON."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from snf_ganeti_hooks import setup, state
from snf_ganeti_hooks.inventory import Drop, Inventory, read_inventory
from snf_ganeti_hooks.node import Node
from snf_ganeti_hooks.routing import find_addresses
from snf_ganeti_hooks.state import NicState

_HEAD = ("instance", "tap", "network", "kind", "addresses", "profile", "dropped", "")


@dataclass(frozen=True)
class Row:
    """A NIC. dropped: packets, by reason. note: what is wrong with it, or empty."""

    instance: str
    tap: str
    index: int
    mac: str
    network: str
    kind: str
    link: str
    addresses: tuple[str, ...]
    profile: str
    dropped: dict[str, int]
    note: str = ""


def read_rows(node: Node) -> list[Row]:
    """Every NIC that has a state, by instance and index. Raises SnfError."""
    states, broken = state.read_states(node.run)
    inventory = read_inventory()
    rows = [make_row(node, each, inventory) for each in states.values()]
    rows += [
        Row("", tap, 0, "", "", "", "", (), "", {}, "its state can't be read") for tap in broken
    ]
    return sorted(rows, key=lambda row: (row.instance, row.index, row.tap))


def make_row(node: Node, of: NicState, inventory: Inventory) -> Row:
    nic = of.nic
    choice = setup.choose(node, of)
    present = inventory.links.get(nic.tap)
    gone = present is None or present.index != of.ifindex
    return Row(
        instance=nic.instance,
        tap=nic.tap,
        index=nic.index,
        mac=nic.mac,
        network=nic.network.name if nic.network else "",
        kind=nic.kind.value,
        link=nic.link,
        addresses=tuple(map(str, find_addresses(nic))),
        profile=choice.profile.name,
        dropped=_sum_drops(nic.tap, inventory),
        note="its tap has gone" if gone else choice.problem,
    )


def _sum_drops(tap: str, inventory: Inventory) -> dict[str, int]:
    drops: list[Drop] = []
    for key in (("netdev", f"guard-{tap}"), ("inet", f"to-{tap}"), ("bridge", f"to-{tap}")):
        drops += inventory.ruleset.drops.get(key, ())
    found: dict[str, int] = {}
    for drop in drops:
        if drop.packets:
            found[drop.reason] = found.get(drop.reason, 0) + drop.packets
    return found


def make_table(rows: Sequence[Row]) -> str:
    """A line a NIC under a head, columns aligned."""
    lines = [_HEAD, *map(_make_cells, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def make_json(rows: Sequence[Row]) -> str:
    return json.dumps([asdict(row) for row in rows], indent=2)


def _make_cells(row: Row) -> tuple[str, ...]:
    return (
        row.instance[:48] or "-",
        row.tap,
        row.network[:32] or "-",
        row.kind,
        ",".join(row.addresses) or "-",
        row.profile,
        str(sum(row.dropped.values())),
        row.note,
    )
