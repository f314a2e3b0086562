"""The test bed itself: what starts, what ends, what a killed run leaves. Needs root."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from snf_ganeti.errors import DeadlineError, LockError, NodeError
from testbed import leftovers, processes, roots
from testbed.bed import BEDS, Bed, close_bed, find_bed, make_node_address, open_bed
from testbed.deadline import wait_for
from testbed.dhcp import serve_dhcp
from testbed.ganeti import Cluster, find_disk, write_blank_os
from testbed.machine import Machine
from testbed.roots import build_base, build_layers, build_root_with
from testbed.ssh import Host, log_in
from testbed.wire import ADDRESS

pytestmark = pytest.mark.usefixtures("root")

SECONDS = 180.0  # an emulated machine's BIOS takes its time where others compute
INSTANCE = "counter"
CONTROL = f"/run/ganeti/kvm-hypervisor/ctrl/{INSTANCE}"
# xor ax,ax; mov dx,0x3f8; next: out dx,al; inc ax; mov cx,0; loop $; jmp next
COUNTER = bytes.fromhex("31c0 baf803 ee 40 b90000 e2fe ebf7").ljust(510, b"\0") + b"\x55\xaa"
OWNER = """
import sys, time
from testbed.bed import open_bed
with open_bed(sys.argv[1]) as bed:
    bed.power_on_node(1)
    print("up", flush=True)
    time.sleep(600)
"""


def name_bed(what: str) -> str:
    return f"{what}-{os.getpid()}"


def read_namespaces(machine: Machine) -> set[str]:
    links = (Path(f"/proc/{machine.pid}/ns/{kind}").readlink() for kind in ("pid", "net", "mnt"))
    return {str(link) for link in links}


def find_in_namespaces(namespaces: set[str]) -> list[str]:
    """Every process that is in one of these namespaces; what is dead but not yet reaped is not."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            inside = any(str(link.readlink()) in namespaces for link in (process / "ns").iterdir())
            if inside and "State:\tZ" not in (process / "status").read_text():
                found.append(f"{process.name} {(process / 'comm').read_text().strip()}")
    return found


def connect_to_qemu(node: Machine, name: str) -> socket.socket:
    """The instance's serial port, or QEMU's monitor."""
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(SECONDS)
    connection.connect(f"/proc/{node.pid}/root{CONTROL}.{name}")
    return connection


def read_until(connection: socket.socket, is_enough: Callable[[bytes], bool]) -> bytes:
    read = b""
    while not is_enough(read):
        received = connection.recv(4096)
        assert received, f"QEMU ended the connection after {read!r}"
        read += received
    return read


def list_mounts() -> list[str]:
    return Path("/proc/self/mountinfo").read_text().splitlines()


@pytest.fixture
def instance(cluster: Cluster) -> Iterator[str]:
    """An instance with a NIC on the wire, whose disk counts on the serial port; it is off."""
    write_blank_os(cluster.node, "blank")
    cluster.add_instance(
        INSTANCE,
        *("--os-type=blank", "--disk-template=file", "--disk=0:size=16M", "--no-start"),
        "--net=0:ip=10.78.0.51,network=testnet",
    )
    yield INSTANCE
    cluster.remove_instance(INSTANCE)


def test_cluster_verifies(cluster: Cluster) -> None:
    assert "ERROR" not in cluster.verify()
    assert cluster.run("gnt-cluster", "getmaster").strip() == cluster.node.hostname


def test_instance_runs_from_its_disk_without_kvm(cluster: Cluster, instance: str) -> None:
    node = cluster.node
    path = "/" / find_disk(cluster, instance).relative_to(node.upper)
    node.run("dd", f"of={path}", "conv=notrunc", stdin=COUNTER)
    cluster.run("gnt-instance", "start", instance)

    with connect_to_qemu(node, "serial") as serial:
        counted = read_until(serial, lambda read: len(read) >= 8)[:8]
    assert counted == bytes((counted[0] + index) % 256 for index in range(8))
    with connect_to_qemu(node, "monitor") as monitor:
        monitor.sendall(b"info kvm\n")
        read_until(monitor, lambda read: b"kvm support: disabled" in read)


def test_instance_reaches_the_wire_through_its_nic(cluster: Cluster, instance: str) -> None:
    """The ROM of the NIC asks for an address, dnsmasq tells who asked."""
    with serve_dhcp(cluster.bed.wire) as dhcp:
        cluster.run(
            *("gnt-instance", "start", "--hypervisor-parameters=boot_order=network", instance)
        )
        (lease,) = wait_for("a lease", dhcp.read_leases, SECONDS)
        listed = cluster.run(
            *("gnt-instance", "list", "--no-headers", "--output=nic.mac/0", instance)
        )
        assert lease.mac == listed.strip()
        assert cluster.bed.wire.find_port(lease.mac) == "v-node1"


def test_wire_is_reached_from_this_process_and_from_nodes(cluster: Cluster) -> None:
    wire, node = cluster.bed.wire, cluster.node
    with wire.connect("10.78.0.11", 22) as connection:
        assert connection.recv(4) == b"SSH-"
    with wire.listen() as server:
        port = server.getsockname()[1]
        node.run("sh", "-c", f"echo hello | socat -u - TCP:{ADDRESS}:{port}")
        accepted, (peer, _) = server.accept()
        with accepted:
            assert (accepted.recv(6), peer) == (b"hello\n", "10.78.0.11")


def test_login_over_the_wire(cluster: Cluster, tmp_path: Path) -> None:
    node, host = cluster.node, Host("10.78.0.11", key=tmp_path / "key")
    keygen = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "key")]
    subprocess.run(keygen, check=True)
    with (
        pytest.raises(DeadlineError, match=r"root@10\.78\.0\.11 .*Authentication"),
        log_in(cluster.bed.wire, host, 0),
    ):
        pass

    public = (tmp_path / "key.pub").read_bytes()
    node.run("tee", "--append", "/root/.ssh/authorized_keys", stdin=public)
    with log_in(cluster.bed.wire, host, 20) as login:
        assert login.run("hostname --fqdn") == f"{node.hostname}\n"
        shown = f"{login.host_key.kind} {login.host_key.key}"
        assert shown in node.run("sh", "-c", "cat /etc/ssh/ssh_host_*_key.pub").text
        with pytest.raises(NodeError, match=r"`false` failed \(1\)"):
            login.run("false")


def test_wire_has_no_way_out(bed: Bed) -> None:
    with pytest.raises(OSError, match="unreachable"):
        bed.wire.connect("192.0.2.1", 80, timeout=2)


def test_no_kvm_in_a_machine(cluster: Cluster) -> None:
    assert cluster.node.run("test", "-e", "/dev/kvm", ok=(0, 1)).status == 1


def test_nothing_is_left_after_the_block() -> None:
    before, name = list_mounts(), name_bed("ends")
    with open_bed(name) as bed:
        node = bed.power_on_node(1)
        with node.spawn("sleep", "600", output=bed.folder / "log"):
            pass
        node.run("sh", "-c", "setsid --fork sleep 600 >/dev/null 2>&1")
        namespaces = read_namespaces(node) | read_namespaces(bed.wire.machine)
        assert len(find_in_namespaces(namespaces)) > 2
    assert find_in_namespaces(namespaces) == []
    assert list_mounts() == before
    assert list(BEDS.glob(f"{name}*")) == []


def test_killed_run_is_swept_by_the_next() -> None:
    name = name_bed("killed")
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, name],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": ":".join(filter(None, sys.path))},
    ) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"up\n"
        folder = BEDS / name
        marked = processes.find_marked(folder)
        namespaces = read_namespaces(Machine("node1", folder / "node1", ()))
        assert leftovers.sweep(BEDS) == []  # its owner lives
        with pytest.raises(LockError), leftovers.own(folder):
            pass
        owner.send_signal(signal.SIGKILL)
    assert processes.find_marked(folder) == marked
    assert find_in_namespaces(namespaces)

    with open_bed(name_bed("next")):
        assert find_in_namespaces(namespaces) == []
        assert not folder.exists()


def test_bed_is_swept_though_its_files_are_gone() -> None:
    name = name_bed("removed")
    with open_bed(name, keep=True) as bed:
        namespaces = read_namespaces(bed.wire.machine)
    shutil.rmtree(bed.folder)
    bed.folder.with_suffix(".lock").unlink()
    assert leftovers.sweep(BEDS) == [name]
    assert find_in_namespaces(namespaces) == []


def test_kept_bed_is_found_and_closed_by_name() -> None:
    name = name_bed("kept")
    with open_bed(name, keep=True) as bed:
        bed.power_on_node(1)
    try:
        assert leftovers.sweep(BEDS) == []
        assert find_bed(name) == bed
        assert find_bed(name).node(1).run("hostname").text == "node1.bed.test\n"
        with pytest.raises(NodeError, match="is up already"), open_bed(name):
            pass
    finally:
        close_bed(name)
    assert processes.find_marked(BEDS / name) == []
    with pytest.raises(NodeError, match="no bed"):
        find_bed(name)


def test_power_cut_keeps_the_disk(bed: Bed) -> None:
    node = bed.power_on_node(2)
    try:
        node.write("/etc/kept", "on disk")
        node.write("/run/lost", "in memory")
        node.power_off()
        assert not node.is_on
        bed.power_on_node(2)
        assert node.read("/etc/kept") == b"on disk"
        assert node.run("test", "-e", "/run/lost", ok=(0, 1)).status == 1
    finally:
        node.power_off()


def test_a_machine_that_comes_back_gets_a_new_cable(bed: Bed) -> None:
    """The kernel takes its time over a dead machine's network, or something has it open."""
    node = bed.power_on_node(2)
    try:
        with open(f"/proc/{node.pid}/ns/net", "rb"):
            node.power_off()
            bed.power_on_node(2)
            with bed.wire.connect(make_node_address(2), 22) as connection:
                assert connection.recv(4) == b"SSH-"
    finally:
        node.power_off()


def test_machine_that_cannot_boot_says_why(tmp_path: Path) -> None:
    machine = Machine("broken", tmp_path / "broken", (tmp_path / "nothing",))
    with pytest.raises(NodeError, match=r"^broken did not start: mount: .*/broken/root"):
        machine.power_on()
    assert processes.find_marked(tmp_path) == []


def test_layer_has_the_packages_and_what_they_depend_on(tmp_path: Path) -> None:
    control = tmp_path / "tree/DEBIAN/control"
    control.parent.mkdir(parents=True)
    fields = ("Package: trivial", "Version: 1", "Architecture: all", "Depends: tree")
    about = ("Maintainer: Nobody <nobody@example.org>", "Description: nothing but a dependency")
    control.write_text("".join(f"{line}\n" for line in (*fields, *about)))
    deb = tmp_path / "trivial_1_all.deb"
    epoch = {**os.environ, "SOURCE_DATE_EPOCH": "0"}
    subprocess.run(["dpkg-deb", "--build", tmp_path / "tree", deb], check=True, env=epoch)

    base = build_base("bookworm")
    layers = build_layers(base, [deb])
    assert layers == build_layers(base, [deb])
    with open_bed(name_bed("layer"), debs=[deb]) as bed:
        node = bed.power_on_node(1)
        assert node.run("dpkg-query", "--show", "trivial").text == "trivial\t1\n"
        node.run("tree", "--version")


def test_build_machine_has_this_machines_network(bed: Bed) -> None:
    with bed.build_machine("builder").powered() as machine:
        assert (
            Path(f"/proc/{machine.pid}/ns/net").readlink() == Path("/proc/self/ns/net").readlink()
        )
        assert machine.read("/etc/resolv.conf") == Path("/etc/resolv.conf").read_bytes()


@contextlib.contextmanager
def mounted_elsewhere(layers: list[Path], place: Path) -> Iterator[None]:
    """A root of these layers, in a mount namespace that is not this process's."""
    place.mkdir()
    options = f"lowerdir={':'.join(map(str, layers))}"
    script = f"mount -t overlay -o {options} overlay {place} && echo mounted && exec sleep 600"
    with subprocess.Popen(["unshare", "--mount", "sh", "-c", script], stdout=subprocess.PIPE) as it:
        try:
            assert it.stdout is not None and it.stdout.readline() == b"mounted\n"
            yield
        finally:
            it.kill()


def test_a_layer_goes_when_nobody_uses_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roots, "ROOTS", tmp_path)
    base, asked_for = tmp_path / f"machine-any-{'0' * 12}", roots._hash(b"package")
    names = [base.name, "network-any", f"{base.name}-more"]
    layers = [f"{base.name}-{key}" for key in (asked_for, "1" * 12, "2" * 12, "3" * 12)]
    for name in (*names, *layers):
        (tmp_path / name).mkdir()
        if name != layers[1]:
            os.utime(tmp_path / name, (0, time.time() - 4 * 24 * 3600))

    def sweep() -> set[str]:
        build_root_with(base, ["package"])
        return {path.name for path in tmp_path.glob("*-*") if not path.name.startswith(".")}

    with mounted_elsewhere([tmp_path / layers[2], base], tmp_path / "root"):
        assert sweep() == {*names, *layers[:3]}
    assert sweep() == {*names, *layers[:2]}
