"""A restored helper to its first task, against libguestfs's appliance to ready; both emulated."""

import tempfile
from pathlib import Path

from bench.benchmark import Benchmark, Runs
from bench.node import open_node
from snf_ganeti import process
from testbed.helper_vm import measure_first_task
from testbed.partitioning import MIB

_RUNS = 5
_PEER = """
import guestfs, sys, time
appliance = guestfs.GuestFS(python_return_dict=True)
appliance.add_drive_opts(sys.argv[1], format="raw")
begun = time.monotonic()
appliance.launch()
print(time.monotonic() - begun)
"""
_PEER_ENVIRONMENT = {
    "LIBGUESTFS_BACKEND": "direct",
    "LIBGUESTFS_BACKEND_SETTINGS": "force_tcg",
    "HOME": "/root",
}


def measure() -> tuple[Runs, Runs]:
    ours, peer = [], []
    with open_node() as node, tempfile.NamedTemporaryFile() as disk:
        disk.truncate(64 * MIB)
        measure_peer(Path(disk.name))  # builds its appliance, once for all that come
        for index in range(_RUNS):
            ours.append(measure_first_task(node, node.make_disk(f"ready{index}", 1)))
            peer.append(measure_peer(Path(disk.name)))
    return ours, peer


def measure_peer(disk: Path) -> float:
    """Seconds from launch to an appliance that takes commands."""
    argv = ["/usr/bin/python3", "-c", _PEER, str(disk)]
    return float(process.run(argv, env=_PEER_ENVIRONMENT, timeout=600).text)


BENCHMARK = Benchmark("helper-ready", "s", 0.05, "libguestfs, launch", measure)
