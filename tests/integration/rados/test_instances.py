"""Instances of a real Ganeti on volumes of a real Ceph. Needs root.

What a volume is or holds is told by Ceph's own `rbd`, by the kernel and by Ganeti.
"""

import json

import pytest

from snf_ganeti.errors import CommandError
from testbed.ceph import Ceph
from testbed.ganeti import Cluster
from testbed.machine import Machine
from testbed.volumes import (
    IMAGES,
    MEBIBYTE,
    POOL,
    find_device,
    find_volume,
    find_workers,
    hash_device,
    instance,
    list_volumes,
    read_size,
    show_volume,
    write_pattern,
)

INSTANCE = "cloned"
CONTROL = f"/run/ganeti/kvm-hypervisor/ctrl/{INSTANCE}"


def assert_it_counts(node: Machine) -> None:
    """Its firmware has found the disk bootable, and what is on it runs."""
    serial = f"timeout 100 socat -u UNIX-CONNECT:{CONTROL}.serial - | head --bytes=8"
    counted = node.run("sh", "-c", serial, timeout=120).stdout
    assert len(counted) == 8
    assert counted == bytes((counted[0] + index) % 256 for index in range(8))


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
        assert_it_counts(node)

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
        assert_it_counts(node)
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
