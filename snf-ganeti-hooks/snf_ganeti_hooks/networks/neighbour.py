"""The answer to a routed guest that looks for a neighbour of its IPv6 subnet on its own link.

A guest with a static address believes that its subnet is there. For IPv4 the kernel answers
for all of it (proxy_arp); for IPv6 it answers for single addresses only. So one rule at the tap
makes the solicitation the advertisement that answers it, and sends it back (RFC 4861, 4.3, 4.4
and 7.2.8): nothing has to know the neighbours, and it works while no service runs.
"""

from snf_ganeti_hooks.firewall.expression import (
    TARGET,
    Expression,
    Rule,
    Statement,
    differs,
    field,
    make_hex,
    masked,
    match,
    raw,
)
from snf_ganeti_hooks.nic import Kind, Nic

_SIZE = 32
"""Bytes of a solicitation with its one option, the sender's link-layer address."""
_TARGET_PREFIX = raw("th", 64, 64)
_TYPE_AND_CODE = field("th", "sport")  # as libnftables names the first two bytes
_FLAGS, _OPTION, _OPTION_HEAD = raw("th", 32, 32), raw("th", 192, 64), raw("th", 192, 16)
_SOURCE_LINK, _TARGET_LINK = 0x0101, 0x0201
_SOLICIT, _ADVERT = 135 << 8, 136 << 8
_ROUTER_SOLICITED = 0xC0000000


def make_answer(nic: Nic, tap_mac: str) -> list[Rule]:
    """The rule, after those of the guard; none for a NIC without a subnet of its own link."""
    subnet = nic.network.subnet6 if nic.network else None
    if nic.kind is not Kind.ROUTED or subnet is None:
        return []
    prefix = int(subnet.network_address) >> 64
    start: Expression = _TARGET_PREFIX
    if subnet.prefixlen < 64:
        start = masked(_TARGET_PREFIX, int(subnet.netmask) >> 64)
    option = _TARGET_LINK << 48 | _parse(tap_mac)
    return [
        Rule(
            (
                match(field("icmpv6", "type"), "nd-neighbor-solicit"),
                match(field("ip6", "length"), _SIZE),
                match(field("ip6", "hoplimit"), 255),
                match(_OPTION_HEAD, _SOURCE_LINK),
                match(start, prefix),
                *(differs(TARGET, each) for each in make_hex(nic.addresses6 or ())),
                _set(field("ip6", "daddr"), field("ip6", "saddr")),
                _set(field("ip6", "saddr"), TARGET),
                _set(_TYPE_AND_CODE, _ADVERT),
                _set(_FLAGS, _ROUTER_SOLICITED | find_balance(nic.mac, tap_mac)),
                _set(_OPTION, option),
                _set(field("ether", "daddr"), field("ether", "saddr")),
                _set(field("ether", "saddr"), tap_mac),
                {"fwd": {"dev": nic.tap}},
            )
        )
    ]


def find_balance(mac: str, tap_mac: str) -> int:
    """What keeps the checksum right, in the reserved bits, which a receiver ignores.

    nftables corrects it for the addresses, and not for the rest of the message; how that
    changes the sum (RFC 1071) is known beforehand.
    """
    before = _SOLICIT + _SOURCE_LINK + _sum_words(mac)
    after = _ADVERT + (_ROUTER_SOLICITED >> 16) + _TARGET_LINK + _sum_words(tap_mac)
    return (before - after) % 0xFFFF


def _set(key: Expression, value: Expression | int | str) -> Statement:
    return {"mangle": {"key": key, "value": value}}


def _sum_words(mac: str) -> int:
    value = _parse(mac)
    return (value >> 32) + (value >> 16 & 0xFFFF) + (value & 0xFFFF)


def _parse(mac: str) -> int:
    return int(mac.replace(":", ""), 16)
