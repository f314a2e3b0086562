"""Our block device against fio's own RBD engine on the same image: time for the same work."""

import json

from bench.benchmark import Benchmark, Runs
from bench.rados import Site, open_site

_ROUNDS = 3
_SECONDS = 5
_JOBS = (
    ("randwrite", "4k", 16),
    ("randread", "4k", 16),
    ("write", "1M", 4),
    ("read", "1M", 4),
)


def measure(site: Site, job: tuple[str, str, int], *engine: str) -> float:
    """Seconds a GiB for one kind of access."""
    pattern, block, depth = job
    what = (f"--rw={pattern}", f"--bs={block}", f"--iodepth={depth}", "--size=1G", "--direct=1")
    time = (f"--runtime={_SECONDS}", "--time_based", "--output-format=json", "--name=job")
    shown = json.loads(site.run("fio", *what, *time, *engine))
    done = shown["jobs"][0]["read" if "read" in pattern else "write"]
    return (1 << 30) / float(done["bw_bytes"])


def run() -> tuple[Runs, Runs]:
    """Each run is the sum over the kinds of access, so that each counts by its time."""
    ours, peer = [], []
    with open_site("io") as site:
        site.script("create", "v", size=1 << 10)
        device = site.script("attach", "v")
        fill = ("--rw=write", "--bs=1M", "--size=1G", "--direct=1", "--name=fill")
        site.run("fio", *fill, f"--filename={device}", "--ioengine=libaio")
        for _ in range(_ROUNDS):
            ours.append(sum(measure(site, job, f"--filename={device}", "--ioengine=libaio")
                            for job in _JOBS))  # fmt: skip
            site.script("detach", "v")
            engine = ("--ioengine=rbd", "--pool=ganeti", "--rbdname=v", "--clientname=ganeti")
            peer.append(sum(measure(site, job, *engine) for job in _JOBS))
            device = site.script("attach", "v")
        site.script("detach", "v")
    return ours, peer


BENCHMARK = Benchmark("block-io", "s", 1 / 0.7, "fio's RBD engine", run)
