"""`snf-ganeti-eventd tail`: events as they come, on a terminal; nothing is published."""

import json
import logging
import select
from collections.abc import Iterator

from snf_ganeti_eventd.commands.show import make_line
from snf_ganeti_eventd.jobs.job import Job, JobError, Op, make_event_time
from snf_ganeti_eventd.jobs.job_queue import JobQueue
from snf_ganeti_eventd.jobs.watch import Watcher
from snf_ganeti_eventd.messages import opcode
from snf_ganeti_eventd.messages.instance import InstanceError, Query, make_details
from snf_ganeti_eventd.messages.message import Message, find_news, make_messages
from snf_ganeti_eventd.settings import Settings
from snf_ganeti_eventd.ssconf import read_role

log = logging.getLogger(__name__)


class Tail:
    """What was seen of each job that goes on; those that had ended before are left out."""

    def __init__(self, settings: Settings, query: Query) -> None:
        self._settings = settings
        self._queue = JobQueue(settings.ganeti_dir)
        self._query = query
        self._seen: dict[int, list[str]] = {}
        self.watcher = Watcher(settings.ganeti_dir)
        for job_id in self._queue.list_live():
            self._look(job_id)

    def wait(self) -> Iterator[Message]:
        """The messages of what changed, after waiting for it."""
        select.select([self.watcher], [], [])
        changes = self.watcher.read()
        jobs = self._queue.list_live() if changes.must_rescan else changes.jobs
        for job_id in jobs:
            yield from self._look(job_id)

    def _look(self, job_id: int) -> list[Message]:
        try:
            job = self._queue.read(job_id)
        except JobError:
            return []
        if job is None:
            return []
        known = self._seen.get(job_id, [])
        self._seen[job_id] = [op.status for op in job.ops]
        return [each for op in find_news(job, known) for each in self._make(job, op, known)]

    def _make(self, job: Job, op: Op, known: list[str]) -> list[Message]:
        cluster = read_role(self._settings.ganeti_dir).cluster
        state = known[op.index] if op.index < len(known) else ""
        details = {}
        if known and opcode.wants_instance(op):
            try:
                rows = self._query([str(op.input.get("instance_name"))])
                details = dict(make_details(rows[0])) if rows else {}
            except InstanceError:
                pass
        return make_messages(job, op, state, cluster, make_event_time(job, op), details)


def run(settings: Settings, query: Query, *, as_json: bool) -> int:
    """Print events until the reader leaves or a signal comes. Raises NodeError."""
    tail = Tail(settings, query)
    log.info("following the jobs of %s", read_role(settings.ganeti_dir).cluster or "no cluster")
    while True:
        for message in tail.wait():
            print(json.dumps(message.body) if as_json else make_line(message.body), flush=True)
