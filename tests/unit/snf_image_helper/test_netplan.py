"""netplan's YAML, as a YAML parser reads it."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from snf_image_helper.network.netplan import BACK_END, PATH, make_files, make_plan
from snf_image_helper.tree import Tree
from unit.snf_image_helper.nics import CELLS, MAC, MAC2


def overrides(*families: int, metric: int = 100) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for family in families:
        found |= {f"dhcp{family}": True, f"dhcp{family}-overrides": {"route-metric": metric}}
    return found | ({"dhcp-identifier": "mac"} if 4 in families else {})


def route(to: str, via: str, metric: int = 100, **more: bool) -> dict[str, Any]:
    return {"to": to, "via": via, "metric": metric, **more}


ROUTE4 = route("0.0.0.0/0", "192.0.2.1")
ROUTE6 = route("::/0", "2001:db8::1")
EXPECTED: dict[str, list[dict[str, Any]]] = {
    "dhcp": [overrides(4)],
    "static4": [{"addresses": ["192.0.2.5/24"], "routes": [ROUTE4]}],
    "static4 without gateway": [{"addresses": ["192.0.2.5/24"]}],
    "static6": [{"accept-ra": False, "addresses": ["2001:db8::5/64"], "routes": [ROUTE6]}],
    "static6 without gateway": [{"addresses": ["2001:db8::5/64"]}],
    "static6, link-local gateway": [
        {"accept-ra": False, "addresses": ["2001:db8::5/64"], "routes": [route("::/0", "fe80::1")]}
    ],
    "slaac": [{"accept-ra": True}],
    "slaac_dhcp": [{"accept-ra": True, **overrides(6)}],
    "dhcp6": [{"accept-ra": True, **overrides(6)}],
    "dual": [{"accept-ra": True, **overrides(4, 6)}],
    "dual static": [
        {
            "accept-ra": False,
            "addresses": ["192.0.2.5/24", "2001:db8::5/64"],
            "routes": [ROUTE4, ROUTE6],
        }
    ],
    "routed": [
        {
            "accept-ra": False,
            "addresses": ["192.0.2.5/32", "2001:db8::5/128"],
            "routes": [
                route("0.0.0.0/0", "10.0.0.1", **{"on-link": True}),
                route("::/0", "2001:db8:1::1", **{"on-link": True}),
            ],
        }
    ],
    "two NICs": [
        overrides(4),
        {"addresses": ["192.0.2.5/24"], "routes": [{**ROUTE4, "metric": 101}]},
    ],
    "nothing to do on the first": [{}, overrides(4, metric=101)],
}


@pytest.mark.parametrize("cell", EXPECTED)
def test_each_nic_is_matched_by_its_mac(cell: str) -> None:
    ethernets = {
        f"nic{index}": {"match": {"macaddress": mac}, **expected}
        for index, (mac, expected) in enumerate(zip((MAC, MAC2), EXPECTED[cell], strict=False))
        if expected
    }
    document = yaml.safe_load(make_files(CELLS[cell])[PATH])
    assert document == {"network": {"version": 2, "ethernets": ethernets}}


def test_all_cells_are_tested() -> None:
    assert EXPECTED.keys() == CELLS.keys() - {"nothing to do"}
    assert make_files(CELLS["nothing to do"]) == {}


def test_what_the_image_says_of_ethernets_goes(tmp_path: Path) -> None:
    folder = tmp_path / "etc/netplan"
    folder.mkdir(parents=True)
    (folder / "50-cloud-init.yaml").write_text("network: {ethernets: {eth0: {dhcp4: true}}}\n")
    (folder / "60-nics.yaml").write_text("network: {ethernets: {nic0: {dhcp4: true}}}\n")
    (folder / "01-renderer.yaml").write_text("network: {renderer: networkd}\n")
    (folder / "note.txt").write_text("ethernets\n")
    tree = Tree(str(tmp_path))
    assert make_plan(tree, CELLS["dhcp"]).removed == ("/etc/netplan/50-cloud-init.yaml",)
    plan = make_plan(tree, ())
    assert plan.removed == ("/etc/netplan/50-cloud-init.yaml", "/etc/netplan/60-nics.yaml")
    assert plan.files == {}


def test_it_needs_folder_and_tool(tmp_path: Path) -> None:
    (tmp_path / "etc/netplan").mkdir(parents=True)
    (tmp_path / "usr/sbin").mkdir(parents=True)
    assert not BACK_END.detect(Tree(str(tmp_path)))
    (tmp_path / "usr/sbin/netplan").touch()
    assert BACK_END.detect(Tree(str(tmp_path)))
