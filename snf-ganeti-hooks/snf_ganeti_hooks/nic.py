"""A NIC of an instance and what Ganeti promised it, as frozen data.

Three kinds of network are set up here; Open vSwitch is left to Ganeti.

    routed             a point-to-point link to the node, host routes, no shared layer 2
    private-filtered   one of many isolated layer-2 networks on one bridge, told by MAC prefix
    bridged            a bridge of its own, or of a VLAN, or of the machine's network
"""

from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

LINK_LOCAL = IPv6Network("fe80::/64")


class Kind(Enum):
    ROUTED = "routed"
    PRIVATE = "private-filtered"
    BRIDGED = "bridged"


@dataclass(frozen=True)
class Network:
    """A network of Ganeti. mac_prefix: three octets, `aa:00:01`, or empty."""

    name: str
    uuid: str = ""
    tags: frozenset[str] = frozenset()
    subnet: IPv4Network | None = None
    gateway: IPv4Address | None = None
    subnet6: IPv6Network | None = None
    gateway6: IPv6Address | None = None
    mac_prefix: str = ""


@dataclass(frozen=True)
class Nic:
    """A NIC, up on this node as interface `tap`.

    link: the bridge, or the routing table (empty: main). vlan: of a bridge that filters
    VLANs; 0 without. tags: the instance's, in Ganeti's order.
    """

    instance: str
    tap: str
    mac: str
    mode: str
    index: int = 0
    uuid: str = ""
    name: str = ""
    link: str = ""
    vlan: int = 0
    ip: IPv4Address | IPv6Address | None = None
    network: Network | None = None
    tags: tuple[str, ...] = field(default=(), repr=False)

    @property
    def kind(self) -> Kind:
        if self.mode == "routed":
            return Kind.ROUTED
        if "private-filtered" in self.network_tags:
            return Kind.PRIVATE
        return Kind.BRIDGED

    @property
    def network_tags(self) -> frozenset[str]:
        return self.network.tags if self.network else frozenset()

    @property
    def mac_prefix(self) -> str:
        """The three octets that all NICs of its private network share."""
        return (self.network.mac_prefix if self.network else "") or self.mac[:8]

    @cached_property
    def addresses4(self) -> tuple[IPv4Address, ...] | None:
        """What it may send from; None when Ganeti knows nothing that would say."""
        if isinstance(self.ip, IPv4Address):
            return (self.ip,)
        return () if self._is_addressed() else None

    @cached_property
    def addresses6(self) -> tuple[IPv6Address, ...] | None:
        """As `addresses4`; link-local addresses are not in it."""
        found = []
        if isinstance(self.ip, IPv6Address):
            found.append(self.ip)
        if self.network and self.network.subnet6:
            found.append(make_eui64(self.network.subnet6, self.mac))
        return tuple(dict.fromkeys(found)) if found or self._is_addressed() else None

    def _is_addressed(self) -> bool:
        """Is a family without an address one that the NIC was not promised?

        A network that declares neither subnet leaves addresses to its users; a NIC of no
        network has its address, if any, in Ganeti as a note.
        """
        if self.kind is Kind.ROUTED:
            return True
        return bool(self.network and (self.network.subnet or self.network.subnet6))


def make_eui64(subnet: IPv6Network, mac: str) -> IPv6Address:
    """The address of a MAC in a subnet (RFC 4291, appendix A)."""
    octets = bytes.fromhex(mac.replace(":", ""))
    identifier = bytes((octets[0] ^ 0x02, *octets[1:3], 0xFF, 0xFE, *octets[3:]))
    return subnet[int.from_bytes(identifier, "big")]
