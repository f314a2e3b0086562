"""NetworkManager: a keyfile for each NIC, nm-settings-keyfile(5).

A connection that names a MAC beats one that names none, but not another that names an
interface: the image's own Ethernet connections go.
"""

import re
import uuid
from collections.abc import Sequence

from snf_image_helper.network.backend import (
    BackEnd,
    Plan,
    accepts_advertisements,
    find_files,
    iterate_nics,
)
from snf_image_helper.protocol import Address, Nic
from snf_image_helper.tree import Tree

FOLDER = "/etc/NetworkManager/system-connections"
_ENABLED = "/etc/systemd/system/multi-user.target.wants/NetworkManager.service"
_ETHERNET = re.compile(r"^\s*type\s*=\s*(ethernet|802-3-ethernet)\s*$", re.MULTILINE)
_NAMESPACE = uuid.UUID("0c3b9f5a-6b1e-4f0e-9a3f-7d0a5d0f2f6b")


def detect(tree: Tree) -> bool:
    return tree.is_file(_ENABLED)


def make_files(nics: Sequence[Nic]) -> dict[str, str]:
    """A keyfile for each NIC that needs one."""
    return {
        f"{FOLDER}/{name}.nmconnection": _make_keyfile(name, metric, nic)
        for name, metric, nic in iterate_nics(nics)
    }


def make_plan(tree: Tree, nics: Sequence[Nic]) -> Plan:
    files = make_files(nics)
    old = [path for path in find_files(tree, FOLDER, "") if path not in files]
    return Plan(files, tuple(path for path in old if _ETHERNET.search(tree.read_text(path))))


def _make_keyfile(name: str, metric: int, nic: Nic) -> str:
    sections = {
        "connection": [
            f"id={name}",
            f"uuid={uuid.uuid5(_NAMESPACE, nic.mac)}",
            "type=ethernet",
            "autoconnect-priority=10",
        ],
        "ethernet": [f"mac-address={nic.mac}"],
        "ipv4": _make_ipv4(nic, metric),
        "ipv6": _make_ipv6(nic, metric),
    }
    return "\n".join("\n".join((f"[{head}]", *body, "")) for head, body in sections.items())


def _make_ipv4(nic: Nic, metric: int) -> list[str]:
    if isinstance(nic.ipv4, Address):
        return _make_static(nic.ipv4, metric)
    if nic.ipv4 == "dhcp":
        return ["method=auto", "dhcp-client-id=mac", f"route-metric={metric}"]
    return ["method=disabled"]


def _make_ipv6(nic: Nic, metric: int) -> list[str]:
    """The flags of the router decide on DHCPv6: its method `dhcp` would take no routes."""
    if isinstance(nic.ipv6, Address) and accepts_advertisements(nic) is False:
        return _make_static(nic.ipv6, metric)
    # Addresses are made of the MAC: the only ones a network can know beforehand.
    lines = ["addr-gen-mode=0", "ip6-privacy=0"]
    if isinstance(nic.ipv6, Address):
        lines.append(f"address1={nic.ipv6.address}/{nic.ipv6.prefix}")
    return ["method=auto", *lines]


def _make_static(address: Address, metric: int) -> list[str]:
    """NetworkManager adds a route to a gateway outside the subnet by itself."""
    lines = ["method=manual", f"address1={address.address}/{address.prefix}"]
    if address.gateway:
        lines += [f"gateway={address.gateway}", f"route-metric={metric}"]
    return lines


BACK_END = BackEnd("NetworkManager", _ENABLED, detect, make_plan, mode=0o600)
