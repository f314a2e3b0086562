"""RabbitMQ on machines of its own on a bed's wire: one broker, or a cluster of three.

Debian's package, without a service manager. Brokers listen on the wire's addresses only.
"""

import contextlib
import dataclasses
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pika

from snf_ganeti.errors import CommandError, DeadlineError
from testbed.bed import Bed
from testbed.deadline import wait_for
from testbed.machine import Machine
from testbed.namespaces import call_in_network
from testbed.roots import build_base, build_root_with

PACKAGES = ("rabbitmq-server",)
USER = "snf-ganeti"
PASSWORD = "not-guest"

_HOME = "/var/lib/rabbitmq"
_BIN = "/usr/lib/rabbitmq/bin"
_COOKIE = "BEDCOOKIE"
_START_SECONDS = 180.0
_CONFIG = """\
listeners.tcp.default = {address}:5672
disk_free_limit.absolute = 50MB
loopback_users = none
{more}"""


@dataclass(frozen=True)
class Broker:
    """One RabbitMQ node on a machine of its own. more: further lines of rabbitmq.conf; files:
    what these name, by path."""

    bed: Bed
    machine: Machine
    address: str
    hosts: str
    more: str = ""
    files: Mapping[str, bytes] = field(default_factory=dict)

    def power_on(self) -> None:
        """Power on, plug in and start, with what its disk holds."""
        self.machine.power_on()
        self.bed.wire.plug(self.machine, self.address)
        self.machine.write("/etc/hosts", self.hosts)
        self.machine.write(
            "/etc/rabbitmq/rabbitmq.conf", _CONFIG.format(address=self.address, more=self.more)
        )
        for path, content in self.files.items():
            self.machine.write(path, content)
        owner = ("--owner=rabbitmq", "--group=rabbitmq")
        folders = (_HOME, "/var/log/rabbitmq", "/run/rabbitmq")
        self.machine.run("install", "--directory", *owner, "--mode=750", *folders)
        cookie = f"{_HOME}/.erlang.cookie"
        self.machine.run(
            *("install", *owner, "--mode=400", "/dev/stdin", cookie), stdin=_COOKIE.encode()
        )
        self.start()

    def start(self) -> None:
        """Start RabbitMQ on a machine that is on, and wait until it answers."""
        self.machine.run(*self._as_rabbitmq(f"{_BIN}/rabbitmq-server", "-detached"))
        wait_for(f"the start of {self.machine.hostname}", self._has_started, _START_SECONDS)

    def stop(self) -> None:
        """Stop RabbitMQ in order."""
        self.control("stop", timeout=_START_SECONDS)

    def kill(self) -> None:
        """Kill RabbitMQ; what its disk holds stays."""
        self.machine.run("sh", "-c", "kill -KILL $(pidof beam.smp)")
        wait_for("the death of RabbitMQ", lambda: not self._is_running(), 30)

    def control(self, *arguments: str, timeout: float = 120) -> str:
        """rabbitmqctl; gives what it printed."""
        argv = self._as_rabbitmq(f"{_BIN}/rabbitmqctl", "--quiet", *arguments)
        return self.machine.run(*argv, timeout=timeout).text

    def call(self, action: Callable[[Any], object]) -> None:
        """Do something with a channel, as a client on the wire."""

        def act() -> None:
            credentials = pika.PlainCredentials(USER, PASSWORD)
            parameters = pika.ConnectionParameters(self.address, credentials=credentials)
            with contextlib.closing(pika.BlockingConnection(parameters)) as connection:
                action(connection.channel())

        call_in_network(self.bed.wire.machine.pid, act)

    def _has_started(self) -> bool:
        try:
            self.control("ping")
            self.control("await_startup")
        except (CommandError, DeadlineError):
            return False
        return True

    def _is_running(self) -> bool:
        return self.machine.run("pidof", "beam.smp", ok=(0, 1)).status == 0

    def _as_rabbitmq(self, *argv: str) -> list[str]:
        environment = (f"HOME={_HOME}", f"RABBITMQ_NODENAME={self.name}", "LC_ALL=C.UTF-8")
        drop = ("--reuid=rabbitmq", "--regid=rabbitmq", "--init-groups")
        return ["setpriv", *drop, "env", "-C", _HOME, *environment, *argv]

    @property
    def name(self) -> str:
        return f"rabbit@{self.machine.hostname}"


@contextlib.contextmanager
def open_brokers(
    bed: Bed,
    count: int = 1,
    *,
    first: int = 1,
    more: str = "",
    files: Mapping[str, bytes] | None = None,
) -> Iterator[tuple[Broker, ...]]:
    """Brokers, clustered if there are several, with user USER; gone at the end of the block.

    first: number of the first, where others of the bed are on already.
    """
    layers = build_root_with(build_base("bookworm"), PACKAGES)
    numbers = range(first, first + count)
    made = (_make_broker(bed, number, numbers, layers) for number in numbers)
    brokers = [dataclasses.replace(each, more=more, files=files or {}) for each in made]
    with contextlib.ExitStack() as stack:
        for broker in brokers:
            stack.callback(_remove, broker.machine)
            broker.power_on()
        head, *others = brokers
        for broker in others:
            broker.control("stop_app")
            broker.control("join_cluster", head.name)
            broker.control("start_app")
        head.control("add_user", USER, PASSWORD)
        head.control("set_permissions", USER, ".*", ".*", ".*")
        yield tuple(brokers)


def _remove(machine: Machine) -> None:
    machine.power_off()
    shutil.rmtree(machine.folder)


def _make_broker(bed: Bed, number: int, all_numbers: range, layers: Sequence[Path]) -> Broker:
    names = {f"10.78.0.{60 + each}": f"broker{each}" for each in all_numbers}
    hosts = "127.0.0.1\tlocalhost\n" + "".join(f"{ip}\t{name}\n" for ip, name in names.items())
    machine = Machine(f"broker{number}", bed.folder / f"broker{number}", tuple(layers))
    return Broker(bed, machine, f"10.78.0.{60 + number}", hosts)
