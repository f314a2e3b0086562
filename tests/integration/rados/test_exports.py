"""Exports whose processes die, and devices in use. Needs root."""

import os
import random
import time
from pathlib import Path

from testbed.deadline import wait_for
from testbed.machine import Machine
from testbed.volumes import (
    MEBIBYTE,
    find_device,
    find_workers,
    hash_device,
    run_script,
    write_pattern,
)


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
