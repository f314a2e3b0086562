"""What operators see of this node's NICs: a readable table, or JSON."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from snf_ganeti.errors import SnfError
from snf_ganeti_hooks import reconcile, setup, state
from snf_ganeti_hooks.addresses import dhcp_server
from snf_ganeti_hooks.cluster import tags
from snf_ganeti_hooks.inventory import Inventory, read_inventory, uncollected
from snf_ganeti_hooks.networks.routing import find_addresses
from snf_ganeti_hooks.node import Node
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


@uncollected()
def read_rows(node: Node) -> list[Row]:
    """Every NIC that has a state, by instance and index; what can't be read of the kernel is a
    note of each."""
    states, broken = state.read_states(node.run)
    notes = find_notes(node, states)
    try:
        inventory, unread = read_inventory(each.nic for each in states.values()), ""
    except SnfError as error:
        inventory, unread = None, str(error)
    rows = []
    for tap, each in states.items():
        problems = [unread] if inventory is None else find_problems(node, each, inventory)
        rows.append(make_row(node, each, inventory, [*problems, *notes[tap]]))
    rows += [
        Row("", tap, 0, "", "", "", "", (), "", {}, "its state can't be read") for tap in broken
    ]
    return sorted(rows, key=lambda row: (row.instance, row.index, row.tap))


def find_notes(node: Node, states: Mapping[str, NicState]) -> dict[str, list[str]]:
    """What the service could not do yet, by tap."""
    notes: dict[str, list[str]] = {tap: [] for tap in states}
    file = tags.read_file(tags.find_path(node.run))
    for changed in tags.find_changed(states, file) if file else []:
        profile = setup.choose(node, changed).profile.name
        notes[changed.nic.tap].append(f"profile {profile} is not in force yet")
    for tap, problem in dhcp_server.read_problems(node.run).items():
        notes.setdefault(tap, []).append(f"it gets no address: {problem}")
    return notes


def find_problems(node: Node, of: NicState, inventory: Inventory) -> list[str]:
    """What `check` would say of this NIC, and why its profile is not the one asked for."""
    present = inventory.links.get(of.nic.tap)
    if present is None or present.index != of.ifindex:
        return ["its tap has gone"]
    findings, wanted = reconcile.find_wanted(node, {of.nic.tap: of})
    findings += [found for each in wanted for found in reconcile.compare_nic(node, inventory, each)]
    choice = setup.choose(node, of)
    return [*([choice.problem] if choice.problem else []), *(each.problem for each in findings)]


def make_row(node: Node, of: NicState, inventory: Inventory | None, notes: Sequence[str]) -> Row:
    nic = of.nic
    return Row(
        instance=nic.instance,
        tap=nic.tap,
        index=nic.index,
        mac=nic.mac,
        network=nic.network.name if nic.network else "",
        kind=nic.kind.value,
        link=nic.link,
        addresses=tuple(map(str, find_addresses(nic))),
        profile=setup.choose(node, of).profile.name,
        dropped=dict(inventory.ruleset.dropped.get(nic.tap, {})) if inventory else {},
        note="; ".join(notes),
    )


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
