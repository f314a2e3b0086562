"""Two booted instances on a Ganeti cluster of two nodes: who reaches whom, and what is left.

The guests themselves tell what they reach. A deadline here is what is promised to operators,
counted from the end of the command, or from the kill.
"""

import contextlib
import json
import os
import select
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6NDOptDstLLAddr, IPv6
from scapy.layers.l2 import ARP, Ether

from snf_ganeti import process
from testbed.bed import open_bed
from testbed.deadline import wait_for
from testbed.ganeti import Cluster
from testbed.guest_networks import (
    STATE,
    Guest,
    find_nodes,
    list_traces,
    open_site,
    read_mac,
    read_neighbours,
)
from testbed.machine import Machine
from testbed.namespaces import call_in_network, connect, make_enter_network_argv
from testbed.roots import BUILD
from testbed.wire import BRIDGE

SUITES = ("bookworm", "trixie") if os.environ.get("SNF_SOAK") == "1" else ("bookworm",)
"""Ganeti 3.0, and 3.1 with all else that Debian 13 has."""
PROFILE_SECONDS = 10.0
TEARDOWN_SECONDS = 5.0
SECONDS = 120.0
LET_IN = {
    "unprotected": {"ICMP", "22", "80"},
    "limited": {"ICMP", "22"},
    "protected": {"ICMP"},
}


@dataclass(frozen=True)
class Site:
    cluster: Cluster
    one: Guest
    two: Guest


@pytest.fixture(scope="module", params=SUITES)
def site(request: pytest.FixtureRequest, root: None) -> Iterator[Site]:
    debs, name = sorted((BUILD / "deb").glob("*.deb")), f"network-{os.getpid()}"
    with open_bed(name, suite=request.param, debs=debs) as bed, open_site(bed) as cluster:
        one, two = Guest(cluster, "one", 7), Guest(cluster, "two", 8)
        for guest in (one, two):
            guest.add(cluster.node)
        cluster.run("gnt-instance", "start", "--force-multiple", one.name, two.name)
        yield Site(cluster, one, two)


def make_tag(profile: str, ident: str = "0") -> str:
    return f"synnefo:network:{ident}:{profile}"


def expect(public: str, private: str) -> set[str]:
    """What of a guest is reached, with these profiles of its NICs."""
    profiles = {"public4": public, "public6": public, "private4": private, "private6": private}
    return {f"{name} {what}" for name, profile in profiles.items() for what in LET_IN[profile]}


def check_reach(sender: Guest, receiver: Guest, expected: set[str]) -> None:
    """Nothing else passes, ever; what should may take a router's advertisement to come."""
    seen: set[str] = set()

    def reaches() -> bool:
        seen.clear()
        seen.update(sender.reach(receiver))
        assert seen <= expected
        return seen == expected

    wait_for(
        f"what {sender.name} reaches of {receiver.name}",
        reaches,
        SECONDS,
        explain=lambda: f"it does not reach {expected - seen}",
    )


def is_open(cluster: Cluster, address: str, port: int = 80) -> bool:
    """Does the guest answer a connection from outside? It has had its time for that, however
    slow it is, when it has answered an echo request that came after, and that always passes."""
    pid = cluster.bed.wire.machine.pid
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with call_in_network(pid, lambda: socket.socket(family, socket.SOCK_STREAM)) as client:
        client.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            client.connect((address, port))
        ping = ["busybox", "ping", "-c", "1", "-w", f"{SECONDS:.0f}", address]
        process.run(make_enter_network_argv(pid, ping), timeout=2 * SECONDS)
        try:
            client.getpeername()
        except OSError:
            return False
        return True


def wait_for_profile(guest: Guest, *, opens: bool) -> None:
    """Within what is promised after a change of tags."""
    wait_for(
        f"{guest.name} open: {opens}",
        lambda: all(
            is_open(guest.cluster, guest.addresses[name]) == opens
            for name in ("public4", "public6")
        ),
        PROFILE_SECONDS,
    )


def wait_until_gone(node: Machine, guest: Guest, seconds: float = TEARDOWN_SECONDS) -> None:
    wait_for(
        f"the end of {guest.name}'s traces on {node.hostname}",
        lambda: not list_traces(node, guest),
        seconds,
        explain=lambda: "\n".join(list_traces(node, guest)),
    )


def test_guests_reach_each_other_until_their_tags_say_otherwise(site: Site) -> None:
    one, two = site.one, site.two
    everything = expect("unprotected", "unprotected")
    check_reach(two, one, everything)
    check_reach(one, two, everything)

    pid = site.cluster.bed.wire.machine.pid
    with connect(pid, (one.addresses["public4"], 80), SECONDS) as held:
        one.tag("add-tags", make_tag("protected", "0"), make_tag("protected", "1"))
        wait_for_profile(one, opens=False)
        two.tag("add-tags", make_tag("limited", "0"))
        wait_for_profile(two, opens=False)
        check_reach(two, one, expect("protected", "protected"))
        check_reach(one, two, expect("limited", "unprotected"))
        held.sendall(b"GET /eth0 HTTP/1.0\r\n\r\n")
        assert one.macs[0].encode() in read_whole(held)  # it was open before the change


def read_whole(connection: socket.socket) -> bytes:
    data = b""
    while received := connection.recv(65536):
        data += received
    return data


def test_guest_that_migrates_takes_its_rules_along(site: Site) -> None:
    cluster, one, two = site.cluster, site.one, site.two
    source, target = find_nodes(cluster)
    assert two.find_node() == source
    assert is_open(cluster, two.addresses["public4"], 22)
    assert read_neighbours(cluster.bed.wire.machine)[two.addresses["public4"]] == read_mac(source)

    with sniff(cluster) as sniffer:
        cluster.run("gnt-instance", "migrate", "--force", "-n", target.hostname, two.name)
        ended = time.monotonic()
        assert_announced(sniffer, two, read_mac(target))
    wait_until_gone(source, two, ended + TEARDOWN_SECONDS - time.monotonic())
    known = read_neighbours(cluster.bed.wire.machine)
    assert known[two.addresses["public4"]] == read_mac(target)
    assert two.find_node() == target
    check_reach(one, two, expect("limited", "unprotected"))
    check_reach(two, one, expect("protected", "protected"))


@contextlib.contextmanager
def sniff(cluster: Cluster) -> Iterator[socket.socket]:
    """All frames that the router gets."""

    def make() -> socket.socket:
        packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        packets.bind((BRIDGE, 3))
        return packets

    with call_in_network(cluster.bed.wire.machine.pid, make) as packets:
        yield packets


def assert_announced(sniffer: socket.socket, guest: Guest, mac: str) -> None:
    """A gratuitous ARP request and reply (RFC 5944, 4.6), and an unsolicited neighbour
    advertisement that overrides (RFC 4861, 7.2.6), all from the node's own MAC."""
    wanted = {"request", "reply", "advertisement"}
    deadline = time.monotonic() + SECONDS
    while wanted:
        assert select.select([sniffer], [], [], deadline - time.monotonic())[0], f"no {wanted}"
        wanted.discard(parse_announcement(Ether(sniffer.recv(65536)), guest, mac))


def parse_announcement(frame: Ether, guest: Guest, mac: str) -> str:
    if frame.src != mac:
        return ""
    if ARP in frame and frame[ARP].psrc == frame[ARP].pdst == guest.addresses["public4"]:
        assert (frame.dst, frame[ARP].hwsrc) == ("ff:ff:ff:ff:ff:ff", mac)
        return {1: "request", 2: "reply"}[frame[ARP].op]
    if ICMPv6ND_NA in frame and frame[ICMPv6ND_NA].tgt == guest.addresses["public6"]:
        found = frame[ICMPv6ND_NA]
        if found.S:
            return ""
        assert (frame[IPv6].dst, frame[IPv6].hlim, found.O) == ("ff02::1", 255, 1)
        assert frame[ICMPv6NDOptDstLLAddr].lladdr == mac
        return "advertisement"
    return ""


def test_tags_reach_the_node_that_is_not_the_master(site: Site) -> None:
    cluster, one, two = site.cluster, site.one, site.two
    assert two.find_node() != cluster.node
    two.tag("remove-tags", make_tag("limited"))
    wait_for_profile(two, opens=True)
    two.tag("add-tags", make_tag("protected"))
    wait_for_profile(two, opens=False)
    check_reach(one, two, expect("protected", "unprotected"))


def test_killed_guest_leaves_nothing_and_comes_back_as_it_was(site: Site) -> None:
    cluster, one, two = site.cluster, site.one, site.two
    node = two.find_node()
    assert list_traces(node, two)
    pid = two.find_pid(node)
    node.run("kill", "-9", str(pid))
    wait_until_gone(node, two)

    with sniff(cluster) as sniffer:
        cluster.run("gnt-instance", "start", two.name)
        assert_announced(sniffer, two, read_mac(node))
    check_reach(one, two, expect("protected", "unprotected"))


def test_guest_that_restarts_is_as_it_was(site: Site) -> None:
    one, two = site.one, site.two
    site.cluster.run("gnt-instance", "reboot", "--type=hard", "--shutdown-timeout=0", one.name)
    check_reach(two, one, expect("protected", "protected"))


def test_guest_that_fails_over_is_as_it_was(site: Site) -> None:
    cluster, one, two = site.cluster, site.one, site.two
    source, target = reversed(find_nodes(cluster))
    assert two.find_node() == source
    cluster.run(
        *("gnt-instance", "failover", "--force", "--shutdown-timeout=1"),
        *("-n", target.hostname, two.name),
    )
    wait_until_gone(source, two)
    assert two.find_node() == target
    check_reach(one, two, expect("protected", "unprotected"))


def test_lost_state_comes_back_from_ganetis_files(site: Site) -> None:
    node = site.cluster.node
    shown = read_rows(node)
    assert [(row["instance"], row["profile"]) for row in shown] == [
        *(("one", "protected"), ("one", "protected"), ("two", "protected"), ("two", "unprotected")),
    ]
    node.run("sh", "-c", f"rm -r {STATE}; nft flush ruleset")
    node.run("snf-network", "reconcile")
    wait_for("its profiles", lambda: read_rows(node) == shown, PROFILE_SECONDS)
    assert node.run("snf-network", "check").text == ""


def read_rows(node: Machine) -> list[dict[str, object]]:
    """Without what they dropped."""
    rows = json.loads(node.run("snf-network", "show", "--json").text)
    return [{key: value for key, value in row.items() if key != "dropped"} for row in rows]


def test_guest_that_is_stopped_leaves_nothing(site: Site) -> None:
    cluster, one = site.cluster, site.one
    node = one.find_node()
    cluster.run("gnt-instance", "shutdown", "--timeout=1", one.name)
    wait_until_gone(node, one)


def test_hook_removes_what_is_left_where_no_service_runs(site: Site) -> None:
    """Before the job of the stop has ended."""
    cluster, two = site.cluster, site.two
    node = two.find_node()
    service = ("pgrep", "-f", "snf-network serve")
    node.run("kill", *node.run(*service).text.split())
    wait_for("the end of the service", lambda: not node.run(*service, ok=(0, 1)).text, SECONDS)
    assert list_traces(node, two)
    cluster.run("gnt-instance", "stop", "--timeout=1", two.name)
    assert not list_traces(node, two)
