"""Setting a NIC up and taking it down: the steps in order, and undone when one fails.

The guard is there before the tap is up, so no packet of a guest is ever seen without it.
"""

import contextlib
import logging
from collections.abc import Mapping
from ipaddress import IPv4Address
from pathlib import Path

from snf_ganeti import process
from snf_ganeti.errors import NodeError, SnfError
from snf_ganeti_hooks import state
from snf_ganeti_hooks.addresses import nfdhcpd
from snf_ganeti_hooks.firewall.element import Element
from snf_ganeti_hooks.firewall.part import Part, make_part
from snf_ganeti_hooks.firewall.profile import PROTECTED, Choice, choose_profile
from snf_ganeti_hooks.kernel import forwarding, link, nft
from snf_ganeti_hooks.kernel.link import Link
from snf_ganeti_hooks.networks import announce, bridging, routing
from snf_ganeti_hooks.nic import Kind, Nic
from snf_ganeti_hooks.node import Node
from snf_ganeti_hooks.state import NicState

log = logging.getLogger(__name__)


def set_up(node: Node, environ: Mapping[str, str], *, tags_known: bool = True) -> NicState:
    """Set up the NIC that Ganeti describes; the caller holds the lock.

    Raises SnfError, and then nothing of the NIC is left.
    """
    made = state.make_state(environ, tags_known=tags_known)
    nic = made.nic
    if not made.ifindex:
        raise NodeError(f"there is no interface {nic.tap} for {nic.instance}")
    state.check_claims(nic, node.run)
    table = read_table(nic)
    if nic.kind is not Kind.ROUTED:
        find_bridge(nic)
    choice = choose(node, made)
    if choice.problem:
        log.warning("NIC %d of %s is protected: %s", nic.index, nic.instance, choice.problem)
    earlier = state.read_state(nic.tap, node.run)
    try:
        if earlier is not None:
            forget(node, earlier)
        write_rules(node, made, choice, earlier)
        connect(node, nic, table)
        state.write_state(made, node.run)
        if node.settings.nfdhcpd_dir:
            folder = Path(node.settings.nfdhcpd_dir)
            nfdhcpd.write_binding(folder, nic, node.settings.find_dhcp(nic.network).mtu)
    except BaseException:
        with contextlib.suppress(SnfError):
            withdraw(node, made)
        raise
    announce_nic(node, nic, table)
    return made


def withdraw(node: Node, made: NicState) -> None:
    """Undo a NIC whose tap is still there: first nothing passes it, then its rules go."""
    lines = [f"link set {made.nic.tap} {what}" for what in ("down", "nomaster")]
    link.run_batch(lines, force=True)
    take_down(node, made)


def take_down(node: Node, gone: NicState) -> None:
    """Remove what a NIC has on this node; its tap may be gone, or another NIC's by now."""
    nft.change(node.base, gone.nic.tap, find_elements(node, gone), Part())
    forget(node, gone)


def forget(node: Node, gone: NicState) -> None:
    """Remove what is kept of a NIC beside its rules."""
    nic = gone.nic
    if nic.kind is Kind.ROUTED:
        forwarding.remove(find_left_behind(node, nic))
    if node.settings.nfdhcpd_dir:
        nfdhcpd.remove_binding(Path(node.settings.nfdhcpd_dir), nic.tap)
    state.remove_state(nic.tap, node.run)


def find_left_behind(node: Node, nic: Nic) -> list[forwarding.Entry]:
    """What goes with a NIC; for addresses that another one has by now the node goes on to
    answer."""
    table = read_table(nic)
    lost = state.find_lost_addresses(nic, node.run)
    proxies = routing.make_proxies(nic, node.find_uplinks(table))
    return [
        *routing.make_routes(nic, table),
        *(each for each in proxies if each.interface != nic.tap and each.address not in lost),
    ]


def change_profile(node: Node, changed: NicState) -> Choice:
    """Put the profile that a NIC's tags now name in force; connections that it knows go on."""
    choice = choose(node, changed)
    write_rules(node, changed, choice, state.read_state(changed.nic.tap, node.run))
    state.write_state(changed, node.run)
    return choice


def write_rules(node: Node, of: NicState, choice: Choice, earlier: NicState | None) -> None:
    """Put a NIC's rules in the place of those that its tap's name had."""
    present = find_elements(node, earlier) if earlier else frozenset()
    wanted = build_part(node, of, choice, read_table(of.nic))
    nft.change(node.base, of.nic.tap, present, wanted)


def find_elements(node: Node, of: NicState) -> frozenset[Element]:
    """What nftables should have of a NIC; the routing table that it named may be gone."""
    table = 0
    with contextlib.suppress(SnfError):
        table = read_table(of.nic)
    return build_part(node, of, choose(node, of), table).elements


def build_part(node: Node, of: NicState, choice: Choice, table: int) -> Part:
    tap_mac = node.settings.tap_mac
    return make_part(of.nic, choice.profile, node.tracker, tap_mac, table)


def choose(node: Node, of: NicState) -> Choice:
    if not of.tags_known:
        return Choice(PROTECTED, "its tags are not known yet")
    return choose_profile(of.nic, node.settings.profile, node.settings.default_profile)


def read_table(nic: Nic) -> int:
    """The routing table of a routed NIC; 0 for what is bridged."""
    if nic.kind is not Kind.ROUTED:
        return 0
    return routing.read_table(nic.link)


def connect(node: Node, nic: Nic, table: int) -> None:
    """Bring a NIC's tap up on its bridge, or with its routes. Raises SnfError."""
    if nic.kind is Kind.ROUTED:
        _connect_routed(node, nic, table)
    else:
        _connect_bridged(node, nic)


def _connect_routed(node: Node, nic: Nic, table: int) -> None:
    uplinks = node.find_uplinks(table)
    if not uplinks.ipv4 and not uplinks.ipv6:
        log.warning("%s: table %d has no default route, so nobody answers", nic.instance, table)
    link.set_sysctls(routing.make_tap_sysctls(nic) | routing.make_uplink_sysctls(uplinks))
    link.bring_up(nic.tap, node.settings.tap_mac)
    forwarding.add(
        [
            *routing.make_routes(nic, table),
            *routing.make_proxies(nic, uplinks),
            *routing.make_selectors(table, uplinks),
        ]
    )


def read_selectors() -> set[routing.Selector]:
    return routing.parse_selectors(
        link.query("-N", "rule", "show"), ipv6=False
    ) | routing.parse_selectors(link.query("-6", "-N", "rule", "show"), ipv6=True)


def _connect_bridged(node: Node, nic: Nic) -> None:
    bridge = find_bridge(nic)
    link.set_sysctls({f"ipv6/conf/{nic.tap}/disable_ipv6": 1})
    link.run_batch(bridging.make_join_lines(nic, bridge, node.tracker))
    if nic.vlan:
        ports = bridging.find_uplinks(link.find_links(), nic.link)
        present = link.find_vlans(nic.tap).get(nic.tap, {})
        for argv in bridging.make_vlan_argvs(nic, ports, present):
            process.run(argv)


def find_bridge(nic: Nic) -> Link:
    """Raises InputError."""
    return bridging.check_bridge(nic, link.find_link(nic.link))


def announce_nic(node: Node, nic: Nic, table: int) -> None:
    if nic.kind is Kind.ROUTED:
        uplinks = node.find_uplinks(table)
        for address in routing.find_addresses(nic):
            uplink = uplinks.ipv4 if isinstance(address, IPv4Address) else uplinks.ipv6
            if uplink:
                announce.send(address, uplink)
