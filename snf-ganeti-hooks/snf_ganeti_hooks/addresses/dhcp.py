"""Addresses for guests: the configuration of the node's dnsmasq, made from the NICs' states.

dnsmasq answers DHCPv4, router advertisements and DHCPv6 on every network that is tagged so. It
knows each NIC's own data and no other client. Each network has an interface of its own with
dnsmasq behind it:

    routed    a bridge without ports; the network's taps are aliases of it (--bridge-interface)
    bridged   one end of a veth pair; the other is a port of the bridge, with a MAC of the
              network, which only this node's guests reach

One process serves all routed networks, whose addresses are different anyway. A bridged network
is its tenants' own and can have the addresses of another, so each has a process to itself,
which is bound to its interface.

See dnsmasq(8), and base.SERVICE_PORT for the ports.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from snf_ganeti_hooks.firewall.base import SERVICE, SERVICE_PORT
from snf_ganeti_hooks.nic import Kind, Nic, make_eui64
from snf_ganeti_hooks.settings import DhcpSettings, Settings, parse_route, split_addresses

SERVER_ADDRESS = "169.254.1.1"
"""Where a routed guest finds the server again; the same on all nodes."""
ROUTED = "routed"
"""The name of the process for all routed networks."""
_RA_INTERVAL, _ROUTER_LIFETIME = 300, 1800


@dataclass(frozen=True)
class Service:
    """A network that is served here. nics: by tap. ipv6: how, or empty. told: what its guests
    are told."""

    name: str
    key: str
    nics: tuple[Nic, ...]
    ipv4: bool
    ipv6: str
    told: DhcpSettings

    @property
    def interface(self) -> str:
        return f"{SERVICE}{self.key}"

    @property
    def port(self) -> str:
        """The bridge port that leads to it; empty for a routed network."""
        return "" if self.first.kind is Kind.ROUTED else f"{SERVICE_PORT}{self.key}"

    @property
    def first(self) -> Nic:
        return self.nics[0]

    @property
    def mac(self) -> str:
        """Of a bridged network's service: in its MAC prefix, and told from the network's name."""
        tail = hashlib.blake2s(self.key.encode(), digest_size=3).digest().hex(":")
        prefix = self.first.mac_prefix if self.first.kind is Kind.PRIVATE else "02:73:6e"
        return f"{prefix}:{tail}"

    @property
    def server_address6(self) -> str:
        """The address by which dnsmasq knows the prefix; nobody else sees it."""
        subnet6 = self.first.network.subnet6 if self.first.network else None
        return f"{make_eui64(subnet6, self.mac)}/{subnet6.prefixlen}" if subnet6 else ""


def find_services(nics: Iterable[Nic], settings: Settings) -> list[Service]:
    """The networks that are served, each with its NICs, in a stable order."""
    grouped: dict[tuple[str, str, str], list[Nic]] = {}
    for nic in nics:
        if nic.network:
            key = nic.network.uuid or nic.network.name, nic.mode, nic.link
            grouped.setdefault(key, []).append(nic)
    services = []
    for key, members in sorted(grouped.items()):
        ordered = tuple(sorted(members, key=lambda each: each.tap))
        tags, network = ordered[0].network_tags, ordered[0].network
        assert network
        told = settings.find_dhcp(network)
        ipv4 = bool(tags & set(told.tags)) and network.subnet is not None
        ipv6 = ""
        if network.subnet6 and tags & set(told.stateful_tags):
            ipv6 = "stateful"
        elif network.subnet6 and tags & set(told.stateless_tags):
            ipv6 = "stateless"
        if ipv4 or ipv6:
            digest = hashlib.blake2s("\0".join(key).encode(), digest_size=4).hexdigest()
            services.append(Service(network.name, digest, ordered, ipv4, ipv6, told))
    return services


def group_services(services: Iterable[Service]) -> dict[str, list[Service]]:
    """Which process serves what: the process's name → its networks."""
    groups: dict[str, list[Service]] = {}
    for service in services:
        groups.setdefault(service.key if service.port else ROUTED, []).append(service)
    return groups


def make_configuration(services: Sequence[Service], hosts: Path, leases: Path) -> str:
    """dnsmasq.conf of one process. hosts: the file of `make_hosts`."""
    lines = [
        "port=0",
        "no-resolv",
        "no-hosts",
        "no-ping",
        "keep-in-foreground",
        "log-facility=-",
        "quiet-dhcp",
        "quiet-dhcp6",
        "quiet-ra",
        "user=dnsmasq",
        "pid-file=",
        "bind-dynamic",
        "dhcp-authoritative",
        "dhcp-ignore=tag:!known",
        "dhcp-lease-max=100000",
        "enable-ra",
        f"dhcp-hostsfile={hosts}",
        f"dhcp-leasefile={leases}",
    ]
    for service in services:
        lines += _make_interfaces(service)
        if service.ipv4:
            lines += _make_ipv4(service)
        if service.ipv6:
            lines += _make_ipv6(service)
    return "".join(f"{line}\n" for line in lines)


def _make_interfaces(service: Service) -> list[str]:
    lines = [f"interface={service.interface}"]
    if not service.port:
        for nic in service.nics:  # a line each: dnsmasq cuts one at 1024 bytes
            lines += [
                f"interface={nic.tap}",
                f"bridge-interface={service.interface},{nic.tap}",
            ]
    return lines


def _make_ipv4(service: Service) -> list[str]:
    network, told = service.first.network, service.told
    assert network and network.subnet
    tag = f"tag:{service.key}"
    start, mask = network.subnet.network_address, network.subnet.netmask
    lines = [
        f"shared-network={service.interface},{start}",
        f"dhcp-range=set:{service.key},{start},static,{mask},{told.lease}",
        f"dhcp-option={tag},option:netmask,{mask}",
        _make_option(tag, "option:router", [network.gateway] if network.gateway else []),
    ]
    nameservers, ntp = split_addresses(told.nameservers)[0], split_addresses(told.ntp)[0]
    lines.append(_make_option(tag, "option:dns-server", nameservers))
    if ntp:
        lines.append(_make_option(tag, "option:ntp-server", ntp))
    if told.search:
        lines.append(_make_option(tag, "option:domain-search", told.search))
    if told.mtu:
        lines.append(f"dhcp-option={tag},option:mtu,{told.mtu}")
    if told.routes:
        # A client that takes these ignores the router (RFC 3442), so the default is among them.
        routes = [f"{subnet},{via}" for subnet, via in map(parse_route, told.routes)]
        default = [f"0.0.0.0/0,{network.gateway}"] if network.gateway else []
        lines.append(_make_option(tag, "option:classless-static-route", [*routes, *default]))
    return lines


def _make_ipv6(service: Service) -> list[str]:
    network, told = service.first.network, service.told
    assert network and network.subnet6
    tag = f"tag:{service.key}6"
    mode = "static" if service.ipv6 == "stateful" else "ra-stateless"
    # Who is alone with the node asks it for everything; stations of a bridge see each other.
    flags = [mode] if service.port else [mode, "off-link"]
    routes_here = not service.port
    lifetime = _ROUTER_LIFETIME if routes_here else 0
    mtu = f"mtu:{told.mtu}," if told.mtu else ""
    lines = [
        f"dhcp-range=set:{service.key}6,{network.subnet6.network_address},{','.join(flags)},"
        f"{network.subnet6.prefixlen},{told.lease}",
        f"ra-param={service.interface},{mtu}{_RA_INTERVAL},{lifetime}",
    ]
    nameservers, ntp = split_addresses(told.nameservers)[1], split_addresses(told.ntp)[1]
    lines.append(_make_option(tag, "option6:dns-server", [f"[{each}]" for each in nameservers]))
    if ntp:
        lines.append(_make_option(tag, "option6:ntp-server", [f"[{each}]" for each in ntp]))
    if told.search:
        lines.append(_make_option(tag, "option6:domain-search", told.search))
    return lines


def _make_option(tag: str, name: str, values: Iterable[object]) -> str:
    """An option without a value keeps dnsmasq from sending its own address instead."""
    return ",".join([f"dhcp-option={tag}", name, *map(str, values)])


def make_hosts(services: Sequence[Service]) -> str:
    """dnsmasq's hosts, a line a NIC. A name that is no host name of RFC 1123 is left out."""
    return "".join(f"{_make_host(service, nic)}\n" for service in services for nic in service.nics)


def _make_host(service: Service, nic: Nic) -> str:
    words = [nic.mac, f"set:{nic.tap}"]
    if service.ipv4 and nic.addresses4:
        words.append(str(nic.addresses4[0]))
    if service.ipv6 == "stateful" and nic.addresses6:
        words.append(f"[{nic.addresses6[0]}]")
    name = nic.instance.partition(".")[0]
    if name.isascii() and name.replace("-", "").isalnum() and len(name) < 64:
        words.append(name)
    return ",".join(words)
