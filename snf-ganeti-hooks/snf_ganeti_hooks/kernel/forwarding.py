"""Routes, proxy entries and rules of tables: how the kernel is told of each."""

import contextlib
import errno
import socket
import struct
from collections.abc import Iterable
from ipaddress import ip_address

from snf_ganeti.errors import NodeError
from snf_ganeti_hooks.firewall.guard import MARK_TABLE_MASK, MARK_TABLE_SHIFT
from snf_ganeti_hooks.kernel import link, netlink
from snf_ganeti_hooks.kernel.netlink import Change, make_attributes
from snf_ganeti_hooks.networks.routing import PRIORITY, PROTOCOL, Proxy, Route, Selector

Entry = Route | Proxy | Selector

_ROUTE = struct.Struct("=BBBBBBBBI")  # linux/rtnetlink.h, rtmsg; fib_rule_hdr is laid out alike
_NEIGHBOUR = struct.Struct("=BxxxiHBB")  # linux/neighbour.h, ndmsg
_UNICAST, _TO_TABLE = 1, 1
_SCOPE_LINK, _SCOPE_NOWHERE = 253, 255
_PERMANENT, _PROXY = 0x80, 0x08


def add(entries: Iterable[Entry]) -> None:
    """Make these, or leave those that are there. Raises NodeError."""
    netlink.make(make_change(each) for each in entries)


def remove(entries: Iterable[Entry]) -> None:
    """Remove these; what is not there, or went with its interface, is no error."""
    changes = []
    for each in entries:
        with contextlib.suppress(NodeError):  # no such interface any more
            changes.append(make_change(each, delete=True))
    netlink.make(changes, force=True)


def make_change(entry: Entry, *, delete: bool = False) -> Change:
    """Raises NodeError when its interface is not there."""
    if isinstance(entry, Route):
        return _make_route(entry, delete)
    if isinstance(entry, Proxy):
        return _make_proxy(entry, delete)
    return _make_rule(entry, delete)


def _make_route(route: Route, delete: bool) -> Change:
    address = ip_address(route.address)
    family, scope = socket.AF_INET, _SCOPE_NOWHERE if delete else _SCOPE_LINK
    if address.version == 6:
        family, scope = socket.AF_INET6, 0
    kind = 0 if delete else _UNICAST
    body = _ROUTE.pack(family, address.max_prefixlen, 0, 0, 0, PROTOCOL, scope, kind, 0)
    body += make_attributes(
        [(1, address.packed), (4, link.find_index(route.tap)), (15, route.table)]
    )
    if delete:
        return Change(netlink.DELETE_ROUTE, 0, body, str(route))
    return Change(netlink.NEW_ROUTE, netlink.CREATE | netlink.REPLACE, body, str(route))


def _make_proxy(proxy: Proxy, delete: bool) -> Change:
    address, index = ip_address(proxy.address), link.find_index(proxy.interface)
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    body = _NEIGHBOUR.pack(family, index, _PERMANENT, _PROXY, 0)
    body += make_attributes([(1, address.packed), (12, bytes([PROTOCOL]))])
    if delete:
        return Change(netlink.DELETE_NEIGHBOUR, 0, body, str(proxy))
    return Change(netlink.NEW_NEIGHBOUR, netlink.CREATE | netlink.REPLACE, body, str(proxy))


def _make_rule(selector: Selector, delete: bool) -> Change:
    family = socket.AF_INET6 if selector.ipv6 else socket.AF_INET
    body = _ROUTE.pack(family, 0, 0, 0, 0, 0, 0, _TO_TABLE, 0)
    body += make_attributes([(15, selector.table), (6, PRIORITY), (21, bytes([PROTOCOL]))])
    if selector.uplink:
        # A default route of the table is not for what comes from outside.
        suppressed: list[tuple[int, int]] = [] if delete else [(14, 0)]
        body += make_attributes([(3, selector.uplink), *suppressed])
    else:
        mark = selector.table << MARK_TABLE_SHIFT
        body += make_attributes([(10, mark), (16, MARK_TABLE_MASK)])
    if delete:
        return Change(netlink.DELETE_RULE, 0, body, str(selector))
    flags = netlink.CREATE | netlink.EXCLUSIVE
    return Change(netlink.NEW_RULE, flags, body, str(selector), harmless=(errno.EEXIST,))
