"""Tenants whose private networks share a bridge: none meets another, by whatever addresses."""

import socket

from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

from testbed.bed import Bed
from testbed.guest_frames import make_arp
from testbed.hosting import NicWords, open_hosting
from testbed.packets import (
    GUEST4,
    GUEST_MAC,
    OTHER_MAC,
    PEER4,
    configure,
    find_arrived,
    make_mark,
    make_private,
    receive,
)


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
        end = setting.make_end(socket.AF_INET, setting.peer, setting.guest)
        assert find_arrived(other, setting.guest, frames, end) == set()


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
            mark = make_mark("forged")

            def forge() -> None:
                forges.sendto(mark, (GUEST4, 7000))

            end = setting.make_end(socket.AF_INET, setting.peer, setting.guest)
            frames = receive(setting.guest, forge, end)
            assert not [each for each in frames if mark in each]
