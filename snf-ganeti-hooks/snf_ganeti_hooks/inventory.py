"""What this node has for NICs, read from the kernel at one moment."""

import contextlib
import gc
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from snf_ganeti_hooks import setup
from snf_ganeti_hooks.firewall.listing import Ruleset, parse_ruleset
from snf_ganeti_hooks.kernel import link, nft
from snf_ganeti_hooks.kernel.link import Link
from snf_ganeti_hooks.networks.routing import (
    PROTOCOL,
    Proxy,
    Route,
    Selector,
    parse_proxies,
    parse_routes,
)
from snf_ganeti_hooks.nic import Nic


@dataclass(frozen=True)
class Inventory:
    """vlans: of the ports of bridges, see `link.find_vlans`; none where no NIC is in one."""

    links: Mapping[str, Link]
    ruleset: Ruleset
    routes: frozenset[Route]
    proxies: frozenset[Proxy]
    selectors: frozenset[Selector]
    vlans: Mapping[str, Mapping[int, bool]]


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Python looks for garbage while a thousand NICs become a million objects, none of them
    garbage, and takes as long as all the rest; not so in the block."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def read_inventory(nics: Iterable[Nic]) -> Inventory:
    """nics: for which it is read. Raises NodeError, CommandError."""
    shown = ("-N", "route", "show", "table", "all", "proto", str(PROTOCOL))
    # libnftables takes half of the time, and Python can do the rest meanwhile.
    with ThreadPoolExecutor(1) as beside:
        tables = beside.submit(nft.read_tables)
        links = link.find_links()
        routes = frozenset(parse_routes([*link.query(*shown), *link.query("-6", *shown)]))
        proxies = frozenset(parse_proxies(link.query("-N", "neigh", "show", "proxy")))
        selectors = frozenset(setup.read_selectors())
        vlans = link.find_vlans() if any(nic.vlan for nic in nics) else {}
        ruleset = parse_ruleset(tables.result())
    return Inventory(links, ruleset, routes, proxies, selectors, vlans)
