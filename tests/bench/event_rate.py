"""Jobs read, made into events and confirmed, against the same messages from a bare publisher
that has them ready and does nothing else; both with the daemon's library, on one broker."""

from bench.benchmark import Benchmark, Runs
from bench.events_bed import bind_queue, open_site

COUNT, RUNS = 5000, 5

_SETUP = """
import asyncio, sys, time
sys.path.append("/usr/share/ganeti/default")
from snf_ganeti_eventd import settings
from snf_ganeti_eventd.transport import make_transport
"""
OURS = (
    _SETUP
    + """
from pathlib import Path
from snf_ganeti.event_loop import make_runner
from snf_ganeti_eventd.publication.cursor import Cursor
from snf_ganeti_eventd.publication.follower import Follower
from snf_ganeti_eventd.messages.instance import Inspector
from snf_ganeti_eventd.jobs.job_queue import JobQueue
from snf_ganeti_eventd.metrics import Metrics
async def main():
    site = settings.read()
    transport = make_transport(site)
    await transport.open()
    queue = JobQueue(Path("/var/lib/ganeti"))
    inspector = Inspector(lambda names: [], 1)
    follower = Follower(queue, Cursor(), inspector, Metrics(), "c", site.events)
    follower.rescan()
    begin = time.perf_counter()
    while follower.has_work:
        assert await follower.step(transport) is not False, transport.problem
    print(time.perf_counter() - begin)
    await transport.close()
with make_runner() as runner:
    runner.run(main())
"""
)
"""The daemon's own loop, from the queue to the last confirm."""
BARE = (
    _SETUP
    + """
import aiormq
from pathlib import Path
from snf_ganeti_eventd.jobs.job import make_event_time
from snf_ganeti_eventd.jobs.job_queue import JobQueue
from snf_ganeti_eventd.messages.message import make_messages
from snf_ganeti_eventd.transport.amqp import make_properties, make_url
async def main():
    site = settings.read()
    queue = JobQueue(Path("/var/lib/ganeti"))
    jobs = [queue.read(job_id) for job_id in queue.list_live()]
    messages = [each for job in jobs for op in job.ops
                for each in make_messages(job, op, "", "c", make_event_time(job, op), {})]
    ready = [(each.encode(), each.key, make_properties(each)) for each in messages]
    connection = await aiormq.connect(make_url(site.amqp, site.amqp.hosts[0]))
    channel = await connection.channel()
    begin = time.perf_counter()
    for start in range(0, len(ready), 256):
        await asyncio.gather(*(
            channel.basic_publish(body, exchange="ganeti", routing_key=key, mandatory=True,
                                  properties=properties, wait=False)
            for body, key, properties in ready[start:start + 256]))
    print(time.perf_counter() - begin)
    await connection.close()
asyncio.run(main())
"""
)


def measure() -> tuple[Runs, Runs]:
    ours, bare = [], []
    with open_site("rate") as site:
        site.write_jobs(1, COUNT)
        bind_queue(site)
        for _ in range(RUNS):
            ours.append(site.run_python(OURS))
            bare.append(site.run_python(BARE))
    return ours, bare


BENCHMARK = Benchmark("event-rate", "s", round(1 / 0.7, 2), "bare publisher", measure)
