"""Eight deployments at once, against eight in turn."""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.benchmark import Benchmark, Runs
from bench.node import LAYOUT, open_node
from snf_ganeti.errors import NodeError
from testbed.snf_image import Node

_DEPLOYMENTS = 8
_RUNS = 2


def measure() -> tuple[Runs, Runs]:
    ours, peer = [], []
    with open_node() as node:
        disks = [node.make_disk(f"disk{index}", 64) for index in range(_DEPLOYMENTS)]
        deploy_all(node, disks[:1], 1)  # what is read for the first time is not measured
        for _ in range(_RUNS):
            ours.append(deploy_all(node, disks, _DEPLOYMENTS))
            peer.append(deploy_all(node, disks, 1))
    return ours, peer


def deploy_all(node: Node, disks: Sequence[Path], at_once: int) -> float:
    """Seconds for a deployment on each of the disks. Raises NodeError."""
    begun = time.monotonic()
    with ThreadPoolExecutor(at_once) as pool:
        outcomes = list(pool.map(lambda disk: node.deploy(LAYOUT, disk, timeout=900), disks))
    seconds = time.monotonic() - begun
    for outcome in outcomes:
        if outcome.status:
            raise NodeError(outcome.last_line)
    return seconds


BENCHMARK = Benchmark("parallel", "s", 0.6, "in turn", measure)
