"""systemd-networkd: a .network file for each NIC, systemd.network(5).

The first file by name that matches a link has it: files of the image that could match a
NIC go. A NIC's type is matched too, as bridges and VLANs on it take over its MAC.
"""

import re
from collections.abc import Sequence

from snf_image_helper.network.backend import (
    BackEnd,
    Plan,
    accepts_advertisements,
    find_addresses,
    find_files,
    is_distant,
    iterate_nics,
    may_be_nic,
)
from snf_image_helper.protocol import Address, Nic
from snf_image_helper.tree import Tree

FOLDER = "/etc/systemd/network"
_UNIT = "systemd-networkd.service"
_ENABLED = f"/etc/systemd/system/multi-user.target.wants/{_UNIT}"
_INSTALLED = f"/lib/systemd/system/{_UNIT}"
_MASKED = f"/etc/systemd/system/{_UNIT}"
_WANTS = "/etc/systemd/system/multi-user.target.d/network.conf"

Section = tuple[str, list[str]]


def is_enabled(tree: Tree) -> bool:
    return tree.is_file(_ENABLED)


def is_idle(tree: Tree) -> bool:
    """Installed, not enabled, and not masked either."""
    return tree.is_file(_INSTALLED) and not is_enabled(tree) and tree.stat(_MASKED) is None


def make_files(nics: Sequence[Nic]) -> dict[str, str]:
    """A .network file for each NIC that needs one."""
    return {
        f"{FOLDER}/10-{name}.network": "\n".join(
            _make_section(*each) for each in _make(metric, nic)
        )
        for name, metric, nic in iterate_nics(nics)
    }


def make_plan(tree: Tree, nics: Sequence[Nic]) -> Plan:
    files = make_files(nics)
    old = [path for path in find_files(tree, FOLDER, ".network") if path not in files]
    return Plan(files, tuple(path for path in old if matches_nics(tree.read_text(path))))


def make_idle_plan(tree: Tree, nics: Sequence[Nic]) -> Plan:
    """As make_plan, and have the service started; an idle one is in nobody's way."""
    if not nics:
        return Plan({})
    plan = make_plan(tree, nics)
    return Plan({**plan.files, _WANTS: _make_section("Unit", [f"Wants={_UNIT}"])}, plan.removed)


def matches_nics(text: str) -> bool:
    """Could a .network file of the image match an Ethernet NIC?"""
    section = re.search(r"^\s*\[Match\]\s*$(.*?)(?=^\s*\[|\Z)", text, re.MULTILINE | re.DOTALL)
    if section is None:
        return True
    words = dict(re.findall(r"^\s*(Name|Type|Kind)\s*=\s*(.*?)\s*$", section[1], re.MULTILINE))
    if "Kind" in words or words.get("Type", "ether") != "ether":
        return False
    names = words.get("Name", "*").split()
    return any(name.startswith("!") or may_be_nic(name) for name in names)


def _make_section(name: str, lines: Sequence[str]) -> str:
    return "".join(f"{line}\n" for line in (f"[{name}]", *lines))


def _make(metric: int, nic: Nic) -> list[Section]:
    addresses = find_addresses(nic)
    sections: list[Section] = [
        ("Match", [f"MACAddress={nic.mac}", "Type=ether"]),
        ("Network", _make_network(nic)),
        *(("Address", [f"Address={each.address}/{each.prefix}"]) for each in addresses),
        *(("Route", _make_route(metric, each)) for each in addresses if each.gateway),
    ]
    if nic.ipv4 == "dhcp":
        # The server knows the NIC by nothing else than its MAC.
        sections.append(("DHCPv4", ["ClientIdentifier=mac", f"RouteMetric={metric}"]))
    return sections + _make_autoconfiguration(metric, nic)


def _make_autoconfiguration(metric: int, nic: Nic) -> list[Section]:
    """slaac: whatever the router's flags say. slaac_dhcp: DHCPv6 when they ask for it, and
    not for an address. dhcp: whatever they say, and also without a router."""
    if nic.ipv6 is None or isinstance(nic.ipv6, Address):
        return []
    client, *options = _DHCPV6[nic.ipv6]
    advertisements = ("IPv6AcceptRA", [f"DHCPv6Client={client}", f"RouteMetric={metric}"])
    return [advertisements, ("DHCPv6", options)] if options else [advertisements]


_DHCPV6 = {
    "slaac": ("no",),
    "slaac_dhcp": ("yes", "UseAddress=no"),
    "dhcp": ("always", "WithoutRA=solicit"),
}


def _make_network(nic: Nic) -> list[str]:
    families = {"ipv4": nic.ipv4 == "dhcp", "ipv6": nic.ipv6 == "dhcp"}
    wanted = [family for family, dhcp in families.items() if dhcp]
    dhcp = "yes" if len(wanted) == 2 else wanted[0] if wanted else "no"
    lines = [f"DHCP={dhcp}"]
    advertisements = accepts_advertisements(nic)
    if advertisements is not None:
        lines.append(f"IPv6AcceptRA={'yes' if advertisements else 'no'}")
    return lines


def _make_route(metric: int, address: Address) -> list[str]:
    on_link = ["GatewayOnLink=yes"] if is_distant(address) else []
    return [f"Gateway={address.gateway}", *on_link, f"Metric={metric}"]


BACK_END = BackEnd("systemd-networkd", _ENABLED, is_enabled, make_plan)
IDLE_BACK_END = BackEnd("systemd-networkd, not enabled", _INSTALLED, is_idle, make_idle_plan)
