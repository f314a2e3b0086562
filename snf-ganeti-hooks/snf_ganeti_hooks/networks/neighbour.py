"""What a NIC says and asks of its neighbours: the few rules that are a NIC's alone.

They hang on the netdev family's ingress hook of the tap. A target of neighbour discovery can't
be looked up in a set (libnftables knows no name for it before 1.0.9), so it is compared here
with each address of the NIC, and what is foreign goes on with a mark by which the guard drops
it.

A routed guest looks for the neighbours of its IPv6 subnet on its own link: with a static
address it believes that they are there. For IPv4 the kernel answers for all of them
(proxy_arp); for IPv6 it answers for single addresses only. So one rule makes the solicitation
the advertisement that answers it, and sends it back (RFC 4861, 4.3, 4.4 and 7.2.8): nothing has
to know the neighbours, and it works while no service runs.
"""

from snf_ganeti_hooks.firewall.expression import (
    TARGET,
    Expression,
    Rule,
    Statement,
    accept,
    differs,
    drop,
    field,
    make_hex,
    make_texts,
    masked,
    match,
    meta,
    none_of,
    raw,
    set_mark,
)
from snf_ganeti_hooks.firewall.guard import ETHER_TYPES, LINK_LOCAL_PREFIX
from snf_ganeti_hooks.firewall.reason import Reason
from snf_ganeti_hooks.nic import LINK_LOCAL, Kind, Nic, make_eui64

_SIZE = 32
"""Bytes of a solicitation with its one option, the sender's link-layer address."""
_SOURCE = field("ip6", "saddr")
_SOLICITS = match(field("icmpv6", "type"), "nd-neighbor-solicit")
_ADVERTISES = match(field("icmpv6", "type"), "nd-neighbor-advert")
_TARGET_START = masked(raw("th", 64, 16), 0xFFC0)  # the ten bits of fe80::/10
_LINK_LOCAL_START = 0xFE80
_TARGET_PREFIX = raw("th", 64, 64)
_TYPE_AND_CODE = field("th", "sport")  # as libnftables names the first two bytes
_FLAGS, _OPTION, _OPTION_HEAD = raw("th", 32, 32), raw("th", 192, 64), raw("th", 192, 16)
_SOURCE_LINK, _TARGET_LINK = 0x0101, 0x0201
_SOLICIT, _ADVERT = 135 << 8, 136 << 8
_ROUTER_SOLICITED = 0xC0000000


def make_neighbour(nic: Nic, tap_mac: str) -> list[Rule]:
    """A NIC's rules; none for a bridged one that has no IPv6 address, or may have any."""
    routed = nic.kind is Kind.ROUTED
    types = none_of(field("ether", "type"), ETHER_TYPES)
    return [
        # Of a routed NIC nobody but this node sees these, and it needs no others.
        *([drop(*types, reason=Reason.ETHER_TYPE)] if routed else []),
        *_make_marks(nic),
        *_make_answer(nic, tap_mac),
    ]


def _make_marks(nic: Nic) -> list[Rule]:
    if not nic.addresses6:
        return []
    routed = nic.kind is Kind.ROUTED
    # See guard for what a guest may call itself on its link.
    own = (*nic.addresses6, *(() if routed else (make_eui64(LINK_LOCAL, nic.mac),)))
    elsewhere = [differs(_TARGET_START, _LINK_LOCAL_START)] if routed else []
    foreign = [*elsewhere, *none_of(TARGET, make_hex(own))]
    return [
        Rule((_ADVERTISES, *foreign, set_mark(Reason.ADVERT.mark))),
        Rule((match(_SOURCE, "::"), _SOLICITS, *foreign, set_mark(Reason.DETECTION.mark))),
    ]


def _make_answer(nic: Nic, tap_mac: str) -> list[Rule]:
    """The answer, for a NIC with a subnet of its own link and to no false name."""
    subnet = nic.network.subnet6 if nic.network else None
    if nic.kind is not Kind.ROUTED or subnet is None:
        return []
    prefix = int(subnet.network_address) >> 64
    start: Expression = _TARGET_PREFIX
    if subnet.prefixlen < 64:
        start = masked(_TARGET_PREFIX, int(subnet.netmask) >> 64)
    option = _TARGET_LINK << 48 | _parse(tap_mac)
    own = [*make_texts(nic.addresses6 or ()), LINK_LOCAL_PREFIX]
    return [
        accept(_SOLICITS, *none_of(_SOURCE, own)),
        Rule(
            (
                match(field("ether", "saddr"), nic.mac),
                _SOLICITS,
                match(field("ip6", "length"), _SIZE),
                match(field("ip6", "hoplimit"), 255),
                match(_OPTION_HEAD, _SOURCE_LINK),
                match(start, prefix),
                *(differs(TARGET, each) for each in make_hex(nic.addresses6 or ())),
                _set(field("ip6", "daddr"), _SOURCE),
                _set(_SOURCE, TARGET),
                _set(_TYPE_AND_CODE, _ADVERT),
                _set(_FLAGS, _ROUTER_SOLICITED | find_balance(nic.mac, tap_mac)),
                _set(_OPTION, option),
                _set(field("ether", "daddr"), field("ether", "saddr")),
                _set(field("ether", "saddr"), tap_mac),
                {"fwd": {"dev": meta("iif")}},
            )
        ),
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
