""".network files of systemd-networkd."""

from pathlib import Path

import pytest

from snf_image_helper.network.networkd import (
    BACK_END,
    IDLE_BACK_END,
    make_files,
    make_plan,
    matches_nics,
)
from snf_image_helper.tree import Tree
from unit.snf_image_helper.nics import CELLS, MAC, MAC2

# The lines after [Match], by sections, of each NIC's file.
DHCP4 = "[Network] DHCP=ipv4 [DHCPv4] ClientIdentifier=mac RouteMetric=100"
NO_DHCP = "[Network] DHCP=no"
RA, NO_RA = f"{NO_DHCP} IPv6AcceptRA=yes", f"{NO_DHCP} IPv6AcceptRA=no"
ADDRESS4, ADDRESS6 = "[Address] Address=192.0.2.5/24", "[Address] Address=2001:db8::5/64"
ROUTE4 = "[Route] Gateway=192.0.2.1 Metric=100"
ROUTE6 = "[Route] Gateway=2001:db8::1 Metric=100"
STATEFUL = "[IPv6AcceptRA] DHCPv6Client=always RouteMetric=100 [DHCPv6] WithoutRA=solicit"
EXPECTED: dict[str, tuple[str, ...]] = {
    "dhcp": (DHCP4,),
    "static4": (f"{NO_DHCP} {ADDRESS4} {ROUTE4}",),
    "static4 without gateway": (f"{NO_DHCP} {ADDRESS4}",),
    "static6": (f"{NO_RA} {ADDRESS6} {ROUTE6}",),
    "static6 without gateway": (f"{NO_DHCP} {ADDRESS6}",),
    "static6, link-local gateway": (
        f"{NO_RA} {ADDRESS6} [Route] Gateway=fe80::1 Metric=100",
    ),
    "slaac": (f"{RA} [IPv6AcceptRA] DHCPv6Client=no RouteMetric=100",),
    "slaac_dhcp": (
        f"{RA} [IPv6AcceptRA] DHCPv6Client=yes RouteMetric=100 [DHCPv6] UseAddress=no",
    ),
    "dhcp6": (f"[Network] DHCP=ipv6 IPv6AcceptRA=yes {STATEFUL}",),
    "dual": (
        "[Network] DHCP=yes IPv6AcceptRA=yes [DHCPv4] ClientIdentifier=mac RouteMetric=100"
        f" {STATEFUL}",
    ),
    "dual static": (f"{NO_RA} {ADDRESS4} {ADDRESS6} {ROUTE4} {ROUTE6}",),
    "routed": (
        f"{NO_RA} [Address] Address=192.0.2.5/32 [Address] Address=2001:db8::5/128"
        " [Route] Gateway=10.0.0.1 GatewayOnLink=yes Metric=100"
        " [Route] Gateway=2001:db8:1::1 GatewayOnLink=yes Metric=100",
    ),
    "two NICs": (DHCP4, f"{NO_DHCP} {ADDRESS4} {ROUTE4.replace('100', '101')}"),
    "nothing to do on the first": ("", DHCP4.replace("100", "101")),
    "nothing to do": ("",),
}  # fmt: skip


def test_all_cells_are_tested() -> None:
    assert EXPECTED.keys() == CELLS.keys()


@pytest.mark.parametrize("cell", EXPECTED)
def test_each_nic_has_a_file_that_matches_its_mac(cell: str) -> None:
    expected = {
        f"/etc/systemd/network/10-nic{index}.network": (
            f"[Match] MACAddress={(MAC, MAC2)[index]} Type=ether {rest}"
        )
        for index, rest in enumerate(EXPECTED[cell])
        if rest
    }
    files = make_files(CELLS[cell])
    assert {path: " ".join(text.split()) for path, text in files.items()} == expected


@pytest.mark.parametrize(
    ("match", "could"),
    [
        ("Name=eth0", True),
        ("Name=br0 en*", True),
        ("Name=*", True),
        ("Name=!lo", True),
        ("MACAddress=aa:00:00:00:00:01", True),
        ("Type=ether", True),
        ("Name=br0", False),
        ("Name=eth0.5", False),
        ("Kind=bridge", False),
        ("Type=wlan", False),
        ("Name = wg0", False),
    ],
)
def test_what_an_image_has_for_nics_is_known(match: str, could: bool) -> None:
    assert matches_nics(f"# a comment\n[Match]\n{match}\n\n[Network]\nDHCP=yes\n") is could


def test_a_file_that_matches_everything_is_known() -> None:
    assert matches_nics("[Network]\nDHCP=yes\n")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for folder in ("etc/systemd/network", "lib/systemd/system", "etc/systemd/system"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "lib/systemd/system/systemd-networkd.service").touch()
    return tmp_path


def test_files_of_the_image_that_could_match_a_nic_go(root: Path) -> None:
    folder = root / "etc/systemd/network"
    for name, match in [("00-a", "Name=en*"), ("10-nic0", "Name=x"), ("20-b", "Name=br0")]:
        (folder / f"{name}.network").write_text(f"[Match]\n{match}\n")
    plan = make_plan(Tree(str(root)), CELLS["dhcp"])
    assert plan.removed == ("/etc/systemd/network/00-a.network",)


def test_an_idle_one_is_started(root: Path) -> None:
    tree = Tree(str(root))
    assert (BACK_END.detect(tree), IDLE_BACK_END.detect(tree)) == (False, True)
    plan = IDLE_BACK_END.make_plan(tree, CELLS["dhcp"])
    wants = plan.files["/etc/systemd/system/multi-user.target.d/network.conf"]
    assert wants == "[Unit]\nWants=systemd-networkd.service\n"
    assert IDLE_BACK_END.make_plan(tree, ()).files == {}


def test_an_enabled_one_and_a_masked_one_are_told(root: Path) -> None:
    tree, folder = Tree(str(root)), root / "etc/systemd/system"
    unit = "/lib/systemd/system/systemd-networkd.service"
    (folder / "multi-user.target.wants").mkdir()
    (folder / "multi-user.target.wants/systemd-networkd.service").symlink_to(unit)
    assert (BACK_END.detect(tree), IDLE_BACK_END.detect(tree)) == (True, False)
    (folder / "multi-user.target.wants/systemd-networkd.service").unlink()
    (folder / "systemd-networkd.service").touch()
    assert (BACK_END.detect(tree), IDLE_BACK_END.detect(tree)) == (False, False)
