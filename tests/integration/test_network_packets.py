"""Which packets pass a NIC, told by the sockets of who sends and who should receive.

Every cell of kind, family, profile and probe. Nothing waits for a packet that should not come:
what must not pass is followed by an echo request, which passes always and by the same way, and
when that has arrived the receiver looks at what came before.
"""

import contextlib
import itertools
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import pytest
from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import (
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
)
from scapy.layers.l2 import ARP, Dot1Q, Ether

from testbed.bed import Bed
from testbed.hosting import Hosting, NicWords, Station, open_hosting

GUEST_MAC, PEER_MAC, OTHER_MAC = "aa:00:01:00:00:07", "aa:00:01:00:00:08", "aa:00:02:00:00:09"
TAP_MAC = "cc:47:52:4e:45:54"
SUBNET = {
    "NETWORK_NAME": "net1",
    "NETWORK_SUBNET": "198.51.100.0/24",
    "NETWORK_GATEWAY": "198.51.100.1",
    "NETWORK_SUBNET6": "2001:db8:1::/64",
    "NETWORK_GATEWAY6": "2001:db8:1::1",
    "NETWORK_MAC_PREFIX": "aa:00:01",
}
GUEST4, GUEST6 = "198.51.100.7", "2001:db8:1:0:a800:1ff:fe00:7"
PEER4, PEER6 = "198.51.100.8", "2001:db8:1:0:a800:1ff:fe00:8"
WORLD4, WORLD6 = "192.0.2.1", "2001:db8:ff::1"
SPOOFED4, SPOOFED6 = "198.51.100.66", "2001:db8:1::66"
KINDS = ("routed", "private-filtered", "physical-vlan", "bridged")
PROFILES = ("unprotected", "limited", "protected")
FAMILIES = (socket.AF_INET, socket.AF_INET6)
LINK_LOCAL = "fe80::a800:1ff:fe00:7"

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Setting:
    """A guest behind its NIC, and a peer: outside, or another guest of its private network."""

    kind: str
    hosting: Hosting
    nic: NicWords
    guest: Station
    peer: Station
    peer4: str
    peer6: str

    def get_guest(self, family: int) -> str:
        return GUEST4 if family == socket.AF_INET else GUEST6

    def get_peer(self, family: int) -> str:
        return self.peer4 if family == socket.AF_INET else self.peer6

    @property
    def next_mac(self) -> str:
        """Where the guest's frames to the peer go first."""
        return TAP_MAC if self.kind == "routed" else self.peer.mac

    def set_profile(self, profile: str) -> None:
        self.hosting.set_up(self.nic.tagged(f"synnefo:network:0:{profile}"))


@pytest.fixture(scope="module", params=KINDS)
def setting(request: pytest.FixtureRequest, bed: Bed) -> Iterator[Setting]:
    makers: dict[str, Callable[[Hosting], Setting]] = {
        "routed": make_routed,
        "private-filtered": make_private,
        "physical-vlan": make_vlan,
        "bridged": make_bridged,
    }
    with open_hosting(bed.folder / f"hosting-{request.param}", bed.layers) as hosting:
        made = makers[request.param](hosting)
        for family in FAMILIES:  # both know each other's MAC before anything is counted
            assert passes(made, family, made.guest, made.peer, lambda: None, lambda _: False) == 0
        yield made


def make_routed(hosting: Hosting) -> Setting:
    world = hosting.add_station("up0", "02:00:00:00:00:01")
    world.ip(
        f"address add {WORLD4}/24 dev eth0",
        "address add 198.51.100.1/24 dev eth0",
        f"address add {WORLD6}/64 dev eth0 nodad",
        "address add 2001:db8:1::1/64 dev eth0 nodad",
    )
    hosting.node.run("sh", "-c", "echo 1 >/proc/sys/net/ipv6/conf/all/forwarding")
    hosting.ip(
        "address add 192.0.2.2/24 dev up0",
        "address add 2001:db8:ff::2/64 dev up0 nodad",
        "link set up0 up",
        f"route add default via {WORLD4}",
        f"route add default via {WORLD6}",
    )
    nic = NicWords("tap0", GUEST_MAC, {"MODE": "routed", "IP": GUEST4, **SUBNET})
    guest = hosting.add_guest(nic)
    configure(guest, GUEST4, GUEST6)
    guest.ip("route add default via 198.51.100.1", "route add default via 2001:db8:1::1")
    return Setting("routed", hosting, nic, guest, world, WORLD4, WORLD6)


def make_vlan(hosting: Hosting) -> Setting:
    """A bridge that is one tenant's, on an uplink that carries its VLAN."""
    return make_bridged(hosting, "physical-vlan")


def make_bridged(hosting: Hosting, tags: str = "") -> Setting:
    outside = hosting.add_station("up0", PEER_MAC)
    configure(outside, PEER4, PEER6)
    hosting.ip("link add br0 type bridge", "link set br0 up", "link set up0 master br0 up")
    words = {"MODE": "bridged", "LINK": "br0", "NETWORK_TAGS": tags, "IP": GUEST4, **SUBNET}
    nic = NicWords("tap0", GUEST_MAC, words)
    guest = hosting.add_guest(nic)
    configure(guest, GUEST4, GUEST6)
    return Setting(tags or "bridged", hosting, nic, guest, outside, PEER4, PEER6)


def make_private(hosting: Hosting) -> Setting:
    hosting.ip("link add prv0 type bridge", "link set prv0 up")
    words = {"MODE": "bridged", "LINK": "prv0", "NETWORK_TAGS": "private-filtered", **SUBNET}
    nic = NicWords("tap0", GUEST_MAC, {**words, "IP": GUEST4})
    guest = hosting.add_guest(nic)
    peer = hosting.add_guest(NicWords("tap1", PEER_MAC, {**words, "IP": PEER4}))
    configure(guest, GUEST4, GUEST6)
    configure(peer, PEER4, PEER6)
    return Setting("private-filtered", hosting, nic, guest, peer, PEER4, PEER6)


def configure(station: Station, ipv4: str, ipv6: str) -> None:
    station.ip(f"address add {ipv4}/24 dev eth0", f"address add {ipv6}/64 dev eth0 nodad")


def passes(
    setting: Setting,
    family: int,
    sender: Station,
    receiver: Station,
    send: Callable[[], None],
    is_it: Callable[[Ether], bool],
) -> int:
    """How many of the frames that arrive, after `send` and before the echo, are the one."""
    address = setting.get_guest(family) if receiver is setting.guest else setting.get_peer(family)
    mark = f"echo {next(_numbers):08d}".encode()
    with receiver.sniff() as sniffer:
        with on_one_processor():
            send()
            send_echo(sender, family, address, mark)
        frames = sniffer.read_until(lambda frame: mark in frame)
    return sum(is_it(Ether(frame)) for frame in frames)


@contextlib.contextmanager
def on_one_processor() -> Iterator[None]:
    """What is sent in the block arrives in that order: each processor has a queue of its own for
    what veths pass on, and a busy one comes to it later."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def send_echo(sender: Station, family: int, address: str, mark: bytes) -> None:
    if family == socket.AF_INET:
        kind, protocol = 8, socket.IPPROTO_ICMP
    else:
        kind, protocol = 128, socket.IPPROTO_ICMPV6
    body = bytes((0, 0, 0, 1)) + mark
    total = sum(
        int.from_bytes(body[n : n + 2].ljust(2, b"\0"), "big") for n in range(0, len(body), 2)
    )
    total += kind << 8
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    message = bytes((kind, 0)) + (~total & 0xFFFF).to_bytes(2, "big") + body
    with sender.open_socket(family, socket.SOCK_RAW, protocol) as echo:
        echo.sendto(message, (address, 0))


# --- what comes to the guest -------------------------------------------------------------


def reach_tcp(setting: Setting, family: int, port: int) -> bool:
    """Does a connection to the guest come about, or not even its first packet arrive?"""
    with setting.guest.open_socket(family, socket.SOCK_STREAM) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("", port))
        server.listen()
        with setting.peer.open_socket(family, socket.SOCK_STREAM) as client:
            client.setblocking(False)

            def connect() -> None:
                with contextlib.suppress(BlockingIOError):
                    client.connect((setting.get_guest(family), port))

            def is_first(frame: Ether) -> bool:
                return "TCP" in frame and frame["TCP"].dport == port

            seen = passes(setting, family, setting.peer, setting.guest, connect, is_first)
            if not seen:
                return False
            accepted, _ = server.accept()
            with accepted:
                accepted.settimeout(60)
                client.settimeout(60)
                client.sendall(b"hello")
                assert accepted.recv(5) == b"hello"
            return True


def reach_udp(setting: Setting, family: int) -> bool:
    text = f"datagram {next(_numbers):08d}".encode()
    with setting.peer.open_socket(family, socket.SOCK_DGRAM) as client:
        return bool(
            passes(
                setting,
                family,
                setting.peer,
                setting.guest,
                partial(send_datagram, client, text, (setting.get_guest(family), 5000)),
                lambda frame: text in bytes(frame),
            )
        )


def send_datagram(client: socket.socket, text: bytes, to: tuple[str, int]) -> None:
    client.sendto(text, to)


def reach_icmp(setting: Setting, family: int) -> bool:
    text = f"request {next(_numbers):08d}".encode()
    address = setting.get_guest(family)
    return bool(
        passes(
            setting,
            family,
            setting.peer,
            setting.guest,
            lambda: send_echo(setting.peer, family, address, text),
            lambda frame: text in bytes(frame),
        )
    )


def get_replies(setting: Setting, family: int) -> bool:
    """The guest asks the peer, by UDP and TCP, and gets the answers."""
    peer = setting.get_peer(family)
    with (
        setting.peer.open_socket(family, socket.SOCK_DGRAM) as server,
        setting.guest.open_socket(family, socket.SOCK_DGRAM) as client,
    ):
        server.bind((peer, 5001))
        client.sendto(b"question", (peer, 5001))
        question, who = server.recvfrom(100)
        server.sendto(b"answer", who)
        assert (question, client.recv(100)) == (b"question", b"answer")
    with (
        setting.peer.open_socket(family, socket.SOCK_STREAM) as server,
        setting.guest.open_socket(family, socket.SOCK_STREAM) as client,
    ):
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((peer, 5001))
        server.listen()
        client.connect((peer, 5001))
        accepted, _ = server.accept()
        with accepted:
            accepted.sendall(b"answer")
            return client.recv(100) == b"answer"


INWARD: dict[str, Callable[[Setting, int], bool]] = {
    "TCP 22": lambda setting, family: reach_tcp(setting, family, 22),
    "TCP 80": lambda setting, family: reach_tcp(setting, family, 80),
    "UDP": reach_udp,
    "ICMP": reach_icmp,
    "replies": get_replies,
}
LET_IN = {
    "unprotected": {"TCP 22", "TCP 80", "UDP", "ICMP", "replies"},
    "limited": {"TCP 22", "ICMP", "replies"},
    "protected": {"ICMP", "replies"},
}


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("family", FAMILIES, ids=["IPv4", "IPv6"])
def test_what_a_profile_lets_in(setting: Setting, family: int, profile: str) -> None:
    setting.set_profile(profile)
    passed = {name for name, reach in INWARD.items() if reach(setting, family)}
    assert passed == LET_IN[profile]
    check_what_leaves(setting, family)


# --- what the guest sends ----------------------------------------------------------------


def make_outward(setting: Setting) -> dict[str, tuple[int, Ether, bool]]:
    """Frames of the guest: family, frame, whether it may pass."""
    out = Ether(src=GUEST_MAC, dst=setting.next_mac)
    forged = Ether(src="aa:00:01:00:00:66", dst=setting.next_mac)
    v4, v6 = socket.AF_INET, socket.AF_INET6
    to4, to6 = setting.peer4, setting.peer6
    talk = UDP(sport=1234, dport=4321)
    router = ICMPv6ND_RA(routerlifetime=1800)
    return {
        "own IPv4": (v4, out / IP(src=GUEST4, dst=to4) / talk, True),
        "spoofed IPv4": (v4, out / IP(src=SPOOFED4, dst=to4) / talk, False),
        "peer's IPv4": (v4, out / IP(src=PEER4, dst=to4) / talk, False),
        "spoofed MAC, IPv4": (v4, forged / IP(src=GUEST4, dst=to4) / talk, False),
        "DHCP server": (
            v4,
            out
            / IP(src=GUEST4, dst=to4)
            / UDP(sport=67, dport=68)
            / BOOTP(op=2)
            / DHCP(options=[("message-type", "offer"), "end"]),
            False,
        ),
        "VLAN tag": (v4, out / Dot1Q(vlan=7) / IP(src=SPOOFED4, dst=to4) / talk, False),
        "own IPv6": (v6, out / IPv6(src=GUEST6, dst=to6) / talk, True),
        "spoofed IPv6": (v6, out / IPv6(src=SPOOFED6, dst=to6) / talk, False),
        "spoofed MAC, IPv6": (v6, forged / IPv6(src=GUEST6, dst=to6) / talk, False),
        "DHCPv6 server": (
            v6,
            out / IPv6(src=GUEST6, dst=to6) / UDP(sport=547, dport=546) / b"\7abc",
            False,
        ),
        "router advertisement": (v6, out / IPv6(src=GUEST6, dst=to6) / router, False),
    }


def make_on_link(setting: Setting) -> dict[str, tuple[int, Ether, bool]]:
    """Frames that don't leave their layer 2."""
    out = Ether(src=GUEST_MAC, dst=setting.peer.mac)
    v4, v6 = socket.AF_INET, socket.AF_INET6
    return {
        "own ARP": (v4, out / make_arp(GUEST_MAC, GUEST4), True),
        "spoofed ARP": (v4, out / make_arp(GUEST_MAC, SPOOFED4), False),
        "spoofed MAC in ARP": (v4, out / make_arp("aa:00:01:00:00:66", GUEST4), False),
        "own NA": (v6, out / make_na(GUEST6, GUEST6), True),
        "spoofed NA": (v6, out / make_na(GUEST6, SPOOFED6), False),
        "NA for a foreign link-local address": (v6, out / make_na(GUEST6, "fe80::1"), False),
        "spoofed source of NA": (v6, out / make_na(SPOOFED6, SPOOFED6), False),
        "RA, link-local": (
            v6,
            out / IPv6(src=LINK_LOCAL, dst="ff02::1", hlim=255) / ICMPv6ND_RA(),
            False,
        ),
    }


def make_arp(mac: str, address: str) -> ARP:
    return ARP(op="is-at", hwsrc=mac, psrc=address, hwdst=PEER_MAC, pdst=PEER4)


def make_na(source: str, target: str) -> IPv6:
    option = ICMPv6NDOptDstLLAddr(lladdr=GUEST_MAC)
    return IPv6(src=source, dst=PEER6, hlim=255) / ICMPv6ND_NA(tgt=target, R=0, S=0, O=1) / option


def check_what_leaves(setting: Setting, family: int) -> None:
    frames = make_outward(setting)
    if setting.kind != "routed":
        frames |= make_on_link(setting)
    for name, (of, frame, may_pass) in frames.items():
        if of == family:
            mark = f"probe {next(_numbers):08d}".encode()
            data = bytes(frame / mark)
            count = passes(
                setting,
                family,
                setting.guest,
                setting.peer,
                partial(setting.guest.send, data),
                partial(contains, mark),
            )
            assert bool(count) == may_pass, f"{setting.kind}: {name}"


def test_private_networks_on_one_bridge_do_not_meet(bed: Bed) -> None:
    """Two guests with the same subnet, in networks of two tenants: not even ARP passes."""
    with open_hosting(bed.folder / "hosting-tenants", bed.layers) as hosting:
        setting = make_private(hosting)
        words = {**setting.nic.words, "NETWORK_MAC_PREFIX": "aa:00:02", "IP": "198.51.100.9"}
        words["NETWORK_NAME"] = "net2"
        other = hosting.add_guest(NicWords("tap2", OTHER_MAC, words))
        configure(other, "198.51.100.9", "2001:db8:1:0:a800:2ff:fe00:9")
        frames = {
            "broadcast": Ether(src=OTHER_MAC, dst="ff:ff:ff:ff:ff:ff")
            / make_arp(OTHER_MAC, "198.51.100.9"),
            "unicast": Ether(src=OTHER_MAC, dst=GUEST_MAC)
            / IP(src="198.51.100.9", dst=GUEST4)
            / UDP(sport=1, dport=2),
            "multicast": Ether(src=OTHER_MAC, dst="33:33:00:00:00:01")
            / IPv6(src="2001:db8:1:0:a800:2ff:fe00:9", dst="ff02::1")
            / UDP(sport=1, dport=2),
        }
        for name, frame in frames.items():
            mark = f"probe {next(_numbers):08d}".encode()
            send = partial(other.send, bytes(frame / mark))
            seen = passes(
                setting, socket.AF_INET, setting.peer, setting.guest, send, partial(contains, mark)
            )
            assert seen == 0, name


def test_a_reply_of_one_tenant_is_none_of_another(bed: Bed) -> None:
    """The same connection, by addresses and ports, in two networks on a node."""
    with open_hosting(bed.folder / "hosting-zones", bed.layers) as hosting:
        setting = make_private(hosting)
        setting.set_profile("protected")
        twins = {**setting.nic.words, "NETWORK_MAC_PREFIX": "aa:00:02", "NETWORK_NAME": "net2"}
        macs = ("aa:00:02:00:00:07", "aa:00:02:00:00:08")
        first = hosting.add_guest(NicWords("tap2", macs[0], twins))
        second = hosting.add_guest(NicWords("tap3", macs[1], {**twins, "IP": PEER4}))
        for station, ipv4 in ((first, GUEST4), (second, PEER4)):
            station.ip(f"address add {ipv4}/24 dev eth0")
        with (
            first.open_socket(socket.AF_INET, socket.SOCK_DGRAM) as asks,
            second.open_socket(socket.AF_INET, socket.SOCK_DGRAM) as answers,
        ):
            asks.bind((GUEST4, 7000))
            answers.bind((PEER4, 7001))
            asks.sendto(b"question", (PEER4, 7001))
            _, who = answers.recvfrom(100)
            answers.sendto(b"answer", who)
            assert asks.recv(100) == b"answer"
        with setting.peer.open_socket(socket.AF_INET, socket.SOCK_DGRAM) as forges:
            forges.bind((PEER4, 7001))
            send = partial(send_datagram, forges, b"forged", (GUEST4, 7000))
            seen = passes(
                setting,
                socket.AF_INET,
                setting.peer,
                setting.guest,
                send,
                partial(contains, b"forged"),
            )
            assert seen == 0


@pytest.mark.parametrize("family", FAMILIES, ids=["IPv4", "IPv6"])
def test_connections_outlive_a_change_of_profile(setting: Setting, family: int) -> None:
    setting.set_profile("unprotected")
    with (
        setting.guest.open_socket(family, socket.SOCK_STREAM) as server,
        setting.peer.open_socket(family, socket.SOCK_STREAM) as client,
    ):
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("", 22))
        server.listen()
        client.connect((setting.get_guest(family), 22))
        accepted, _ = server.accept()
        with accepted:
            accepted.settimeout(60)
            for profile in ("limited", "protected", "limited"):
                setting.set_profile(profile)
                client.sendall(profile.encode())
                assert accepted.recv(100) == profile.encode()
                accepted.sendall(b"heard")
                assert client.recv(100) == b"heard"


@pytest.mark.parametrize("make", [make_routed, make_bridged], ids=["routed", "bridged"])
def test_nic_without_an_ipv4_address_has_none(bed: Bed, make: Callable[[Hosting], Setting]) -> None:
    """Its network has a subnet of both families, as each of Ganeti's has one of IPv4."""
    family = socket.AF_INET6
    with open_hosting(bed.folder / f"hosting-only6-{make.__name__}", bed.layers) as hosting:
        setting = make(hosting)
        words = {name: value for name, value in setting.nic.words.items() if name != "IP"}
        only6 = replace(setting, nic=replace(setting.nic, words=words))
        only6.set_profile("limited")
        assert {name for name, reach in INWARD.items() if reach(only6, family)} == LET_IN["limited"]
        check_what_leaves(only6, family)
        sent = make_outward(only6) | (make_on_link(only6) if only6.kind != "routed" else {})
        for name, (of, frame, _) in sent.items():
            if of == socket.AF_INET:
                mark = f"probe {next(_numbers):08d}".encode()
                send = partial(only6.guest.send, bytes(frame / mark))
                seen = passes(only6, family, only6.guest, only6.peer, send, partial(contains, mark))
                assert not seen, name


@pytest.mark.parametrize("make", [make_routed, make_bridged], ids=["routed", "bridged"])
def test_nic_uses_each_of_its_addresses(bed: Bed, make: Callable[[Hosting], Setting]) -> None:
    """One that Ganeti names, and the one that is made of its MAC."""
    family, named = socket.AF_INET6, "2001:db8:1::77"
    with open_hosting(bed.folder / f"hosting-two6-{make.__name__}", bed.layers) as hosting:
        setting = make(hosting)
        hosting.set_up(replace(setting.nic, words={**setting.nic.words, "IP": named}))
        setting.guest.ip(f"address add {named}/64 dev eth0 nodad")
        assert reach_tcp(setting, family, 22)
        for address, may_pass in ((GUEST6, True), (named, True), (SPOOFED6, False)):
            mark = f"probe {next(_numbers):08d}".encode()
            head = Ether(src=GUEST_MAC, dst=setting.next_mac) / IPv6(src=address, dst=setting.peer6)
            send = partial(setting.guest.send, bytes(head / UDP(sport=1234, dport=4321) / mark))
            seen = passes(
                setting, family, setting.guest, setting.peer, send, partial(contains, mark)
            )
            assert bool(seen) == may_pass, address
        with (
            setting.guest.open_socket(family, socket.SOCK_STREAM) as server,
            setting.peer.open_socket(family, socket.SOCK_STREAM) as client,
        ):
            server.bind((named, 23))
            server.listen()
            client.connect((named, 23))


def test_routed_guest_is_not_answered_by_a_false_name(bed: Bed) -> None:
    """ARP and neighbour discovery end at the node: it must not learn what is not so."""
    with open_hosting(bed.folder / "hosting-arp", bed.layers) as hosting:
        setting = make_routed(hosting)
        out = Ether(src=GUEST_MAC, dst=TAP_MAC)
        forged = [
            out / make_arp(GUEST_MAC, SPOOFED4),
            out / ARP(op="who-has", hwsrc=GUEST_MAC, psrc=SPOOFED4, pdst="198.51.100.1"),
            out
            / IPv6(src=SPOOFED6, dst="fe80::ce47:52ff:fe4e:4554", hlim=255)
            / ICMPv6ND_NS(tgt="fe80::ce47:52ff:fe4e:4554")
            / ICMPv6NDOptSrcLLAddr(lladdr=GUEST_MAC),
        ]
        for frame in forged:
            setting.guest.send(bytes(frame))
        for family in FAMILIES:
            assert not passes(
                setting, family, setting.guest, setting.peer, lambda: None, lambda _: False
            )
        known = hosting.node.run("ip", "neigh", "show", "dev", "tap0").text
        assert GUEST4 in known
        assert SPOOFED4 not in known
        assert SPOOFED6 not in known


def test_routed_guest_finds_a_neighbour_of_its_subnet(bed: Bed) -> None:
    """Two guests with static addresses, no router advertised, and the subnet on their links."""
    with open_hosting(bed.folder / "hosting-static", bed.layers) as hosting:
        setting = make_routed(hosting)
        neighbour = hosting.add_guest(
            NicWords("tap1", PEER_MAC, {**setting.nic.words, "IP": PEER4})
        )
        configure(neighbour, PEER4, PEER6)
        pair = replace(setting, peer=neighbour, peer4=PEER4, peer6=PEER6)
        for family in FAMILIES:
            for sender, receiver in ((neighbour, setting.guest), (setting.guest, neighbour)):
                assert not passes(pair, family, sender, receiver, lambda: None, lambda _: False)
        known = setting.guest.run("ip", "-6", "neigh", "show", PEER6).text
        assert TAP_MAC in known
        with setting.guest.sniff() as sniffer:
            setting.guest.send(bytes(make_ns(GUEST6, GUEST6)))
            setting.guest.send(bytes(make_ns(SPOOFED6, "2001:db8:1::99")))
            setting.guest.send(bytes(make_ns(GUEST6, "2001:db8:1::98")))
            answers = sniffer.read_until(lambda frame: is_answer(frame, "2001:db8:1::98"))
        assert not [each for each in answers if ICMPv6ND_NA in Ether(each)]


def make_ns(source: str, target: str) -> Ether:
    option = ICMPv6NDOptSrcLLAddr(lladdr=GUEST_MAC)
    head = Ether(src=GUEST_MAC, dst="33:33:ff:00:00:01") / IPv6(src=source, dst="ff02::1:ff00:1")
    return head / ICMPv6ND_NS(tgt=target) / option


def is_answer(frame: bytes, target: str) -> bool:
    """Is it a neighbour advertisement that the protocol's rules allow?"""
    read = Ether(frame)
    if ICMPv6ND_NA not in read or read[ICMPv6ND_NA].tgt != target:
        return False
    found = read[ICMPv6ND_NA]
    assert (found.R, found.S, found.O, read[IPv6].hlim) == (1, 1, 0, 255)
    assert (read[IPv6].src, read[IPv6].dst) == (target, GUEST6)
    assert found.cksum == Ether(bytes(strip_checksum(read)))[ICMPv6ND_NA].cksum
    return True


def strip_checksum(frame: Ether) -> Ether:
    """The frame as scapy sends it, which then counts the checksum itself."""
    copy = frame.copy()
    del copy[ICMPv6ND_NA].cksum
    return copy


def contains(mark: bytes, frame: Ether) -> bool:
    return mark in bytes(frame)
