"""A Ganeti cluster of two nodes with networks for guests: a routed one and private ones.

The routed network has a routing table of its own, whose uplink is the nodes' bridge; its router
is the wire. A second cable joins the nodes' private bridges to one layer 2.
"""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from testbed import debian_kernel, small_guest
from testbed.bed import Bed
from testbed.deadline import wait_for
from testbed.ganeti import Cluster, add_node, create_cluster, write_blank_os
from testbed.machine import Machine
from testbed.namespaces import run_ip
from testbed.roots import build_base
from testbed.small_guest import Shell, open_shell
from testbed.wire import BRIDGE, NODE_BRIDGE

TABLE = 100
PRIVATE_BRIDGE = "prv0"
_PRIVATE_PORT = "eth1"
ROUTER4, ROUTER6, ROUTER_LINK = "198.51.100.1", "2001:db8:1::1", "fe80::1"
PUBLIC, PRIVATE = "public", "private"
BOOT_SECONDS = 240.0
STATE = "/run/snf-ganeti-hooks/nics"
_FILES = "/srv/small-guest"
_NETWORKS = (
    (PUBLIC, "198.51.100.0/24", ROUTER4, "2001:db8:1::/64", "ip-less-routed", "aa:00:00"),
    (PRIVATE, "10.0.0.0/24", "", "fd00:1::/64", "private-filtered", "aa:00:01"),
)


@dataclass(frozen=True)
class Guest:
    """An instance with two NICs, the first public, the second private. number: of its addresses."""

    cluster: Cluster
    name: str
    number: int

    @property
    def addresses(self) -> dict[str, str]:
        """By network and family; IPv6 as made from the NICs' MACs."""
        return {
            "public4": f"198.51.100.{self.number}",
            "public6": f"2001:db8:1:0:a800:ff:fe00:{self.number:x}",
            "private4": f"10.0.0.{self.number}",
            "private6": f"fd00:1::a800:1ff:fe00:{self.number:x}",
        }

    @property
    def macs(self) -> tuple[str, str]:
        return f"aa:00:00:00:00:{self.number:02x}", f"aa:00:01:00:00:{self.number:02x}"

    def add(self, node: Machine) -> None:
        public, private = self.macs
        self.cluster.run(
            *("gnt-instance", "add", "--no-name-check", "--no-ip-check", f"--node={node.hostname}"),
            *("--os-type=small", "--disk-template=diskless", "--no-start"),
            f"--net=0:ip={self.addresses['public4']},network={PUBLIC},mac={public}",
            f"--net=1:ip={self.addresses['private4']},network={PRIVATE},mac={private}",
            "--backend-parameters=minmem=128,maxmem=128",
            f"--hypervisor-parameters=kvm:kernel_path={_FILES}/kernel,initrd_path={_FILES}/initrd,"
            f"kernel_args={small_guest.ARGUMENTS}",
            self.name,
        )

    def find_node(self) -> Machine:
        """The node that it runs on."""
        (node,) = (each for each in find_nodes(self.cluster) if self.find_pid(each))
        return node

    def find_pid(self, node: Machine) -> int:
        """Of its QEMU, as seen on the node; 0 when none runs there."""
        path = f"/run/ganeti/kvm-hypervisor/pid/{self.name}"
        text = node.run("sh", "-c", f"pid=$(cat {path}) && kill -0 $pid && echo $pid", ok=(0, 1))
        return int(text.text or 0)

    @contextlib.contextmanager
    def shell(self) -> Iterator[Shell]:
        """A shell in the guest, when it has booted and its addresses are there."""
        root = Path(f"/proc/{self.find_node().pid}/root")
        with open_shell(root / f"run/ganeti/kvm-hypervisor/ctrl/{self.name}.serial") as shell:
            shell.wait_until_ready(BOOT_SECONDS)
            wait_for(
                f"the addresses of {self.name}",
                lambda: self.has_addresses(shell),
                BOOT_SECONDS,
                interval=1.0,
                explain=lambda: shell.run("ip address"),
            )
            yield shell

    def has_addresses(self, shell: Shell) -> bool:
        shown = shell.run("ip address")
        return all(f" {address}/" in shown for address in self.addresses.values())

    def reach(self, other: "Guest") -> set[str]:
        """What of another guest, booted, this one reaches: `public4 22`, `private6 ICMP` …"""
        with other.shell(), self.shell() as shell:
            targets = " ".join(f"{name}={each}" for name, each in other.addresses.items())
            return set(shell.run(f"reach {targets}").splitlines())

    def tag(self, verb: str, *tags: str) -> None:
        """add-tags or remove-tags."""
        self.cluster.run("gnt-instance", verb, self.name, *tags)


def find_nodes(cluster: Cluster) -> list[Machine]:
    return [cluster.bed.node(index) for index in (1, 2)]


def list_traces(node: Machine, guest: Guest) -> list[str]:
    """What a node still has of a guest's NICs: states, rules, routes, proxy entries."""
    needles = (*guest.addresses.values(), *guest.macs, f'"{guest.name}"')
    commands = (
        f"grep -rhs . {STATE} /run/snf-ganeti-hooks/dnsmasq || :",
        "nft -n list ruleset",
        *(f"ip {family} route show table all proto 205" for family in ("-4", "-6")),
        *(f"ip {family} neigh show proxy" for family in ("-4", "-6")),
    )
    listed = node.run("sh", "-c", "; ".join(commands)).text.splitlines()
    return [line for line in listed if any(needle in line for needle in needles)]


@contextlib.contextmanager
def open_site(bed: Bed) -> Iterator[Cluster]:
    """Two nodes with their networks, and the service on both, for the block."""
    cluster = create_cluster(bed)
    add_node(cluster, 2)
    with contextlib.ExitStack() as stack:
        _set_up_router(bed.wire.machine)
        kernel = debian_kernel.build_layer(build_base("bookworm"))
        initrd = bed.folder / "small-guest.initrd"
        found = debian_kernel.find_kernel(kernel)
        small_guest.build(found, kernel / "usr/bin/busybox", initrd)
        for node in find_nodes(cluster):
            write_blank_os(node, "small")
            node.write(f"{_FILES}/kernel", found.image.read_bytes())
            node.write(f"{_FILES}/initrd", initrd.read_bytes())
            _plug_private(bed.wire.machine, node)
            _set_up_node(node)
            log = bed.folder / f"{node.folder.name}-snf-network.log"
            stack.enter_context(node.spawn("/usr/sbin/snf-network", "serve", output=log))
        for network in _NETWORKS:
            _add_network(cluster, *network)
        yield cluster


def _add_network(
    cluster: Cluster, name: str, subnet: str, gateway: str, subnet6: str, tag: str, prefix: str
) -> None:
    cluster.run(
        *("gnt-network", "add", f"--network={subnet}", f"--network6={subnet6}"),
        *([f"--gateway={gateway}"] if gateway else []),
        *(f"--tags={tag},nfdhcpd", f"--mac-prefix={prefix}", name),
    )
    link = f"routed,link={TABLE}" if name == PUBLIC else f"bridged,link={PRIVATE_BRIDGE}"
    cluster.run("gnt-network", "connect", f"--nic-parameters=mode={link}", name)


def _set_up_router(wire: Machine) -> None:
    for words in (
        f"address add {ROUTER4}/24 dev {BRIDGE}",
        f"address add {ROUTER6}/64 dev {BRIDGE} nodad",
        f"address add {ROUTER_LINK}/64 dev {BRIDGE} nodad",
        f"link add {PRIVATE_BRIDGE} type bridge",
        f"link set {PRIVATE_BRIDGE} up",
    ):
        wire.run("ip", *words.split())


def _plug_private(wire: Machine, node: Machine) -> None:
    cable = f"p-{node.folder.name}"
    lines = (
        f"link add {cable} type veth peer name {_PRIVATE_PORT} netns {node.pid}",
        f"link set {cable} master {PRIVATE_BRIDGE} up",
    )
    run_ip(wire.pid, lines)


def _set_up_node(node: Machine) -> None:
    node.run("sh", "-c", "echo 1 >/proc/sys/net/ipv6/conf/all/forwarding")
    for words in (
        f"route add 198.51.100.0/24 dev {NODE_BRIDGE} table {TABLE}",
        f"route add default via 10.78.0.1 dev {NODE_BRIDGE} table {TABLE}",
        f"-6 route add 2001:db8:1::/64 dev {NODE_BRIDGE} table {TABLE}",
        f"-6 route add default via {ROUTER_LINK} dev {NODE_BRIDGE} table {TABLE}",
        f"link add {PRIVATE_BRIDGE} type bridge",
        f"link set {_PRIVATE_PORT} master {PRIVATE_BRIDGE} up",
        f"link set {PRIVATE_BRIDGE} up",
    ):
        node.run("ip", *words.split())


def read_neighbours(wire: Machine) -> dict[str, str]:
    """Address → MAC, as the router's own kernel knows them."""
    shown = json.loads(wire.run("ip", "-json", "neigh", "show", "dev", BRIDGE).text)
    return {each["dst"]: each["lladdr"] for each in shown if "lladdr" in each}


def read_mac(node: Machine, interface: str = NODE_BRIDGE) -> str:
    return node.run("cat", f"/sys/class/net/{interface}/address").text.strip()
