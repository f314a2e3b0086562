"""A cluster that stops, is silent or full: nothing is lost, and the reason is told. Needs root."""

import contextlib
import random
import re
import signal
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from snf_ganeti.errors import CommandError
from testbed import lost_watch
from testbed.ceph import ADDRESS, Ceph
from testbed.deadline import wait_for
from testbed.ganeti import Cluster
from testbed.machine import Machine
from testbed.volumes import (
    IMAGES,
    MEBIBYTE,
    POOL,
    find_device,
    find_in_trash,
    find_volume,
    find_workers,
    hash_device,
    instance,
    list_trash,
    list_volumes,
    list_watchers,
    run_script,
    setting,
    show_volume,
)

WATCH_SECONDS = 30.0
LOST_WATCH = Path(lost_watch.__file__)
LOCKED_IN_SILENCE = """
import sys, time
from pathlib import Path
from ext_storage_rados.ceph.access import Access
from ext_storage_rados.ceph.cluster import connect, open_image, open_pool
from ext_storage_rados.ceph.predecessor import replaced
from ext_storage_rados.names import ImageName

pool, name = sys.argv[1:]
access = Access(Path("/etc/ceph/ceph.conf"), "ganeti", timeout=3)
with connect(access) as cluster, replaced(cluster, name), open_pool(cluster, pool) as context:
    with open_image(context, ImageName(pool, "", name)) as image:
        Path("/run/opened").touch()
        while not Path("/run/unplugged").exists():
            time.sleep(0.05)
        image.resize(24 << 20)
"""
"""An image is opened, and its lock needed when Ceph does not answer any more."""
HALF_MADE = """
import os, signal, sys
import rados, rbd

pool, name, images, parent, snapshot, locked = sys.argv[1:]
cluster = rados.Rados(conffile="/etc/ceph/ceph.conf", rados_id="ganeti")
cluster.conf_set("rbd_default_clone_format", "2")
cluster.connect()
context = cluster.open_ioctx(pool)
features = rbd.RBD_FEATURE_LAYERING | rbd.RBD_FEATURE_EXCLUSIVE_LOCK
rbd.RBD().clone(cluster.open_ioctx(images), parent, snapshot, context, name, features)
image = rbd.Image(context, name)
if locked == "locked":
    image.lock_acquire(rbd.RBD_LOCK_MODE_EXCLUSIVE)
os.kill(os.getpid(), signal.SIGKILL)
"""
"""A volume is begun by who dies with it open, or locked, too."""


def test_osd_that_stops_under_load_costs_no_data(
    ceph: Ceph, node: Machine, golden: str, volume: str, tmp_path: Path
) -> None:
    """Who writes waits until the OSD is back, and finds what it wrote."""
    run_script(node, "create", volume, size=64, origin=golden)
    device = find_device(node, volume)
    run_script(node, "open", volume)
    node.write("/var/tmp/content", random.Random(2).randbytes(32 * MEBIBYTE))
    dd = f"dd if=/var/tmp/content of={device} bs=64k oflag=direct conv=fsync status=none"
    copy = f"touch /run/began; until [ -e /run/enough ]; do {dd}; done"
    with node.spawn("sh", "-ec", copy, output=tmp_path / "log") as writer:
        wait_for(
            "the writer", lambda: not node.run("test", "-e", "/run/began", ok=(0, 1)).status, 30
        )
        ceph.stop_osd(0)
        assert writer.poll() is None
        ceph.start_osd(0)
        node.run("touch", "/run/enough")
        assert writer.wait(180) == 0, (tmp_path / "log").read_text()
    node.run("cmp", f"--bytes={32 * MEBIBYTE}", device, "/var/tmp/content", timeout=120)
    node.run("rm", "/run/began", "/run/enough", "/var/tmp/content")


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


def hurried(node: Machine) -> contextlib.AbstractContextManager[None]:
    """Deadlines short enough for a test that waits for them."""
    return setting(node, "timeout = 3.0")


def test_silent_cluster_loses_no_volume(
    cluster: Cluster, ceph: Ceph, node: Machine, golden: str, volume: str
) -> None:
    """Ganeti removes an instance while Ceph does not answer: it keeps it, and so does Ceph.

    Meanwhile librbd says "read-only" of a lock that it does not get, as it does when another
    client has it; the cluster's silence is not taken for that.
    """
    locked, silent = (f"{volume}.{kind}" for kind in ("locked", "silent"))
    for each in (locked, silent):
        run_script(node, "create", each, size=16)
    with instance(cluster, "kept", "size=16M", f"origin={golden}"), ThreadPoolExecutor(2) as pool:
        kept = find_volume(cluster, "kept")
        locking = pool.submit(lock_in_silence, node, locked)
        opened = ("test", "-e", "/run/opened")
        wait_for("the image", lambda: not node.run(*opened, ok=(0, 1)).status, 60)
        with hurried(node), unplugged(cluster, ceph):
            node.run("touch", "/run/unplugged")
            removal = pool.submit(cluster.remove_instance, "kept")
            assert run_script(node, "attach", silent).stdout == b"\n"
            assert "is the cluster up" in run_script(node, "open", silent, (4, 5)).stderr
            told = locking.result()
            with pytest.raises(CommandError, match="Can't remove instance's disks"):
                removal.result()
        assert "UnreachableError" in told
        assert "is locked" not in told
        assert kept in list_volumes(ceph)
        assert cluster.run("gnt-instance", "list", "--no-headers", "--output=name", "kept")
    assert kept not in list_volumes(ceph)
    for each in (locked, silent):
        run_script(node, "remove", each)
    node.run("rm", "/run/opened", "/run/unplugged")


def lock_in_silence(node: Machine, volume: str) -> str:
    """What is told of a lock that is needed after /run/unplugged is there."""
    argv = ("python3", "-c", LOCKED_IN_SILENCE, POOL, volume)
    return node.run(*argv, ok=(1,), timeout=120).stderr


def test_dead_clients_are_outlasted(
    ceph: Ceph, node: Machine, other: Machine, golden: str, volume: str
) -> None:
    """Ceph believes in a killed client for 30 s, as long as Ganeti tries to remove, and as long
    as Ceph may take for an answer. Our own is fenced at once; another node's is waited for: one
    that had a volume, one that had half made it, one that had it locked, too."""
    run_script(node, "create", volume, size=16)
    attach_and_die(node, volume)
    began = time.monotonic()
    run_script(node, "remove", volume)
    assert time.monotonic() - began < WATCH_SECONDS / 2
    assert volume not in list_volumes(ceph)

    run_script(node, "create", volume, size=16)
    attach_and_die(other, volume)
    halves = {kind: f"{uuid.uuid4()}.ext.disk0" for kind in ("open", "locked")}
    origin = (IMAGES, *golden.split("@"))
    for kind, half in halves.items():
        other.run("python3", "-c", HALF_MADE, POOL, half, *origin, kind, ok=(-signal.SIGKILL,))
        assert list_watchers(ceph, half)
    with ThreadPoolExecutor(3) as pool:
        work = [pool.submit(run_script, node, "remove", volume)]
        for half in halves.values():
            work.append(pool.submit(run_script, node, "create", half, size=16, origin=golden))
        for each in work:
            each.result()
    assert volume not in list_volumes(ceph)
    for half in halves.values():
        assert show_volume(ceph, half)["size"] == 16 * MEBIBYTE
        assert "object-map" in show_volume(ceph, half)["features"]  # it is ours, made anew
        run_script(node, "remove", half)
    run_script(other, "detach", volume)


def attach_and_die(machine: Machine, volume: str) -> None:
    find_device(machine, volume)
    for role in ("keeper", "worker"):
        for pid in find_workers(machine, volume, role):
            machine.run("kill", "-KILL", str(pid), ok=(0, 1))


def test_watch_that_an_osd_forgets_keeps_no_volume(ceph: Ceph, node: Machine, volume: str) -> None:
    """It stays listed though its client is dead, and on the blocklist; Ceph's own `rbd` can't
    remove the image. Nor can librbd a volume in the trash with its last clone."""
    parent, clone = f"{volume}.parent", f"{volume}.snap"
    for each in (volume, parent):
        run_script(node, "create", each, size=16)
    run_script(node, "snapshot", parent, snapshot=clone)
    run_script(node, "remove", parent)
    identities = show_volume(ceph, volume)["id"], find_in_trash(ceph, parent)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda each: lose_watches(ceph, node, each), identities))
    refused = ceph.machine.run("rbd", "rm", "--no-progress", f"{POOL}/{volume}", ok=(16,))
    assert "image still has watchers" in refused.stderr
    run_script(node, "remove", volume)
    assert volume not in list_volumes(ceph)
    run_script(node, "remove", clone)
    assert parent not in list_trash(ceph)


def lose_watches(ceph: Ceph, node: Machine, identity: str) -> None:
    """Clients die while they begin to watch an image, and then are fenced, until the OSD lists
    some all the same."""
    header = f"rbd_header.{identity}"
    fence = (
        "import rados, sys\n"
        "with rados.Rados(conffile='/etc/ceph/ceph.conf', rados_id='ganeti') as cluster:\n"
        "    for address in sys.argv[1:]:\n"
        "        cluster.blocklist_add(address, 3600)\n"
    )

    def lose() -> list[str]:
        node.run("python3", "-c", LOST_WATCH.read_text(), POOL, header, "20", timeout=120)
        node.run("python3", "-c", fence, *list_header_watchers(ceph, header), timeout=120)
        return list_header_watchers(ceph, header)

    wait_for("a watch that is forgotten", lose, 300)


def list_header_watchers(ceph: Ceph, header: str) -> list[str]:
    told = ceph.run("rados", "--pool", POOL, "listwatchers", header)
    return re.findall(r"watcher=(\S+)", told)


Commands = Sequence[Sequence[str]]


@contextlib.contextmanager
def full(ceph: Ceph, kind: str) -> Iterator[None]:
    """A cluster that takes no more, of its pool's quota or of its disks, for the block."""
    fill, empty, check = FILLERS[kind]
    tell_osds(ceph, fill)
    try:
        wait_for("the warning", lambda: check in ceph.run("ceph", "health", "detail"), 60)
        yield
    finally:
        tell_osds(ceph, empty)
        wait_for("its end", lambda: check not in ceph.run("ceph", "health", "detail"), 60)


def tell_osds(ceph: Ceph, commands: Commands) -> None:
    for words in commands:
        ceph.run("ceph", "osd", *words)


FILLERS: Mapping[str, tuple[Commands, Commands, str]] = {
    "quota": (
        [("pool", "set-quota", POOL, "max_objects", "1")],
        [("pool", "set-quota", POOL, "max_objects", "0")],
        "POOL_FULL",
    ),
    "disks": (
        [(f"set-{kind}-ratio", "0.0001") for kind in ("nearfull", "backfillfull", "full")],
        [
            ("set-nearfull-ratio", ".85"),
            ("set-backfillfull-ratio", ".9"),
            ("set-full-ratio", ".95"),
        ],
        "OSD_FULL",
    ),
}
"""What fills a cluster, what empties it, and what its monitors say meanwhile."""


@pytest.mark.parametrize("kind", FILLERS)
def test_full_cluster_says_so_and_makes_nothing(
    cluster: Cluster, ceph: Ceph, node: Machine, golden: str, volume: str, kind: str, tmp_path: Path
) -> None:
    """Who writes already waits until there is room, and sees no error."""
    run_script(node, "create", volume, size=16, origin=golden)
    device = find_device(node, volume)
    run_script(node, "open", volume)
    content = hash_device(node, device)
    before = list_volumes(ceph), list_objects(ceph)
    with hurried(node), full(ceph, kind):
        dd = ("dd", "if=/dev/urandom", f"of={device}", "bs=1M", "seek=12", "count=2")
        with node.spawn(*dd, "oflag=direct", output=tmp_path / "log") as writer:
            with pytest.raises(CommandError) as caught, instance(cluster, "refused", "size=16M"):
                pass
            assert "the cluster is full" in " ".join(caught.value.output.split())
            assert list_volumes(ceph) == before[0]
            assert writer.poll() is None
            tell_osds(ceph, FILLERS[kind][1])
            assert writer.wait(120) == 0, (tmp_path / "log").read_text()
    assert hash_device(node, device) != content
    assert names_of(list_objects(ceph)) == names_of(before[1])


def list_objects(ceph: Ceph) -> set[str]:
    return set(ceph.run("rados", "--pool", POOL, "ls").split())


def names_of(objects: set[str]) -> set[str]:
    """Of images, without their data, which grows, and the pool's lists, which come with the first
    entry and stay."""
    return {name for name in objects if name.startswith(("rbd_id.", "rbd_header."))}


def test_cluster_that_falls_silent_in_the_middle(
    cluster: Cluster, ceph: Ceph, node: Machine, golden: str, volume: str
) -> None:
    """Each script ends with the reason, and run again finds its way."""
    dice = random.Random(time.monotonic_ns())
    clone, before = f"{volume}.snap", names_of(list_objects(ceph))
    steps: list[tuple[str, str, dict[str, str | int]]] = [
        ("create", volume, {"size": 16, "origin": golden}),
        ("snapshot", volume, {"snapshot": clone}),
        ("grow", volume, {"size": 16, "new_size": 24}),
        ("remove", clone, {}),
        ("remove", volume, {}),
    ]
    for action, name, variables in steps:
        with hurried(node), ThreadPoolExecutor(1) as pool:
            done = pool.submit(run_script, node, action, name, (0, 4, 5), **variables)
            time.sleep(dice.uniform(0.05, 0.4))
            with unplugged(cluster, ceph):
                ended = done.result()
        assert not ended.status or "is the cluster up" in ended.stderr
        run_script(node, action, name, **variables)
        if action == "grow":
            assert show_volume(ceph, volume)["size"] == 24 * MEBIBYTE
    assert names_of(list_objects(ceph)) == before
