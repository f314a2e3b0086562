"""The most memory that the node's side of a deployment takes, beside the helper VM."""

import re
import shlex

from bench.benchmark import Benchmark, Runs
from bench.deploy import make_disk, make_options, prepared
from testbed.snf_image import make_deploy_argv

LIMIT = 60.0
_WATCH = """\
{command} >/dev/null 2>&1 &
while found=$(grep VmHWM /proc/$!/status); do peak=$found; sleep 0.05; done
wait $! && echo "$peak"
"""
"""The kernel's own mark of the most that a process had; it is gone when the process ends."""


def measure() -> tuple[Runs, Runs]:
    with prepared() as (node, key):
        command = shlex.join([*make_deploy_argv("bench", make_disk(node)), *make_options(key)])
        done = node.machine.run("sh", "-c", _WATCH.format(command=command), timeout=600)
    match = re.search(r"VmHWM:\s+(\d+) kB", done.text)
    assert match, done.stderr
    return [int(match[1]) * 1024 / 1e6], [LIMIT]


BENCHMARK = Benchmark(
    name="deploy-memory", unit="MB", goal=1.0, peer_name="the limit", measure=measure
)
