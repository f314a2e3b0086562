"""A Ganeti cluster runs the NIC scripts: an instance's firewall follows its tags and its life.

The guest is the boot ROM of its own network card: it asks for an address, begins a download
that never ends, and answers pings. What reaches it is what leaves the node on its tap.
"""

import contextlib
import fcntl
import json
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from testbed.deadline import wait_for
from testbed.ganeti import Cluster
from testbed.namespaces import call_in_network
from testbed.wire import ADDRESS, BRIDGE

INSTANCE = "firewalled"
GUEST = "10.78.0.52"
MAC = "aa:00:00:99:00:52"
SECONDS = 120.0
TAG = "synnefo:network:0:"
STATE = "/run/snf-ganeti-hooks/nics"
OS = {
    "ganeti_api_version": "20\n",
    "parameters.list": "",
    **dict.fromkeys(("create", "import", "export", "rename", "verify"), "#!/bin/sh\nexit 0\n"),
}


@dataclass(frozen=True)
class Guest:
    cluster: Cluster

    @property
    def tap(self) -> str:
        path = f"/run/ganeti/kvm-hypervisor/nic/{INSTANCE}/0"
        return self.cluster.node.read(path).decode().strip()

    def pings(self) -> bool:
        argv = ("ping", "-c", "1", "-W", "1", GUEST)
        return self.cluster.bed.wire.machine.run(*argv, ok=(0, 1)).status == 0

    def lets_in(self) -> bool:
        """Does a datagram leave the tap towards the guest? A ping after it is answered."""
        wire, mark = self.cluster.bed.wire.machine, b"datagram for the guest"
        with (
            call_in_network(self.cluster.node.pid, lambda: open_sniffer(self.tap)) as sniffer,
            call_in_network(wire.pid, lambda: socket.socket(type=socket.SOCK_DGRAM)) as sender,
        ):
            sender.sendto(mark, (GUEST, 5000))
            wait_for("an answer to a ping", self.pings, SECONDS)
            return any(mark in frame for frame in read_all(sniffer))

    def wait_until_it(self, *, lets_in: bool) -> None:
        wait_for(f"lets in: {lets_in}", lambda: self.lets_in() == lets_in, SECONDS)


def open_sniffer(interface: str) -> socket.socket:
    sniffer = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    sniffer.bind((interface, 3))
    sniffer.setblocking(False)
    return sniffer


def read_all(sniffer: socket.socket) -> list[bytes]:
    frames = []
    with contextlib.suppress(BlockingIOError):
        while True:
            frames.append(sniffer.recv(65536))
    return frames


@pytest.fixture(scope="module")
def server(cluster: Cluster) -> Iterator[socket.socket]:
    """A server on the wire from which the guest begins to download."""
    with cluster.bed.wire.listen() as listening:
        listening.settimeout(SECONDS)
        yield listening


@pytest.fixture(scope="module")
def guest(cluster: Cluster, server: socket.socket) -> Iterator[Guest]:
    node, wire = cluster.node, cluster.bed.wire
    for name, content in OS.items():
        node.write(f"/usr/share/ganeti/os/rom/{name}", content, mode=0o755)
    url = f"http://{ADDRESS}:{server.getsockname()[1]}/never"
    with contextlib.ExitStack() as stack:
        stack.enter_context(
            node.spawn("/usr/sbin/snf-network", "serve", output=node.folder / "snf-network.log")
        )
        stack.enter_context(
            wire.machine.spawn(*make_dnsmasq_argv(url), output=Path(wire.machine.folder, "rom.log"))
        )
        cluster.add_instance(
            INSTANCE,
            *("--os-type=rom", "--disk-template=diskless", "--no-start"),
            f"--net=0:ip={GUEST},network=testnet,mac={MAC}",
            "--hypervisor-parameters=kvm:boot_order=network",
        )
        stack.callback(cluster.remove_instance, INSTANCE)
        cluster.run("gnt-instance", "start", INSTANCE)
        yield Guest(cluster)


def make_dnsmasq_argv(url: str) -> list[str]:
    return [
        *("dnsmasq", "--conf-file=/dev/null", "--keep-in-foreground", "--log-facility=-"),
        *("--user=root", "--port=0", f"--interface={BRIDGE}", "--bind-dynamic"),
        *("--dhcp-range=10.78.0.0,static", f"--dhcp-host={MAC},{GUEST}", f"--dhcp-boot={url}"),
        *("--dhcp-leasefile=/run/rom.leases", "--pid-file=/run/rom.pid"),
    ]


def accept(server: socket.socket) -> socket.socket:
    """The guest's download, after its request has come."""
    download, (who, _) = server.accept()
    assert who == GUEST
    download.settimeout(SECONDS)
    assert b"GET /never" in download.recv(4096)
    return download


def test_profile_follows_tags_and_survives_restarts(
    guest: Guest, cluster: Cluster, server: socket.socket
) -> None:
    with accept(server) as download:
        guest.wait_until_it(lets_in=True)
        cluster.run("gnt-instance", "add-tags", INSTANCE, f"{TAG}protected")
        guest.wait_until_it(lets_in=False)
        assert_goes_on(download)
        cluster.run("gnt-instance", "add-tags", INSTANCE, f"{TAG}unprotected")
        assert not guest.lets_in()  # two profiles are protected
        cluster.run("gnt-instance", "remove-tags", INSTANCE, f"{TAG}protected")
        guest.wait_until_it(lets_in=True)
        cluster.run("gnt-instance", "remove-tags", INSTANCE, f"{TAG}unprotected")
        cluster.run("gnt-instance", "add-tags", INSTANCE, f"{TAG}protected")
        guest.wait_until_it(lets_in=False)
        assert_goes_on(download)

    cluster.run("gnt-instance", "reboot", "--type=hard", "--shutdown-timeout=0", INSTANCE)
    with accept(server):
        assert not guest.lets_in()


def assert_goes_on(download: socket.socket) -> None:
    """What is sent on an established connection is acknowledged by the guest."""
    download.sendall(b"HTTP/1.1 200 OK\r\nX-Padding: ")
    wait_for("an acknowledgement", lambda: count_unacknowledged(download) == 0, SECONDS)


def count_unacknowledged(connection: socket.socket) -> int:
    answer = fcntl.ioctl(connection, 0x5411, b"\0" * 4)  # SIOCOUTQ
    (count,) = struct.unpack("i", answer)
    return int(count)


def test_killed_instance_leaves_nothing(guest: Guest, cluster: Cluster) -> None:
    node, tap = cluster.node, guest.tap
    before = node.run("nft", "list", "ruleset").text
    assert f"guard-{tap}" in before
    assert node.run("ls", STATE).text.split() == [f"{tap}.json"]
    node.run("sh", "-c", f"kill -9 $(cat /run/ganeti/kvm-hypervisor/pid/{INSTANCE})")

    def is_clean() -> bool:
        rules = node.run("nft", "list", "ruleset").text
        return tap not in rules and not node.run("ls", STATE).text

    wait_for("the end of its rules", is_clean, SECONDS)
    cluster.run("gnt-instance", "start", INSTANCE)
    assert f"guard-{guest.tap}" in node.run("nft", "list", "ruleset").text


def test_lost_state_comes_back_from_ganetis_files(guest: Guest, cluster: Cluster) -> None:
    node = cluster.node
    shown = read_row(cluster)
    assert (shown["tap"], shown["profile"]) == (guest.tap, "protected")
    node.run("sh", "-c", f"rm -r {STATE}; nft flush ruleset")
    node.run("snf-network", "reconcile")
    wait_for("its profile", lambda: read_row(cluster) == shown, SECONDS)
    assert node.run("snf-network", "check").text == ""


def read_row(cluster: Cluster) -> dict[str, object]:
    """The only NIC, without what it dropped."""
    (row,) = json.loads(cluster.node.run("snf-network", "show", "--json").text)
    del row["dropped"]
    return dict(row)
