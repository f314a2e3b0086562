"""A node with guests that are namespaces: what they send and get is seen by their own sockets.

A guest's interface is the far end of a veth whose near end is named as a tap, so that the NIC
scripts, the rules and the routes are the real ones, and a guest costs milliseconds.
"""

import contextlib
import select
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from snf_ganeti import process
from testbed.deadline import wait_for
from testbed.machine import Machine
from testbed.namespaces import (
    call_in_network,
    is_settled,
    make_enter_network_argv,
    open_namespace,
    run_ip,
)

Value = TypeVar("Value")

SCRIPT = "/etc/ganeti/kvm-vif-bridge"
SOCKET = "/run/snf-ganeti-hooks/nic.sock"
LOCK = "/run/snf-ganeti-hooks/lock"
SECONDS = 60.0
_ETH_P_ALL = 3


@dataclass(frozen=True)
class Station:
    """A network namespace with one interface, eth0."""

    pid: int
    mac: str

    def call(self, function: Callable[[], Value]) -> Value:
        return call_in_network(self.pid, function)

    def ip(self, *lines: str) -> None:
        """`ip` commands inside, in order."""
        run_ip(self.pid, lines)

    def run(self, *argv: str, timeout: float = SECONDS) -> process.Completed:
        """A program of this machine, inside."""
        return process.run(make_enter_network_argv(self.pid, argv), timeout=timeout)

    def open_socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        opened = self.call(lambda: socket.socket(family, kind, protocol))
        opened.settimeout(SECONDS)
        return opened

    def send(self, *frames: bytes) -> None:
        """Put frames on the wire as they are."""
        with self._open_packets() as packets:
            for frame in frames:
                packets.send(frame)

    @contextlib.contextmanager
    def sniff(self) -> Iterator["Sniffer"]:
        with self._open_packets() as packets:
            yield Sniffer(packets)

    def _open_packets(self) -> socket.socket:
        def make() -> socket.socket:
            packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
            packets.bind(("eth0", _ETH_P_ALL))
            return packets

        return self.call(make)


@dataclass(frozen=True)
class Sniffer:
    """What an interface receives; what it sends itself is left out."""

    packets: socket.socket

    def read_until(self, is_last: Callable[[bytes], bool]) -> list[bytes]:
        """The frames received, up to one that `is_last` knows, which is left out."""
        frames: list[bytes] = []
        deadline = time.monotonic() + SECONDS
        while select.select([self.packets], [], [], max(0.0, deadline - time.monotonic()))[0]:
            data, address = self.packets.recvfrom(65536)
            if address[2] != socket.PACKET_OUTGOING:
                if is_last(data):
                    return frames
                frames.append(data)
        others = "\n".join(frame[:96].hex() for frame in frames)
        raise AssertionError(f"the last frame did not come; these did:\n{others}")


@dataclass(frozen=True)
class NicWords:
    """What Ganeti says of a NIC, as a script's environment."""

    tap: str
    mac: str
    words: Mapping[str, str] = field(default_factory=dict)

    def make_environ(self) -> dict[str, str]:
        return {
            "INSTANCE": f"instance-of-{self.tap}",
            "INTERFACE": self.tap,
            "INTERFACE_INDEX": "0",
            "INTERFACE_UUID": f"uuid-{self.tap}",
            "MAC": self.mac,
            **self.words,
        }

    def tagged(self, *tags: str) -> "NicWords":
        return replace(self, words={**self.words, "TAGS": " ".join(tags)})


@dataclass
class Hosting:
    """node: it has the packages; its network is empty but for what is added here."""

    node: Machine
    stack: contextlib.ExitStack
    stations: list[Station] = field(default_factory=list)

    def ip(self, *lines: str) -> None:
        run_ip(self.node.pid, lines)

    def add_station(self, interface: str, mac: str) -> Station:
        """A namespace whose eth0 is plugged to `interface` of the node, which is made."""
        pid = self.stack.enter_context(open_namespace())
        near = f"name {interface} netns {self.node.pid}"
        run_ip(
            pid,
            [
                "link set lo up",
                f"link add eth0 address {mac} type veth peer {near}",
                "link set eth0 up",
            ],
        )
        station = Station(pid, mac)
        self.stations.append(station)
        return station

    def add_guest(self, nic: NicWords) -> Station:
        """A guest and its NIC, set up by the installed script; frames pass, its own and those of
        all that was plugged before."""
        guest = self.add_station(nic.tap, nic.mac)
        self.set_up(nic)
        wait_for(f"the carriers of {nic.tap} and others", self.is_settled, SECONDS)
        return guest

    def is_settled(self) -> bool:
        """Do all interfaces pass frames that ever will, here and at the stations?"""
        return all(map(is_settled, (self.node.pid, *(each.pid for each in self.stations))))

    @contextlib.contextmanager
    def serve(self) -> Iterator[subprocess.Popen[bytes]]:
        """The service runs for the block, and answers NIC scripts; it ends as systemd ends it."""
        log = self.node.folder / "serve.log"
        log.unlink(missing_ok=True)
        self.node.run("rm", "-f", SOCKET)  # of one that was killed
        with self.node.spawn("/usr/sbin/snf-network", "serve", output=log) as child:
            wait_for("the service", self.is_served, SECONDS, explain=log.read_text)
            yield child
            # The signal that ends a block would end nsenter first, and the service be killed then.
            self.node.run("pkill", "-f", "snf-network serve", ok=(0, 1))
            child.send_signal(signal.SIGCONT)  # nsenter stops when what it runs is stopped
            child.wait(SECONDS)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Another holds the lock of who changes NICs, for the block; nobody else does any more."""
        log = self.node.folder / "lock.log"
        log.unlink(missing_ok=True)
        holding = ("flock", LOCK, "sh", "-c", "echo held; exec sleep infinity")
        with self.node.spawn(*holding, output=log):
            wait_for("the lock", lambda: "held" in log.read_text(), SECONDS)
            yield

    def count_asking(self) -> int:
        """How many scripts are connected to the service. In /proc/net/unix the state is the
        sixth column, 2 before it has accepted and 3 then, and the path the last."""
        lines = self.node.read("/proc/net/unix").decode().splitlines()
        return sum(line.endswith(SOCKET) and line.split()[5] in ("02", "03") for line in lines)

    def is_served(self) -> bool:
        return self.node.run("test", "-S", SOCKET, ok=(0, 1)).status == 0

    def set_up(self, nic: NicWords, *, ok: Sequence[int] = (0,)) -> process.Completed:
        return self.node.run(SCRIPT, env=nic.make_environ(), ok=ok)


@contextlib.contextmanager
def open_hosting(folder: Path, layers: tuple[Path, ...]) -> Iterator[Hosting]:
    """A node that hosts, for the block."""
    node = Machine("hosting", folder, layers)
    with contextlib.ExitStack() as stack:
        stack.enter_context(node.powered())
        run_ip(node.pid, ["link set lo up"])
        yield Hosting(node, stack)
