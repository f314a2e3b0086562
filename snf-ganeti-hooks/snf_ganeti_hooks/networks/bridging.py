"""How a bridged tap joins its bridge: the lines for `ip -batch`, and what the bridge needs."""

from collections.abc import Iterable, Mapping

from snf_ganeti.errors import InputError
from snf_ganeti_hooks.firewall.base import Tracker
from snf_ganeti_hooks.kernel.link import Link
from snf_ganeti_hooks.nic import Nic


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


def make_vlan_argvs(nic: Nic, ports: Iterable[str], present: Iterable[int]) -> list[list[str]]:
    """Commands that make a NIC an access port of its VLAN and of no other, and lead that to the
    uplinks. present: VLANs that its tap is in; a bridge puts new ports into one of its own."""
    own = str(nic.vlan)
    return [
        _make_vlan_argv("add", nic.tap, own, "pvid", "untagged"),
        *(_make_vlan_argv("del", nic.tap, str(vlan)) for vlan in present if vlan != nic.vlan),
        *(_make_vlan_argv("add", port, own) for port in ports),
    ]


def is_in_vlan(nic: Nic, ports: Iterable[str], vlans: Mapping[str, Mapping[int, bool]]) -> bool:
    """Is it as these commands leave it? vlans: as `link.find_vlans` gives them."""
    return vlans.get(nic.tap) == {nic.vlan: True} and all(
        nic.vlan in vlans.get(port, {}) for port in ports
    )


def _make_vlan_argv(verb: str, port: str, vlan: str, *flags: str) -> list[str]:
    return ["bridge", "vlan", verb, "dev", port, "vid", vlan, *flags, "master"]


def find_uplinks(links: Mapping[str, Link], bridge: str) -> list[str]:
    """The ports of a bridge that are not guests'."""
    return [
        each.name
        for each in links.values()
        if each.master == bridge and not each.name.startswith("tap")
    ]
