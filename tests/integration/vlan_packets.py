"""Access ports of a bridge that filters VLANs: run where the kernel can, see `kernel_vm`."""

from scapy.layers.l2 import Dot1Q, Ether

from testbed.bed import Bed
from testbed.hosting import NicWords, open_hosting

GUEST_MAC, OUTSIDE_MAC = "aa:00:01:00:00:07", "aa:00:01:00:00:08"
WORDS = {"MODE": "bridged", "LINK": "br0", "VLAN": ".10", "IP": "198.51.100.7"}


def make_frame(mark: bytes, vlan: int = 0) -> bytes:
    head = Ether(src=OUTSIDE_MAC, dst="ff:ff:ff:ff:ff:ff", type=0x9000)
    tagged = Ether(src=OUTSIDE_MAC, dst="ff:ff:ff:ff:ff:ff") / Dot1Q(vlan=vlan, type=0x9000)
    return bytes((tagged if vlan else head) / mark)


def test_access_port_is_in_its_vlan_and_no_other(bed: Bed) -> None:
    with open_hosting(bed.folder / "hosting-vlan", bed.layers) as hosting:
        outside = hosting.add_station("up0", OUTSIDE_MAC)
        hosting.ip(
            "link add br0 type bridge vlan_filtering 1",
            "link set br0 up",
            "link set up0 master br0 up",
        )
        guest = hosting.add_guest(NicWords("tap0", GUEST_MAC, WORDS))
        with guest.sniff() as sniffer:
            outside.send(make_frame(b"not in any VLAN"))
            outside.send(make_frame(b"in VLAN 11", 11))
            outside.send(make_frame(b"in VLAN 10", 10))
            earlier = sniffer.read_until(lambda frame: b"in VLAN 10" in frame)
        assert not [frame for frame in earlier if b"VLAN" in frame]
