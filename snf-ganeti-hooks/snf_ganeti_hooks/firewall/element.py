"""What nftables keeps of single NICs: elements of sets, which the rules of all NICs share.

Every set is keyed by a tap's name, so a packet costs the same however many NICs a node has, and
so does the setting up of one more. (An interface's index would do, too, but libnftables reads
all interfaces before it takes one.) What an earlier tap of a name has left is in a new one's way,
because elements are made by a command that refuses what is there: then it is read, and removed
in the same transaction.

    guests                taps that are NICs
    macs                  with an address: the NIC's MAC
    sources4, sources6    with an address: what it may send from; `0.0.0.0` and `::` stand for
                          a NIC that has addresses, and has yet to learn them
    free4, free6          taps whose addresses nobody knows
    marks                 a routed NIC's mark, which says its routing table
    private, prefixes     taps of private networks; with the MAC prefix of its network
    profile-NAME          taps that have the profile
    limit-NAME-N-RATE     the same, each with the state of its own limit
    dropped               with a reason: each with a counter
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from snf_ganeti_hooks.firewall.expression import Statement
from snf_ganeti_hooks.firewall.reason import Reason

TABLE = "snf"
ZONES = "zones"
"""The one map that is not keyed by taps: a bridge leads to the chain that sets its zone."""
Command = dict[str, Any]


class Element(NamedTuple):
    """key: what stands beside the tap, if anything. value: of a map."""

    family: str
    set: str
    tap: str
    key: str | int = ""
    value: int = 0


@dataclass(frozen=True)
class Set:
    """key: the type of what stands beside the tap; value: of a map's values. statement: of
    which each element has its own, a counter or a limit."""

    family: str
    name: str
    key: str = ""
    value: str = ""
    statement: Statement | None = None


def make_dropped(family: str, tap: str, reasons: Iterable[Reason]) -> list[Element]:
    """A NIC's counters."""
    return [Element(family, "dropped", tap, each.mark) for each in reasons]


def make_set_command(of: Set) -> Command:
    kind = "map" if of.value else "set"
    fields: dict[str, Any] = {"family": of.family, "table": TABLE, "name": of.name}
    fields["type"] = ["ifname", of.key] if of.key else "ifname"
    if of.value:
        fields["map"] = of.value
    if of.statement:
        fields["stmt"] = [of.statement]
    return {"add": {kind: fields}}


def make_element_commands(verb: str, elements: Iterable[Element]) -> list[Command]:
    """A command a set. verb: `create` refuses what is there, `delete` what is not."""
    by_set: dict[tuple[str, str], list[Any]] = {}
    for each in sorted(elements, key=repr):
        key = {"concat": [each.tap, each.key]} if each.key != "" else each.tap
        listed = [key, each.value] if each.value else key
        by_set.setdefault((each.family, each.set), []).append(listed)
    return [
        {verb: {"element": {"family": family, "table": TABLE, "name": name, "elem": listed}}}
        for (family, name), listed in by_set.items()
    ]
