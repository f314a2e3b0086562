"""What a site sets for snf-ganeti-hooks: `/etc/snf-ganeti-hooks/`, see `snf_ganeti.settings`."""

import ipaddress
import re
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from pathlib import Path
from typing import Annotated

from snf_ganeti.errors import SettingsError
from snf_ganeti.settings import ETC, Bounds, Port, find_files, read_settings
from snf_ganeti_hooks.firewall.profile import ProfileSettings
from snf_ganeti_hooks.nic import Network

COMPONENT = "snf-ganeti-hooks"
Mtu = Annotated[int, Bounds(0, 65535)]
Lease = Annotated[int, Bounds(120, 1 << 31)]
_MAC = re.compile(r"[0-9a-f][02468ace](:[0-9a-f]{2}){5}")
_DOMAIN = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9-]{1,63}(?<!-))*\.?")


@dataclass(frozen=True)
class DhcpSettings:
    """What this node tells guests whose network is tagged so.

    tags: of networks with DHCPv4; stateful_tags: with an address by DHCPv6; stateless_tags:
    with router advertisements, and the rest by DHCPv6. lease: seconds. mtu: 0 says nothing.
    routes: classless ones, `192.0.2.0/24 via 198.51.100.9`.
    """

    tags: tuple[str, ...] = ("auto", "dhcp", "nfdhcpd")
    stateful_tags: tuple[str, ...] = ("dhcpv6", "stateful_dhcpv6")
    stateless_tags: tuple[str, ...] = ("nfdhcpd", "stateless_dhcpv6")
    nameservers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    ntp: tuple[str, ...] = ()
    routes: tuple[str, ...] = ()
    mtu: Mtu = 0
    lease: Lease = 3600


@dataclass(frozen=True)
class NetworkSettings:
    """What the guests of one network are told instead: `[[network]]`; None: as `[dhcp]` says.

    name: the network's in Ganeti, or its UUID.
    """

    name: str = ""
    nameservers: tuple[str, ...] | None = None
    search: tuple[str, ...] | None = None
    ntp: tuple[str, ...] | None = None
    routes: tuple[str, ...] | None = None
    mtu: Mtu | None = None
    lease: Lease | None = None


@dataclass(frozen=True)
class DnsSettings:
    """Where names of instances go; see snf_ganeti_hooks.names.ddns. server: an address, or empty.

    zone: of names. reverse_zones: as `100.51.198.in-addr.arpa`. key_file: a TSIG key as
    BIND's tsig-keygen writes it. ttl: seconds.
    """

    server: str = ""
    port: Port = 53
    zone: str = ""
    reverse_zones: tuple[str, ...] = ()
    key_file: Path = Path("/etc/snf-ganeti-hooks/dns.key")
    ttl: Annotated[int, Bounds(0, 1 << 31)] = 300


@dataclass(frozen=True)
class Settings:
    """Every key of the component with its default; the manual page says the same in words.

    default_profile: of a NIC without a tag. tap_mac: of every routed tap, the same on all
    nodes, so that a guest's router does not change when it migrates. nfdhcpd_dir: where
    binding files for nfdhcpd go, or empty.
    """

    default_profile: str = "unprotected"
    tap_mac: str = "cc:47:52:4e:45:54"
    nfdhcpd_dir: str = ""
    dhcp: DhcpSettings = field(default_factory=DhcpSettings)
    dns: DnsSettings = field(default_factory=DnsSettings)
    profile: tuple[ProfileSettings, ...] = ()
    network: tuple[NetworkSettings, ...] = ()

    def find_dhcp(self, network: Network | None) -> DhcpSettings:
        """What the guests of a network are told."""
        idents = (network.uuid, network.name) if network else ()
        for ident in filter(None, idents):
            for each in self.network:
                if each.name == ident:
                    return replace_dhcp(self.dhcp, each)
        return self.dhcp


def replace_dhcp(dhcp: DhcpSettings, own: NetworkSettings) -> DhcpSettings:
    """The site's settings with a network's own in their place."""
    given = {key: value for key, value in vars(own).items() if key != "name" and value is not None}
    return replace(dhcp, **given)


def read(etc: Path = ETC) -> Settings:
    """The settings of this node. Raises SettingsError."""
    settings = read_settings(Settings, COMPONENT, etc)
    check(settings)
    return settings


class SettingsReader:
    """The settings of this node, read again when their files changed."""

    def __init__(self, etc: Path = ETC) -> None:
        self._etc = etc
        self._seen: list[tuple[Path, int, int, int]] | None = None
        self._settings = Settings()

    def read(self) -> Settings:
        """Raises SettingsError, each time until the files are mended."""
        seen = [
            (path, status.st_ino, status.st_mtime_ns, status.st_size)
            for path in find_files(COMPONENT, self._etc)
            for status in [path.stat()]
        ]
        if seen != self._seen:
            self._settings = read(self._etc)
            self._seen = seen
        return self._settings


def check(settings: Settings) -> None:
    """Raises SettingsError for a value of the right type that can't work.

    Profiles are not looked at: a broken one must close its NICs, and not stop the others.
    """
    _require(bool(_MAC.fullmatch(settings.tap_mac)), "tap_mac", settings.tap_mac, "a MAC")
    folder = settings.nfdhcpd_dir
    _require(not folder or Path(folder).is_absolute(), "nfdhcpd_dir", folder, "an absolute path")
    _check_dhcp(settings.dhcp, "dhcp.")
    names = [each.name for each in settings.network]
    for each in settings.network:
        _require(names.count(each.name) == 1, "network.name", each.name, "each network's own")
        _require(bool(each.name), "network.name", each.name, "a network's name or UUID")
        _check_dhcp(replace_dhcp(settings.dhcp, each), f"network {each.name}: ")
    dns = settings.dns
    _require(not dns.server or _is_address(dns.server), "dns.server", dns.server, "an address")
    _require(bool(dns.zone) or not dns.server, "dns.zone", dns.zone, "the zone of names")
    for name, zones in (("zone", (dns.zone,)), ("reverse_zones", dns.reverse_zones)):
        for zone in filter(None, zones):
            _require(bool(_DOMAIN.fullmatch(zone)), f"dns.{name}", zone, "a zone")


def _check_dhcp(dhcp: DhcpSettings, where: str) -> None:
    for name, values in (("nameservers", dhcp.nameservers), ("ntp", dhcp.ntp)):
        for value in values:
            _require(_is_address(value), where + name, value, "an address")
    for value in dhcp.search:
        _require(bool(_DOMAIN.fullmatch(value)), f"{where}search", value, "a domain")
    for value in dhcp.routes:
        _require(_is_route(value), f"{where}routes", value, "SUBNET via ADDRESS")
    _require(dhcp.mtu == 0 or 576 <= dhcp.mtu <= 65535, f"{where}mtu", dhcp.mtu, "0 or an MTU")


def parse_route(text: str) -> tuple[IPv4Network, IPv4Address]:
    """`SUBNET via ADDRESS`. Raises ValueError."""
    subnet, via, gateway = text.partition(" via ")
    if not via:
        raise ValueError(text)
    return IPv4Network(subnet), IPv4Address(gateway)


def split_addresses(texts: tuple[str, ...]) -> tuple[list[IPv4Address], list[IPv6Address]]:
    """Addresses of both families, each in its order. Raises ValueError."""
    found = [ipaddress.ip_address(text) for text in texts]
    return (
        [each for each in found if isinstance(each, IPv4Address)],
        [each for each in found if isinstance(each, IPv6Address)],
    )


def _is_address(text: str) -> bool:
    try:
        return "%" not in text and bool(ipaddress.ip_address(text))
    except ValueError:
        return False


def _is_route(text: str) -> bool:
    try:
        return bool(parse_route(text))
    except ValueError:
        return False


def _require(holds: bool, name: str, value: object, what: str) -> None:
    if not holds:
        raise SettingsError(f"{name} must be {what}, not {value!r}")
