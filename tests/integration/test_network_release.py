"""Debian 13: another nftables, iproute2, dnsmasq and Python under the same rules."""

from pathlib import Path

import pytest

from testbed.bed import Bed
from testbed.hosting import Hosting, NicWords, open_hosting
from testbed.roots import BUILD, build_base, build_layers

SUBNETS = {
    "NETWORK_NAME": "net1",
    "NETWORK_SUBNET": "198.51.100.0/24",
    "NETWORK_GATEWAY": "198.51.100.1",
    "NETWORK_SUBNET6": "2001:db8:1::/64",
    "NETWORK_GATEWAY6": "2001:db8:1::1",
}
ROUTED = {**SUBNETS, "MODE": "routed"}
PRIVATE = {**SUBNETS, "MODE": "bridged", "LINK": "prv0", "NETWORK_TAGS": "private-filtered"}
KINDS = {"routed": ROUTED, "private": PRIVATE, "bridged": {**PRIVATE, "NETWORK_TAGS": ""}}
MACS = ("aa:00:01:00:00:07", "aa:00:01:00:00:08")
SETTINGS = """
[[profile]]
name = "web"
icmp = false
allow = [
    {ports = ["80", "443", "8000-8100"], sources = ["192.0.2.0/24", "2001:db8::/32"]},
    {protocol = "udp", per_second = 7},
]
"""


@pytest.fixture(scope="module")
def layers(root: None) -> tuple[Path, ...]:
    return build_layers(build_base("trixie"), sorted((BUILD / "deb").glob("*.deb")))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("profile", ["protected", "web"])
def test_rules_are_listed_as_they_were_written(
    bed: Bed, layers: tuple[Path, ...], kind: str, profile: str
) -> None:
    """Or the reconciler would write them anew each minute."""
    with open_hosting(bed.folder / f"trixie-{kind}-{profile}", layers) as hosting:
        prepare(hosting)
        guests = [hosting.add_guest(make_nic(kind, number, profile)) for number in (0, 1)]
        assert hosting.node.run("snf-network", "check").text == ""
        if profile == "protected":
            for number, guest in enumerate(guests):
                guest.ip(
                    f"address add 198.51.100.{7 + number}/24 dev eth0",
                    f"address add 2001:db8:1:0:a800:1ff:fe00:{7 + number}/64 dev eth0 nodad",
                )
            guests[0].run("busybox", "ping", "-c", "1", "-w", "30", "198.51.100.8")
            guests[0].run("busybox", "ping", "-c", "1", "-w", "30", "2001:db8:1:0:a800:1ff:fe00:8")


def prepare(hosting: Hosting) -> None:
    hosting.node.write("/etc/snf-ganeti-hooks/conf.d/site.toml", SETTINGS)
    hosting.node.run("sh", "-c", "echo 1 >/proc/sys/net/ipv6/conf/all/forwarding")
    hosting.add_station("up0", "02:00:00:00:00:01")
    hosting.ip(
        "link set up0 up",
        "address add 192.0.2.2/24 dev up0",
        "route add default via 192.0.2.1",
        "address add 2001:db8:ff::2/64 dev up0 nodad",
        "route add default via 2001:db8:ff::1",
        "link add prv0 type bridge",
        "link set prv0 up",
    )


def make_nic(kind: str, number: int, profile: str) -> NicWords:
    words = {**KINDS[kind], "IP": f"198.51.100.{7 + number}"}
    nic = NicWords(f"tap{number}", MACS[number], words)
    return nic.tagged(f"synnefo:network:0:{profile}")
