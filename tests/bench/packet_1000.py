"""A packet forwarded to a filtered NIC among a thousand, against the same with one NIC.

Seconds a packet: the forwarding runs within the sender's own calls. The goal of 0.9 in packets
a second is one of 1 / 0.9 in seconds.
"""

import socket
import time

from bench.benchmark import Benchmark, Runs
from bench.node_nics import make_nic, open_node, set_up_many
from testbed.hosting import Station

_RUNS, _PACKETS, _WARM = 9, 20_000, 1_000
_MANY = 1000


def measure() -> tuple[Runs, Runs]:
    with open_node("packet-1000") as hosting:
        nic = make_nic(1)
        guest = hosting.add_guest(nic)
        guest.ip(f"address add {nic.words['IP']}/16 dev eth0", "route add default via 198.18.0.1")
        sender = hosting.add_station("up1", "02:00:00:00:00:02")
        sender.ip("address add 192.0.3.1/24 dev eth0", "route add default via 192.0.3.2")
        hosting.ip("address add 192.0.3.2/24 dev up1", "link set up1 up")
        hosting.node.run("sh", "-c", "echo 1 >/proc/sys/net/ipv4/conf/up1/forwarding")
        alone = run(sender, guest, nic.words["IP"])
        set_up_many(hosting, range(2, _MANY + 1))
        among = run(sender, guest, nic.words["IP"])
    return among, alone


def run(sender: Station, guest: Station, address: str) -> list[float]:
    """Seconds a packet, of datagrams that the guest's connection lets in."""
    with (
        guest.open_socket(socket.AF_INET, socket.SOCK_DGRAM) as inside,
        sender.open_socket(socket.AF_INET, socket.SOCK_DGRAM) as outside,
    ):
        inside.bind((address, 5000))
        outside.bind(("192.0.3.1", 5001))
        inside.sendto(b"open", ("192.0.3.1", 5001))
        assert outside.recv(10) == b"open"
        outside.connect((address, 5000))
        outside.send(b"in")
        assert inside.recv(10) == b"in"
        for _ in range(_WARM):
            outside.send(b"warm")
        return [time_packets(outside) for _ in range(_RUNS)]


def time_packets(outside: socket.socket) -> float:
    started = time.perf_counter()
    for _ in range(_PACKETS):
        outside.send(b"x" * 64)
    return (time.perf_counter() - started) / _PACKETS


BENCHMARK = Benchmark(
    name="packet-1000",
    unit="s",
    goal=1 / 0.9,
    peer_name="one NIC",
    measure=measure,
)
