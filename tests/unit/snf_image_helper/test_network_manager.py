"""Keyfiles of NetworkManager, as a parser of their format reads them."""

import configparser
from pathlib import Path

import pytest

from snf_image_helper.network.network_manager import make_files, make_plan
from snf_image_helper.tree import Tree
from unit.snf_image_helper.nics import CELLS, MAC, MAC2

Section = dict[str, str]
AUTO: Section = {"method": "auto", "addr-gen-mode": "0", "ip6-privacy": "0"}
DHCP4: Section = {"method": "auto", "dhcp-client-id": "mac", "route-metric": "100"}
OFF: Section = {"method": "disabled"}
STATIC4: Section = {"method": "manual", "address1": "192.0.2.5/24"}
STATIC6: Section = {"method": "manual", "address1": "2001:db8::5/64"}
ROUTE4: Section = {"gateway": "192.0.2.1", "route-metric": "100"}
ROUTE6: Section = {"gateway": "2001:db8::1", "route-metric": "100"}
FIRST: dict[str, tuple[Section, Section]] = {
    "dhcp": (DHCP4, AUTO),
    "static4": (STATIC4 | ROUTE4, AUTO),
    "static4 without gateway": (STATIC4, AUTO),
    "static6": (OFF, STATIC6 | ROUTE6),
    "static6 without gateway": (OFF, AUTO | {"address1": "2001:db8::5/64"}),
    "static6, link-local gateway": (OFF, STATIC6 | ROUTE6 | {"gateway": "fe80::1"}),
    "slaac": (OFF, AUTO),
    "slaac_dhcp": (OFF, AUTO),
    "dhcp6": (OFF, AUTO),
    "dual": (DHCP4, AUTO),
    "dual static": (STATIC4 | ROUTE4, STATIC6 | ROUTE6),
    "routed": (
        STATIC4 | ROUTE4 | {"address1": "192.0.2.5/32", "gateway": "10.0.0.1"},
        STATIC6 | ROUTE6 | {"address1": "2001:db8::5/128", "gateway": "2001:db8:1::1"},
    ),
}


@pytest.mark.parametrize("cell", FIRST)
def test_a_nic_has_a_keyfile_with_its_mac(cell: str) -> None:
    ((path, text),) = make_files(CELLS[cell]).items()
    assert path == "/etc/NetworkManager/system-connections/nic0.nmconnection"
    keyfile = configparser.ConfigParser(interpolation=None)
    keyfile.read_string(text)
    assert dict(keyfile["ethernet"]) == {"mac-address": MAC}
    assert (dict(keyfile["ipv4"]), dict(keyfile["ipv6"])) == FIRST[cell]


def test_each_nic_is_a_connection_of_its_own() -> None:
    first, second = make_files(CELLS["two NICs"]).values()
    assert MAC in first and MAC2 in second and "route-metric=101" in second
    assert len({line for text in (first, second) for line in text.split() if "uuid" in line}) == 2


def test_ethernet_connections_of_the_image_go(tmp_path: Path) -> None:
    folder = tmp_path / "etc/NetworkManager/system-connections"
    folder.mkdir(parents=True)
    (folder / "Wired").write_text("[connection]\nid=Wired\ntype=ethernet\n")
    (folder / "vpn").write_text("[connection]\nid=vpn\ntype=wireguard\n")
    plan = make_plan(Tree(str(tmp_path)), CELLS["dhcp"])
    assert plan.removed == ("/etc/NetworkManager/system-connections/Wired",)
