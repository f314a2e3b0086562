"""`snf-progress-monitor INSTANCE`: the progress of a deployment, from snf-image to the broker.

It reads JSON lines on its standard input, shows them on its standard error, and publishes
them. It is a courtesy: it never makes snf-image wait, drops what it can't publish in time, and
always ends with status 0.
"""

import asyncio
import collections
import contextlib
import json
import os
import secrets
import select
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

from snf_ganeti.errors import SnfError
from snf_ganeti_eventd.messages.message import SCHEMA, Message, make_key
from snf_ganeti_eventd.messages.opcode import Kind
from snf_ganeti_eventd.messages.redaction import TEXT_LIMIT
from snf_ganeti_eventd.settings import read
from snf_ganeti_eventd.transport import Outcome, Transport, make_transport
from snf_ganeti_eventd.transport.journal import JournalTransport

JOURNAL = "progress.jsonl"
"""Where the transport "log" keeps progress, beside the file of events."""
LINE_LIMIT = 64 << 10
BACKLOG_LIMIT = 256
_LAST_SECONDS = 3.0
"""How long the end waits for the broker; snf-image does not wait much longer."""
_RETRY_SECONDS = 0.5
_COPY = "image-copy-progress"
_TYPES = frozenset(
    {_COPY, "image-info", "image-error", "image-warning", "image-helper", "image-result"}
)
_TEXTS = ("subtype", "task", "reason", "result", "status", "stderr")
_NUMBERS = ("position", "total", "progress", "seconds", "timestamp")


class Deployment:
    """Makes messages of one deployment's lines. id: the same in all of them."""

    def __init__(self, instance: str, identity: str, clock: Callable[[], float]) -> None:
        self._instance = instance
        self._id = identity
        self._clock = clock
        self._sequence = 0

    def make_message(self, line: bytes) -> Message | None:
        """The message of a line; None for one that is not an event of snf-image's."""
        try:
            fields = json.loads(line, parse_constant=lambda _: None)
        except (ValueError, RecursionError):
            return None
        kind = fields.get("type") if isinstance(fields, dict) else None
        if not isinstance(kind, str) or kind not in _TYPES:
            return None
        self._sequence += 1
        now = self._clock()
        kept = filter_fields(fields)
        body = {
            "type": kind,
            "schema": SCHEMA,
            "instance": self._instance,
            "event_time": self._make_time(kind, now),
            "deployment": self._id,
            "sequence": self._sequence,
            "timestamp": now,
            **kept,
        }
        return Message(
            id=f"progress/{self._id}/{self._sequence}",
            kind=Kind.PROGRESS,
            key=make_key(Kind.PROGRESS, self._instance),
            body=body,
            time=int(now),
        )

    def _make_time(self, kind: str, now: float) -> list[int]:
        """Controllers keep the latest event time of a copy's progress and take what is older
        for done: a node's clock that is ahead of the master's would hide the final event. So
        the copy's times only count, from the beginning of time."""
        if kind == _COPY:
            return [self._sequence // 1_000_000, self._sequence % 1_000_000]
        return [int(now), int(now % 1 * 1_000_000)]


def filter_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """What of a line is published: known names, of the right type, bounded."""
    kept: dict[str, Any] = {}
    for name in _TEXTS:
        if isinstance(fields.get(name), str):
            kept[name] = fields[name][:TEXT_LIMIT]
    for name in _NUMBERS:
        value = fields.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            kept[name] = value
    if type(fields.get("version")) is int:
        kept["version"] = fields["version"]
    messages = fields.get("messages")
    if isinstance(messages, list):
        kept["messages"] = [each[:TEXT_LIMIT] for each in messages[:100] if isinstance(each, str)]
    return kept


class Courier:
    """Messages that wait for the broker. When there are too many, the oldest progress of the
    copy goes first, then the oldest message."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._waiting: collections.deque[Message] = collections.deque()
        self._more = asyncio.Event()
        self.ended = False
        self.dropped = 0

    def add(self, message: Message) -> None:
        if len(self._waiting) >= BACKLOG_LIMIT:
            copies = (each for each in self._waiting if each.body["type"] == _COPY)
            self._waiting.remove(next(copies, self._waiting[0]))
            self.dropped += 1
        self._waiting.append(message)
        self._more.set()

    def end(self) -> None:
        self.ended = True
        self._more.set()

    @property
    def left(self) -> int:
        return len(self._waiting)

    async def deliver(self) -> None:
        """Publish until the end has come and nothing waits."""
        while not self.ended or self._waiting:
            if not self._waiting:
                self._more.clear()
                await self._more.wait()
                continue
            try:
                if not self._transport.is_open:
                    await self._transport.open()
            except SnfError:
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            await self._publish()

    async def _publish(self) -> None:
        batch = list(self._waiting)
        outcomes = await self._transport.publish(batch)
        for message, outcome in zip(batch, outcomes, strict=True):
            if outcome is not Outcome.UNCONFIRMED:
                with contextlib.suppress(ValueError):  # dropped meanwhile
                    self._waiting.remove(message)
        if Outcome.UNCONFIRMED in outcomes:
            await asyncio.sleep(_RETRY_SECONDS)


async def follow(instance: str, transport: Transport) -> int:
    """Read standard input to its end; gives how many messages nobody got."""
    deployment = Deployment(instance, secrets.token_hex(8), time.time)
    courier = Courier(transport)
    delivery = asyncio.create_task(courier.deliver())
    try:
        async for line in _read_lines():
            _show(line)
            message = deployment.make_message(line)
            if message is not None:
                courier.add(message)
        courier.end()
        async with asyncio.timeout(_LAST_SECONDS):
            await delivery
            await transport.close()
    except TimeoutError:
        pass
    finally:
        delivery.cancel()
    return courier.dropped + courier.left


class Nowhere:
    """A transport for a node that publishes no progress: everything counts as taken."""

    problem = ""
    address = "nowhere"
    is_open = True

    async def open(self) -> None:
        pass

    async def publish(self, batch: Sequence[Message]) -> list[Outcome]:
        return [Outcome.CONFIRMED] * len(batch)

    async def close(self) -> None:
        pass


def find_transport() -> Transport:
    """The settings' transport. Raises SettingsError."""
    settings = read()
    if Kind.PROGRESS not in settings.events:
        return Nowhere()
    if settings.transport == "log":
        return JournalTransport(settings.log, settings.log.path.with_name(JOURNAL))
    return make_transport(settings)


def main(argv: Sequence[str] | None = None) -> int:
    """The program; always 0, or snf-image would think that something is wrong."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    if len(arguments) != 1:
        print("usage: snf-progress-monitor INSTANCE < EVENTS", file=sys.stderr)
        return 0
    try:
        transport = find_transport()
    except SnfError as error:
        print(f"error: {error}; progress is not published", file=sys.stderr)
        transport = Nowhere()
    missed = asyncio.run(follow(arguments[0], transport))
    if missed:
        problem = transport.problem or "there were too many"
        print(f"warning: {missed} messages were not published: {problem}", file=sys.stderr)
    return 0


async def _read_lines() -> AsyncIterator[bytes]:
    """The lines of standard input; of one that is too long, nothing."""
    rest, skipping = b"", False
    async for data in _read_input():
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            if not skipping and len(line) <= LINE_LIMIT:
                yield line
            skipping = False
        if len(rest) > LINE_LIMIT:
            rest, skipping = b"", True
    if rest and not skipping:
        yield rest


async def _read_input() -> AsyncIterator[bytes]:
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    try:
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin.buffer)
    except ValueError:  # a file, which never makes anybody wait
        while data := os.read(sys.stdin.fileno(), LINE_LIMIT):
            yield data
        return
    while data := await reader.read(LINE_LIMIT):
        yield data


def _show(line: bytes) -> None:
    """On standard error, unless that would have to be waited for."""
    with contextlib.suppress(OSError):
        if select.select([], [sys.stderr], [], 0)[1]:
            os.write(sys.stderr.fileno(), line[: select.PIPE_BUF - 1] + b"\n")
