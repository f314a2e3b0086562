"""The transactions that nftables gets: lists of commands, each list done wholly or not at all."""

from collections.abc import Iterable

from snf_ganeti_hooks.firewall.base import Base, make_base, make_base_sets
from snf_ganeti_hooks.firewall.chain import FAMILIES, make_chain_commands, make_chain_removal
from snf_ganeti_hooks.firewall.element import (
    TABLE,
    ZONES,
    Command,
    Element,
    make_element_commands,
    make_set_command,
)
from snf_ganeti_hooks.firewall.expression import goto
from snf_ganeti_hooks.firewall.part import Part, Zone, name_ingress


def make_base_commands(base: Base) -> list[Command]:
    """Write what all share, whatever of it is there."""
    tables: list[Command] = [
        {"add": {"table": {"family": family, "name": TABLE}}} for family in FAMILIES
    ]
    sets = map(make_set_command, make_base_sets(base))
    return [*tables, *sets, *make_chain_commands(make_base(base))]


def make_change(tap: str, present: Iterable[Element], wanted: Part) -> list[Command]:
    """Make a NIC's part of what is present of it; chains are written whatever they were."""
    had = frozenset(present)
    commands = make_element_commands("delete", had - wanted.elements)
    commands += make_element_commands("create", wanted.elements - had)
    families = {each.family for each in wanted.elements}
    for family in {"inet", "bridge"} - families:
        # Refused when an earlier tap of this name was a NIC of the other kind, and is there yet.
        nothing = [Element(family, "guests", tap)]
        commands += make_element_commands("create", nothing)
        commands += make_element_commands("delete", nothing)
    if not any(each.device for each in wanted.chains):
        commands += make_chain_removal("netdev", name_ingress(tap))
    commands += make_chain_commands(wanted.chains)
    if wanted.zone:
        commands.append(_make_zone_element("add", wanted.zone))
    return commands


def make_zone_removal(zone: Zone) -> list[Command]:
    return [
        _make_zone_element("delete", zone),
        *make_chain_removal(zone.family, zone.chain),
    ]


def make_foreign_removal(
    chains: Iterable[tuple[str, str]], sets: Iterable[tuple[str, str, str]]
) -> list[Command]:
    """Remove chains (family, name) and sets or maps (kind, family, name) of our tables that are
    not ours, or not any more: first what leads from one to another."""
    heads = [{"family": family, "table": TABLE, "name": name} for family, name in sorted(chains)]
    return [
        *({"flush": {"chain": head}} for head in heads),
        *(
            {"delete": {kind: {"family": family, "table": TABLE, "name": name}}}
            for kind, family, name in sorted(sets)
        ),
        *({"delete": {"chain": head}} for head in heads),
    ]


def _make_zone_element(verb: str, zone: Zone) -> Command:
    element = [zone.bridge, goto(zone.chain)]
    names = {"family": zone.family, "table": TABLE, "name": ZONES}
    return {verb: {"element": {**names, "elem": [element]}}}
