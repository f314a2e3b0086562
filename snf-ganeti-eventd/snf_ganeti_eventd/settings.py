"""What a site sets for snf-ganeti-eventd: `/etc/snf-ganeti-eventd/`, see `snf_ganeti.settings`."""

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from snf_ganeti.errors import SettingsError
from snf_ganeti.settings import ETC, Bounds, read_settings
from snf_ganeti_eventd.messages.opcode import Kind

COMPONENT = "snf-ganeti-eventd"
_PASSWORD_LIMIT = 4096


@dataclass(frozen=True)
class LogSettings:
    """path: the file of events; the progress of deployments goes to progress.jsonl beside it.

    max_size: MiB after which a file is rotated; keep: how many old files stay.
    """

    path: Path = Path("/var/log/snf-ganeti-eventd/events.jsonl")
    max_size: int = 64
    keep: int = 10


@dataclass(frozen=True)
class AmqpSettings:
    """hosts: `HOST` or `HOST:PORT`, tried in turn. queue: declared as a durable quorum queue
    for all events, unless empty. The timeouts are seconds."""

    hosts: tuple[str, ...] = ("localhost",)
    vhost: str = "/"
    exchange: str = "ganeti"
    queue: str = ""
    username: str = "snf-ganeti"
    password_file: str = ""
    tls: bool = False
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    connect_timeout: float = 10.0
    confirm_timeout: float = 30.0


@dataclass(frozen=True)
class MetricsSettings:
    """port: 0 for none."""

    address: str = "127.0.0.1"
    port: Annotated[int, Bounds(0, 65535)] = 9477


@dataclass(frozen=True)
class Settings:
    """Every key of the component with its default; the manual page says the same in words.

    rescan_interval, luxi_timeout: seconds.
    """

    transport: Literal["log", "amqp"] = "log"
    events: tuple[str, ...] = tuple(map(str, Kind))
    rescan_interval: float = 300.0
    ganeti_dir: Path = Path("/var/lib/ganeti")
    luxi_socket: Path = Path("/run/ganeti/socket/ganeti-query")
    luxi_timeout: float = 10.0
    state_dir: Path = Path("/var/lib/snf-ganeti-eventd")
    log: LogSettings = field(default_factory=LogSettings)
    amqp: AmqpSettings = field(default_factory=AmqpSettings)
    metrics: MetricsSettings = field(default_factory=MetricsSettings)


def read(etc: Path = ETC) -> Settings:
    """The settings of this node. Raises SettingsError."""
    settings = read_settings(Settings, COMPONENT, etc)
    check(settings)
    return settings


def check(settings: Settings) -> None:
    """Raises SettingsError for a value of the right type that can't work."""
    unknown = sorted(set(settings.events) - set(map(str, Kind)))
    if unknown:
        raise SettingsError(f"events has {unknown[0]!r}", hint=f"there are: {', '.join(Kind)}")
    if settings.transport == "amqp":
        _check_amqp(settings.amqp)
    try:
        is_loopback = ipaddress.ip_address(settings.metrics.address).is_loopback
    except ValueError:
        is_loopback = False
    if not is_loopback:
        raise SettingsError(
            f"metrics.address must be a loopback address, not {settings.metrics.address!r}",
            hint="whoever reads from elsewhere goes through a proxy of the site's own",
        )


def parse_host(text: str, *, tls: bool) -> tuple[str, int]:
    """Host and port of `HOST`, `HOST:PORT`, `[IPV6]` or `[IPV6]:PORT`. Raises SettingsError."""
    host, _, port = text.rpartition("]:") if text.startswith("[") else text.rpartition(":")
    if not host or text.endswith("]"):
        host, port = text, ""
    if port and not (port.isascii() and port.isdecimal() and 0 < int(port) < 65536):
        raise SettingsError(f"amqp.hosts has {text!r}", hint="each is HOST or HOST:PORT")
    host = host.strip("[]")
    if not host or "/" in host or "@" in host:
        raise SettingsError(f"amqp.hosts has {text!r}", hint="each is HOST or HOST:PORT")
    return host, int(port) if port else (5671 if tls else 5672)


def read_password(path: Path) -> str:
    """The first line of a file. Raises SettingsError."""
    try:
        with path.open("rb") as file:
            data = file.read(_PASSWORD_LIMIT)
        password = data.decode("utf-8").partition("\n")[0].rstrip("\r")
    except OSError as error:
        raise SettingsError(f"amqp.password_file {path} can't be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SettingsError(f"amqp.password_file {path} is not UTF-8") from None
    if not password:
        raise SettingsError(f"amqp.password_file {path} has no password in its first line")
    return password


def _check_amqp(amqp: AmqpSettings) -> None:
    if not amqp.hosts:
        raise SettingsError("amqp.hosts names no host")
    for host in amqp.hosts:
        parse_host(host, tls=amqp.tls)
    if not amqp.exchange or not amqp.username:
        raise SettingsError("amqp.exchange and amqp.username must not be empty")
    if not amqp.password_file:
        raise SettingsError(
            "amqp.password_file is not set", hint="it names a file whose first line is the password"
        )
    for name in ("password_file", "ca_file", "cert_file", "key_file"):
        value = getattr(amqp, name)
        if value and not Path(value).is_absolute():
            raise SettingsError(f"amqp.{name} must be an absolute path, not {value!r}")
