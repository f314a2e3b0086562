"""A node with many NICs, for benchmarks: taps without guests, set up by the installed code."""

import contextlib
import json
import time
from collections.abc import Iterator, Sequence

from snf_ganeti import process
from testbed.bed import open_bed
from testbed.hosting import SCRIPT, Hosting, NicWords, open_hosting
from testbed.namespaces import make_enter_network_argv, run_ip
from testbed.roots import BUILD

WORDS = {
    "MODE": "routed",
    "NETWORK_NAME": "public",
    "NETWORK_SUBNET": "198.18.0.0/16",
    "NETWORK_GATEWAY": "198.18.0.1",
    "NETWORK_SUBNET6": "2001:db8:1::/64",
    "NETWORK_GATEWAY6": "2001:db8:1::1",
    "NETWORK_TAGS": "ip-less-routed nfdhcpd",
    "TAGS": "synnefo:network:0:limited",
}
_MANY = """
import json, sys
from snf_ganeti_hooks import settings, setup, state
from snf_ganeti_hooks.node import read_node
for environ in json.load(sys.stdin):
    with state.locked():
        setup.set_up(read_node(settings.Settings()), environ)
"""


@contextlib.contextmanager
def open_node(name: str) -> Iterator[Hosting]:
    """A node with an uplink, and no NIC yet."""
    debs = sorted((BUILD / "deb").glob("*.deb"))
    with (
        open_bed(f"bench-{name}", debs=debs) as bed,
        open_hosting(bed.folder / "node", bed.layers) as hosting,
    ):
        hosting.node.run("sh", "-c", "echo 1 >/proc/sys/net/ipv6/conf/all/forwarding")
        world = hosting.add_station("up0", "02:00:00:00:00:01")
        world.ip("address add 192.0.2.1/24 dev eth0", "address add 198.18.0.1/16 dev eth0")
        hosting.ip(
            "address add 192.0.2.2/24 dev up0",
            "address add 2001:db8:ff::2/64 dev up0 nodad",
            "link set up0 up",
            "route add default via 192.0.2.1",
            "route add default via 2001:db8:ff::1",
        )
        yield hosting


def make_nic(number: int) -> NicWords:
    mac = f"aa:00:01:00:{number >> 8:02x}:{number & 255:02x}"
    ip = f"198.18.{number // 250 + 1}.{number % 250 + 1}"
    return NicWords(f"tap{number}", mac, {**WORDS, "IP": ip})


def add_taps(hosting: Hosting, numbers: Sequence[int]) -> None:
    lines = [f"link add tap{n} type veth peer name far{n}" for n in numbers]
    run_ip(hosting.node.pid, lines)


def set_up_many(hosting: Hosting, numbers: Sequence[int]) -> None:
    """Taps and NICs, by one process of the installed code."""
    add_taps(hosting, numbers)
    environs = json.dumps([make_nic(number).make_environ() for number in numbers])
    hosting.node.run("python3", "-c", _MANY, stdin=environs.encode(), timeout=900)


def time_script(hosting: Hosting, number: int) -> float:
    """Seconds that the installed script takes for a NIC whose tap is there."""
    environ = make_nic(number).make_environ()
    started = time.perf_counter()
    hosting.node.run(SCRIPT, env=environ)
    return time.perf_counter() - started


def time_commands(hosting: Hosting, script: str) -> float:
    """Seconds that a shell script of this machine's programs takes in the node's network."""
    argv = make_enter_network_argv(hosting.node.pid, ["sh", "-eu", "-c", script])
    started = time.perf_counter()
    process.run(argv)
    return time.perf_counter() - started
