"""Progress of a deployment."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest

from snf_ganeti_eventd.messages.message import Message
from snf_ganeti_eventd.messages.opcode import Kind
from snf_ganeti_eventd.messages.schema import check_body
from snf_ganeti_eventd.progress import BACKLOG_LIMIT, Courier, Deployment, Nowhere, filter_fields
from snf_ganeti_eventd.transport import Outcome, TransportError

COPY = {"type": "image-copy-progress", "position": 52428800, "total": 104857600,
        "progress": 50.0, "timestamp": 1767000001.5}  # fmt: skip
LINES: Sequence[dict[str, Any]] = (
    COPY,
    {"type": "image-info", "messages": ["m"], "timestamp": 1.5},
    {"type": "image-error", "messages": ["m"], "stderr": "s", "timestamp": 1.5},
    {"type": "image-helper", "subtype": "task-start", "task": "AddSwap", "timestamp": 1.5},
    {"type": "image-helper", "subtype": "task-end", "task": "AddSwap", "result": "done",
     "reason": "", "seconds": 0.1, "timestamp": 1.5},
    {"type": "image-helper", "subtype": "ready", "version": 3, "timestamp": 1.5},
    {"type": "image-result", "status": "ok", "reason": "", "timestamp": 1.5},
)  # fmt: skip


def make(line: dict[str, Any], clock: float = 4e9) -> Message:
    message = Deployment("snf-7", "d1", lambda: clock).make_message(json.dumps(line).encode())
    assert message is not None
    return message


@pytest.mark.parametrize("line", LINES)
def test_each_event_of_snf_image_is_a_message(line: dict[str, Any]) -> None:
    message = make(line)
    check_body(Kind.PROGRESS, message.body)
    assert line.items() <= message.body.items()
    assert message.key == "ganeti.snf.event.progress"
    assert (message.body["instance"], message.id) == ("snf-7", "progress/d1/1")


def test_a_fast_clock_hides_no_final_event() -> None:
    """The predecessor's dispatcher keeps the time of a copy's progress, and no other's."""
    deployment = Deployment("snf-7", "d1", lambda: 4e9)
    line = json.dumps(COPY).encode()
    times = [
        message.body["event_time"] for _ in range(5) if (message := deployment.make_message(line))
    ]
    assert times == [[0, number] for number in range(1, 6)]
    assert make(LINES[1]).body["event_time"] == [4_000_000_000, 0]


@pytest.mark.parametrize(
    "line",
    [b"", b"{", b"[]", b"7", b'{"type": "other"}', b'{"type": ["x"]}', b"[" * 9999, b"\xff"],
)
def test_other_lines_are_passed_over(line: bytes) -> None:
    assert Deployment("snf-7", "d1", lambda: 1).make_message(line) is None


def test_only_known_fields_are_published() -> None:
    kept = filter_fields({"password": "x", "task": 7, "stderr": "y" * 9999, "progress": True,
                          "messages": ["a", 1, {"b": 2}], "seconds": 1})  # fmt: skip
    assert kept == {"stderr": "y" * 4096, "messages": ["a"], "seconds": 1}


class Away(Nowhere):
    """A broker that is away until told otherwise."""

    is_open = False

    def __init__(self) -> None:
        self.received: list[Message] = []

    async def open(self) -> None:
        raise TransportError("away")

    async def publish(self, batch: Sequence[Message]) -> list[Outcome]:
        self.received += batch
        return [Outcome.CONFIRMED] * len(batch)


def test_what_is_too_much_is_dropped_progress_first() -> None:
    deployment, away = Deployment("snf-7", "d1", lambda: 1), Away()
    courier = Courier(away)
    lines = [LINES[1], *[COPY] * BACKLOG_LIMIT, LINES[-1]]
    for line in lines:
        message = deployment.make_message(json.dumps(line).encode())
        assert message is not None
        courier.add(message)
    assert (courier.dropped, courier.left) == (2, BACKLOG_LIMIT)
    away.is_open = True
    courier.end()
    asyncio.run(courier.deliver())
    sequence = [message.body["sequence"] for message in away.received]
    assert sequence == [1, *range(4, BACKLOG_LIMIT + 3)]
    assert courier.left == 0
