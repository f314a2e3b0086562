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


UNMOVED = """
import struct, sys
import rados

pool, identity = sys.argv[1], sys.argv[2].encode()
request = struct.pack(f"<I{len(identity)}sBB", len(identity), identity, 1, 0)
with rados.Rados(conffile="/etc/ceph/ceph.conf", rados_id="ganeti") as cluster:
    with cluster.open_ioctx(pool) as context:
        context.execute("rbd_trash", "rbd", "trash_state_set", request)
"""
"""What is in the trash gets the state that it has while it is moved there."""


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


def test_move_to_the_trash_that_was_cut_off_is_completed(
    ceph: Ceph, node: Machine, volume: str
) -> None:
    """By the next run; as it was left, Ceph's own `rbd` can't remove it, nor could librbd with
    its last clone."""
    clone = f"{volume}.snap"
    run_script(node, "create", volume, size=16)
    run_script(node, "snapshot", volume, snapshot=clone)
    run_script(node, "remove", volume)
    identity = find_in_trash(ceph, volume)
    node.run("python3", "-c", UNMOVED, POOL, identity)
    cut_off = ceph.machine.run("rbd", "trash", "rm", "--force", f"{POOL}/{identity}", ok=(1, 117))
    assert "not fully moved to trash" in cut_off.stderr
    run_script(node, "remove", volume)
    assert volume in list_trash(ceph)
    run_script(node, "remove", clone)
    assert volume not in list_trash(ceph)


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
        with held(ceph, node, second), ThreadPoolExecutor(2) as pool:
            clones = (f"{parent}.snap" for parent in parents)
            list(pool.map(lambda clone: run_script(node, "remove", clone), clones))
            assert set(parents) <= list_trash(ceph)
        purged = node.run("snf-rados-image", "purge")
        assert f"{POOL}/{kept} in the trash is in use" in purged.stderr
        assert f"{POOL}/{gone} is removed\n" in purged.text
        assert set(parents) & list_trash(ceph) == {kept}
    assert f"{POOL}/{kept} is removed\n" in node.run("snf-rados-image", "purge").text
    assert not set(parents) & list_trash(ceph)
