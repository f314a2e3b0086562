"""Access ports of a bridge that filters VLANs: run where the kernel can, see `kernel_vm`."""

import json
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from scapy.layers.l2 import Dot1Q, Ether

from testbed.bed import Bed
from testbed.hosting import Hosting, NicWords, Station, open_hosting

SECONDS = 300.0  # the machine is emulated
GUEST_MAC, OUTSIDE_MAC = "aa:00:01:00:00:07", "aa:00:01:00:00:08"
WORDS = {"MODE": "bridged", "LINK": "br0", "VLAN": ".10", "IP": "198.51.100.7"}


def make_frame(mark: bytes, vlan: int = 0) -> bytes:
    head = Ether(src=OUTSIDE_MAC, dst="ff:ff:ff:ff:ff:ff", type=0x9000)
    tagged = Ether(src=OUTSIDE_MAC, dst="ff:ff:ff:ff:ff:ff") / Dot1Q(vlan=vlan, type=0x9000)
    return bytes((tagged if vlan else head) / mark)


@dataclass(frozen=True)
class Setting:
    hosting: Hosting
    outside: Station
    guest: Station


@pytest.fixture(scope="module")
def setting(bed: Bed) -> Iterator[Setting]:
    """A guest in VLAN 10, and a station on the bridge's uplink."""
    with open_hosting(bed.folder / "hosting-vlan", bed.layers) as hosting:
        outside = hosting.add_station("up0", OUTSIDE_MAC)
        hosting.ip(
            "link add br0 type bridge vlan_filtering 1",
            "link set br0 up",
            "link set up0 master br0 up",
        )
        yield Setting(hosting, outside, hosting.add_guest(NicWords("tap0", GUEST_MAC, WORDS)))


def check_packets(setting: Setting) -> None:
    with setting.guest.sniff() as sniffer:
        setting.outside.send(make_frame(b"not in any VLAN"))
        setting.outside.send(make_frame(b"in VLAN 11", 11))
        setting.outside.send(make_frame(b"in VLAN 10", 10))
        earlier = sniffer.read_until(lambda frame: b"in VLAN 10" in frame)
    assert not [frame for frame in earlier if b"VLAN" in frame]


def test_access_port_is_in_its_vlan_and_no_other(setting: Setting) -> None:
    check_packets(setting)


DAMAGES = (
    "del dev tap0 vid 10",
    "add dev tap0 vid 10",  # a tag leaves, and what comes without one is in no VLAN
    "add dev tap0 vid 11",
    "del dev up0 vid 10",
)


def test_access_port_that_somebody_changed_is_repaired(setting: Setting) -> None:
    node = setting.hosting.node

    def read() -> object:
        return json.loads(node.run("bridge", "-json", "vlan", "show").text)

    healthy = read()
    for damage in DAMAGES:
        node.run("bridge", "vlan", *damage.split())
        assert read() != healthy
        repaired = node.run("snf-network", "reconcile", timeout=SECONDS).text
        assert "tap0: its port is not in VLAN 10 alone" in repaired, damage
        assert read() == healthy, damage
    check_packets(setting)
