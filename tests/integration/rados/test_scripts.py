"""The provider's scripts alone, run again, killed and run again. Needs root."""

import contextlib
import os
import random
import signal
import subprocess
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

from testbed import namespaces
from testbed.ceph import Ceph
from testbed.machine import Machine
from testbed.volumes import (
    MEBIBYTE,
    SCRIPTS,
    find_device,
    hash_device,
    list_trash,
    list_volumes,
    make_environment,
    run_script,
    show_volume,
    write_pattern,
)

ROUNDS = 100 if os.environ.get("SNF_SOAK") else 15


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
    nothing had happened. Two volumes have it at a time."""
    before = list_volumes(ceph), list_trash(ceph)
    with ThreadPoolExecutor(2) as pool:
        for life in [pool.submit(live_and_die, ceph, node, golden) for _ in range(ROUNDS)]:
            life.result()
    assert (list_volumes(ceph), list_trash(ceph)) == before
    assert "/run/ext-storage-rados/" not in node.run("findmnt", "--list", "--noheadings").text


def live_and_die(ceph: Ceph, node: Machine, golden: str) -> None:
    """The life of one volume, with a death in each of its steps."""
    dice = random.Random(time.monotonic_ns())
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
