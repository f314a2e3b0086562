"""What is published together: some jobs, what is new of them, and what became of it."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from snf_ganeti_eventd.jobs.job import Job, Op
from snf_ganeti_eventd.messages.message import Message
from snf_ganeti_eventd.transport import Outcome, Transport


@dataclass(frozen=True)
class Draft:
    """An operation in a state that is not published, and the messages that say so."""

    job: Job
    op: Op
    messages: Sequence[Message]


@dataclass(frozen=True)
class Batch:
    """taken: jobs, and when they were noticed; drafts: what is new of them."""

    taken: Mapping[int, float]
    drafts: Sequence[Draft]

    @property
    def messages(self) -> list[Message]:
        return [message for draft in self.drafts for message in draft.messages]


class Flight:
    """A batch on its way: it is sent at once, and lands when all of it is answered."""

    def __init__(self, batch: Batch, transport: Transport) -> None:
        self.batch = batch
        self._messages = batch.messages
        self._task = asyncio.create_task(transport.publish(self._messages))

    async def land(self) -> dict[str, Outcome]:
        """What became of each message, by its id."""
        outcomes = await self._task
        return {each.id: outcome for each, outcome in zip(self._messages, outcomes, strict=True)}
