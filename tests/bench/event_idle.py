"""CPU that the daemon uses in 60 seconds in which nothing happens, connected to its broker."""

import time

from bench.benchmark import Benchmark, Runs
from bench.events_bed import open_site
from testbed.deadline import wait_for
from testbed.events import open_consumer

SECONDS, RUNS = 60, 3
LIMIT = 0.05


def measure() -> tuple[Runs, Runs]:
    with open_site("idle") as site, open_consumer(site.bed, site.brokers) as consumer:
        site.write_jobs(1, 100)
        site.daemon.start()
        wait_for("events", lambda: len(consumer.events) >= 100, 120)
        runs = []
        for _ in range(RUNS):
            before = site.read_cpu()
            time.sleep(SECONDS)
            runs.append(site.read_cpu() - before)
        return runs, [LIMIT]


BENCHMARK = Benchmark("event-idle", "s", 1.0, "the limit", measure)
