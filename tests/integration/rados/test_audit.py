"""What Ganeti and Ceph disagree about, made so behind their backs. Needs root."""

import json

from testbed.ceph import Ceph
from testbed.ganeti import Cluster
from testbed.machine import Machine
from testbed.volumes import POOL, find_volume, instance, run_script


def test_orphans_of_both_kinds_are_found(
    cluster: Cluster, ceph: Ceph, node: Machine, golden: str, volume: str
) -> None:
    assert audit(node, 0) == {"lost": [], "orphans": []}
    with instance(cluster, "robbed", "size=16M", f"origin={golden}"):
        lost = find_volume(cluster, "robbed")
        run_script(node, "detach", lost)
        ceph.run("rbd", "rm", "--no-progress", f"{POOL}/{lost}")
        run_script(node, "create", volume, size=16)
        ceph.run("rbd", "create", "--size=8M", f"{POOL}/not-of-ganeti")
        try:
            assert audit(node, 1) == {
                "lost": [{"volume": f"{POOL}/{lost}", "instance": "robbed"}],
                "orphans": [f"{POOL}/{volume}"],
            }
            told = node.run("snf-rados-image", "audit", ok=(1,)).text
            assert f"{POOL}/{lost}: robbed needs it, and it is gone" in told
        finally:
            ceph.run("rbd", "rm", "--no-progress", f"{POOL}/not-of-ganeti")
        run_script(node, "remove", volume)
    assert audit(node, 0) == {"lost": [], "orphans": []}


def audit(node: Machine, status: int) -> object:
    return json.loads(node.run("snf-rados-image", "audit", "--json", ok=(status,)).text)
