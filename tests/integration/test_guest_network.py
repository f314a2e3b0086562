"""The guest's network as the tools of Debian really set it up: ifupdown, netplan,
systemd-networkd and NetworkManager.

A root file system of each suite gets the task's files. Its own tools then run on NICs that
are veth pairs in a network namespace, and dnsmasq on the other ends serves DHCP, DHCPv6 and
router advertisements. What came out is judged by the kernel (`ip --json`) and by what
dnsmasq saw. Needs root.
"""

import contextlib
import json
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from snf_image_helper.guest import read_guest
from snf_image_helper.protocol import Address, Nic, Request
from snf_image_helper.task import Context
from snf_image_helper.tasks.configure_network import TASK
from snf_image_helper.tree import Tree
from testbed.roots import build_base, build_root_with

PACKAGES = ("ifupdown", "netplan.io", "systemd", "network-manager", "dbus", "udev")
CLIENTS = {"bookworm": "isc-dhcp-client", "trixie": "dhcpcd-base"}
UNIT = "/lib/systemd/system/systemd-networkd.service"
WANTED = "multi-user.target.wants/systemd-networkd.service"
SIGNS = {
    "netplan": "usr/sbin/netplan",
    "NetworkManager": "etc/systemd/system/multi-user.target.wants/NetworkManager.service",
}

MACS = [f"aa:00:00:77:00:0{index}" for index in range(7)]
NICS = (
    Nic(MACS[0], "dhcp", "slaac"),
    Nic(MACS[1], Address("10.77.1.5", 24, "10.77.1.1"), Address("fd77:1::5", 64, "fd77:1::1")),
    Nic(MACS[2], Address("192.0.2.5", 32, "10.77.2.1"), Address("fd99::5", 128, "fd77:2::1")),
    Nic(MACS[3], None, "slaac_dhcp"),
    Nic(MACS[4], Address("10.77.4.5", 24), "dhcp"),
    Nic(MACS[5], "dhcp", "slaac_dhcp"),
    Nic(MACS[6]),
)
ADDRESSES = {
    0: {"10.77.0.50/24", "fd77::a800:ff:fe77:0/64"},
    1: {"10.77.1.5/24", "fd77:1::5/64"},
    2: {"192.0.2.5/32", "fd99::5/128"},
    3: {"fd77:3::a800:ff:fe77:3/64"},
    4: {"10.77.4.5/24", "fd77:4::50/128"},
    5: {"10.77.5.50/24", "fd77:5::a800:ff:fe77:5/64"},
    6: set(),
}
GATEWAYS = {
    (4, 0, "10.77.0.1", 100),
    (4, 1, "10.77.1.1", 101),
    (4, 2, "10.77.2.1", 102),
    (4, 5, "10.77.5.1", 105),
    (6, 1, "fd77:1::1", 101),
    (6, 2, "fd77:2::1", 102),
    (6, 0, "router", 0),
    (6, 3, "router", 0),
    (6, 4, "router", 0),
    (6, 5, "router", 0),
}
DNSMASQ = f"""\
port=0
no-resolv
enable-ra
dhcp-authoritative
log-dhcp
dhcp-range=10.77.0.10,10.77.0.20,1h
dhcp-range=10.77.5.10,10.77.5.20,1h
dhcp-range=fd77:0::,ra-only
dhcp-range=fd77:3::,ra-stateless
dhcp-range=fd77:4::10,fd77:4::ff,64,1h
dhcp-range=fd77:5::,ra-stateless
dhcp-host={MACS[0]},10.77.0.50
dhcp-host={MACS[5]},10.77.5.50
dhcp-host={MACS[4]},[fd77:4::50]
"""


INFORMED = {3, 5}
"""The NICs that ask for more than an address, by DHCPv6."""
_START_TIMEOUT = 60.0
_CONFIGURE_TIMEOUT = 60.0
"""Seconds for all NICs: a client whose question was lost asks again after up to 16 (RFC 2131)."""


def run(*argv: str) -> str:
    done = subprocess.run(
        argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120
    )
    assert done.returncode == 0, f"{argv}: {done.stdout}"
    return str(done.stdout)


def wait_for(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


@contextlib.contextmanager
def make_namespace(*kinds: str) -> Iterator[str]:
    """New namespaces; gives the id of the process that holds them."""
    holder = subprocess.Popen(["unshare", *kinds, "sleep", "infinity"])
    name = Path(f"/proc/{holder.pid}/comm")
    try:
        # Only then are its mounts its own: unshare(1) sees to that after it has made them.
        assert wait_for(lambda: name.read_text() == "sleep\n", _START_TIMEOUT)
        yield str(holder.pid)
    finally:
        holder.kill()
        holder.wait()


@dataclass
class Machine:
    """A guest's root at `root`, its NICs in one namespace, dnsmasq's ends in another."""

    root: Path
    inside: str
    wire: str
    children: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def view(self) -> Path:
        """The root with what is mounted in it inside the namespace alone."""
        return Path(f"/proc/{self.inside}/root{self.root}")

    def enter(self, *argv: str) -> list[str]:
        return ["nsenter", "-t", self.inside, "-n", "-m", "chroot", str(self.root), *argv]

    def run(self, *argv: str) -> str:
        return run(*self.enter(*argv))

    def spawn(self, argv: Sequence[str], log: str) -> None:
        with (self.root / log).open("wb") as output:
            self.children.append(subprocess.Popen(argv, stdout=output, stderr=output))

    def ip(self, *arguments: str) -> list[dict[str, Any]]:
        return list(json.loads(self.run("ip", "--json", *arguments) or "[]"))

    def read_addresses(self) -> dict[int, set[str]]:
        """The addresses of each NIC that are ready for use, without link-local ones."""
        return {
            MACS.index(link["address"]): {
                f"{each['local']}/{each['prefixlen']}"
                for each in link["addr_info"]
                if each["scope"] == "global" and not each.get("tentative")
            }
            for link in self.ip("address")
            if link.get("address") in MACS
        }

    def read_gateways(self) -> set[tuple[int, int, str, int]]:
        """(family, NIC, gateway, metric) of the default routes; a router that announced
        itself is `router`, without metric."""
        found = set()
        for family in (4, 6):
            for route in self.ip(f"-{family}", "route", "show", "default"):
                for hop in route.get("nexthops", [route]):
                    nic = 9 - int(hop["dev"].removeprefix("ens"))
                    announced = hop["gateway"].startswith("fe80")
                    gateway = "router" if announced else hop["gateway"]
                    found.add((family, nic, gateway, 0 if announced else route["metric"]))
        return found


@pytest.fixture(params=CLIENTS)
def guest_root(root: None, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A suite's root file system that a test may change."""
    suite = request.param
    layers = build_root_with(build_base(suite), (*PACKAGES, CLIENTS[suite]))
    for name in ("upper", "work", "root"):
        (tmp_path / name).mkdir()
    lower = ":".join(map(str, layers))
    options = f"lowerdir={lower},upperdir={tmp_path}/upper,workdir={tmp_path}/work"
    run("mount", "-t", "overlay", "overlay", "-o", options, str(tmp_path / "root"))
    yield tmp_path / "root"
    run("umount", "--lazy", str(tmp_path / "root"))


@pytest.fixture
def machine(guest_root: Path) -> Iterator[Machine]:
    with make_namespace("--net") as wire, make_namespace("--net", "--mount") as inside:
        machine = Machine(guest_root, inside, wire)
        root = machine.root
        script = f"""
            mount -t proc proc {root}/proc
            mount -t sysfs -o ro sysfs {root}/sys   # read-only: networkd doesn't wait for udev
            mount --rbind /dev {root}/dev
            mount -t tmpfs run {root}/run
            mkdir {root}/run/network
        """
        run("nsenter", "-t", inside, "-n", "-m", "sh", "-ec", script)
        make_links(machine)
        (root / "etc/machine-id").write_text(f"{'0123456789abcdef' * 2}\n")
        (root / "tmp/dnsmasq.conf").write_text(DNSMASQ)
        serve = f"exec chroot {root} dnsmasq --keep-in-foreground --log-facility=- --user=root"
        serve += " --conf-file=/tmp/dnsmasq.conf --dhcp-leasefile=/tmp/leases"
        machine.spawn(["nsenter", "-t", wire, "-n", "sh", "-c", serve], "tmp/dnsmasq.log")
        try:
            yield machine
        finally:
            for child in machine.children:
                child.terminate()
                child.wait()
            with contextlib.suppress(AssertionError):  # dhclient and dhcpcd, which are daemons
                run("nsenter", "-t", inside, "-n", "-m", "sh", "-c", END_DAEMONS.format(root))


END_DAEMONS = """
    for pid in $(cat {0}/run/*.pid {0}/run/*/*.pid 2>/dev/null); do kill $pid; done
"""


def make_links(machine: Machine) -> None:
    """A veth pair for each NIC, named and made in an order that tells nothing."""
    for index in reversed(range(len(MACS))):
        name = f"ens{9 - index}"
        run("nsenter", "-t", machine.wire, "-n", "sh", "-ec", f"""
            ip link add w{index} type veth peer name {name} address {MACS[index]} \\
                netns {machine.inside}
            ip address add 10.77.{index}.1/24 dev w{index}
            ip -6 address add fd77:{index}::1/64 dev w{index} nodad
            ip link set w{index} up
        """)  # fmt: skip


def configure(machine: Machine) -> None:
    tree = Tree(str(machine.root))
    request = Request("create", "guest", 1, nics=NICS)
    warnings: list[str] = []
    try:
        TASK.run(Context(request, [], warnings.append, read_guest(tree)))
    finally:
        tree.close()
    assert not warnings


def assert_configured(machine: Machine) -> None:
    """What there is in the end, and all of it: the systems do several things at once."""

    def read_log() -> str:
        return (machine.root / "tmp/dnsmasq.log").read_text()

    def find_informed() -> set[int]:
        log = read_log()
        return {index for index in INFORMED if f"DHCPINFORMATION-REQUEST(w{index})" in log}

    def read() -> tuple[object, ...]:
        return machine.read_addresses(), machine.read_gateways(), find_informed()

    wait_for(lambda: read() == (ADDRESSES, GATEWAYS, INFORMED), _CONFIGURE_TIMEOUT)
    assert read() == (ADDRESSES, GATEWAYS, INFORMED), read_log()
    assert "DHCPREPLY(w0)" not in read_log()


def keep(machine: Machine, *names: str) -> None:
    """Take the signs of the other systems from the root."""
    for name in SIGNS.keys() - set(names):
        (machine.root / SIGNS[name]).unlink()


def use_networkd(machine: Machine) -> None:
    machine.run("install", "-d", "-o", "systemd-network", "/run/systemd/netif")
    argv = machine.enter("/lib/systemd/systemd-networkd")
    machine.spawn(argv, "tmp/networkd.log")


def test_ifupdown(machine: Machine) -> None:
    keep(machine)
    (machine.root / "etc/network/interfaces.d/50-cloud-init").write_text(
        "auto ens9\niface ens9 inet static\n    address 203.0.113.9/24\n"
    )
    configure(machine)
    listed = machine.run("ifquery", "--list").split()
    assert sorted(listed) == ["ens4", "ens5", "ens6", "ens7", "ens8", "ens9", "lo"]
    assert "timed out" not in machine.run("ifup", "--all")  # no client holds up the boot
    assert_configured(machine)


def test_networkd(machine: Machine) -> None:
    root = machine.root
    keep(machine)
    (root / "etc/systemd/system" / WANTED).symlink_to(UNIT)
    (root / "etc/systemd/network/05-all.network").write_text("[Match]\nName=en*\n")
    configure(machine)
    use_networkd(machine)
    assert_configured(machine)


def test_netplan(machine: Machine) -> None:
    keep(machine, "netplan")
    (machine.root / "etc/netplan/50-cloud-init.yaml").write_text(
        "network:\n  version: 2\n  ethernets:\n    ens9:\n      addresses: [203.0.113.9/24]\n"
    )
    configure(machine)
    folders = [f"/run/generator{suffix}" for suffix in ("", ".early", ".late")]
    machine.run("mkdir", *folders)
    argv = machine.enter("/lib/systemd/system-generators/netplan", *folders)  # as systemd does
    assert run(*argv) == ""
    assert (machine.view / "run/generator" / WANTED).is_symlink()
    files = nics = 0
    for path in machine.view.glob("run/systemd/network/*.network"):
        # A veth has no permanent MAC, by which netplan has networkd match.
        text = path.read_text()
        nics += text.count("PermanentMACAddress=")
        path.write_text(text.replace("PermanentMACAddress=", "MACAddress="))
        files += 1
    assert (files, nics) == (6, 6)
    use_networkd(machine)
    assert_configured(machine)


def test_network_manager(machine: Machine) -> None:
    keep(machine, "NetworkManager")
    folder = machine.root / "etc/NetworkManager"
    (folder / "conf.d/veth.conf").write_text(  # it leaves veths to whoever made them
        "[main]\nno-auto-default=*\n[device]\nmatch-device=*\nmanaged=1\n"
    )
    image = folder / "system-connections/image.nmconnection"
    image.write_text("[connection]\nid=image\ntype=ethernet\ninterface-name=ens9\n")
    image.chmod(0o600)
    configure(machine)
    machine.run("mkdir", "-p", "/run/dbus")
    bus = machine.enter("dbus-daemon", "--system", "--nofork", "--nopidfile")
    machine.spawn(bus, "tmp/dbus.log")
    assert wait_for((machine.view / "run/dbus/system_bus_socket").exists, _START_TIMEOUT)
    machine.spawn(machine.enter("NetworkManager", "--no-daemon"), "tmp/NetworkManager.log")
    assert_configured(machine)
