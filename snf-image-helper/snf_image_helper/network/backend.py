"""What the back ends for guests' network configuration have in common.

Each finds a NIC by its MAC: names differ between the helper, the guest's first boot and
its later ones. A family of a NIC of which nothing is known stays at the guest's default,
and so does a NIC of which nothing is known at all: most leave it down, NetworkManager tries
DHCP. Nothing is known of DNS: resolv.conf stays the image's.
"""

import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from snf_image_helper.protocol import Address, Nic
from snf_image_helper.tree import Tree

_NIC_NAME = re.compile(r"(eth|en)[^.]*")


@dataclass(frozen=True)
class Plan:
    """What changes in the guest: files by path, and paths that go."""

    files: Mapping[str, str]
    removed: tuple[str, ...] = ()


@dataclass(frozen=True)
class BackEnd:
    """One network configuration system of guests.

    sign: what it is known by, for the operator.
    detect: does this guest use it?
    make_plan: the files for these NICs, and those of the image that would get in their
    way; without NICs only the latter, which is how the systems that were not chosen let go
    of them. Reads the tree, writes nothing.
    mode: of the files written.
    """

    name: str
    sign: str
    detect: Callable[[Tree], bool]
    make_plan: Callable[[Tree, Sequence[Nic]], Plan]
    mode: int = 0o644


def iterate_nics(nics: Sequence[Nic]) -> Iterator[tuple[str, int, Nic]]:
    """(name, metric, NIC) of those that have something to configure.

    The metric is that of the NIC's default routes: the first NIC's wins, and a second
    gateway is no conflict.
    """
    for index, nic in enumerate(nics):
        if nic.ipv4 is not None or nic.ipv6 is not None:
            yield f"nic{index}", 100 + index, nic


def find_addresses(nic: Nic) -> list[Address]:
    """The static addresses of a NIC, IPv4 first."""
    return [each for each in (nic.ipv4, nic.ipv6) if isinstance(each, Address)]


def is_distant(address: Address) -> bool:
    """Is the gateway outside the subnet, so that the route must say that it is on the link?"""
    gateway = ipaddress.ip_address(address.gateway)
    subnet = ipaddress.ip_interface(f"{address.address}/{address.prefix}").network
    return gateway not in subnet and not gateway.is_link_local


def accepts_advertisements(nic: Nic) -> bool | None:
    """Shall the NIC take router advertisements? None: as the guest does by default.

    A static address that comes with its gateway needs none, and then anyone on the link
    could redirect it; without a gateway they are the only source of a route.
    """
    if isinstance(nic.ipv6, Address):
        return False if nic.ipv6.gateway else None
    return None if nic.ipv6 is None else True


def may_be_nic(name: str) -> bool:
    """Could an interface of this name, or that matches this pattern, be an Ethernet NIC?"""
    return _NIC_NAME.fullmatch(name) is not None or name.startswith(("*", "?", "[", "e*"))


def find_files(tree: Tree, folder: str, suffix: str) -> list[str]:
    """The regular files of a folder whose names end so."""
    paths = (f"{folder}/{name}" for name in tree.list_dir(folder) if name.endswith(suffix))
    return [path for path in paths if tree.is_file(path)]
