"""The transport "log"."""

import asyncio
import json
from pathlib import Path

import pytest

from snf_ganeti_eventd.messages.message import Message
from snf_ganeti_eventd.messages.opcode import Kind
from snf_ganeti_eventd.settings import LogSettings
from snf_ganeti_eventd.transport import Outcome, TransportError
from snf_ganeti_eventd.transport.journal import JournalTransport


def make(number: int, size: int = 0) -> Message:
    return Message(f"c/{number}/0/success", Kind.JOB, "ganeti.event.job", {"x": "y" * size}, 0)


async def publish(transport: JournalTransport, *batches: list[Message]) -> list[Outcome]:
    await transport.open()
    return [outcome for batch in batches for outcome in await transport.publish(batch)]


def read(path: Path) -> list[str]:
    return [json.loads(line)["message_id"] for line in path.read_text().splitlines()]


def test_a_message_is_a_line(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    transport = JournalTransport(LogSettings(path))
    assert asyncio.run(publish(transport, [make(1), make(2)])) == [Outcome.CONFIRMED] * 2
    first = json.loads(path.read_text().splitlines()[0])
    assert first == {"message_id": "c/1/0/success", "routing_key": "ganeti.event.job",
                     "event": {"x": ""}}  # fmt: skip
    assert path.stat().st_mode & 0o777 == 0o640


def test_files_are_rotated_and_none_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    transport = JournalTransport(LogSettings(path, max_size=1, keep=2))
    asyncio.run(publish(transport, *([make(number, 300_000)] for number in range(15))))
    names = sorted(each.name for each in tmp_path.iterdir())
    assert names == ["events.jsonl", "events.jsonl.1", "events.jsonl.2"]
    assert all(each.stat().st_size <= 1 << 20 for each in tmp_path.iterdir())
    kept = [number for name in reversed(names) for number in read(tmp_path / name)]
    assert kept == [f"c/{number}/0/success" for number in range(15 - len(kept), 15)]


def test_two_writers_share_a_file(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    settings = LogSettings(path, max_size=1, keep=9)
    first, second = JournalTransport(settings), JournalTransport(settings)

    async def both() -> None:
        for number in range(10):
            await publish(first if number % 2 else second, [make(number, 200_000)])

    asyncio.run(both())
    found = [each for name in tmp_path.iterdir() for each in read(name)]
    assert sorted(found) == sorted(f"c/{number}/0/success" for number in range(10))


def test_a_line_cut_by_a_power_failure_is_ended(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text('{"message_id": "c/1/0/succ')
    asyncio.run(publish(JournalTransport(LogSettings(path)), [make(1)]))
    _, whole = path.read_text().splitlines()
    assert json.loads(whole)["message_id"] == "c/1/0/success"


def test_a_full_disk_keeps_whole_lines_and_says_why() -> None:
    transport = JournalTransport(LogSettings(Path("/dev/full")))
    assert asyncio.run(publish(transport, [make(1)])) == [Outcome.UNCONFIRMED]
    assert transport.problem == "/dev/full can't be written: No space left on device"
    assert not transport.is_open


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    transport = JournalTransport(LogSettings(tmp_path / "none/events.jsonl"))
    with pytest.raises(TransportError, match=r"events.jsonl can't be written: No such file"):
        asyncio.run(transport.open())
