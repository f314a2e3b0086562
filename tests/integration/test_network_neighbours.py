"""Who routed guests take for their neighbours, and the node for them."""

from dataclasses import replace

from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6ND_NS, ICMPv6NDOptSrcLLAddr, IPv6
from scapy.layers.l2 import ARP, Ether

from testbed.bed import Bed
from testbed.guest_frames import SPOOFED4, SPOOFED6, make_arp
from testbed.hosting import NicWords, open_hosting
from testbed.packets import (
    FAMILIES,
    GUEST4,
    GUEST6,
    GUEST_MAC,
    PEER4,
    PEER6,
    PEER_MAC,
    TAP_MAC,
    Setting,
    configure,
    make_routed,
    meet,
)


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
        setting.guest.send(*map(bytes, forged))
        for family in FAMILIES:
            meet(setting, family, setting.guest, setting.peer)
        known = hosting.node.run("ip", "neigh", "show", "dev", "tap0").text
        assert GUEST4 in known
        assert SPOOFED4 not in known
        assert SPOOFED6 not in known


def test_routed_guest_finds_a_neighbour_of_its_subnet(bed: Bed) -> None:
    """Two guests with static addresses, no router advertised, and the subnet on their links."""
    with open_hosting(bed.folder / "hosting-static", bed.layers) as hosting:
        setting = make_routed(hosting)
        meet_both_ways(add_neighbour(setting))
        known = setting.guest.run("ip", "-6", "neigh", "show", PEER6).text
        assert TAP_MAC in known
        with setting.guest.sniff() as sniffer:
            setting.guest.send(bytes(make_ns(GUEST6, GUEST6)))
            setting.guest.send(bytes(make_ns(SPOOFED6, "2001:db8:1::99")))
            setting.guest.send(bytes(make_ns(GUEST6, "2001:db8:1::98")))
            answers = sniffer.read_until(lambda frame: is_answer(frame, "2001:db8:1::98"))
        assert not [each for each in answers if ICMPv6ND_NA in Ether(each)]


def test_guests_of_another_routing_table_find_each_other(bed: Bed) -> None:
    """Their routes are in their table alone, and so the node answers for them by its mark."""
    with open_hosting(bed.folder / "hosting-table", bed.layers) as hosting:
        setting = make_routed(hosting, "100")
        meet_both_ways(add_neighbour(setting))
        meet_both_ways(setting)
        for family, address in (("-4", PEER4), ("-6", PEER6)):
            shown = hosting.node.run("ip", family, "route", "show", "table", "main").text
            assert address not in shown


def add_neighbour(setting: Setting) -> Setting:
    """Another guest of the node's, in the same network, is the peer."""
    words = {**setting.nic.words, "IP": PEER4}
    neighbour = setting.hosting.add_guest(NicWords("tap1", PEER_MAC, words))
    configure(neighbour, PEER4, PEER6)
    return replace(setting, peer=neighbour, peer4=PEER4, peer6=PEER6)


def meet_both_ways(setting: Setting) -> None:
    for family in FAMILIES:
        meet(setting, family, setting.peer, setting.guest)
        meet(setting, family, setting.guest, setting.peer)


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
