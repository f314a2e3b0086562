"""The wire: a bridge in a machine of its own, to which the nodes' cables lead.

Its addresses are the only ones that nodes and guests can reach, and only who enters its
network can reach them: this machine itself has no interface there.
"""

import contextlib
import json
import socket
import subprocess
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from snf_ganeti import process
from testbed import namespaces
from testbed.machine import Machine

NETWORK = "10.78.0.0/24"
PREFIX = 24
ADDRESS = "10.78.0.1"
BRIDGE = "wire0"
NODE_BRIDGE = "br0"
_PORT = "eth0"


@dataclass(frozen=True)
class Wire:
    """machine: it holds the network; its programs (dnsmasq, ip …) are those of its root."""

    machine: Machine

    def power_on(self) -> None:
        self.machine.power_on()
        self._ip("link", "set", "lo", "up")
        self._ip("link", "add", BRIDGE, "type", "bridge")
        self._ip("address", "add", f"{ADDRESS}/{PREFIX}", "dev", BRIDGE)
        self._ip("link", "set", BRIDGE, "up")

    def power_off(self) -> None:
        self.machine.power_off()

    def plug(self, machine: Machine, address: str) -> None:
        """Lead a cable to a machine just powered on, whose bridge gets `address`."""
        cable = _name_cable(machine)
        # The kernel takes down the network of a machine that lost its power in its own time,
        # and with it the cable that led there.
        self._ip("link", "delete", cable, ok=(0, _NO_SUCH_LINK))
        peer = ("peer", "name", _PORT, "netns", str(machine.pid))
        self._ip("link", "add", cable, "type", "veth", *peer)
        self._ip("link", "set", cable, "master", BRIDGE, "up")
        # A bridge without an address of its own takes its ports', and changes it with them.
        machine.run("ip", "link", "add", NODE_BRIDGE, "address", _make_mac(address), *_BRIDGE_TYPE)
        machine.run("ip", "link", "set", "lo", "up")
        machine.run("ip", "link", "set", _PORT, "master", NODE_BRIDGE, "up")
        machine.run("ip", "address", "add", f"{address}/{PREFIX}", "dev", NODE_BRIDGE)
        machine.run("ip", "link", "set", NODE_BRIDGE, "up")

    def set_cable(self, machine: Machine, *, up: bool) -> None:
        """Pull a machine's cable, or put it back."""
        self._ip("link", "set", _name_cable(machine), "up" if up else "down")

    def find_port(self, mac: str) -> str | None:
        """The cable (`v-HOSTNAME`) behind which the bridge saw a MAC address last."""
        shown = self.machine.run("bridge", "-json", "fdb", "show", "br", BRIDGE).text
        ports = (entry["ifname"] for entry in json.loads(shown) if entry["mac"] == mac.lower())
        return next(ports, None)

    def connect(self, host: str, port: int, timeout: float = 10) -> socket.socket:
        """A TCP connection from the wire. Raises OSError."""
        return namespaces.connect(self.machine.pid, (host, port), timeout)

    def listen(self, port: int = 0) -> socket.socket:
        """A TCP socket that listens on the wire's address, for a server in this process."""
        return namespaces.listen(self.machine.pid, (ADDRESS, port))

    @contextlib.contextmanager
    def spawn(self, argv: Sequence[str], output: Path) -> Iterator[subprocess.Popen[bytes]]:
        """A program with this machine's files on the wire's network, for the block."""
        entered = namespaces.make_enter_network_argv(self.machine.pid, argv)
        with (
            output.open("ab") as log,
            process.spawn(entered, stdout=log, stderr=log) as child,
        ):
            yield child

    def _ip(self, *arguments: str, ok: Collection[int] = (0,)) -> None:
        """This machine's `ip` on the wire: `netns PID` is a process id as seen here."""
        argv = namespaces.make_enter_network_argv(self.machine.pid, ["ip", *arguments])
        process.run(argv, ok=ok)


_BRIDGE_TYPE = ("type", "bridge")
_NO_SUCH_LINK = 1


def _name_cable(machine: Machine) -> str:
    return f"v-{machine.folder.name}"


def _make_mac(address: str) -> str:
    """A locally administered MAC address, 02:00 and the four bytes of the IPv4 address."""
    return "02:00:" + socket.inet_aton(address).hex(":")
