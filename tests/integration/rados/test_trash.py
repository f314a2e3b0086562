"""What is removed, and is not gone yet. Needs root.

What the trash holds is told by Ceph's own `rbd`, which also brings back what can be.
"""

import contextlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

from testbed.ceph import Ceph
from testbed.deadline import wait_for
from testbed.machine import Machine
from testbed.volumes import (
    POOL,
    find_device,
    find_in_trash,
    hash_device,
    list_trash,
    list_volumes,
    run_script,
    setting,
    show_volume,
    write_pattern,
)

DELAYED = "trash_delay = 600"
HOLDER = """
import sys, time
from pathlib import Path
import rados, rbd

pool, identity = sys.argv[1:]
with rados.Rados(conffile="/etc/ceph/ceph.conf", rados_id="ganeti") as cluster:
    with cluster.open_ioctx(pool) as context, rbd.Image(context, image_id=identity):
        flag = Path("/run", identity)
        flag.touch()
        while flag.exists():
            time.sleep(0.05)
"""
"""Has an image open while there is a file in /run that is named after its id."""


def test_removed_volume_is_brought_back(
    ceph: Ceph, node: Machine, other: Machine, golden: str, volume: str
) -> None:
    """By Ceph's own means, while its time is not over; nobody has it open when it goes."""
    run_script(node, "create", volume, size=16, origin=golden)
    content = write_pattern(node, find_device(node, volume))
    find_device(other, volume)
    with setting(node, DELAYED), ThreadPoolExecutor(1) as pool:
        removal = pool.submit(run_script, node, "remove", volume)
        assert wait([removal], timeout=3).not_done
        assert volume in list_volumes(ceph)
        run_script(other, "detach", volume)
        removal.result()
        run_script(node, "remove", volume)  # again, as after a crash
    assert volume not in list_volumes(ceph)
    identity = find_in_trash(ceph, volume)
    assert "protected until" in ceph.run("rbd", "trash", "ls", "--long", POOL)
    assert volume not in node.run("snf-rados-image", "purge").text
    ceph.run("rbd", "trash", "restore", f"{POOL}/{identity}")
    assert hash_device(node, find_device(node, volume)) == content


def test_volume_cut_off_in_its_creation_is_not_kept(ceph: Ceph, node: Machine, volume: str) -> None:
    """There is nothing to bring back, and Ceph's `rbd` could not list the trash with it."""
    run_script(node, "create", volume, size=16)
    header = f"rbd_header.{show_volume(ceph, volume)['id']}"
    ceph.run("rados", "--pool", POOL, "rm", header)
    with setting(node, DELAYED):
        run_script(node, "remove", volume)
    assert volume not in list_volumes(ceph) | list_trash(ceph)


@contextlib.contextmanager
def held(ceph: Ceph, node: Machine, identity: str) -> Iterator[None]:
    """An image of the pool that a client has open for the block."""
    flag = f"/run/{identity}"
    argv = ("python3", "-c", HOLDER, POOL, identity)
    with node.spawn(*argv, output=Path(os.devnull)) as holder:
        wait_for("the holder", lambda: not node.run("test", "-e", flag, ok=(0, 1)).status, 30)
        yield
        node.run("rm", flag)
        assert not holder.wait(30)


def test_purge_leaves_what_is_open_for_the_next_time(
    ceph: Ceph, node: Machine, volume: str
) -> None:
    """Volumes whose last clone went while they were open; librbd can't remove them then."""
    parents = [f"{volume}.parent{number}" for number in range(2)]
    for parent in parents:
        run_script(node, "create", parent, size=16)
        run_script(node, "snapshot", parent, snapshot=f"{parent}.snap")
        run_script(node, "remove", parent)
    identities = {find_in_trash(ceph, parent): parent for parent in parents}
    (first, kept), (second, gone) = sorted(identities.items())
    with held(ceph, node, first):
        with held(ceph, node, second):
            for parent in parents:
                run_script(node, "remove", f"{parent}.snap")
            assert set(parents) <= list_trash(ceph)
        purged = node.run("snf-rados-image", "purge")
        assert f"{POOL}/{kept} in the trash is in use" in purged.stderr
        assert f"{POOL}/{gone} is removed\n" in purged.text
        assert set(parents) & list_trash(ceph) == {kept}
    assert f"{POOL}/{kept} is removed\n" in node.run("snf-rados-image", "purge").text
    assert not set(parents) & list_trash(ceph)
