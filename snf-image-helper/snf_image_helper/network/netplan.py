"""netplan: one YAML file in /etc/netplan (netplan(5)); it renders to networkd or NetworkManager.

netplan merges all its files, and what they say of a NIC under another key gets in the way:
every file of the image that has Ethernet NICs goes, cloud-init's among them. DHCPv6 follows
the flags of the router's advertisements: netplan can't say otherwise.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from snf_image_helper.network.backend import (
    BackEnd,
    Plan,
    accepts_advertisements,
    find_addresses,
    find_files,
    is_distant,
    iterate_nics,
)
from snf_image_helper.protocol import Address, Nic
from snf_image_helper.tree import Tree

FOLDER = "/etc/netplan"
PATH = f"{FOLDER}/60-nics.yaml"
_TOOL = "/usr/sbin/netplan"
_ETHERNETS = re.compile(r"\bethernets\b")


def detect(tree: Tree) -> bool:
    return tree.is_dir(FOLDER) and tree.is_file(_TOOL)


def make_files(nics: Sequence[Nic]) -> dict[str, str]:
    """The YAML file for these NICs; none when they need nothing."""
    ethernets = {name: _make_nic(metric, nic) for name, metric, nic in iterate_nics(nics)}
    if not ethernets:
        return {}
    document = {"network": {"version": 2, "ethernets": ethernets}}
    return {PATH: "".join(f"{line}\n" for line in _emit(document))}


def make_plan(tree: Tree, nics: Sequence[Nic]) -> Plan:
    files = make_files(nics)
    old = find_files(tree, FOLDER, ".yaml")
    removed = [path for path in old if _ETHERNETS.search(tree.read_text(path))]
    return Plan(files, tuple(path for path in removed if path not in files))


def _make_nic(metric: int, nic: Nic) -> dict[str, Any]:
    definition: dict[str, Any] = {"match": {"macaddress": nic.mac}}
    if nic.ipv4 == "dhcp":
        definition["dhcp4"] = True
        definition["dhcp-identifier"] = "mac"  # the server knows the NIC by nothing else
        definition["dhcp4-overrides"] = {"route-metric": metric}
    if nic.ipv6 in ("dhcp", "slaac_dhcp"):
        definition["dhcp6"] = True
        definition["dhcp6-overrides"] = {"route-metric": metric}  # must be the same as IPv4's
    advertisements = accepts_advertisements(nic)
    if advertisements is not None:
        definition["accept-ra"] = advertisements
    addresses = find_addresses(nic)
    if addresses:
        definition["addresses"] = [f"{each.address}/{each.prefix}" for each in addresses]
    routes = [_make_route(metric, address) for address in addresses if address.gateway]
    if routes:
        definition["routes"] = routes
    return definition


def _make_route(metric: int, address: Address) -> dict[str, Any]:
    # `to: default` is not known to netplan before 0.103.
    route: dict[str, Any] = {
        "to": "::/0" if ":" in address.gateway else "0.0.0.0/0",
        "via": address.gateway,
        "metric": metric,
    }
    if is_distant(address):
        route["on-link"] = True
    return route


def _emit(value: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    """A mapping as lines of YAML; scalars in JSON's form, which YAML takes."""
    for key, each in value.items():
        if isinstance(each, Mapping):
            yield f"{indent}{key}:"
            yield from _emit(each, indent + "  ")
        elif isinstance(each, list):
            yield f"{indent}{key}:"
            for item in each:
                yield f"{indent}  - {json.dumps(item)}"
        else:
            yield f"{indent}{key}: {json.dumps(each)}"


BACK_END = BackEnd("netplan", f"{FOLDER} with {_TOOL}", detect, make_plan, mode=0o600)
