"""Volumes on a real Ceph, by a real Ganeti and by the provider's scripts alone. Needs root.

What a volume is or holds is told by Ceph's own `rbd`, by the kernel and by Ganeti.
"""

import contextlib
import json
import os
import random
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from snf_ganeti.errors import CommandError
from testbed import namespaces
from testbed.ceph import ADDRESS, Ceph
from testbed.deadline import wait_for
from testbed.ganeti import Cluster
from testbed.machine import Machine
from testbed.volumes import (
    IMAGES,
    POOL,
    SCRIPTS,
    install_blank_os,
    list_trash,
    list_volumes,
    make_environment,
    prepare_node,
    publish,
    run_script,
    show_volume,
)

ROUNDS = 100 if os.environ.get("SNF_SOAK") else 15
INSTANCE = "cloned"
CONTROL = f"/run/ganeti/kvm-hypervisor/ctrl/{INSTANCE}"
# xor ax,ax; mov dx,0x3f8; next: out dx,al; inc ax; mov cx,0; loop $; jmp next
COUNTER = bytes.fromhex("31c0 baf803 ee 40 b90000 e2fe ebf7").ljust(510, b"\0") + b"\x55\xaa"
MEBIBYTE = 1 << 20


@pytest.fixture(scope="module")
def node(cluster: Cluster, ceph: Ceph) -> Machine:
    """The cluster's node, with an OS definition that leaves the disk as it is."""
    install_blank_os(cluster.node)
    return cluster.node


@pytest.fixture(scope="module")
def other(cluster: Cluster, ceph: Ceph) -> Iterator[Machine]:
    """A second node, which Ganeti does not know."""
    machine = cluster.bed.power_on_node(2)
    prepare_node(ceph, machine)
    yield machine
    machine.power_off()


@pytest.fixture(scope="module")
def golden(ceph: Ceph) -> str:
    """An image of 8 MiB that boots, and counts on the serial port."""
    return publish(ceph, "counter", COUNTER, size=8)


@pytest.fixture
def volume(node: Machine) -> Iterator[str]:
    """The name of a volume that is to be made, removed after the test."""
    name = f"{uuid.uuid4()}.ext.disk0"
    yield name
    run_script(node, "detach", name)
    run_script(node, "remove", name)


@contextlib.contextmanager
def instance(cluster: Cluster, name: str, *disk: str) -> Iterator[str]:
    """An instance with one disk of our provider, off; removed after the block."""
    options = ",".join(("0:provider=rados", *disk))
    cluster.add_instance(
        name,
        "--os-type=blank",
        "--disk-template=ext",
        f"--disk={options}",
        "--no-start",
        "--no-nics",
    )
    try:
        yield name
    finally:
        cluster.remove_instance(name)


def find_volume(cluster: Cluster, name: str) -> str:
    """The volume of an instance's only disk, from Ganeti's configuration."""
    config = json.loads(cluster.node.read("/var/lib/ganeti/config.data"))
    (found,) = (each for each in config["instances"].values() if each["name"] == name)
    return str(config["disks"][found["disks"][0]]["logical_id"][1])


def find_device(node: Machine, volume: str) -> str:
    return run_script(node, "attach", volume).text.strip()


def hash_device(node: Machine, device: str) -> str:
    direct = f"dd if={device} bs=1M iflag=direct status=none | sha256sum"
    return node.run("sh", "-c", direct, timeout=300).text.split()[0]


def read_size(node: Machine, device: str) -> int:
    return int(node.run("blockdev", "--getsize64", device).text)


def find_workers(machine: Machine, volume: str, role: str = "worker") -> list[int]:
    """The processes of an export, as the machine's own ids."""
    pattern = f"ext_storage_rados.export.{role} .*{volume}"
    return [int(word) for word in machine.run("pgrep", "-f", pattern, ok=(0, 1)).text.split()]


def write_pattern(node: Machine, device: str, size: int = 4 * MEBIBYTE) -> str:
    """Fill the device's beginning with what it did not hold; gives its hash."""
    content = random.Random(time.monotonic_ns()).randbytes(size)
    node.run("dd", f"of={device}", "bs=1M", "oflag=direct", "conv=notrunc,fsync", stdin=content)
    return hash_device(node, device)


def test_instance_is_a_clone_and_boots(
    cluster: Cluster, ceph: Ceph, node: Machine, golden: str
) -> None:
    with instance(cluster, INSTANCE, "size=64M", f"origin={golden}"):
        volume = find_volume(cluster, INSTANCE)
        shown = show_volume(ceph, volume)
        assert shown["size"] == 64 * MEBIBYTE
        parent = shown["parent"]
        assert (parent["pool"], parent["image"], parent["snapshot"]) == (
            IMAGES,
            "counter",
            "golden",
        )
        info = ceph.run("rbd", "image-meta", "get", f"{POOL}/{volume}", "ganeti.info")
        assert info.strip() == f"originstname+{INSTANCE}"

        cluster.run("gnt-instance", "start", INSTANCE)
        serial = f"timeout 20 socat -u UNIX-CONNECT:{CONTROL}.serial - | head --bytes=8"
        counted = node.run("sh", "-c", serial).stdout
        assert counted == bytes((counted[0] + index) % 256 for index in range(8))

        cluster.run("gnt-instance", "grow-disk", INSTANCE, "0", "32M")
        assert show_volume(ceph, volume)["size"] == 96 * MEBIBYTE
        assert read_size(node, find_device(node, volume)) == 96 * MEBIBYTE
        cluster.run("gnt-instance", "stop", "--timeout=0", INSTANCE)
        assert find_workers(node, volume) == []
    assert volume not in list_volumes(ceph)


def test_instance_opens_its_volume_by_itself(
    cluster: Cluster, ceph: Ceph, node: Machine, golden: str
) -> None:
    """access=userspace: no block device, and QEMU is the one client."""
    with instance(cluster, INSTANCE, "size=64M", f"origin={golden}", "access=userspace"):
        volume = find_volume(cluster, INSTANCE)
        cluster.run("gnt-instance", "start", INSTANCE)
        serial = f"timeout 20 socat -u UNIX-CONNECT:{CONTROL}.serial - | head --bytes=8"
        counted = node.run("sh", "-c", serial).stdout
        assert counted == bytes((counted[0] + index) % 256 for index in range(8))
        assert find_workers(node, volume) == []
        watchers = json.loads(ceph.run("rbd", "status", f"{POOL}/{volume}", "--format=json"))
        assert len(watchers["watchers"]) == 1


def test_export_and_import(cluster: Cluster, ceph: Ceph, node: Machine, golden: str) -> None:
    """Ganeti's backup takes a snapshot, which has to be a volume, and removes it."""
    before = list_volumes(ceph)
    with instance(cluster, INSTANCE, "size=16M", f"origin={golden}"):
        device = find_device(node, find_volume(cluster, INSTANCE))
        content = write_pattern(node, device)
        cluster.run("gnt-backup", "export", f"--node={node.hostname}", "--noshutdown", INSTANCE)
    assert list_volumes(ceph) == before
    cluster.run(
        *("gnt-backup", "import", f"--node={node.hostname}", f"--src-node={node.hostname}"),
        *("--disk-template=ext", "--disk=0:size=16M,provider=rados", "--no-nics"),
        *("--no-name-check", "--no-ip-check", INSTANCE),
    )
    try:
        assert hash_device(node, find_device(node, find_volume(cluster, INSTANCE))) == content
    finally:
        cluster.remove_instance(INSTANCE)


@pytest.mark.parametrize(
    ("disk", "reason"),
    [
        ("size=64M,origin=counter@nothing", "images/counter@nothing does not exist"),
        ("size=64M,origin=nothing@golden", "images/nothing@golden does not exist"),
        ("size=4M,origin=counter@golden", "the origin images/counter@golden has 8 MiB"),
        ("size=64M,pool=nothing", "there is no pool nothing"),
        ("size=64M,namespace=nothing", "pool ganeti has no namespace nothing"),
        ("size=64M,user=nobody", "there is no key for client.nobody"),
        ("size=64M,origin=a/b/c/d@e", "'a/b/c/d@e' names no snapshot"),
        ("size=64M,orgin=counter@golden", "the disk parameter orgin is not known"),
        ("size=64M,qos_iops=many", "the disk parameter qos_iops is 'many'"),
        ("size=64M,pool=images", "is refused by Ceph"),
    ],
)
def test_bad_input_comes_back_through_ganeti(
    cluster: Cluster, ceph: Ceph, node: Machine, golden: str, disk: str, reason: str
) -> None:
    before = list_volumes(ceph), list_volumes(ceph, IMAGES)
    with pytest.raises(CommandError) as caught, instance(cluster, "refused", disk):
        pass
    assert reason in " ".join(caught.value.output.split())
    assert "Traceback" not in caught.value.output
    assert (list_volumes(ceph), list_volumes(ceph, IMAGES)) == before


def test_scripts_do_the_same_again(ceph: Ceph, node: Machine, golden: str, volume: str) -> None:
    for _ in range(2):
        run_script(node, "create", volume, size=16, origin=golden)
    other = run_script(node, "create", volume, (2,), size=32, origin=golden)
    assert "made with other arguments" in other.stderr
    devices = {find_device(node, volume) for _ in range(3)}
    assert len(devices) == 1
    for exclusive in (True, False, True):
        run_script(node, "open", volume, exclusive=exclusive)
    for _ in range(2):
        run_script(node, "grow", volume, size=16, new_size=24)
    shrunk = run_script(node, "grow", volume, (2,), size=24, new_size=8)
    assert "would shrink" in shrunk.stderr
    for action in ("close", "detach", "remove"):
        for _ in range(2):
            run_script(node, action, volume)
    gone = run_script(node, "attach", volume, (2,))
    assert "does not exist" in gone.stderr


def test_what_is_written_stays(node: Machine, golden: str, volume: str) -> None:
    """Through detach and attach, and where zeroes were asked for there are zeroes."""
    run_script(node, "create", volume, size=16, origin=golden)
    device = find_device(node, volume)
    content = write_pattern(node, device)
    run_script(node, "detach", volume)
    device = find_device(node, volume)
    assert hash_device(node, device) == content
    node.run("blkdiscard", "--offset=4096", f"--length={12288}", device)
    hole = node.run("dd", f"if={device}", "bs=4k", "skip=1", "count=3", "iflag=direct").stdout
    assert hole == bytes(12288)
    edge = node.run("dd", f"if={device}", "bs=4k", "skip=4", "count=1", "iflag=direct").stdout
    assert edge != bytes(4096)


def test_worker_that_dies_is_replaced_under_load(
    node: Machine, golden: str, volume: str, tmp_path: Path
) -> None:
    """Who writes waits, sees no error, and reads back what it wrote."""
    run_script(node, "create", volume, size=64, origin=golden)
    device = find_device(node, volume)
    run_script(node, "open", volume)
    content = random.Random(1).randbytes(32 * MEBIBYTE)
    node.write("/var/tmp/content", content)
    dd = f"dd if=/var/tmp/content of={device} bs=64k oflag=direct conv=fsync"
    copy = f"for i in 1 2 3; do {dd}; done"
    with node.spawn("sh", "-ec", copy, output=tmp_path / "log") as writer:
        killed: set[int] = set()
        while writer.poll() is None and len(killed) < 2:
            for pid in find_workers(node, volume):
                if pid not in killed:
                    node.run("kill", "-KILL", str(pid), ok=(0, 1))
                    killed.add(pid)
            time.sleep(0.5)
        assert writer.wait(180) == 0, (tmp_path / "log").read_text()
    assert killed
    node.run("cmp", f"--bytes={32 * MEBIBYTE}", device, "/var/tmp/content", timeout=120)


def test_keeper_that_dies_leaves_nothing_in_the_way(
    node: Machine, golden: str, volume: str
) -> None:
    run_script(node, "create", volume, size=16, origin=golden)
    content = write_pattern(node, find_device(node, volume))
    for role in ("keeper", "worker"):
        for pid in find_workers(node, volume, role):
            node.run("kill", "-KILL", str(pid), ok=(0, 1))
    assert hash_device(node, find_device(node, volume)) == content
    assert len(find_workers(node, volume, "keeper")) == 1


def test_device_in_use_is_not_detached(node: Machine, golden: str, volume: str) -> None:
    run_script(node, "create", volume, size=16, origin=golden)
    device = find_device(node, volume)
    with node.spawn("sh", "-c", f"exec sleep 600 <{device}", output=Path(os.devnull)):
        wait_for("the holder", lambda: node.run("pgrep", "-f", "^sleep 600$", ok=(0, 1)).text, 20)
        refused = run_script(node, "detach", volume, (4,))
        assert f"{device} is in use by sleep" in refused.stderr
        assert find_device(node, volume) == device
    wait_for("its end", lambda: not node.run("pgrep", "-f", "^sleep 600$", ok=(0, 1)).text, 20)
    run_script(node, "detach", volume)


def test_old_writer_is_fenced(
    ceph: Ceph, node: Machine, other: Machine, golden: str, volume: str
) -> None:
    """A node that takes the volume over shuts the other one's writes out for good."""
    run_script(node, "create", volume, size=16, origin=golden)
    device = find_device(node, volume)
    run_script(node, "open", volume, exclusive=True)
    write_pattern(node, device)

    taken = find_device(other, volume)
    refused = ["dd", "if=/dev/urandom", f"of={taken}", "bs=4k", "count=1", "oflag=direct"]
    assert other.run(*refused, ok=(1,)).status == 1  # the lock is the first one's alone
    run_script(other, "detach", volume)
    taken = find_device(other, volume)
    run_script(other, "open", volume, exclusive=True)
    content = write_pattern(other, taken)

    late = ["dd", "if=/dev/urandom", f"of={device}", "bs=4k", "count=1", "oflag=direct"]
    assert "Input/output error" in node.run(*late, ok=(1,)).stderr
    for pid in find_workers(node, volume):  # its next worker is another client, and no better
        node.run("kill", "-KILL", str(pid))
    assert "Input/output error" in node.run(*late, ok=(1,), timeout=120).stderr
    assert hash_device(other, taken) == content
    run_script(node, "detach", volume)
    run_script(other, "close", volume)
    run_script(other, "detach", volume)
    assert hash_device(node, find_device(node, volume)) == content


def test_migration_shares_and_hands_over(
    node: Machine, other: Machine, golden: str, volume: str
) -> None:
    """Ganeti's order: shared on both, then closed on the source and exclusive on the target."""
    run_script(node, "create", volume, size=16, origin=golden)
    source = find_device(node, volume)
    run_script(node, "open", volume, exclusive=True)
    write_pattern(node, source)
    target = find_device(other, volume)
    for machine in (node, other):
        run_script(machine, "open", volume, exclusive=False)
    content = write_pattern(node, source)
    assert hash_device(other, target) == content
    write_pattern(other, target)
    run_script(node, "close", volume)
    run_script(other, "open", volume, exclusive=True)
    content = write_pattern(other, target)
    run_script(node, "detach", volume)
    run_script(other, "detach", volume)
    assert hash_device(node, find_device(node, volume)) == content


def test_osd_that_stops_under_load_costs_no_data(
    ceph: Ceph, node: Machine, golden: str, volume: str, tmp_path: Path
) -> None:
    """Who writes waits until the OSD is back, and finds what it wrote."""
    run_script(node, "create", volume, size=64, origin=golden)
    device = find_device(node, volume)
    run_script(node, "open", volume)
    node.write("/var/tmp/content", random.Random(2).randbytes(32 * MEBIBYTE))
    dd = f"dd if=/var/tmp/content of={device} bs=64k oflag=direct conv=fsync status=none"
    copy = f"touch /run/began; for i in 1 2 3 4; do {dd}; done"
    with node.spawn("sh", "-ec", copy, output=tmp_path / "log") as writer:
        wait_for(
            "the writer", lambda: not node.run("test", "-e", "/run/began", ok=(0, 1)).status, 30
        )
        ceph.stop_osd(0)
        assert writer.poll() is None
        ceph.start_osd(0)
        assert writer.wait(180) == 0, (tmp_path / "log").read_text()
    node.run("cmp", f"--bytes={32 * MEBIBYTE}", device, "/var/tmp/content", timeout=120)
    node.run("rm", "/run/began", "/var/tmp/content")


@contextlib.contextmanager
def unplugged(cluster: Cluster, ceph: Ceph) -> Iterator[None]:
    cluster.bed.wire.set_cable(ceph.machine, up=False)
    try:
        yield
    finally:
        cluster.bed.wire.set_cable(ceph.machine, up=True)
        wait_for("Ceph on the wire", lambda: reaches(cluster), 60)


def reaches(cluster: Cluster) -> bool:
    with contextlib.suppress(OSError), cluster.bed.wire.connect(ADDRESS, 3300, timeout=2):
        return True
    return False


@contextlib.contextmanager
def hurried(node: Machine) -> Iterator[None]:
    """Deadlines short enough for a test that waits for them."""
    path = "/etc/ext-storage-rados/conf.d/hurry.toml"
    node.write(path, "timeout = 3.0\n")
    try:
        yield
    finally:
        node.run("rm", path)


def test_silent_cluster_loses_no_volume(cluster: Cluster, ceph: Ceph, golden: str) -> None:
    """Ganeti removes an instance while Ceph does not answer: it keeps it, and so does Ceph."""
    with instance(cluster, "kept", "size=16M", f"origin={golden}"):
        volume = find_volume(cluster, "kept")
        with hurried(cluster.node), unplugged(cluster, ceph):
            with pytest.raises(CommandError, match="Can't remove instance's disks"):
                cluster.remove_instance("kept")
            answer = run_script(cluster.node, "attach", volume)
            assert answer.stdout == b"\n"
            silent = run_script(cluster.node, "open", volume, (4, 5))
            assert "is the cluster up" in silent.stderr
        assert volume in list_volumes(ceph)
        assert cluster.run("gnt-instance", "list", "--no-headers", "--output=name", "kept")
    assert volume not in list_volumes(ceph)


def test_remove_copes_with_dead_clients(
    ceph: Ceph, node: Machine, other: Machine, volume: str
) -> None:
    """Ceph believes in a killed client for 30 s, as long as Ganeti tries to remove. Our own is
    fenced at once; another node's is waited for."""
    for machine in (node, other):
        run_script(node, "create", volume, size=16)
        find_device(machine, volume)
        for role in ("keeper", "worker"):
            for pid in find_workers(machine, volume, role):
                machine.run("kill", "-KILL", str(pid), ok=(0, 1))
        run_script(node, "remove", volume)
        assert volume not in list_volumes(ceph)
    run_script(other, "detach", volume)


def test_parent_is_removed_before_its_clone(
    ceph: Ceph, node: Machine, golden: str, volume: str
) -> None:
    clone, trash = f"{volume}.snap", list_trash(ceph)
    run_script(node, "create", volume, size=16, origin=golden)
    content = write_pattern(node, find_device(node, volume))
    run_script(node, "snapshot", volume, snapshot=clone)
    run_script(node, "detach", volume)
    run_script(node, "remove", volume)
    assert volume not in list_volumes(ceph)
    assert hash_device(node, find_device(node, clone)) == content
    run_script(node, "detach", clone)
    run_script(node, "remove", clone)
    assert list_trash(ceph) == trash  # with its last clone the parent went too


def test_node_can_not_write_images(ceph: Ceph, node: Machine, golden: str) -> None:
    script = (
        "import rados, rbd\n"
        "with rados.Rados(conffile='/etc/ceph/ceph.conf', rados_id='ganeti') as cluster:\n"
        f"    with cluster.open_ioctx('{IMAGES}') as pool, rbd.Image(pool, 'counter') as image:\n"
        "        image.write(b'x', 0)\n"
    )
    failed = node.run("timeout", "60", "python3", "-c", script, ok=(1,)).stderr
    assert "Permission" in failed or "Operation not permitted" in failed or "ReadOnly" in failed


def kill_at_random(
    node: Machine, action: str, volume: str, seconds: float, **variables: str | int
) -> None:
    """Run a script and kill it, with whatever it started in its own session, after a while."""
    argv = namespaces.make_enter_argv(
        node.pid,
        [
            "env",
            "-i",
            *(f"{key}={value}" for key, value in make_environment(volume, **variables).items()),
            f"{SCRIPTS}/{action}",
        ],
    )
    child = subprocess.Popen(
        argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(seconds)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def test_scripts_killed_at_random_points(ceph: Ceph, node: Machine, golden: str) -> None:
    """Each is killed somewhere in its work and run again, as Ganeti would; then all is as if
    nothing had happened."""
    dice = random.Random(time.monotonic_ns())
    before = list_volumes(ceph), list_trash(ceph)
    for _ in range(ROUNDS):
        volume = f"{uuid.uuid4()}.ext.disk0"
        clone = f"{volume}.snap"
        steps: list[tuple[str, dict[str, str | int]]] = [
            ("create", {"size": 16, "origin": golden}),
            ("attach", {}),
            ("open", {"exclusive": True}),
            ("grow", {"size": 16, "new_size": 24}),
            ("snapshot", {"snapshot": clone}),
            ("close", {}),
            ("detach", {}),
            ("remove", {}),
        ]
        for action, variables in steps:
            kill_at_random(node, action, volume, dice.uniform(0.02, 0.4), **variables)
            run_script(node, action, volume, **variables)
            if action == "grow":
                assert show_volume(ceph, volume)["size"] == 24 * MEBIBYTE
        run_script(node, "remove", clone)
    assert (list_volumes(ceph), list_trash(ceph)) == before
    assert "/run/ext-storage-rados/" not in node.run("findmnt", "--list", "--noheadings").text
