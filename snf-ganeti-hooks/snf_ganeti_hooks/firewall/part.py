"""What is one NIC's alone: elements of the shared sets, and a chain at its tap.

netdev          ingress-TAP   a NIC's own rules, see networks.neighbour
inet or bridge  zone-BRIDGE   conntrack zone of a bridge whose addresses are its tenants',
                              found by the map `zones`
"""

import zlib
from dataclasses import dataclass
from typing import Any

from snf_ganeti_hooks.firewall.admission import make_admission_elements
from snf_ganeti_hooks.firewall.base import Tracker
from snf_ganeti_hooks.firewall.chain import Chain
from snf_ganeti_hooks.firewall.element import Element, make_dropped
from snf_ganeti_hooks.firewall.expression import Rule, raw
from snf_ganeti_hooks.firewall.guard import make_guard_elements
from snf_ganeti_hooks.firewall.profile import Profile
from snf_ganeti_hooks.firewall.reason import Reason
from snf_ganeti_hooks.networks.neighbour import make_neighbour
from snf_ganeti_hooks.nic import Kind, Nic


@dataclass(frozen=True)
class Zone:
    """An element of the map `zones`: a bridge leads to its chain."""

    family: str
    bridge: str

    @property
    def chain(self) -> str:
        return f"zone-{self.bridge}"


@dataclass(frozen=True)
class Part:
    """What a NIC has: elements of the shared sets, the chain at its tap, and the zone of its
    bridge with its chain."""

    elements: frozenset[Element] = frozenset()
    chains: tuple[Chain, ...] = ()
    zone: Zone | None = None


def make_part(nic: Nic, profile: Profile, tracker: Tracker, tap_mac: str, table: int = 0) -> Part:
    """What a NIC has. tap_mac: of routed taps; table: a routed NIC's."""
    elements = {
        *make_guard_elements(nic, table),
        *make_admission_elements(nic, profile),
    }
    chains = []
    own = make_neighbour(nic, tap_mac)
    if own:
        chains.append(Chain("netdev", name_ingress(nic.tap), tuple(own), "ingress", -10, nic.tap))
        elements |= set(make_dropped("netdev", nic.tap, (Reason.ETHER_TYPE,)))
    rule = make_zone(nic)
    if rule is None:
        return Part(frozenset(elements), tuple(chains))
    zone = Zone("bridge" if tracker == "bridge" else "inet", nic.link)
    chains.append(Chain(zone.family, zone.chain, (rule,)))
    return Part(frozenset(elements), tuple(chains), zone)


def name_ingress(tap: str) -> str:
    """Of the chain at a tap."""
    return f"ingress-{tap}"


def make_zone(nic: Nic) -> Rule | None:
    """Tenants choose the addresses of their own networks, so the same connection can exist
    twice on a node; in one zone each would pass as the other's reply.

    A private network's zone is the end of its MAC prefix, read from the packet; a VLAN's is a
    number made from the bridge's name. What is bridged otherwise shares the node's own.
    """
    zone: Any = None
    if nic.kind is Kind.PRIVATE:
        zone = raw("ll", 56, 16)
    elif nic.kind is Kind.BRIDGED and "physical-vlan" in nic.network_tags:
        zone = max(1, zlib.crc32(nic.link.encode()) & 0xFFFF)
    if zone is None:
        return None
    return Rule(({"mangle": {"key": {"ct": {"key": "zone"}}, "value": zone}},))
