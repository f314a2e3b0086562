"""A look at a whole queue in which nothing is new: 5,000 live and 50,000 archived jobs."""

from bench.benchmark import Benchmark, Runs
from bench.events_bed import GANETI, open_site

LIVE, ARCHIVED, RUNS = 5000, 50_000, 5
LIMIT = 3.0

SCRIPT = """
import sys, time
from pathlib import Path
from snf_ganeti_eventd.publication.cursor import Cursor
from snf_ganeti_eventd.publication.follower import Follower
from snf_ganeti_eventd.messages.instance import Inspector
from snf_ganeti_eventd.jobs.job_queue import JobQueue
from snf_ganeti_eventd.metrics import Metrics
cursor = Cursor()
for number in range(1, int(sys.argv[1]) + 1):
    cursor.finish(number, None)
queue = JobQueue(Path("/var/lib/ganeti"))
follower = Follower(queue, cursor, Inspector(lambda names: [], 1), Metrics(), "c", [])
begin = time.perf_counter()
assert follower.rescan() == 0
print(time.perf_counter() - begin)
"""


def measure() -> tuple[Runs, Runs]:
    with open_site("rescan", brokers=0) as site:
        for first in range(0, ARCHIVED, 10_000):
            start = max(1, first)
            folder = f"{GANETI}/queue/archive/{first // 10_000}"
            site.write_jobs(start, first + 10_000 - start, folder=folder)
        site.write_jobs(ARCHIVED, LIVE)
        total = str(ARCHIVED + LIVE)
        return [site.run_python(SCRIPT, total) for _ in range(RUNS)], [LIMIT]


BENCHMARK = Benchmark("event-rescan", "s", 1.0, "the limit", measure)
