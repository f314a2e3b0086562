"""Telling an uplink's neighbours that an address is here now: after a start, or a migration.

IPv4: a gratuitous ARP request and reply (RFC 5944, 4.6). IPv6: an unsolicited neighbour
advertisement to all nodes (RFC 4861, 7.2.6), with the override flag.
"""

import functools
import logging
import socket
import struct
from ipaddress import IPv4Address, IPv6Address

from snf_ganeti_hooks.nic import LINK_LOCAL, make_eui64

log = logging.getLogger(__name__)

_BROADCAST = b"\xff" * 6
_ALL_NODES_MAC = bytes.fromhex("333300000001")
_ALL_NODES = IPv6Address("ff02::1")
_ARP, _IPV6 = 0x0806, 0x86DD
_ICMPV6 = 58
_ADVERT, _ROUTER_OVERRIDE = 136, 0xA0000000
_TARGET_LINK_OPTION = 2


def make_arp(address: IPv4Address, mac: bytes) -> list[bytes]:
    """Frames for an IPv4 address at a MAC: some listen to requests, others to replies."""
    frames = []
    for operation, target in ((1, bytes(6)), (2, mac)):
        head = _BROADCAST + mac + struct.pack("!HHHBBH", _ARP, 1, 0x0800, 6, 4, operation)
        frames.append(head + mac + address.packed + target + address.packed)
    return frames


def make_advertisement(address: IPv6Address, mac: bytes) -> bytes:
    """The frame for an IPv6 address at a MAC."""
    source = make_eui64(LINK_LOCAL, mac.hex(":"))
    body = struct.pack("!I", _ROUTER_OVERRIDE) + address.packed
    body += struct.pack("!BB", _TARGET_LINK_OPTION, 1) + mac
    length = 4 + len(body)
    pseudo = source.packed + _ALL_NODES.packed + struct.pack("!II", length, _ICMPV6)
    checksum = _sum(pseudo + struct.pack("!BBH", _ADVERT, 0, 0) + body)
    icmp = struct.pack("!BBH", _ADVERT, 0, checksum) + body
    head = struct.pack("!IHBB", 6 << 28, length, _ICMPV6, 255)
    ethernet = _ALL_NODES_MAC + mac + struct.pack("!H", _IPV6)
    return ethernet + head + source.packed + _ALL_NODES.packed + icmp


def send(address: IPv4Address | IPv6Address, interface: str) -> None:
    """Announce an address on an interface, with its own MAC. A failure is only logged: those
    who ask will be answered."""
    try:
        packets = _open_packets()
        packets.bind((interface, 0))
        mac = packets.getsockname()[4]
        if isinstance(address, IPv4Address):
            frames = make_arp(address, mac)
        else:
            frames = [make_advertisement(address, mac)]
        for frame in frames:
            packets.send(frame)
    except OSError as error:
        log.warning("%s can't be announced on %s: %s", address, interface, error.strerror)


@functools.cache
def _open_packets() -> socket.socket:
    """A socket that receives nothing. It is kept: to close one takes some ten milliseconds,
    in which the kernel waits for all who could still see it."""
    return socket.socket(socket.AF_PACKET, socket.SOCK_RAW)


def _sum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
