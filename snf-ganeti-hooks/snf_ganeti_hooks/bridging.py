"""How a bridged tap joins its bridge: the lines for `ip -batch`, and what the bridge needs."""

from collections.abc import Iterable, Mapping

from snf_ganeti.errors import InputError
from snf_ganeti_hooks.link import Link
from snf_ganeti_hooks.nic import Nic
from snf_ganeti_hooks.ruleset import Tracker


def check_bridge(nic: Nic, bridge: Link | None) -> Link:
    """Raises InputError when a NIC's bridge is not there or is none."""
    if bridge is None:
        raise InputError(f"there is no bridge {nic.link} for {nic.instance}", hint="make it first")
    if bridge.kind != "bridge":
        raise InputError(f"{nic.link} is no bridge, and {nic.instance} is to join it")
    return bridge


def make_join_lines(nic: Nic, bridge: Link, tracker: Tracker) -> list[str]:
    """The tap takes the bridge's MTU; its own MAC is high, so that the bridge never takes it."""
    lines = [
        f"link set {nic.tap} address fe:{nic.mac[3:]} mtu {bridge.mtu}",
        f"link set {nic.tap} master {nic.link} up",
    ]
    if tracker == "br_netfilter":
        lines.insert(0, make_netfilter_line(nic.link))
    return lines


def make_netfilter_line(bridge: str) -> str:
    """Show IP's connection tracking what passes this bridge, and no other."""
    return f"link set {bridge} type bridge nf_call_iptables 1 nf_call_ip6tables 1"


def make_vlan_argvs(nic: Nic, ports: Iterable[str]) -> list[list[str]]:
    """Commands that make a NIC an access port of its VLAN, and lead that to the uplinks."""
    vlan = str(nic.vlan)
    access = ["bridge", "vlan", "add", "dev", nic.tap, "vid", vlan, "pvid", "untagged", "master"]
    return [access, *(["bridge", "vlan", "add", "dev", each, "vid", vlan, "master"]
                      for each in ports)]  # fmt: skip


def find_uplinks(links: Mapping[str, Link], bridge: str) -> list[str]:
    """The ports of a bridge that are not guests'."""
    return [
        each.name
        for each in links.values()
        if each.master == bridge and not each.name.startswith("tap")
    ]
