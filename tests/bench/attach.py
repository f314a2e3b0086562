"""`attach` of what is attached, which Ganeti runs before nearly everything, against rbd(8)."""

from bench.benchmark import Benchmark, Runs
from bench.rados import measure, open_site

_ROUNDS = 15


def run() -> tuple[Runs, Runs]:
    ours, peer = [], []
    with open_site("attach") as site:
        site.script("create", "v", size=1 << 10)
        site.script("attach", "v")
        site.run("rbd", "info", "ganeti/v")
        for _ in range(_ROUNDS):
            ours.append(measure(site.script, "attach", "v"))
            peer.append(measure(site.run, "rbd", "info", "ganeti/v"))
        site.script("detach", "v")
    return ours, peer


BENCHMARK = Benchmark("attach", "s", 0.7, "rbd info", run)
