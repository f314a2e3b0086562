"""A DHCP server on the wire, for guests that ask for their address."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from testbed.deadline import wait_for
from testbed.wire import ADDRESS, BRIDGE, Wire

FIRST, LAST = "10.78.0.150", "10.78.0.199"
_LEASES = "/run/dhcp.leases"
_PIDFILE = "/run/dhcp.pid"


@dataclass(frozen=True)
class Lease:
    mac: str
    address: str
    hostname: str


@dataclass(frozen=True)
class DhcpServer:
    wire: Wire

    def read_leases(self) -> list[Lease]:
        return parse_leases(self.wire.machine.read(_LEASES).decode())


@contextlib.contextmanager
def serve_dhcp(wire: Wire) -> Iterator[DhcpServer]:
    """dnsmasq answers on the wire for the block, with the wire's address as the gateway."""
    log = wire.machine.folder / "dhcp.log"
    log.unlink(missing_ok=True)  # of one before, which was ready
    with wire.machine.spawn(*make_dnsmasq_argv(), output=log) as child:

        def is_ready() -> bool:
            text = log.read_text(errors="replace")
            assert child.poll() is None, f"dnsmasq ended: {text}"
            return "DHCP, IP range" in text

        wait_for("the start of dnsmasq", is_ready, 60)
        yield DhcpServer(wire)


def make_dnsmasq_argv() -> list[str]:
    return [
        "dnsmasq",
        "--conf-file=/dev/null",
        "--keep-in-foreground",
        "--log-facility=-",
        "--log-dhcp",
        "--user=root",
        "--port=0",
        f"--interface={BRIDGE}",
        f"--dhcp-range={FIRST},{LAST},1h",
        f"--dhcp-option=option:router,{ADDRESS}",
        "--dhcp-authoritative",
        f"--dhcp-leasefile={_LEASES}",
        f"--pid-file={_PIDFILE}",
    ]


def parse_leases(text: str) -> list[Lease]:
    """dnsmasq's lease file: expiry, MAC, address, name or `*`, client id, a line each."""
    words = (line.split() for line in text.splitlines())
    return [
        Lease(mac, address, "" if hostname == "*" else hostname)
        for _, mac, address, hostname, _ in (line for line in words if len(line) == 5)
    ]
