"""Stanzas of interfaces(5), and what stays of the image's own."""

from pathlib import Path

import pytest

from snf_image_helper.network.ifupdown import (
    drop_nics,
    find_client,
    find_logical_names,
    make_plan,
    make_stanzas,
    use_mac_for_slaac,
)
from snf_image_helper.protocol import Address, Nic
from snf_image_helper.task import TaskFailed
from snf_image_helper.tree import Tree
from unit.snf_image_helper.nics import CELLS, MAC, MAC2

# The stanzas of each NIC after its `auto` line.
DHCP4 = "iface nic0 inet dhcp metric 100"
STATIC4 = "iface nic0 inet static address 192.0.2.5/24"
STATIC6 = "iface nic0 inet6 static address 2001:db8::5/64"
ROUTE4, ROUTE6 = "gateway 192.0.2.1 metric 100", "gateway 2001:db8::1 metric 100 accept_ra 0"
EXPECTED: dict[str, tuple[str, ...]] = {
    "dhcp": (DHCP4,),
    "static4": (f"{STATIC4} {ROUTE4}",),
    "static4 without gateway": (STATIC4,),
    "static6": (f"{STATIC6} {ROUTE6}",),
    "static6 without gateway": (STATIC6,),
    "static6, link-local gateway": (f"{STATIC6} gateway fe80::1 metric 100 accept_ra 0",),
    "slaac": ("iface nic0 inet6 auto privext 0",),
    "slaac_dhcp": ("iface nic0 inet6 auto privext 0 dhcp 1",),
    "dhcp6": ("iface nic0 inet6 dhcp accept_ra 2",),
    "dual": (f"{DHCP4} iface nic0 inet6 dhcp accept_ra 2",),
    "dual static": (f"{STATIC4} {ROUTE4} {STATIC6} {ROUTE6}",),
    "routed": (
        "iface nic0 inet static address 192.0.2.5/32 gateway 10.0.0.1 metric 100"
        " iface nic0 inet6 static address 2001:db8::5/128 gateway 2001:db8:1::1 metric 100"
        " accept_ra 0",
    ),
    "two NICs": (
        DHCP4,
        "iface nic1 inet static address 192.0.2.5/24 gateway 192.0.2.1 metric 101",
    ),
    "nothing to do on the first": ("", "iface nic1 inet dhcp metric 101"),
    "nothing to do": ("",),
}
DHCPCD = {
    "slaac_dhcp": "iface nic0 inet6 manual up dhcpcd --ipv6only --background $IFACE"
    " down dhcpcd --ipv6only --exit $IFACE",
    "dhcp6": "iface nic0 inet6 manual up dhcpcd --ipv6only --waitip=6 $IFACE"
    " down dhcpcd --ipv6only --exit $IFACE",
    "dual": DHCP4,
    "slaac": "iface nic0 inet6 auto privext 0",
}


def join(stanzas: str) -> str:
    return " ".join(stanzas.split())


def test_all_cells_are_tested() -> None:
    assert EXPECTED.keys() == CELLS.keys()


@pytest.mark.parametrize("cell", EXPECTED)
def test_each_nic_has_stanzas_found_by_its_mac(cell: str) -> None:
    expected = [
        f"auto mac/{(MAC, MAC2)[index]}/=nic{index} {rest}"
        for index, rest in enumerate(EXPECTED[cell])
        if rest
    ]
    assert join(make_stanzas(CELLS[cell], "dhclient")) == " ".join(expected)


@pytest.mark.parametrize("cell", DHCPCD)
def test_dhcpcd_does_all_of_ipv6(cell: str) -> None:
    assert join(make_stanzas(CELLS[cell], "dhcpcd")) == f"auto mac/{MAC}/=nic0 {DHCPCD[cell]}"


@pytest.mark.parametrize(
    ("cell", "client"), [("dhcp", ""), ("dhcp6", ""), ("slaac_dhcp", "udhcpc"), ("dual", "udhcpc")]
)
def test_a_client_that_lacks_is_named_before_the_guest_boots(cell: str, client: str) -> None:
    with pytest.raises(TaskFailed, match=MAC):
        make_stanzas(CELLS[cell], client)


def test_a_static_nic_needs_no_client() -> None:
    assert make_stanzas((Nic(MAC, Address("192.0.2.5", 24)),), "")


OLD = """\
# the image's own
source /etc/network/interfaces.d/*

auto lo eth0 br0
allow-hotplug ens3 \\
    ens4
iface lo inet loopback

iface eth0 inet dhcp
    # of eth0
    mtu 1400
iface eth0:1 inet static
    address 203.0.113.1/24
auto mac/aa:00:00:00:00:01/=nic0 /enp*=home
iface nic0 inet dhcp
    metric 100
iface home inet dhcp
mapping eth1
    script /bin/true
iface br0 inet manual
    bridge_ports eth0.5
iface eth0.5 inet manual
"""
KEPT = """\
# the image's own
source /etc/network/interfaces.d/*

auto lo br0
iface lo inet loopback

    # of eth0
iface br0 inet manual
    bridge_ports eth0.5
iface eth0.5 inet manual
"""


def test_what_the_image_says_of_nics_goes_and_the_rest_stays() -> None:
    logical = find_logical_names(OLD)
    assert logical == {"nic0", "home"}
    assert drop_nics(OLD, logical) == KEPT
    assert drop_nics(KEPT) == KEPT


@pytest.mark.parametrize("text", ["", "\n", "auto lo", "# only", "iface\n", "auto\n", "\\\n"])
def test_odd_files_are_no_problem(text: str) -> None:
    drop_nics(text, find_logical_names(text))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "etc/network/interfaces.d").mkdir(parents=True)
    (tmp_path / "sbin").mkdir()
    (tmp_path / "sbin/dhclient").touch()
    return tmp_path


def test_other_files_let_go_of_nics_too(root: Path) -> None:
    folder = root / "etc/network/interfaces.d"
    (root / "etc/network/interfaces").write_text("auto lo\niface lo inet loopback\n")
    (folder / "50-cloud-init").write_text("# made\nauto eth0\niface eth0 inet dhcp\n")
    (folder / "bridge").write_text("auto br0\niface br0 inet manual\n")
    plan = make_plan(Tree(str(root)), CELLS["dhcp"])
    assert plan.removed == ("/etc/network/interfaces.d/50-cloud-init",)
    assert plan.files.keys() == {"/etc/network/interfaces"}
    text = plan.files["/etc/network/interfaces"]
    assert text.startswith("auto lo\niface lo inet loopback\n\nauto mac/")


def test_a_second_deployment_gives_the_same(root: Path) -> None:
    tree, path = Tree(str(root)), "/etc/network/interfaces"
    first = make_plan(tree, CELLS["dual static"]).files[path]
    assert first.startswith("auto lo\niface lo inet loopback\n")
    tree.write_text(path, make_plan(tree, CELLS["two NICs"]).files[path])
    assert make_plan(tree, CELLS["dual static"]).files[path] == first


def test_without_nics_only_the_old_goes(root: Path) -> None:
    (root / "etc/network/interfaces").write_text("auto lo eth0\niface eth0 inet dhcp\n")
    plan = make_plan(Tree(str(root)), ())
    assert (plan.files, plan.removed) == ({"/etc/network/interfaces": "auto lo\n"}, ())


def test_the_client_is_the_one_that_ifupdown_takes(root: Path) -> None:
    (root / "usr/sbin").mkdir(parents=True)
    (root / "usr/sbin/dhcpcd").touch()
    assert find_client(Tree(str(root))) == "dhclient"
    (root / "sbin/dhclient").unlink()
    assert find_client(Tree(str(root))) == "dhcpcd"
    (root / "etc/dhcpcd.conf").write_text("duid\nslaac private\n")
    plan = make_plan(Tree(str(root)), CELLS["dual"])
    assert plan.files["/etc/dhcpcd.conf"] == "duid\nslaac hwaddr\n"


def test_only_private_slaac_is_changed() -> None:
    text = "#slaac private\nslaac private temporary\n  slaac hwaddr\n"
    assert use_mac_for_slaac(text) == "#slaac private\nslaac hwaddr\n  slaac hwaddr\n"
