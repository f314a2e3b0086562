"""Routes of routed NICs, decided from what the node has; nothing here changes anything.

A routed tap carries no address of its subnet. The node routes each address of the NIC to the
tap, answers for it on the uplink (proxy ARP and NDP), and answers for everything else on the
tap. What comes from guests of a table other than main carries the table's number in its mark,
so that one rule a table suffices however many NICs there are. What we add has a protocol
number of its own, by which it is found again.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Any

from snf_ganeti.errors import InputError
from snf_ganeti_hooks.nic import Nic

PROTOCOL = 205
PRIORITY = 20500
"""Of our `ip rule`s, after the site's own and before main."""
MAIN = 254
_RESERVED = {"main": MAIN, "default": 253, "local": 255}
_TABLE_FILES = ("/usr/share/iproute2/rt_tables", "/etc/iproute2/rt_tables")
Address = IPv4Address | IPv6Address


@dataclass(frozen=True)
class Uplinks:
    """The interfaces by which a table's default routes leave; empty without one."""

    ipv4: str = ""
    ipv6: str = ""


@dataclass(frozen=True, order=True)
class Route:
    address: str
    tap: str
    table: int

    def __str__(self) -> str:
        table = f" table {self.table}" if self.table != MAIN else ""
        return f"route {self.address} dev {self.tap}{table}"


@dataclass(frozen=True, order=True)
class Proxy:
    """An address that this node answers for on an interface."""

    address: str
    interface: str

    def __str__(self) -> str:
        return f"neigh proxy {self.address} dev {self.interface}"


@dataclass(frozen=True, order=True)
class Selector:
    """An `ip rule`. uplink: what comes from it finds the table's guests; empty: the mark."""

    table: int
    uplink: str = ""
    ipv6: bool = False

    def __str__(self) -> str:
        family = "-6 " if self.ipv6 else ""
        chosen = f"iif {self.uplink} " if self.uplink else ""
        return f"{family}rule {chosen}lookup {self.table} priority {PRIORITY}"


def read_table(name: str) -> int:
    """The number of a routing table; empty is main. Raises InputError."""
    if not name:
        return MAIN
    number = int(name) if name.isascii() and name.isdigit() else read_table_names().get(name, 0)
    if not 0 < number < 1 << 16 or number in (253, 255):
        raise InputError(
            f"there is no routing table {name[:64]!r} for guests",
            hint="name it in /etc/iproute2/rt_tables, with a number below 65536",
        )
    return number


def read_table_names() -> dict[str, int]:
    """The names of tables, from iproute2's files."""
    found = dict(_RESERVED)
    paths = [Path(each) for each in _TABLE_FILES]
    for path in [*paths, *sorted(Path("/etc/iproute2/rt_tables.d").glob("*.conf"))]:
        if path.is_file():
            lines = re.findall(r"^\s*(\d+)\s+(\S+)", path.read_text(), re.MULTILINE)
            found.update((name, int(number)) for number, name in lines)
    return found


def parse_uplinks(routes: Iterable[Mapping[str, Any]]) -> dict[int, Uplinks]:
    """Table → its uplinks, from `ip -json route show table all default`.

    Of several default routes the one with the lowest metric counts.
    """
    best: dict[tuple[int, bool], tuple[int, str]] = {}
    names = read_table_names()
    for route in routes:
        dev = route.get("dev")
        if route.get("dst") == "default" and dev and dev != "lo":
            text = str(route.get("table", MAIN))
            table = int(text) if text.isdigit() else names.get(text, 0)
            key = (table, is_ipv6(route))
            found = (int(route.get("metric", 0)), str(dev))
            best[key] = min(best.get(key, found), found)
    tables = {table for table, _ in best}
    return {
        table: Uplinks(best.get((table, False), (0, ""))[1], best.get((table, True), (0, ""))[1])
        for table in tables
    }


def is_ipv6(route: Mapping[str, Any]) -> bool:
    """`ip -json` names no family; only IPv6 routes have a router preference."""
    return "pref" in route or ":" in str(route.get("gateway", "")) or ":" in str(route["dst"])


def find_addresses(nic: Nic) -> tuple[Address, ...]:
    return (*(nic.addresses4 or ()), *(nic.addresses6 or ()))


def make_routes(nic: Nic, table: int) -> list[Route]:
    return [Route(str(each), nic.tap, table) for each in find_addresses(nic)]


def make_proxies(nic: Nic, uplinks: Uplinks) -> list[Proxy]:
    """On the uplinks the NIC's addresses; on the tap the IPv6 gateway, which has no proxy_arp."""
    found = []
    for address in find_addresses(nic):
        uplink = uplinks.ipv4 if isinstance(address, IPv4Address) else uplinks.ipv6
        if uplink:
            found.append(Proxy(str(address), uplink))
    if nic.network and nic.network.gateway6 and nic.addresses6:
        found.append(Proxy(str(nic.network.gateway6), nic.tap))
    return found


def make_selectors(table: int, uplinks: Uplinks) -> list[Selector]:
    if table == MAIN:
        return []
    found = [Selector(table), Selector(table, ipv6=True)]
    if uplinks.ipv4:
        found.append(Selector(table, uplinks.ipv4))
    if uplinks.ipv6:
        found.append(Selector(table, uplinks.ipv6, ipv6=True))
    return found


def parse_routes(routes: Iterable[Mapping[str, Any]]) -> set[Route]:
    """From `ip -json -N route show table all proto PROTOCOL`."""
    return {
        Route(str(each["dst"]), str(each["dev"]), int(each.get("table", MAIN)))
        for each in routes
        if "dev" in each
    }


def parse_proxies(neighbours: Iterable[Mapping[str, Any]]) -> set[Proxy]:
    """Ours, from `ip -json -N neigh show proxy`."""
    return {
        Proxy(str(ip_address(each["dst"])), str(each["dev"]))
        for each in neighbours
        if str(each.get("protocol")) == str(PROTOCOL)
    }


def parse_selectors(rules: Sequence[Mapping[str, Any]], *, ipv6: bool) -> set[Selector]:
    """Ours, from `ip -json -N rule show`."""
    return {
        Selector(int(each["table"]), str(each.get("iif", "")), ipv6)
        for each in rules
        if str(each.get("protocol")) == str(PROTOCOL)
    }


def make_tap_sysctls(nic: Nic) -> dict[str, int]:
    """Settings of a routed tap; the guard, and not the kernel, checks sources there."""
    v4, v6 = f"ipv4/conf/{nic.tap}", f"ipv6/conf/{nic.tap}"
    return {
        f"{v4}/forwarding": 1,
        f"{v4}/proxy_arp": 1,
        f"{v4}/rp_filter": 0,
        f"{v4}/src_valid_mark": 1,
        f"{v4}/send_redirects": 0,
        f"ipv4/neigh/{nic.tap}/proxy_delay": 0,
        f"{v6}/disable_ipv6": 0,
        f"{v6}/addr_gen_mode": 0,
        f"{v6}/accept_dad": 0,
        f"{v6}/accept_ra": 0,
        f"{v6}/autoconf": 0,
        f"{v6}/forwarding": 1,
        f"{v6}/proxy_ndp": 1,
        f"ipv6/neigh/{nic.tap}/proxy_delay": 0,
    }


def make_uplink_sysctls(uplinks: Uplinks) -> dict[str, int]:
    """An uplink answers at once for the guests' addresses, and passes on what they get."""
    values = {}
    if uplinks.ipv4:
        values[f"ipv4/conf/{uplinks.ipv4}/forwarding"] = 1
        values[f"ipv4/neigh/{uplinks.ipv4}/proxy_delay"] = 0
    if uplinks.ipv6:
        values[f"ipv6/conf/{uplinks.ipv6}/proxy_ndp"] = 1
        values[f"ipv6/neigh/{uplinks.ipv6}/proxy_delay"] = 0
    return values
