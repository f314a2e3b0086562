"""Resident memory of the daemon while the broker is away and 50,000 events wait."""

from bench.benchmark import Benchmark, Runs
from bench.events_bed import GANETI, open_site
from testbed.deadline import wait_for

WAITING, RUNS = 50_000, 3
LIMIT = 80.0


def measure() -> tuple[Runs, Runs]:
    with open_site("memory") as site:
        site.brokers[0].stop()
        for first in range(0, WAITING, 10_000):
            start = max(1, first)
            folder = f"{GANETI}/queue/archive/{first // 10_000}"
            site.write_jobs(start, first + 10_000 - start, folder=folder)
        site.write_jobs(WAITING, 1)
        runs = []
        for _ in range(RUNS):
            site.daemon.log.unlink(missing_ok=True)
            site.daemon.start()
            wait_for("the backlog", lambda: "no broker" in site.daemon.read_log(), 120)
            assert site.daemon.read_metrics()["pending"] == WAITING
            runs.append(site.read_rss())
            site.daemon.kill()
        return runs, [LIMIT]


BENCHMARK = Benchmark("event-memory", "MB", 1.0, "the limit", measure)
