"""What the kernel has for NICs, from its own lists, in a form that can be compared."""

import json
from collections.abc import Mapping

from snf_ganeti import process
from testbed.hosting import Hosting
from testbed.namespaces import make_enter_network_argv

FAMILIES = ("netdev", "arp", "inet", "bridge")


def read(hosting: Hosting, *argv: str) -> list[dict[str, object]]:
    """What a program of this machine lists of the node's network."""
    output = process.run(make_enter_network_argv(hosting.node.pid, argv)).stdout
    listed = json.loads(output or b"[]")
    found: list[dict[str, object]] = listed["nftables"] if isinstance(listed, dict) else listed
    return found


def take_picture(hosting: Hosting) -> list[str]:
    """Rules, routes, proxy entries, rules of tables, ports of bridges; no counters, no handles."""
    listed: list[dict[str, object]] = []
    for family in FAMILIES:
        listed += read(hosting, "nft", "-j", "list", "table", family, "snf")
    for words in ("route show table all", "-6 route show table all", "neigh show proxy"):
        listed += [each for each in read(hosting, "ip", "-j", *words.split()) if is_of_guest(each)]
    for words in ("rule show", "-6 rule show"):
        listed += read(hosting, "ip", "-j", *words.split())
    for link in read(hosting, "ip", "-j", "link"):
        if str(link["ifname"]).startswith("tap"):
            listed.append({name: link.get(name) for name in ("ifname", "master", "address")})
    return sorted(json.dumps(strip(each), sort_keys=True) for each in listed)


def is_of_guest(entry: Mapping[str, object]) -> bool:
    text = json.dumps(entry)
    return "proxy" in entry or ('"tap' in text and "fe80::" not in text and "ff00::" not in text)


def strip(value: object) -> object:
    if isinstance(value, dict):
        return {
            key: "stripped" if key == "counter" else strip(item)
            for key, item in value.items()
            if key not in ("handle", "flags", "index")
        }
    return [strip(each) for each in value] if isinstance(value, list) else value
