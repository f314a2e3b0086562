"""`snf-ganeti-eventd replay`: publish again what the queue and its archive still know.

The messages have the ids that they had; a consumer that keeps to the rules sees nothing new
but what it had missed. Only the last state of an operation is known.
"""

import asyncio
import logging
from collections.abc import Collection, Iterator

from snf_ganeti.errors import NodeError
from snf_ganeti_eventd import ssconf
from snf_ganeti_eventd.jobs.job import JobError, make_event_time
from snf_ganeti_eventd.jobs.job_queue import JobQueue
from snf_ganeti_eventd.messages.message import Message, make_messages
from snf_ganeti_eventd.settings import Settings
from snf_ganeti_eventd.transport import Outcome, Transport, make_transport

log = logging.getLogger(__name__)

_BATCH = 256


def find_messages(
    queue: JobQueue, cluster: str, since: float, jobs: Collection[int], events: Collection[str]
) -> Iterator[Message]:
    """Messages of jobs that changed at `since` (seconds since the epoch) or later, lowest job
    first; `jobs`: only of these, unless empty."""
    for job_id in sorted({*queue.list_live(), *queue.list_archived()}):
        if jobs and job_id not in jobs:
            continue
        try:
            job = queue.read(job_id)
        except JobError as error:
            log.warning("%s; it is left out", error)
            continue
        if job is None or job.last_time < since:
            continue
        for op in job.ops:
            for message in make_messages(job, op, "", cluster, make_event_time(job, op), {}):
                if message.kind in events:
                    yield message


def run(settings: Settings, since: float, jobs: Collection[int]) -> int:
    """Publish, and say how many. Raises NodeError when some could not be."""
    role = ssconf.read_role(settings.ganeti_dir)
    if not role.is_master:
        raise NodeError("this node is not the master of a cluster", hint="only it publishes")
    queue = JobQueue(settings.ganeti_dir)
    messages = find_messages(queue, role.cluster, since, jobs, settings.events)
    transport = make_transport(settings)
    counts = asyncio.run(_publish_all(transport, messages))
    print(f"published {counts[Outcome.CONFIRMED]} messages to {transport.address}")
    if counts[Outcome.UNROUTABLE]:
        print(f"nobody takes {counts[Outcome.UNROUTABLE]} more")
    if counts[Outcome.UNCONFIRMED]:
        raise NodeError(
            f"{counts[Outcome.UNCONFIRMED]} messages were not confirmed: {transport.problem}",
            hint="run it again: what arrives twice has the same id",
        )
    return 0


async def _publish_all(
    transport: Transport, messages: Iterator[Message]
) -> dict[Outcome, int]:  # fmt: skip
    counts = dict.fromkeys(Outcome, 0)
    await transport.open()
    try:
        while batch := [message for message, _ in zip(messages, range(_BATCH), strict=False)]:
            for outcome in await transport.publish(batch):
                counts[outcome] += 1
            if counts[Outcome.UNCONFIRMED]:
                break
    finally:
        await transport.close()
    return counts
