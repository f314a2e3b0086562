"""No fact is lost, whatever the transport and the power do.

The transport is a mock: a real broker can't be made to fail for single messages at will.
"""

import asyncio
import random
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from snf_ganeti_eventd.jobs.job_queue import JobQueue
from snf_ganeti_eventd.messages.message import Message
from snf_ganeti_eventd.messages.opcode import Kind
from snf_ganeti_eventd.messages.schema import check_body
from snf_ganeti_eventd.metrics import Metrics
from snf_ganeti_eventd.publication import follower as module
from snf_ganeti_eventd.publication.cursor import Cursor, format_cursor, parse_cursor
from snf_ganeti_eventd.publication.follower import Follower
from snf_ganeti_eventd.transport import Outcome
from unit.snf_ganeti_eventd.jobs import RECEIVED, Queue, make_op


class Broker:
    """Keeps what it got. `decide` says what the sender hears about each message, some turns of
    the event loop later; what it hears nothing of may have arrived all the same."""

    address = "test"
    problem = "it was told to"
    is_open = True

    def __init__(self, decide: Any = None, turns: int = 0) -> None:
        self.received: list[Message] = []
        self.turns = turns
        self._decide = decide or (lambda message: Outcome.CONFIRMED)

    async def open(self) -> None:
        pass

    async def close(self) -> None:
        pass

    async def publish(self, batch: Sequence[Message]) -> list[Outcome]:
        outcomes = [self._decide(message) for message in batch]
        self.received += [
            message
            for message, outcome in zip(batch, outcomes, strict=True)
            if outcome is not Outcome.UNROUTABLE
        ]
        for _ in range(self.turns):
            await asyncio.sleep(0)
        return outcomes

    @property
    def ids(self) -> list[str]:
        return [message.id for message in self.received]


class Inspector:
    failures = 0

    async def inspect(self, names: Collection[str]) -> Mapping[str, Mapping[str, Any]]:
        details = {"instance_nics": [], "instance_disks": [],
                   "instance_hvparams": {"boot_order": "disk", "cdrom_image_path": ""}}  # fmt: skip
        return dict.fromkeys(names, details)


def make_follower(tmp_path: Path, cursor: Cursor | None = None, events: Any = Kind) -> Follower:
    return Follower(
        JobQueue(tmp_path), cursor or Cursor(), Inspector(), Metrics(), "c1", list(map(str, events))
    )


def drain(follower: Follower, broker: Broker) -> None:
    async def steps() -> None:
        for _ in range(100):
            if not follower.has_work:
                return
            await follower.step(broker)
        raise AssertionError("it never ends")

    asyncio.run(steps())


def publish_once(follower: Follower, broker: Broker) -> bool | None:
    """One batch, and its answers."""

    async def step_and_settle() -> bool | None:
        return await follower.step(broker) is not False and await follower.settle()

    return asyncio.run(step_and_settle())


def test_each_state_is_told_once(tmp_path: Path) -> None:
    files, follower, broker = Queue(tmp_path), make_follower(tmp_path), Broker()
    for status in ("queued", "waiting", "waiting", "running", "success", "success"):
        files.put(1, make_op("OP_INSTANCE_STARTUP", status, instance_name="snf-7"))
        follower.backlog.add([1])
        drain(follower, broker)
    assert broker.ids == [f"c1/1/0/{each}" for each in ("queued", "waiting", "running", "success")]
    assert 1 in follower.cursor.done and not follower.cursor.open
    assert "instance_nics" in broker.received[-1].body


def test_what_is_not_confirmed_is_sent_again_as_it_is_then(tmp_path: Path) -> None:
    files, follower = Queue(tmp_path), make_follower(tmp_path)
    files.put(1, make_op("OP_X", "running"))
    follower.backlog.add([1, 2])
    down = Broker(lambda message: Outcome.UNCONFIRMED)
    assert publish_once(follower, down) is False
    assert len(follower.backlog) == 1
    files.put(1, make_op("OP_X", "success"))
    broker = Broker()
    drain(follower, broker)
    assert broker.ids == ["c1/1/0/success"]


def test_what_nobody_takes_is_kept_and_told_once_somebody_does(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files, follower = Queue(tmp_path), make_follower(tmp_path)
    for job_id in range(1, 6):
        files.put(job_id, make_op("OP_NODE_SET_PARAMS", node_name="n"))
    files.put(6, make_op("OP_INSTANCE_STARTUP", instance_name="snf-7"))
    is_bound = False

    def decide(message: Message) -> Outcome:
        is_lonely = message.key == "ganeti.event.node" and not is_bound
        return Outcome.UNROUTABLE if is_lonely else Outcome.CONFIRMED

    broker = Broker(decide)
    for _ in range(3):
        follower.rescan()
        drain(follower, broker)
    assert broker.ids == ["c1/6/0/success"]
    assert (follower.backlog.parked, len(follower.backlog)) == (5, 5)
    assert caplog.text.count("ganeti.event.node") == 1

    is_bound = True
    follower.rescan()
    drain(follower, broker)
    assert sorted(broker.ids[1:]) == [f"c1/{job_id}/0/success" for job_id in range(1, 6)]
    assert follower.backlog.parked == 0


def test_kinds_that_a_site_does_not_want_are_passed_over(tmp_path: Path) -> None:
    files, broker = Queue(tmp_path), Broker()
    follower = make_follower(tmp_path, events=[Kind.OP])
    files.put(1, make_op("OP_NODE_SET_PARAMS", node_name="n"))
    files.put(2, make_op("OP_INSTANCE_STARTUP", instance_name="snf-7"))
    follower.rescan()
    drain(follower, broker)
    assert broker.ids == ["c1/2/0/success"]
    assert list(follower.cursor.done) == [(1, 2)]


def test_a_file_that_is_no_job_is_named_once_and_read_when_it_changed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files, follower, broker = Queue(tmp_path), make_follower(tmp_path), Broker()
    files.write(1, b'{"id": 1, "ops": [{"input": {"secret": "hunter2"')
    for _ in range(3):
        follower.rescan()
        drain(follower, broker)
    assert caplog.text.count("job 1 is not whole JSON") == 1
    assert "hunter2" not in caplog.text
    files.put(1, make_op("OP_X"))
    follower.rescan()
    drain(follower, broker)
    assert broker.ids == ["c1/1/0/success"]


def test_a_job_that_was_removed_too_early_is_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files, follower, broker = Queue(tmp_path), make_follower(tmp_path), Broker()
    files.put(1, make_op("OP_X", "running"))
    follower.rescan()
    drain(follower, broker)
    (files.folder / "job-1").unlink()
    follower.rescan()
    drain(follower, broker)
    assert "job 1 was removed before all of it was published" in caplog.text
    assert 1 in follower.cursor.done


def test_the_next_batch_is_sent_before_the_last_one_is_confirmed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But nothing of a job that is on its way, and the cursor says nothing of either."""
    monkeypatch.setattr(module, "BATCH_LIMIT", 2)
    files, follower, broker = Queue(tmp_path), make_follower(tmp_path), Broker(turns=9)
    for job_id in range(1, 4):
        files.put(job_id, make_op("OP_X", "running"))
    follower.rescan()

    async def steps() -> None:
        assert await follower.step(broker) is None
        await asyncio.sleep(0)
        assert (broker.ids, follower.flying) == (["c1/1/0/running", "c1/2/0/running"], 2)
        files.put(1, make_op("OP_X", "success"))
        follower.backlog.add([1])
        assert follower.cursor.open == {}
        assert await follower.step(broker) is True
        assert follower.cursor.open == {1: ["running"], 2: ["running"]}
        await asyncio.sleep(0)
        assert broker.ids[2:] == ["c1/3/0/running"]

    asyncio.run(steps())


def test_large_jobs_are_sent_a_few_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BATCH_BYTES", 100_000)
    files, follower, broker = Queue(tmp_path), make_follower(tmp_path), Broker()
    for job_id in range(1, 10):
        files.put(job_id, make_op("OP_X", big="x" * 60_000))
    follower.rescan()
    publish_once(follower, broker)
    assert len(broker.ids) == 2
    drain(follower, broker)
    assert broker.ids == [f"c1/{job_id}/0/success" for job_id in range(1, 10)]


@pytest.mark.parametrize("last_job", [3, 5, 9])
def test_another_clusters_queue_is_told_from_the_cursors(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, last_job: int
) -> None:
    files, broker = Queue(tmp_path / "old"), Broker()
    follower = make_follower(tmp_path / "old")
    for job_id in range(1, 6):
        files.put(job_id, make_op("OP_X"))
    follower.rescan()
    drain(follower, broker)

    files, again = Queue(tmp_path / "new"), Broker()
    for job_id in range(1, last_job + 1):
        files.put(job_id, make_op("OP_Y"), received=RECEIVED + 10_000)
    follower = make_follower(tmp_path / "new", follower.cursor)
    follower.rescan()
    drain(follower, again)
    assert len(again.ids) == last_job
    assert "it is of another cluster" in caplog.text


def test_a_queue_that_only_lost_its_old_jobs_is_the_same(tmp_path: Path) -> None:
    files, broker = Queue(tmp_path), Broker()
    follower = make_follower(tmp_path)
    for job_id in range(1, 6):
        files.put(job_id, make_op("OP_X"), received=RECEIVED + job_id)
    follower.rescan()
    drain(follower, broker)
    for job_id in (4, 5):
        (files.folder / f"job-{job_id}").unlink()
    follower.rescan()
    drain(follower, broker)
    assert len(broker.ids) == 5


class World:
    """A cluster whose jobs go on at random, and a daemon that is killed at random."""

    OPS: Sequence[tuple[str, dict[str, Any]]] = (
        ("OP_INSTANCE_STARTUP", {"instance_name": "snf-7"}),
        ("OP_INSTANCE_CREATE", {"instance_name": "snf-8"}),
        ("OP_NETWORK_CONNECT", {"network_name": "snf-net-1"}),
        ("OP_TAGS_SET", {"kind": "instance", "name": "snf-7", "tags": ["t"]}),
        ("OP_CLUSTER_VERIFY", {}),
    )

    def __init__(self, tmp_path: Path, seed: int) -> None:
        self.random = random.Random(seed)
        self.path = tmp_path
        self.files = Queue(tmp_path)
        self.jobs: dict[int, list[list[Any]]] = {}
        self.cursor = b""
        self.broker = Broker(self.decide)
        self.follower = make_follower(tmp_path)
        self.runner = asyncio.Runner()

    def decide(self, message: Message) -> Outcome:
        return self.random.choices(list(Outcome), [8, 1, 2])[0]

    def go_on(self) -> int:
        """Some job gets a new state, or there is a new one; the daemon may miss it."""
        alive = [job for job, ops in self.jobs.items() if ops[-1][2] not in ("success", "error")]
        if alive and self.random.random() < 0.8:
            job_id = self.random.choice(alive)
            self.jobs[job_id] = [self.advance(op) for op in self.jobs[job_id]]
        else:
            job_id = len(self.jobs) + 1
            count = self.random.choice([1, 1, 3])
            self.jobs[job_id] = [[*self.random.choice(self.OPS), "queued"] for _ in range(count)]
        # The clock goes back now and then.
        start = RECEIVED + 10 * job_id - (10_000 if job_id % 17 == 0 else 0)
        ops = [
            make_op(op_id, status, start=start, **more) for op_id, more, status in self.jobs[job_id]
        ]
        self.files.put(job_id, *ops, received=start)
        if self.jobs[job_id][-1][2] in ("success", "error") and self.random.random() < 0.5:
            self.files.archive(job_id)
        return job_id

    def advance(self, op: list[Any]) -> list[Any]:
        after = {"queued": "waiting", "waiting": "running",
                 "running": self.random.choice(["success", "error"])}  # fmt: skip
        return [*op[:2], after.get(op[2], op[2])]

    def restart(self) -> None:
        cursor = parse_cursor(self.cursor) if self.cursor else Cursor()
        self.follower = make_follower(self.path, cursor)
        self.follower.rescan()

    def live(self) -> None:
        for _ in range(300):
            changed = self.go_on()
            if self.random.random() < 0.8:
                self.follower.backlog.add([changed])
            for _ in range(self.random.randrange(3)):
                self.broker.turns = self.random.randrange(9)
                self.runner.run(self.follower.step(self.broker))
            if self.random.random() < 0.3:
                self.cursor = format_cursor(self.follower.cursor)
            if self.random.random() < 0.1:
                self.restart()


@pytest.mark.parametrize("seed", range(8))
def test_after_any_history_every_final_state_was_told(tmp_path: Path, seed: int) -> None:
    world = World(tmp_path, seed)
    with world.runner:
        world.live()
    world.restart()
    world.broker._decide = lambda message: Outcome.CONFIRMED
    drain(world.follower, world.broker)

    finals = {
        f"c1/{job_id}/{index}/{status}"
        for job_id, ops in world.jobs.items()
        for index, (_, _, status) in enumerate(ops)
    } - {
        f"c1/{job_id}/{index}/{status}"
        for job_id, ops in world.jobs.items()
        for index, (op_id, _, status) in enumerate(ops)
        if op_id == "OP_TAGS_SET" and status not in ("success", "error")
    }
    assert finals <= set(world.broker.ids)
    told: dict[str, Any] = {}
    for message in world.broker.received:
        check_body(message.kind, message.body)
        body = {**message.body, "event_time": None}
        assert told.setdefault(message.id, body) == body
    ended: dict[tuple[str, ...], str] = {}
    for message in world.broker.received:
        *op, status = message.id.split("/")
        if status in ("success", "error"):
            assert ended.setdefault(tuple(op), status) == status
