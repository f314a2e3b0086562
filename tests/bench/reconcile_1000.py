"""A full comparison of a thousand healthy NICs with what they should be."""

import time

from bench.benchmark import Benchmark, Runs
from bench.node_nics import open_node, set_up_many

_RUNS = 5


def measure() -> tuple[Runs, Runs]:
    with open_node("reconcile-1000") as hosting:
        set_up_many(hosting, range(1, 1001))
        runs = []
        for _ in range(_RUNS):
            started = time.perf_counter()
            said = hosting.node.run("snf-network", "reconcile").text
            runs.append(time.perf_counter() - started)
            assert said == "", said[:500]
    return runs, [2.0]


BENCHMARK = Benchmark(
    name="reconcile-1000",
    unit="s",
    goal=1.0,
    peer_name="the limit",
    measure=measure,
)
