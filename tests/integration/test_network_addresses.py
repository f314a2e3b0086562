"""Guests get their addresses: a real DHCP client, a real DHCPv6 client, the kernel's SLAAC."""

import ipaddress
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.bed import Bed
from testbed.deadline import wait_for
from testbed.hosting import Hosting, NicWords, Station, open_hosting

SECONDS = 90.0
SETTINGS = """
[dhcp]
nameservers = ["192.0.2.53", "2001:db8:ff::53"]
search = ["example.org", "example.net"]
ntp = ["192.0.2.123"]
routes = ["203.0.113.0/24 via 198.51.100.9"]
mtu = 1400

[[network]]
name = "stateful"
nameservers = ["2001:db8:ff::54"]

[[network]]
name = "uuid-of-two"
nameservers = ["10.0.0.53", "10.0.0.54"]
search = ["two.example.org"]
ntp = []
routes = ["203.0.113.0/24 via 10.0.0.9", "0.0.0.0/1 via 10.0.0.8"]
mtu = 1300
"""
PUBLIC = {
    "NETWORK_NAME": "public",
    "NETWORK_UUID": "uuid-of-public",
    "NETWORK_SUBNET": "198.51.100.0/24",
    "NETWORK_GATEWAY": "198.51.100.1",
    "NETWORK_SUBNET6": "2001:db8:1::/64",
    "NETWORK_GATEWAY6": "2001:db8:1::1",
    "NETWORK_TAGS": "ip-less-routed nfdhcpd",
    "MODE": "routed",
}
STATEFUL = {
    **PUBLIC,
    "NETWORK_NAME": "stateful",
    "NETWORK_UUID": "uuid-of-stateful",
    "NETWORK_SUBNET6": "2001:db8:2::/64",
    "NETWORK_GATEWAY6": "2001:db8:2::1",
    "NETWORK_TAGS": "ip-less-routed dhcpv6",
}
PRIVATE = {
    "NETWORK_SUBNET": "10.0.0.0/24",
    "NETWORK_GATEWAY": "10.0.0.1",
    "NETWORK_TAGS": "private-filtered nfdhcpd",
    "MODE": "bridged",
    "LINK": "prv0",
}
ONE = {
    **PRIVATE,
    "NETWORK_NAME": "one",
    "NETWORK_UUID": "uuid-of-one",
    "NETWORK_SUBNET6": "fd00:1::/64",
    "NETWORK_MAC_PREFIX": "aa:00:01",
}
TWO = {
    **PRIVATE,
    "NETWORK_NAME": "two",
    "NETWORK_UUID": "uuid-of-two",
    "NETWORK_GATEWAY": "10.0.0.254",
    "NETWORK_SUBNET6": "fd00:2::/64",
    "NETWORK_MAC_PREFIX": "aa:00:02",
}
NICS = {
    "public": NicWords("tap0", "aa:00:00:00:00:10", {**PUBLIC, "IP": "198.51.100.7"}),
    "stateful": NicWords("tap1", "aa:00:00:00:00:11", {**STATEFUL, "IP": "198.51.100.8"}),
    "one": NicWords("tap2", "aa:00:01:00:00:12", {**ONE, "IP": "10.0.0.5"}),
    "two": NicWords("tap3", "aa:00:02:00:00:13", {**TWO, "IP": "10.0.0.5"}),
}


@pytest.fixture(scope="module")
def hosting(bed: Bed) -> Iterator[Hosting]:
    with open_hosting(bed.folder / "addresses", bed.layers) as opened:
        node = opened.node
        node.write("/etc/snf-ganeti-hooks/conf.d/site.toml", SETTINGS)
        node.run("sh", "-c", "echo 1 >/proc/sys/net/ipv6/conf/all/forwarding")
        opened.ip("link add prv0 type bridge", "link set prv0 up")
        with opened.serve():
            yield opened


@pytest.fixture(scope="module")
def guests(hosting: Hosting) -> dict[str, Station]:
    return {name: hosting.add_guest(nic.tagged(PROTECTED)) for name, nic in NICS.items()}


PROTECTED = "synnefo:network:0:protected"
"""What a node says of addresses passes the strictest profile."""


def ask_dhcp(guest: Station, folder: Path) -> dict[str, str]:
    """What udhcpc is given, as the environment of its script."""
    script, said = folder / "script", folder / "said"
    script.write_text(f'#!/bin/sh\n[ "$1" != bound ] || env >{said}\n')
    script.chmod(0o755)
    options = ("router", "dns", "mtu", "ntpsrv", "search", "staticroutes", "hostname")
    wanted = [word for option in options for word in ("-O", option)]
    guest.run(
        *("busybox", "udhcpc", "-f", "-q", "-n", "-i", "eth0", "-t", "40", "-T", "2"),
        *("-s", str(script), *wanted),
        timeout=SECONDS,
    )
    lines = (line.partition("=") for line in said.read_text().splitlines())
    return {name: value for name, _, value in lines}


def ask_dhclient(guest: Station, folder: Path) -> dict[str, str]:
    """What ISC's client is given, as the environment of its script."""
    script, said, configuration = folder / "script", folder / "said", folder / "conf"
    script.write_text(f"#!/bin/sh\ncase $reason in BOUND) env >{said};; esac\n")
    script.chmod(0o755)
    configuration.write_text(
        "option classless-routes code 121 = array of unsigned integer 8;\n"
        "request subnet-mask, routers, domain-name-servers, domain-search, ntp-servers,"
        " interface-mtu, classless-routes;\n"
    )
    guest.run(
        *("dhclient", "-4", "-1", "-sf", str(script), "-cf", str(configuration)),
        *("-lf", str(folder / "leases"), "-pf", str(folder / "pid"), "eth0"),
        timeout=SECONDS,
    )
    end_dhclient(folder / "pid")
    return dict(line.partition("=")[::2] for line in said.read_text().splitlines())


def end_dhclient(pid: Path) -> None:
    """The half of dhclient that stays writes its id when it comes to it."""
    wait_for("dhclient's id", lambda: pid.exists() and pid.read_text().strip(), SECONDS)
    os.kill(int(pid.read_text()), 15)


def find_addresses(guest: Station, scope: str = "global") -> set[str]:
    """IPv6 addresses of a scope that are in use."""
    shown = json.loads(guest.run("ip", "-json", "-6", "address", "show", "dev", "eth0").text)
    return {
        each["local"]
        for each in shown[0]["addr_info"]
        if each["scope"] == scope and not each.get("tentative")
    }


def test_routed_guest_gets_its_own_data(guests: dict[str, Station], tmp_path: Path) -> None:
    said = ask_dhcp(guests["public"], tmp_path)
    assert (said["ip"], said["mask"], said["router"]) == ("198.51.100.7", "24", "198.51.100.1")
    assert (said["dns"], said["ntpsrv"], said["mtu"]) == ("192.0.2.53", "192.0.2.123", "1400")
    assert said["search"].split() == ["example.org", "example.net"]
    assert said["hostname"] == "instance-of-tap0" or "hostname" not in said
    assert said["staticroutes"].split() == [
        *("203.0.113.0/24", "198.51.100.9"),
        *("0.0.0.0/0", "198.51.100.1"),
    ]


def test_networks_with_the_same_subnet_do_not_mix(
    guests: dict[str, Station], tmp_path: Path
) -> None:
    for name, router in (("one", "10.0.0.1"), ("two", "10.0.0.254")):
        said = ask_dhcp(guests[name], tmp_path)
        assert (said["ip"], said["router"]) == ("10.0.0.5", router), name


def test_each_network_tells_its_own(guests: dict[str, Station], tmp_path: Path) -> None:
    """One has the site's settings, and two its own."""
    wanted = {
        "one": ("192.0.2.53", "example.org. example.net.", "192.0.2.123", "1400"),
        "two": ("10.0.0.53 10.0.0.54", "two.example.org.", "", "1300"),
    }
    routes = {
        "one": "24 203 0 113 198 51 100 9 0 10 0 0 1",
        "two": "24 203 0 113 10 0 0 9 1 0 10 0 0 8 0 10 0 0 254",
    }
    for name in wanted:
        folder = tmp_path / name
        folder.mkdir()
        said = ask_dhclient(guests[name], folder)
        assert said["new_ip_address"] == "10.0.0.5"
        keys = ("domain_name_servers", "domain_search", "ntp_servers", "interface_mtu")
        assert tuple(said.get(f"new_{key}", "") for key in keys) == wanted[name]
        assert said["new_classless_routes"] == routes[name]


@pytest.mark.parametrize(
    ("name", "prefix"),
    [("public", "2001:db8:1::/64"), ("one", "fd00:1::/64"), ("two", "fd00:2::/64")],
)
def test_kernel_configures_itself(guests: dict[str, Station], name: str, prefix: str) -> None:
    """By the routers' advertisements of its network, and of no other."""
    guest = guests[name]
    found = wait_for("an address", lambda: find_addresses(guest), SECONDS)
    assert {ipaddress.ip_network(f"{each}/64", strict=False) for each in found} == {
        ipaddress.ip_network(prefix)
    }


def test_router_of_a_routed_guest_is_the_node(guests: dict[str, Station]) -> None:
    def find_default() -> list[dict[str, str]]:
        shown = guests["public"].run("ip", "-json", "-6", "route", "show", "default").text
        routes: list[dict[str, str]] = json.loads(shown)
        return routes

    (route,) = wait_for("a default route", find_default, SECONDS)
    assert route["gateway"] == "fe80::ce47:52ff:fe4e:4554"


def test_what_the_node_tells_a_guest_is_not_told_of_the_guest(
    hosting: Hosting, guests: dict[str, Station]
) -> None:
    """The kernel shows a node what it sends to a group, as if it came by the guest's tap."""
    wait_for("an advertisement", lambda: find_addresses(guests["public"]), SECONDS)
    rows = json.loads(hosting.node.run("snf-network", "show", "--json").text)
    (dropped,) = (row["dropped"] for row in rows if row["tap"] == "tap0")
    assert "router advertisement" not in dropped


def test_stateful_guest_gets_its_address_by_dhcpv6(
    guests: dict[str, Station], tmp_path: Path
) -> None:
    script, said = tmp_path / "script", tmp_path / "said"
    script.write_text(f"#!/bin/sh\ncase $reason in BOUND6) env >{said};; esac\n")
    script.chmod(0o755)
    for name in ("conf", "leases"):
        (tmp_path / name).touch()
    guest = guests["stateful"]
    wait_for("an address to ask from", lambda: find_addresses(guest, "link"), SECONDS)
    guest.run(
        *("dhclient", "-6", "-1", "-D", "LL", "-sf", str(script), "-cf", str(tmp_path / "conf")),
        *("-lf", str(tmp_path / "leases"), "-pf", str(tmp_path / "pid"), "eth0"),
        timeout=SECONDS,
    )
    end_dhclient(tmp_path / "pid")
    lines = dict(line.partition("=")[::2] for line in said.read_text().splitlines())
    assert lines["new_ip6_address"] == "2001:db8:2:0:a800:ff:fe00:11"
    assert lines["new_dhcp6_name_servers"] == "2001:db8:ff::54"
    assert find_addresses(guest) == set()  # its prefix is not for SLAAC


def test_dnsmasq_that_is_killed_comes_back(
    hosting: Hosting, guests: dict[str, Station], tmp_path: Path
) -> None:
    node = hosting.node

    def find() -> set[str]:
        return set(node.run("pidof", "dnsmasq", ok=(0, 1)).text.split())

    # One for the routed networks, and one for each private one.
    wait_for("the dnsmasq of all networks", lambda: len(find()) == 3, SECONDS)
    before = find()
    node.run("kill", "-9", *before)
    wait_for("other dnsmasq", lambda: len(find() - before) == len(before), SECONDS)
    assert ask_dhcp(guests["public"], tmp_path)["ip"] == "198.51.100.7"
