"""The node's dnsmasq: its interfaces, its files, and the process, kept running."""

import contextlib
import logging
import signal
import subprocess
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from snf_ganeti import process
from snf_ganeti_hooks import link
from snf_ganeti_hooks.dhcp import (
    SERVER_ADDRESS,
    Service,
    find_services,
    group_services,
    make_configuration,
    make_hosts,
)
from snf_ganeti_hooks.nic import Nic
from snf_ganeti_hooks.ruleset import SERVICE
from snf_ganeti_hooks.settings import DhcpSettings
from snf_ganeti_hooks.state import RUN, write_file

log = logging.getLogger(__name__)

LEASES = Path("/var/lib/snf-ganeti-hooks/leases")
_RESTART_SECONDS = 2.0


class Dnsmasq:
    """One dnsmasq, kept running between `update` and `stop`."""

    def __init__(self, name: str, run: Path, leases: Path) -> None:
        self.name = name
        self.configuration = run / "dnsmasq" / f"{name}.conf"
        self.hosts = run / "dnsmasq" / f"{name}.hosts"
        self.leases = leases / f"{name}.leases"
        self._stack = contextlib.ExitStack()
        self._child: subprocess.Popen[bytes] | None = None
        self._written = ("", "")
        self._started = -_RESTART_SECONDS

    def update(self, services: Sequence[Service], settings: DhcpSettings) -> None:
        """Serve these networks; what is served already is left alone.

        Only new names and addresses are read without a restart; a restarted dnsmasq has its
        leases again. Raises SnfError.
        """
        text = make_configuration(services, settings, self.hosts, self.leases)
        hosts = make_hosts(services)
        before, hosts_before = self._written
        if hosts != hosts_before:
            write_file(self.hosts, hosts, mode=0o644)
        if text != before:
            write_file(self.configuration, text)
            self._end()
        elif hosts != hosts_before and self._child is not None:
            self._child.send_signal(signal.SIGHUP)
        self._written = text, hosts
        self._keep()

    def stop(self) -> None:
        self._end()
        for path in (self.configuration, self.hosts):
            path.unlink(missing_ok=True)

    def _keep(self) -> None:
        """Start dnsmasq when it does not run; one that ends at once is not tried in a loop."""
        if self._child is not None:
            if self._child.poll() is None:
                return
            log.error("dnsmasq for %s ended with status %d", self.name, self._child.returncode)
            self._stack.close()
            self._child = None
        if time.monotonic() - self._started >= _RESTART_SECONDS:
            self._started = time.monotonic()
            self.leases.parent.mkdir(parents=True, exist_ok=True)
            argv = ["dnsmasq", f"--conf-file={self.configuration}"]
            self._child = self._stack.enter_context(process.spawn(argv))

    def _end(self) -> None:
        self._stack.close()
        self._child = None
        self._started = -_RESTART_SECONDS


class DhcpServers:
    """All dnsmasq of this node; they end with the context."""

    def __init__(self, settings: DhcpSettings, run: Path = RUN, leases: Path = LEASES) -> None:
        self.settings = settings
        self.run = run
        self.leases = leases
        self._running: dict[str, Dnsmasq] = {}

    def __enter__(self) -> "DhcpServers":
        return self

    def __exit__(self, *error: object) -> None:
        for each in self._running.values():
            each.stop()

    def update(self, nics: Iterable[Nic]) -> None:
        """Serve these NICs, and no other. Raises SnfError."""
        services = find_services(nics, self.settings)
        set_interfaces(services)
        groups = group_services(services)
        for name in [name for name in self._running if name not in groups]:
            self._running.pop(name).stop()
        for name, members in groups.items():
            if name not in self._running:
                self._running[name] = Dnsmasq(name, self.run, self.leases)
            self._running[name].update(members, self.settings)


def set_interfaces(services: Iterable[Service]) -> None:
    """Make the interfaces of these services, and remove those of others. Raises SnfError."""
    links = link.find_links()
    wanted = {service.interface: service for service in services}
    gone = [name for name in links if name.startswith(SERVICE) and name not in wanted]
    link.run_batch([f"link del {name}" for name in gone], force=True)
    for name, service in wanted.items():
        port = links.get(service.port)
        if name in links and (not service.port or (port and port.master == service.first.link)):
            continue
        if name in links:
            link.run_batch([f"link del {name}"])
        link.run_batch(make_interface_lines(service))
        link.set_sysctls(make_sysctls(service))
        link.run_batch(make_address_lines(service))


def make_interface_lines(service: Service) -> list[str]:
    name, port = service.interface, service.port
    if not port:
        return [f"link add {name} type bridge"]
    return [
        f"link add {name} address {service.mac} type veth peer name {port}",
        f"link set {port} master {service.first.link}",
    ]


def make_sysctls(service: Service) -> dict[str, int]:
    values = {
        f"ipv4/conf/{service.interface}/forwarding": 0,
        f"ipv6/conf/{service.interface}/accept_ra": 0,
        f"ipv6/conf/{service.interface}/accept_dad": 0,
    }
    if service.port:
        values[f"ipv6/conf/{service.port}/disable_ipv6"] = 1
    return values


def make_address_lines(service: Service) -> list[str]:
    name = service.interface
    lines = [f"address add {SERVER_ADDRESS}/32 dev {name}"]
    if service.server_address6:
        lines.append(f"address add {service.server_address6} dev {name} noprefixroute nodad")
    return [*lines, *(f"link set {each} up" for each in (name, service.port) if each)]
