"""From the rename of a job's file to the confirmed message, at 50 jobs a second."""

import statistics
import time

from bench.benchmark import Benchmark, Runs
from bench.events_bed import Site, open_site
from testbed.deadline import wait_for
from testbed.events import Consumer, open_consumer

RATE, COUNT, RUNS = 50, 500, 3
LIMIT = 25.0
_WARM_UP = 50


def measure() -> tuple[Runs, Runs]:
    with open_site("latency") as site, open_consumer(site.bed, site.brokers) as consumer:
        site.daemon.start()
        site.write_jobs(1, _WARM_UP)
        _await(consumer, _WARM_UP)
        return [_run(site, consumer, 1000 * run) for run in range(1, RUNS + 1)], [LIMIT]


def _run(site: Site, consumer: Consumer, first: int) -> float:
    """The 99th percentile in ms, until the consumer has the message: a bit more than until
    the daemon has its confirm."""
    before = len(consumer.events)
    written = site.write_jobs(first, COUNT, RATE)
    _await(consumer, before + COUNT)
    seen = {event.body["jobId"]: event.at for event in consumer.events[before:]}
    waits = [1000 * (seen[job] - at) for job, at in written.items()]
    return statistics.quantiles(waits, n=100)[98]


def _await(consumer: Consumer, count: int) -> None:
    wait_for("events", lambda: len(consumer.events) >= count, 120)
    time.sleep(0.5)  # whatever else the machine had to do is done


BENCHMARK = Benchmark("event-latency", "ms", 1.0, "the limit", measure)
