"""Memory that each further helper takes for itself, beside those that run already."""

from bench.benchmark import Benchmark, Runs
from bench.node import open_node
from testbed.helper_vm import running_helpers

_HELPERS = 4
_LIMIT = 120.0
_MB = 1_000_000


def measure() -> tuple[Runs, Runs]:
    """Of all but the first: what no other process has mapped, as the kernel counts it."""
    with open_node() as node:
        disk = node.make_disk("memory", 64)
        with running_helpers(node, _HELPERS, disk) as qemus:
            sizes = [qemu.read_memory() for qemu in qemus]
    private = [size["Private_Clean"] + size["Private_Dirty"] for size in sizes]
    return [each / _MB for each in private[1:]], [_LIMIT]


BENCHMARK = Benchmark("helper-memory", "MB", 1.0, "the limit", measure)
