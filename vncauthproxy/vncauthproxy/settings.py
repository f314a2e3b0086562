"""The settings of vncauthproxy: /etc/vncauthproxy/vncauthproxy.toml, see its manual page."""

import ipaddress
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from snf_ganeti.errors import SettingsError
from snf_ganeti.settings import ETC, Bounds, Port, read_settings

COMPONENT = "vncauthproxy"
_ETC = Path("/etc/vncauthproxy")


@dataclass(frozen=True)
class Listen:
    """address: "::" is every address, of IPv4 too. first_byte_wait: see `viewer`."""

    address: str = "::"
    port: Port = 8443
    public_url: str = ""
    certificate: Path = _ETC / "tls/cert.pem"
    key: Path = _ETC / "tls/key.pem"
    first_byte_wait: float = 2.0


@dataclass(frozen=True)
class Controllers:
    """Who may issue tickets."""

    tokens: Path = _ETC / "tokens"
    client_ca: Path | None = None
    client_names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Tickets:
    """redis: where several proxies share them; in memory without."""

    lifetime: float = 60.0
    max_lifetime: float = 600.0
    redis: str = ""
    redis_ca: Path | None = None


@dataclass(frozen=True)
class Targets:
    """Which VNC servers may be opened, and how."""

    networks: tuple[str, ...] = ("127.0.0.0/8", "::1/128")
    ports: str = "5900-15999"
    unix_directories: tuple[Path, ...] = ()
    password_file: Path | None = None
    tls: Literal["off", "prefer", "require"] = "prefer"
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None


@dataclass(frozen=True)
class Ganeti:
    """The cluster whose instances tickets may name; none without `rapi`."""

    rapi: str = ""
    user: str = ""
    password_file: Path | None = None
    ca: Path | None = None
    timeout: float = 10.0


@dataclass(frozen=True)
class Limits:
    """Seconds, and counts."""

    handshake: float = 15.0
    login: float = 120.0
    stalled: float = 60.0
    idle: Annotated[float, Bounds(0)] = 3600.0
    session: float = 28800.0
    drain: Annotated[float, Bounds(0)] = 0.0
    connections: int = 8192
    handshakes_per_address: int = 256
    sessions: int = 2000
    sessions_per_user: int = 20
    sessions_per_instance: int = 8


@dataclass(frozen=True)
class Page:
    novnc: Path = Path("/usr/share/novnc")
    frame_ancestors: tuple[str, ...] = ()


@dataclass(frozen=True)
class Legacy:
    """The predecessor's JSON control protocol."""

    enabled: bool = False
    address: str = "127.0.0.1"
    port: Port = 24999
    require_tls: bool = True
    console_address: str = "::"
    advertised_address: str = ""
    ports: str = "25000-30000"
    users: Path = Path("/var/lib/vncauthproxy/users")
    connect_timeout: float = 30.0


@dataclass(frozen=True)
class Settings:
    listen: Listen = field(default_factory=Listen)
    controllers: Controllers = field(default_factory=Controllers)
    tickets: Tickets = field(default_factory=Tickets)
    targets: Targets = field(default_factory=Targets)
    ganeti: Ganeti = field(default_factory=Ganeti)
    limits: Limits = field(default_factory=Limits)
    page: Page = field(default_factory=Page)
    legacy: Legacy = field(default_factory=Legacy)
    metrics_networks: tuple[str, ...] = ("127.0.0.0/8", "::1/128")

    @property
    def public_url(self) -> str:
        """What a ticket's URL begins with, without a slash at its end."""
        given = self.listen.public_url.rstrip("/")
        return given or f"https://{socket.getfqdn()}:{self.listen.port}"


def read(etc: Path = ETC) -> Settings:
    """Read and check. Raises SettingsError that names the key."""
    settings = read_settings(Settings, COMPONENT, etc)
    for key, text in (
        ("targets.ports", settings.targets.ports),
        ("legacy.ports", settings.legacy.ports),
    ):
        _checked(key, text, parse_ports, "a range such as 5900-5999")
    for key, networks in (
        ("targets.networks", settings.targets.networks),
        ("metrics_networks", settings.metrics_networks),
    ):
        for network in networks:
            _checked(key, network, ipaddress.ip_network, "a network such as 10.0.0.0/24")
    for key, url in (("listen.public_url", settings.public_url), ("ganeti.rapi", _rapi(settings))):
        _checked(key, url, _parse_https, "an https:// URL without a user or password")
    return settings


def _rapi(settings: Settings) -> str:
    return settings.ganeti.rapi or "https://none"


def _parse_https(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname or parts.username or parts.query:
        raise ValueError
    assert parts.port is None or parts.port


def parse_ports(text: str) -> range:
    """A range of ports, both ends included. Raises ValueError."""
    first, _, last = text.partition("-")
    ports = range(int(first), int(last or first) + 1)
    if not ports or ports[0] < 1 or ports[-1] > 65535:
        raise ValueError(text)
    return ports


def _checked(key: str, text: str, parse: object, expected: str) -> None:
    assert callable(parse)
    try:
        parse(text)
    except ValueError:
        raise SettingsError(f"{key} must be {expected}, not {text!r}") from None
