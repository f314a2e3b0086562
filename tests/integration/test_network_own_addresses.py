"""The addresses of a NIC: of one family alone, or several."""

import socket
from collections.abc import Callable
from dataclasses import replace

import pytest
from scapy.layers.inet import UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

from testbed.admitted_packets import INWARD, LET_IN, reach_tcp
from testbed.bed import Bed
from testbed.guest_frames import SPOOFED6, find_lawful, find_passed, make_frames
from testbed.hosting import Hosting, open_hosting
from testbed.packets import (
    GUEST6,
    GUEST_MAC,
    Setting,
    find_arrived,
    make_bridged,
    make_routed,
)


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
        frames = make_frames(only6, family)
        assert find_passed(only6, frames, family) == find_lawful(frames)
        assert find_passed(only6, make_frames(only6, socket.AF_INET), family) == set()


@pytest.mark.parametrize("make", [make_routed, make_bridged], ids=["routed", "bridged"])
def test_nic_uses_each_of_its_addresses(bed: Bed, make: Callable[[Hosting], Setting]) -> None:
    """One that Ganeti names, and the one that is made of its MAC."""
    family, named = socket.AF_INET6, "2001:db8:1::77"
    with open_hosting(bed.folder / f"hosting-two6-{make.__name__}", bed.layers) as hosting:
        setting = make(hosting)
        hosting.set_up(replace(setting.nic, words={**setting.nic.words, "IP": named}))
        setting.guest.ip(f"address add {named}/64 dev eth0 nodad")
        assert reach_tcp(setting, family, 22)
        head, talk = Ether(src=GUEST_MAC, dst=setting.next_mac), UDP(sport=1234, dport=4321)
        frames = {
            address: head / IPv6(src=address, dst=setting.peer6) / talk
            for address in (GUEST6, named, SPOOFED6)
        }
        end = setting.make_end(family, setting.guest, setting.peer)
        assert find_arrived(setting.guest, setting.peer, frames, end) == {GUEST6, named}
        with (
            setting.guest.open_socket(family, socket.SOCK_STREAM) as server,
            setting.peer.open_socket(family, socket.SOCK_STREAM) as client,
        ):
            server.bind((named, 23))
            server.listen()
            client.connect((named, 23))
