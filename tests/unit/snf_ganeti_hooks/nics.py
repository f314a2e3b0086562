"""NICs for tests, as Ganeti describes them."""

from snf_ganeti_hooks.environ import parse_nic
from snf_ganeti_hooks.nic import Nic

ROUTED = {
    "INSTANCE": "web1.example.org",
    "INTERFACE": "tap0",
    "INTERFACE_INDEX": "0",
    "INTERFACE_UUID": "7d8f",
    "INTERFACE_NAME": "nic-3",
    "MAC": "aa:00:01:00:00:07",
    "MODE": "routed",
    "IP": "198.51.100.7",
    "NETWORK_NAME": "public",
    "NETWORK_SUBNET": "198.51.100.0/24",
    "NETWORK_GATEWAY": "198.51.100.1",
    "NETWORK_SUBNET6": "2001:db8:1::/64",
    "NETWORK_GATEWAY6": "2001:db8:1::1",
    "NETWORK_MAC_PREFIX": "aa:00:01",
}
BRIDGED = {**ROUTED, "MODE": "bridged", "LINK": "br0"}
PRIVATE = {**BRIDGED, "NETWORK_TAGS": "private-filtered"}


def make_nic(base: dict[str, str] = ROUTED, **words: str) -> Nic:
    """A NIC with some words changed; an empty one is taken away."""
    environ = {**base, **words}
    return parse_nic({name: value for name, value in environ.items() if value})
