"""The node's dnsmasq: its interfaces, its files, and the process, kept running."""

import contextlib
import json
import logging
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from snf_ganeti import process
from snf_ganeti.errors import LockError, NodeError, SnfError
from snf_ganeti.lock import lock_file
from snf_ganeti_hooks.addresses.dhcp import (
    SERVER_ADDRESS,
    Service,
    find_services,
    group_services,
    make_configuration,
    make_hosts,
)
from snf_ganeti_hooks.firewall.base import SERVICE
from snf_ganeti_hooks.kernel import link
from snf_ganeti_hooks.nic import Nic
from snf_ganeti_hooks.settings import Settings
from snf_ganeti_hooks.state import RUN, write_file

log = logging.getLogger(__name__)

LEASES = Path("/var/lib/snf-ganeti-hooks/leases")
PROBLEMS = "dhcp-problems.json"
LOCK = "dhcp.lock"
"""Held by who serves, as long as it lives."""
_LOCK_SECONDS = 10.0
_LIMIT = 16 << 20
_RESTART_SECONDS = 2.0


class Dnsmasq:
    """One dnsmasq, kept running between `update` and `stop`. problem: why it does not, or
    empty."""

    def __init__(self, name: str, run: Path, leases: Path) -> None:
        self.name = name
        self.configuration = run / "dnsmasq" / f"{name}.conf"
        self.hosts = run / "dnsmasq" / f"{name}.hosts"
        self.leases = leases / f"{name}.leases"
        self._stack = contextlib.ExitStack()
        self._child: subprocess.Popen[bytes] | None = None
        self._written = ("", "")
        self._started = -_RESTART_SECONDS
        self.problem = ""

    def update(self, services: Sequence[Service]) -> None:
        """Serve these networks; what is served already is left alone.

        Only new names and addresses are read without a restart; a restarted dnsmasq has its
        leases again. Raises SnfError.
        """
        text = make_configuration(services, self.hosts, self.leases)
        hosts = make_hosts(services)
        before, hosts_before = self._written
        if not (self.configuration.exists() and self.hosts.exists()):
            before, hosts_before = "", ""  # somebody removed them
        if hosts != hosts_before:
            write_file(self.hosts, hosts, mode=0o644)
        if text != before:
            write_file(self.configuration, text)
            self._end()
        elif hosts != hosts_before and self._child is not None:
            self._child.send_signal(signal.SIGHUP)
        self._written = text, hosts
        self.keep()

    def stop(self) -> None:
        self._end()
        for path in (self.configuration, self.hosts):
            path.unlink(missing_ok=True)

    def keep(self) -> None:
        """Start dnsmasq when it does not run; one that ends at once is not tried in a loop."""
        if self._child is not None:
            if self._child.poll() is None:
                if time.monotonic() - self._started >= _RESTART_SECONDS:
                    self.problem = ""
                return
            self.problem = f"dnsmasq ended with status {self._child.returncode}"
            self._stack.close()
            self._child = None
        if time.monotonic() - self._started >= _RESTART_SECONDS:
            self._started = time.monotonic()
            self.leases.parent.mkdir(parents=True, exist_ok=True)
            argv = ["dnsmasq", f"--conf-file={self.configuration}"]
            try:
                self._child = self._stack.enter_context(process.spawn(argv))
            except NodeError as error:
                self.problem = str(error)

    def _end(self) -> None:
        self._stack.close()
        self._child = None
        self._started = -_RESTART_SECONDS


class DhcpServers:
    """All dnsmasq of this node; they end with the context."""

    def __init__(self, run: Path = RUN, leases: Path = LEASES) -> None:
        self.run = run
        self.leases = leases
        self._running: dict[str, Dnsmasq] = {}
        self._problems: dict[str, str] = {}
        self._served: list[Service] | None = None
        self._lock = contextlib.ExitStack()

    def __enter__(self) -> "DhcpServers":
        self._lock.enter_context(lock_file(self.run / LOCK, timeout=_LOCK_SECONDS))
        (self.run / PROBLEMS).unlink(missing_ok=True)
        return self

    def __exit__(self, *error: object) -> None:
        (self.run / PROBLEMS).unlink(missing_ok=True)
        for each in self._running.values():
            each.stop()
        self._lock.close()

    def update(self, nics: Iterable[Nic], settings: Settings, *, look: bool) -> None:
        """Serve these NICs, and no other; what fails for one network does not stop another.

        look: interfaces may have changed. Without that, and without anything new to serve, only
        the processes are looked at.
        """
        wanted = find_services(nics, settings)
        failed = self._problems or any(each.problem for each in self._running.values())
        if look or failed or wanted != self._served:
            self._served = None  # also when it fails half-way
            self._serve_all(wanted)
            self._served = wanted
        for each in self._running.values():
            each.keep()

    def _serve_all(self, services: list[Service]) -> None:
        groups = group_services(services)
        links = link.find_links()
        remove_interfaces(links, [each for members in groups.values() for each in members])
        for name in [name for name in self._running if name not in groups]:
            self._running.pop(name).stop()
        problems: dict[str, str] = {}
        for name, members in groups.items():
            if name not in self._running:
                self._running[name] = Dnsmasq(name, self.run, self.leases)
            if problem := self._serve(self._running[name], members, links):
                problems |= {nic.tap: problem for service in members for nic in service.nics}
        self._report(problems)

    def _serve(
        self,
        dnsmasq: Dnsmasq,
        services: Sequence[Service],
        links: Mapping[str, link.Link],
    ) -> str:
        """Serve the networks of a process; gives why that is not done, or nothing."""
        try:
            made = [set_interface(links, service) for service in services]
            if any(made):
                dnsmasq.stop()  # it would go on with the interface that was there before
            dnsmasq.update(services)
        except SnfError as error:
            return str(error)
        return dnsmasq.problem

    def _report(self, problems: Mapping[str, str]) -> None:
        """Log what is new, and keep it for those who look at this node's NICs."""
        if problems != self._problems:
            for text in sorted(set(problems.values()) - set(self._problems.values())):
                taps = ", ".join(tap for tap in sorted(problems) if problems[tap] == text)
                log.error("no addresses are given to guests on %s: %s", taps, text)
            write_file(self.run / PROBLEMS, json.dumps(problems), mode=0o644)
            self._problems = dict(problems)


def read_problems(run: Path = RUN) -> dict[str, str]:
    """Tap → why its guest gets no address from this node now; what a service that was killed
    has left says nothing of that."""
    if not (run / PROBLEMS).exists():
        return {}
    with contextlib.suppress(LockError, OSError), lock_file(run / LOCK, shared=True):
        return {}
    try:
        with (run / PROBLEMS).open("rb") as file:
            return {str(tap): str(text) for tap, text in json.loads(file.read(_LIMIT)).items()}
    except (OSError, ValueError, AttributeError):
        return {}


def remove_interfaces(links: Mapping[str, link.Link], services: Iterable[Service]) -> None:
    """Remove the interfaces of other services than these. Raises SnfError."""
    wanted = {service.interface for service in services}
    gone = [name for name in links if name.startswith(SERVICE) and name not in wanted]
    link.run_batch([f"link del {name}" for name in gone], force=True)


def set_interface(links: Mapping[str, link.Link], service: Service) -> bool:
    """Make the interface of a service, if it is not there as it should be; gives whether it was
    made. Raises SnfError."""
    name, port = service.interface, links.get(service.port)
    if name in links and (not service.port or (port and port.master == service.first.link)):
        return False
    if name in links:
        link.run_batch([f"link del {name}"])
    link.run_batch(make_interface_lines(service))
    link.set_sysctls(make_sysctls(service))
    link.run_batch(make_address_lines(service))
    return True


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
