"""A probe of a helper VM: what the limits of a run's group do."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from snf_ganeti import process
from snf_image_host.confinement import cgroup
from testbed import probe

_MOUNT = Path("/run/cgroup")
_MIB = 1 << 20
_LIMITS = cgroup.Limits(64 * _MIB, processes=20)
_TAKE = "import sys; memory = b'x' * (int(sys.argv[1]) << 20)"
_FORK = """
import os, signal
count = 0
try:
    while os.fork():
        count += 1
    signal.pause()
except BlockingIOError:
    print(count)
"""


def try_limits() -> dict[str, Any]:
    _MOUNT.mkdir()
    process.run(["mount", "-t", "cgroup2", "cgroup2", str(_MOUNT)])
    parent = cgroup.find_parent(_LIMITS.make_files().keys())
    with cgroup.open_group(parent, "90000", _LIMITS) as group:
        swap = group / "memory.swap.max"
        found = {
            "controllers": sorted(parent.controllers),
            "little memory": start_in(group, _TAKE, "16").wait(),
            "much memory": start_in(group, _TAKE, "256").wait(),
            "swap": swap.read_text().strip() if swap.exists() else "absent",
            "processes": count_processes(group),
            "weight": (group / "cpu.weight").read_text().strip(),
        }
        left = start_in(group, "import signal; signal.pause()")
    return {**found, "what was left": left.wait(), "groups": cgroup.list_groups(parent)}


def count_processes(group: Path) -> int:
    child = start_in(group, _FORK, stdout=subprocess.PIPE)
    assert child.stdout is not None
    count = int(child.stdout.readline())
    cgroup._kill(group)
    return count


def start_in(group: Path, program: str, *argv: str, stdout: int | None = None) -> Any:
    return subprocess.Popen(
        [sys.executable, "-I", "-c", program, *argv], stdout=stdout, preexec_fn=make_entrance(group)
    )


def make_entrance(group: Path) -> Callable[[], object]:
    return lambda: (group / cgroup.PROCESSES).write_text("0")


if __name__ == "__main__":
    probe.answer(try_limits)
