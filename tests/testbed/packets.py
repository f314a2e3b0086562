"""Guests with a NIC of each kind, and whether packets pass between them and their peers.

Told by the sockets of who sends and who should receive. Nothing waits for a packet that should
not come: what must not pass is followed by an end mark, which passes always and by the same
way, and when that has arrived the receiver looks at what came before.
"""

import contextlib
import itertools
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from scapy.layers.l2 import Ether

from testbed.bed import Bed
from testbed.hosting import Hosting, NicWords, Station, open_hosting

GUEST_MAC, PEER_MAC, OTHER_MAC = "aa:00:01:00:00:07", "aa:00:01:00:00:08", "aa:00:02:00:00:09"
TAP_MAC, UPLINK_MAC = "cc:47:52:4e:45:54", "02:00:00:00:00:02"
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
KINDS = ("routed", "private-filtered", "physical-vlan", "bridged")
FAMILIES = (socket.AF_INET, socket.AF_INET6)

End = Callable[[bytes], None]
"""What sends an end mark."""

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

    def make_end(self, family: int, sender: Station, receiver: Station) -> End:
        """An echo request, which every built-in profile lets in."""
        get = self.get_guest if receiver is self.guest else self.get_peer
        return partial(send_echo, sender, family, get(family))

    @property
    def next_mac(self) -> str:
        """Where the guest's frames to the peer go first."""
        return TAP_MAC if self.kind == "routed" else self.peer.mac

    def set_profile(self, profile: str) -> None:
        self.hosting.set_up(self.nic.tagged(f"synnefo:network:0:{profile}"))


@contextlib.contextmanager
def open_setting(bed: Bed, kind: str) -> Iterator[Setting]:
    """Guest and peer, who have met; nothing else is on their way."""
    makers: dict[str, Callable[[Hosting], Setting]] = {
        "routed": make_routed,
        "private-filtered": make_private,
        "physical-vlan": make_vlan,
        "bridged": make_bridged,
    }
    with open_hosting(bed.folder / f"hosting-{kind}", bed.layers) as hosting:
        made = makers[kind](hosting)
        for family in FAMILIES:
            meet(made, family, made.guest, made.peer)
        yield made


def make_routed(hosting: Hosting, link: str = "") -> Setting:
    """link: the routing table of the guest; empty: main."""
    world = hosting.add_station("up0", "02:00:00:00:00:01")
    world.ip(
        f"address add {WORLD4}/24 dev eth0",
        "address add 198.51.100.1/24 dev eth0",
        f"address add {WORLD6}/64 dev eth0 nodad",
        "address add 2001:db8:1::1/64 dev eth0 nodad",
    )
    hosting.node.run("sh", "-c", "echo 1 >/proc/sys/net/ipv6/conf/all/forwarding")
    hosting.ip(
        f"link set up0 address {UPLINK_MAC}",
        "address add 192.0.2.2/24 dev up0",
        "address add 2001:db8:ff::2/64 dev up0 nodad",
        "link set up0 up",
        f"route add default via {WORLD4} table {link or 'main'}",
        f"route add default via {WORLD6} table {link or 'main'}",
    )
    words = {"MODE": "routed", "LINK": link, "IP": GUEST4, **SUBNET}
    nic = NicWords("tap0", GUEST_MAC, words)
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


def make_mark(name: str) -> bytes:
    """Bytes that no other packet has."""
    return f"{name} {next(_numbers):08d}".encode()


def meet(setting: Setting, family: int, sender: Station, receiver: Station) -> None:
    """An echo request arrives; both know the MAC to which their packets go then."""
    receive(receiver, lambda: None, setting.make_end(family, sender, receiver))


def passes(
    setting: Setting,
    family: int,
    sender: Station,
    receiver: Station,
    send: Callable[[], None],
    is_it: Callable[[Ether], bool],
) -> int:
    """How many of the frames that arrive, after `send` and before the end mark, are the one."""
    frames = receive(receiver, send, setting.make_end(family, sender, receiver))
    return sum(is_it(Ether(frame)) for frame in frames)


def find_arrived(
    sender: Station, receiver: Station, frames: Mapping[str, Ether], end: End
) -> set[str]:
    """The names of those frames that arrive when `sender` sends them all."""
    marks = {name: make_mark("probe") for name in frames}
    data = [bytes(frame / marks[name]) for name, frame in frames.items()]
    arrived = receive(receiver, lambda: sender.send(*data), end)
    return {name for name, mark in marks.items() if any(mark in each for each in arrived)}


def receive(receiver: Station, send: Callable[[], None], end: End) -> list[bytes]:
    """The frames that arrive after `send` and before the mark that `end` sends."""
    mark = make_mark("end")
    with receiver.sniff() as sniffer:
        with on_one_processor():
            send()
            end(mark)
        return sniffer.read_until(lambda frame: mark in frame)


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
