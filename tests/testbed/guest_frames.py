"""What a guest sends: frames that it may send, and frames in another's name."""

import socket
from typing import NamedTuple

from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6ND_RA, ICMPv6NDOptDstLLAddr, IPv6
from scapy.layers.l2 import ARP, Dot1Q, Ether

from testbed.packets import GUEST4, GUEST6, GUEST_MAC, PEER4, PEER6, PEER_MAC, Setting, find_arrived

SPOOFED4, SPOOFED6 = "198.51.100.66", "2001:db8:1::66"
LINK_LOCAL = "fe80::a800:1ff:fe00:7"


class Sent(NamedTuple):
    """family: of the addresses in the frame."""

    family: int
    frame: Ether
    may_pass: bool


def find_passed(setting: Setting, frames: dict[str, Sent], family: int) -> set[str]:
    """The names of those frames of the guest that reach the peer. family: of the end mark."""
    end = setting.make_end(family, setting.guest, setting.peer)
    sent = {name: each.frame for name, each in frames.items()}
    return find_arrived(setting.guest, setting.peer, sent, end)


def find_lawful(frames: dict[str, Sent]) -> set[str]:
    return {name for name, each in frames.items() if each.may_pass}


def make_frames(setting: Setting, family: int) -> dict[str, Sent]:
    """All of a family, by name."""
    frames = make_outward(setting)
    if setting.kind != "routed":
        frames |= make_on_link(setting)
    return {name: each for name, each in frames.items() if each.family == family}


def make_outward(setting: Setting) -> dict[str, Sent]:
    """Frames to the peer, wherever it is."""
    out = Ether(src=GUEST_MAC, dst=setting.next_mac)
    forged = Ether(src="aa:00:01:00:00:66", dst=setting.next_mac)
    v4, v6 = socket.AF_INET, socket.AF_INET6
    to4, to6 = setting.peer4, setting.peer6
    talk = UDP(sport=1234, dport=4321)
    router = ICMPv6ND_RA(routerlifetime=1800)
    return {
        "own IPv4": Sent(v4, out / IP(src=GUEST4, dst=to4) / talk, True),
        "spoofed IPv4": Sent(v4, out / IP(src=SPOOFED4, dst=to4) / talk, False),
        "peer's IPv4": Sent(v4, out / IP(src=PEER4, dst=to4) / talk, False),
        "spoofed MAC, IPv4": Sent(v4, forged / IP(src=GUEST4, dst=to4) / talk, False),
        "DHCP server": Sent(
            v4,
            out
            / IP(src=GUEST4, dst=to4)
            / UDP(sport=67, dport=68)
            / BOOTP(op=2)
            / DHCP(options=[("message-type", "offer"), "end"]),
            False,
        ),
        "VLAN tag": Sent(v4, out / Dot1Q(vlan=7) / IP(src=SPOOFED4, dst=to4) / talk, False),
        "own IPv6": Sent(v6, out / IPv6(src=GUEST6, dst=to6) / talk, True),
        "spoofed IPv6": Sent(v6, out / IPv6(src=SPOOFED6, dst=to6) / talk, False),
        "spoofed MAC, IPv6": Sent(v6, forged / IPv6(src=GUEST6, dst=to6) / talk, False),
        "DHCPv6 server": Sent(
            v6,
            out / IPv6(src=GUEST6, dst=to6) / UDP(sport=547, dport=546) / b"\7abc",
            False,
        ),
        "router advertisement": Sent(v6, out / IPv6(src=GUEST6, dst=to6) / router, False),
    }


def make_on_link(setting: Setting) -> dict[str, Sent]:
    """Frames that don't leave their layer 2."""
    out = Ether(src=GUEST_MAC, dst=setting.peer.mac)
    v4, v6 = socket.AF_INET, socket.AF_INET6
    return {
        "own ARP": Sent(v4, out / make_arp(GUEST_MAC, GUEST4), True),
        "spoofed ARP": Sent(v4, out / make_arp(GUEST_MAC, SPOOFED4), False),
        "spoofed MAC in ARP": Sent(v4, out / make_arp("aa:00:01:00:00:66", GUEST4), False),
        "own NA": Sent(v6, out / make_na(GUEST6, GUEST6), True),
        "spoofed NA": Sent(v6, out / make_na(GUEST6, SPOOFED6), False),
        "NA for a foreign link-local address": Sent(v6, out / make_na(GUEST6, "fe80::1"), False),
        "spoofed source of NA": Sent(v6, out / make_na(SPOOFED6, SPOOFED6), False),
        "RA, link-local": Sent(
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
