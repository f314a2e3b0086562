"""A site's own profile, by packets: ports, sources, ICMP, and how many pass in a second.

An echo request may not pass here, so the end mark is a datagram to a port that the profile opens.
"""

import itertools
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6
from scapy.layers.l2 import Ether

from testbed.admitted_packets import get_replies
from testbed.bed import Bed
from testbed.hosting import NicWords, Station
from testbed.packets import (
    FAMILIES,
    UPLINK_MAC,
    Setting,
    configure,
    find_arrived,
    open_setting,
)

END_PORT, LIMITED_PORT = 4000, 7000
BURST, RATE = 5, 1
SETTINGS = f"""
[[profile]]
name = "site"
icmp = false
allow = [
    {{ports = ["80", "443", "8000-8100"]}},
    {{ports = ["22"], sources = ["203.0.113.0/25", "2001:db8:a::/48"]}},
    {{ports = ["23"], sources = ["203.0.113.0/25"]}},
    {{ports = ["24"], sources = ["2001:db8:a::/48"]}},
    {{protocol = "udp", ports = ["53", "6000-6010"]}},
    {{protocol = "udp", ports = ["{END_PORT}"]}},
    {{protocol = "udp", ports = ["{LIMITED_PORT}"], per_second = {RATE}}},
]
"""
# The last address of each subnet of sources, and the first behind it.
INSIDE: Mapping[int, str] = {
    socket.AF_INET: "203.0.113.127",
    socket.AF_INET6: "2001:db8:a:ffff:ffff:ffff:ffff:ffff",
}
OUTSIDE: Mapping[int, str] = {socket.AF_INET: "203.0.113.128", socket.AF_INET6: "2001:db8:b::"}
FLOOD = 60

_ports = itertools.count(20000)


@dataclass(frozen=True)
class Guest:
    nic: NicWords
    station: Station
    addresses: Mapping[int, str]


@dataclass(frozen=True)
class Probe:
    """port: of the guest. inside: the profile's sources. passes: IP's versions in which it does."""

    protocol: Literal["tcp", "udp", "echo"]
    port: int = 0
    inside: bool = False
    passes: str = ""

    def __str__(self) -> str:
        return f"{self.protocol} {self.port} from {'inside' if self.inside else 'outside'}"


PROBES = (
    *(Probe("tcp", port, passes="46") for port in (80, 443, 8000, 8050, 8100)),
    *(Probe("tcp", port) for port in (79, 81, 442, 444, 7999, 8101, 53, 6000)),
    *(Probe("udp", port, passes="46") for port in (53, 6000, 6005, 6010)),
    *(Probe("udp", port) for port in (52, 54, 5999, 6011, 80, 8000)),
    Probe("tcp", 22, inside=True, passes="46"),
    Probe("udp", 22, inside=True),
    Probe("tcp", 22),
    Probe("tcp", 23, inside=True, passes="4"),
    Probe("tcp", 23),
    Probe("tcp", 24, inside=True, passes="6"),
    Probe("tcp", 24),
    Probe("echo", inside=True),
    Probe("echo"),
)


@pytest.fixture(scope="module", params=["routed", "bridged"])
def setting(request: pytest.FixtureRequest, bed: Bed) -> Iterator[Setting]:
    with open_setting(bed, request.param) as opened:
        opened.hosting.node.write("/etc/snf-ganeti-hooks/conf.d/site.toml", SETTINGS)
        opened.set_profile("site")
        yield opened


@pytest.fixture(scope="module")
def guest(setting: Setting) -> Guest:
    addresses: dict[int, str] = {family: setting.get_guest(family) for family in FAMILIES}
    return Guest(setting.nic, setting.guest, addresses)


@pytest.fixture(scope="module")
def neighbour(setting: Setting) -> Guest:
    """Another guest whose NIC has the same profile."""
    ipv4, ipv6 = "198.51.100.9", "2001:db8:1:0:a800:1ff:fe00:9"
    nic = NicWords("tap1", "aa:00:01:00:00:09", {**setting.nic.words, "IP": ipv4})
    station = setting.hosting.add_guest(nic)
    configure(station, ipv4, ipv6)
    return Guest(nic, station, {socket.AF_INET: ipv4, socket.AF_INET6: ipv6})


@pytest.mark.parametrize("family", FAMILIES, ids=["IPv4", "IPv6"])
def test_ports_and_sources(setting: Setting, guest: Guest, family: int) -> None:
    version = "4" if family == socket.AF_INET else "6"
    frames = {str(each): make_frame(setting, guest, family, each) for each in PROBES}
    end = partial(send_end, setting, guest, family)
    arrived = find_arrived(setting.peer, guest.station, frames, end)
    assert arrived == {str(each) for each in PROBES if version in each.passes}


@pytest.mark.parametrize("family", FAMILIES, ids=["IPv4", "IPv6"])
def test_macs_are_found_without_icmp(setting: Setting, family: int) -> None:
    """Who asks has forgotten the other's MAC: first the guest, then who sends to it."""
    setting.guest.ip("neigh flush dev eth0")
    assert get_replies(setting, family)
    if setting.kind == "routed":
        setting.hosting.ip("neigh flush dev tap0")
    else:
        setting.peer.ip("neigh flush dev eth0")
    with (
        setting.guest.open_socket(family, socket.SOCK_DGRAM) as server,
        setting.peer.open_socket(family, socket.SOCK_DGRAM) as client,
    ):
        server.bind(("", END_PORT))
        client.sendto(b"datagram", (setting.get_guest(family), END_PORT))
        assert server.recv(100) == b"datagram"


@pytest.mark.parametrize("family", FAMILIES, ids=["IPv4", "IPv6"])
def test_limit_lets_a_burst_pass_and_then_its_rate(
    setting: Setting, guest: Guest, family: int
) -> None:
    renew_limit(setting, guest)
    started = time.monotonic()
    arrived = flood(setting, guest, family, FLOOD)
    assert BURST <= arrived <= BURST + RATE * (time.monotonic() - started)
    # The limit is on what is new: who has asked gets the answer.
    assert get_replies(setting, family)


@pytest.mark.parametrize("family", FAMILIES, ids=["IPv4", "IPv6"])
def test_each_nic_has_a_limit_of_its_own(
    setting: Setting, guest: Guest, neighbour: Guest, family: int
) -> None:
    renew_limit(setting, neighbour)
    flood(setting, guest, family, FLOOD)
    assert flood(setting, neighbour, family, BURST) == BURST


def renew_limit(setting: Setting, guest: Guest) -> None:
    """A NIC that gets the profile anew has all of its burst again."""
    for profile in ("protected", "site"):
        setting.hosting.set_up(guest.nic.tagged(f"synnefo:network:0:{profile}"))


def flood(setting: Setting, guest: Guest, family: int, count: int) -> int:
    """How many arrive of datagrams to the limited port, none of which belongs to another."""
    probe = Probe("udp", LIMITED_PORT)
    frames = {str(number): make_frame(setting, guest, family, probe) for number in range(count)}
    end = partial(send_end, setting, guest, family)
    return len(find_arrived(setting.peer, guest.station, frames, end))


def send_end(setting: Setting, guest: Guest, family: int, mark: bytes) -> None:
    frame = make_frame(setting, guest, family, Probe("udp", END_PORT))
    setting.peer.send(bytes(frame / mark))


def make_frame(setting: Setting, guest: Guest, family: int, probe: Probe) -> Ether:
    """A first packet from the peer, as if from the probe's source."""
    next_mac = UPLINK_MAC if setting.kind == "routed" else guest.nic.mac
    source = (INSIDE if probe.inside else OUTSIDE)[family]
    make = IP if family == socket.AF_INET else IPv6
    packet = Ether(src=setting.peer.mac, dst=next_mac) / make(
        src=source, dst=guest.addresses[family]
    )
    if probe.protocol == "echo":
        return packet / (ICMP() if family == socket.AF_INET else ICMPv6EchoRequest())
    talk = TCP if probe.protocol == "tcp" else UDP
    return packet / talk(sport=next(_ports), dport=probe.port)
