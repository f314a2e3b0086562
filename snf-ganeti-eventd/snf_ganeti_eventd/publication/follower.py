"""From jobs that changed to messages that are confirmed: a batch at a time.

A batch is read from the queue, published, and recorded in the cursor once it is confirmed;
meanwhile the next is read and sent. What was not confirmed is read again, so that nothing but
job numbers ever waits in memory, and what is published is always the latest.
"""

import logging
import time
from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from typing import Any, Protocol

from snf_ganeti_eventd.jobs.job import Job, JobDenied, JobError, Op, make_event_time, make_order
from snf_ganeti_eventd.jobs.job_queue import JobQueue
from snf_ganeti_eventd.messages import opcode, schema
from snf_ganeti_eventd.messages.message import Message, find_news, make_messages
from snf_ganeti_eventd.messages.opcode import Kind
from snf_ganeti_eventd.metrics import Metrics
from snf_ganeti_eventd.publication.backlog import Backlog
from snf_ganeti_eventd.publication.batch import Batch, Draft, Flight
from snf_ganeti_eventd.publication.cursor import Cursor
from snf_ganeti_eventd.transport import Outcome, Transport

log = logging.getLogger(__name__)

BATCH_LIMIT = 256
"""Jobs looked at, and about as many messages sent, before confirms are waited for."""
BATCH_BYTES = 8 << 20
"""Bytes of job files after which a batch takes no more; one larger file is a batch."""
_SAMPLE_SECONDS = 1.0
"""So often a message is checked against its schema: a check costs more than all the rest."""


class Inspects(Protocol):
    """What `instance.Inspector` does."""

    failures: int

    async def inspect(self, names: Collection[str]) -> Mapping[str, Mapping[str, Any]]: ...


class Follower:
    """cluster: its name; events: the kinds of events that the site wants."""

    def __init__(
        self,
        queue: JobQueue,
        cursor: Cursor,
        inspector: Inspects,
        metrics: Metrics,
        cluster: str,
        events: Collection[str],
    ) -> None:
        self.cursor = cursor
        self.backlog = Backlog()
        self.cluster = cluster
        self._queue = queue
        self._inspector = inspector
        self._metrics = metrics
        self._events = frozenset(events)
        self._unreadable: dict[int, str] = {}
        self._denied: dict[int, JobDenied] = {}
        self._sampled_at = -_SAMPLE_SECONDS
        self._flight: Flight | None = None
        self._told: set[str] = set()
        schema.load(Kind(each) for each in events)

    def rescan(self, *, all_archive: bool = True) -> int:
        """Put every job that is not done into the backlog; gives how many. Raises NodeError."""
        for job_id, error in self._denied.items():  # since the look before this one
            self._note_unreadable(job_id, error)
        # The archive comes last: what is moved between both looks is seen twice, not never.
        live = self._queue.list_live()
        jobs = {*live, *self._queue.list_archived(all_groups=all_archive)}
        self._check_queue(max(jobs, default=0))
        found = [job for job in sorted(jobs | self.cursor.open.keys())
                 if job not in self.cursor.done and not self.backlog.is_parked(job)]  # fmt: skip
        self.backlog.add(found)
        self.backlog.probe()
        return len(found)

    def _check_queue(self, last_job: int) -> None:
        """Is the queue still the one that the cursor is of? A cluster that was made anew counts
        its jobs from 1 again, and none of them is published."""
        if self.cursor.anchor is None or not last_job:
            return
        anchor_id, received = self.cursor.anchor
        anchor = self._read_quietly(anchor_id)
        last = self._read_quietly(last_job)
        is_other = anchor is not None and (anchor.received or (0, 0)) != received
        if anchor is None and last is not None and last.id < anchor_id:
            is_other = (last.received or (0, 0)) > received
        if is_other:
            log.error(
                "the cursor knows another job %d than the queue: it is of another cluster, and "
                "every job is published", anchor_id)  # fmt: skip
            self.cursor = Cursor()

    def _read_quietly(self, job_id: int) -> Job | None:
        try:
            return self._queue.read(job_id)
        except JobError:
            return None

    @property
    def has_work(self) -> bool:
        """Does a job wait, or what was sent of one for its confirm?"""
        return self._flight is not None or self.backlog.has_work

    @property
    def flying(self) -> int:
        """How many jobs are sent and not confirmed."""
        return len(self._flight.batch.taken) if self._flight else 0

    async def step(self, transport: Transport) -> bool | None:
        """Send the next batch and record the one before it, which was confirmed meanwhile.

        Gives whether all of that was taken, False when some of it has to be sent again, and
        None when there was none before it. A job is in one of both only, so its facts keep
        their order, and the cursor says of each only what is confirmed.
        """
        before = self._flight
        batch = await self._prepare(before.batch.taken if before else ())
        self._flight = Flight(batch, transport) if batch.messages else None
        if self._flight is None:
            self._record(batch, {})
        if before is None:
            return None if self._flight else True
        all_taken = self._record(before.batch, await before.land())
        if not all_taken:
            await self.settle()
        return all_taken

    async def settle(self) -> bool:
        """Record what was sent last; gives False when some of it has to be sent again."""
        last, self._flight = self._flight, None
        return last is None or self._record(last.batch, await last.land())

    async def _prepare(self, flying: Container[int]) -> Batch:
        taken = self.backlog.take(BATCH_LIMIT, flying)
        news = self._read_news(taken)
        details = await self._inspect(op for _, op in news)
        return Batch(taken, [self._make_draft(job, op, details) for job, op in news])

    def _read_news(self, taken: dict[int, float]) -> list[tuple[Job, Op]]:
        """What is new in these jobs. Those that would be too much at once wait again."""
        found: list[tuple[Job, Op]] = []
        size = 0
        later: dict[int, float] = {}
        for job_id, since in taken.items():
            if size > BATCH_BYTES:
                later[job_id] = since
            elif job_id not in self.cursor.done and (job := self._read_job(job_id)):
                news = find_news(job, self.cursor.open.get(job_id, ()))
                size += job.size if news else 0
                found.extend((job, op) for op in news)
                if not news and job.is_final:
                    self.cursor.finish(job_id, job.received)
        self.backlog.put_back(later)
        return found

    def _read_job(self, job_id: int) -> Job | None:
        try:
            job = self._queue.read(job_id)
        except JobDenied as error:
            self._denied[job_id] = error  # without the unit's capability, new jobs are at first
            return None
        except JobError as error:
            self._note_unreadable(job_id, error)
            return None
        self._unreadable.pop(job_id, None)
        self._denied.pop(job_id, None)
        if job is None and job_id in self.cursor.open:
            self._metrics.lost.inc()
            log.error("job %d was removed before all of it was published", job_id)
            self.cursor.finish(job_id, None)
        return job

    def _note_unreadable(self, job_id: int, error: JobError) -> None:
        """Log and count it once."""
        if self._unreadable.get(job_id) != str(error):
            self._unreadable[job_id] = str(error)
            self._metrics.unreadable.inc()
            log.error("%s; it is looked at again when it changes", error)

    async def _inspect(self, ops: Iterable[Op]) -> Mapping[str, Mapping[str, Any]]:
        names = {str(op.input.get("instance_name")) for op in ops if opcode.wants_instance(op)}
        before = self._inspector.failures
        details = await self._inspector.inspect(names)
        self._metrics.undetailed.inc(self._inspector.failures - before)
        return details

    def _make_draft(self, job: Job, op: Op, details: Mapping[str, Mapping[str, Any]]) -> Draft:
        subject = opcode.find_subject(op)
        stamp = make_event_time(job, op)
        if subject.name:
            name = f"{subject.kind}:{subject.name}"
            stamp = self.cursor.make_time(name, job.id, make_order(op), stamp)
            if op.is_final:
                self.cursor.record_time(name, job.id, stamp)
        states = self.cursor.open.get(job.id, ())
        known = states[op.index] if op.index < len(states) else ""
        details_of_it = details.get(subject.name, {}) if subject.kind is Kind.OP else {}
        messages = make_messages(job, op, known, self.cluster, stamp, details_of_it)
        wanted = [message for message in messages if message.kind in self._events]
        for message in wanted:
            self._sample(message)
        return Draft(job, op, wanted)

    def _sample(self, message: Message) -> None:
        """Check a message against its schema, unless that was done a moment ago."""
        now = time.monotonic()
        if now - self._sampled_at < _SAMPLE_SECONDS:
            return
        self._sampled_at = now
        try:
            schema.check_body(message.kind, message.body)
        except schema.SchemaError as error:
            self._metrics.invalid.inc()
            if str(error) not in self._told:
                self._told.add(str(error))
                log.error("%s; it is published all the same: this is a bug", error)

    def _count(self, messages: Sequence[Message], answers: Collection[Outcome]) -> None:
        metrics, outcomes = self._metrics, list(answers)
        metrics.published.inc(len(messages))
        metrics.confirmed.inc(outcomes.count(Outcome.CONFIRMED))
        metrics.unconfirmed.inc(outcomes.count(Outcome.UNCONFIRMED))
        metrics.unroutable.inc(outcomes.count(Outcome.UNROUTABLE))
        metrics.redacted.inc(sum(message.redacted for message in messages))

    def _record(self, batch: Batch, outcomes: Mapping[str, Outcome]) -> bool:
        """Write down what became of each operation; gives False when some has to be sent again,
        for which its job waits in front."""
        self._count(batch.messages, outcomes.values())
        again: set[int] = set()
        for draft in batch.drafts:
            states = {outcomes[message.id] for message in draft.messages}
            if Outcome.UNCONFIRMED in states:
                again.add(draft.job.id)
            elif Outcome.UNROUTABLE in states:
                self._park(draft, outcomes)
            else:
                self.cursor.record(draft.job.id, draft.op.index, draft.op.status)
                for message in draft.messages:
                    self.backlog.unpark(message.key)
        for draft in batch.drafts:
            job = draft.job
            if job.is_final and not find_news(job, self.cursor.open.get(job.id, ())):
                self.cursor.finish(job.id, job.received)
        self.backlog.put_back({job: batch.taken[job] for job in batch.taken if job in again})
        return not again

    def _park(self, draft: Draft, outcomes: Mapping[str, Outcome]) -> None:
        for message in draft.messages:
            if outcomes[message.id] is Outcome.UNROUTABLE:
                is_first = self.backlog.park(message.key, draft.job.id)
                if is_first and message.key not in self._told:
                    self._told.add(message.key)
                    log.warning(
                        "nobody takes messages with routing key %s; they are kept and tried again",
                        message.key,
                    )
