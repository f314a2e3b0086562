"""The uplinks of routing tables, known without asking for all routes each time.

A node with many NICs has many routes, and only the default ones count here. The kernel tells of
each change before the call that made it returns, so what was read stays true until a message
says otherwise; an overflow says so, too. See rtnetlink(7).
"""

import socket
import struct

from snf_ganeti_hooks.kernel import link
from snf_ganeti_hooks.networks.routing import Uplinks, parse_uplinks

_GROUPS = 0x1 | 0x10 | 0x40 | 0x100 | 0x400
"""RTMGRP_LINK, IPV4_IFADDR, IPV4_ROUTE, IPV6_IFADDR, IPV6_ROUTE of linux/rtnetlink.h."""
_HEAD = struct.Struct("=IHHII")
_ROUTE_KINDS, _INTERFACE_KINDS = (24, 25), (16, 17, 20, 21)
_BUFFER = 1 << 16


def read_uplinks() -> dict[int, Uplinks]:
    """Routing table → its uplinks. Raises NodeError."""
    return parse_uplinks(link.query("route", "show", "table", "all", "default"))


def is_relevant(data: bytes, indices: frozenset[int]) -> bool:
    """Do messages tell of a default route, or of one of these interfaces?"""
    at = 0
    while at + _HEAD.size + 8 <= len(data):
        size, kind, _, _, _ = _HEAD.unpack_from(data, at)
        _family, length, index = struct.unpack_from("=BBxxi", data, at + _HEAD.size)
        if kind in _ROUTE_KINDS and length == 0:
            return True
        if kind in _INTERFACE_KINDS and index in indices:
            return True
        at += max(_HEAD.size, size + -size % 4)
    return False


class UplinkWatch:
    """All uplinks, read again when the kernel told of a change."""

    def __init__(self) -> None:
        self._messages = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE
        )
        self._messages.bind((0, _GROUPS))
        self._known: dict[int, Uplinks] | None = None
        self._indices: frozenset[int] = frozenset()

    def read(self) -> dict[int, Uplinks]:
        """Raises NodeError."""
        if self._has_changed() or self._known is None:
            self._known = None  # also when reading fails
            found = read_uplinks()
            names = {name for each in found.values() for name in (each.ipv4, each.ipv6) if name}
            self._indices = frozenset(map(link.find_index, names))
            self._known = found
        return self._known

    def close(self) -> None:
        self._messages.close()

    def _has_changed(self) -> bool:
        changed = False
        while True:
            try:
                changed |= is_relevant(self._messages.recv(_BUFFER), self._indices)
            except BlockingIOError:
                return changed
            except OSError:  # too many to be kept
                changed = True
