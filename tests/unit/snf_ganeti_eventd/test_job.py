"""Parsing jobs, and when an event was."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snf_ganeti_eventd.jobs.job import STATUSES, JobError, make_event_time, make_order, parse_job
from unit.snf_ganeti_eventd.jobs import RECEIVED, make_bytes, make_job, make_op


def test_a_job_is_read() -> None:
    log = [[1, [RECEIVED, 1], "message", "first"], [2, [RECEIVED, 2], "message", "second"]]
    op = make_op("OP_INSTANCE_STARTUP", instance_name="snf-7", result=[1], log=log)
    job = make_job(901, op)
    (read,) = job.ops
    assert (job.id, job.is_final, job.received) == (901, True, (RECEIVED, 7))
    assert (read.op_id, read.status, read.result) == ("OP_INSTANCE_STARTUP", "success", [1])
    assert (read.message, read.end) == ("second", (RECEIVED + 3, 1500))
    assert read.input["instance_name"] == "snf-7"


def test_what_a_newer_ganeti_adds_is_ignored() -> None:
    op = {**make_op("OP_NEWER_THING", reason_trail={"a": [1]}), "new": {"x": 1}}
    assert make_job(1, op, future={"deep": [1]}).ops[0].op_id == "OP_NEWER_THING"


def test_a_message_for_programs_is_no_message() -> None:
    """Such an entry holds the keys of an import."""
    log = [[1, [1, 1], "message", "seen"], [2, [1, 1], "remote-import", {"x509": "secret"}]]
    assert make_job(1, make_op("OP_X", log=log)).ops[0].message == "seen"


def test_bytes_that_are_no_utf8_are_replaced() -> None:
    data = make_bytes(1, [make_op("OP_X", name="NAME")]).replace(b"NAME", b"\xff\xfe")
    assert parse_job(data, 1).ops[0].input["name"] == "��"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is not whole JSON: Expecting value at byte 0"),
        (make_bytes(1, [make_op("OP_X", secret="hunter2")])[:-20], "is not whole JSON"),
        (b"[" * 100_000, "is not whole JSON: nested too deeply"),
        (b'{"id": 1, "ops": ' + b"9" * 5000 + b"}", "a number has too many digits"),
        (b"[]", "has no list of operations"),
        (b'{"id": 1, "ops": 3}', "has no list of operations"),
        (b'{"id": 1, "ops": []}', "has no operation"),
        (b'{"id": 2, "ops": [{}]}', "says that it is another job"),
        (b'{"id": 1, "ops": [{}]}', "operation 0 of job 1 has no opcode"),
        (b'{"id": 1, "ops": [{"input": {}}]}', "operation 0 of job 1 has no OP_ID or no status"),
    ],
)
def test_what_is_no_job_is_refused_without_quoting_it(data: bytes, reason: str) -> None:
    with pytest.raises(JobError, match=re.escape(reason)) as caught:
        parse_job(data, 1)
    assert "hunter2" not in str(caught.value)


@given(st.binary(max_size=300) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(
        st.sampled_from(["id", "ops", "input", "OP_ID", "status", "log"]), inner),
).map(lambda value: json.dumps(value).encode()))  # fmt: skip
def test_nothing_but_a_reason_comes_of_what_is_no_job(data: bytes) -> None:
    try:
        parse_job(data, 1)
    except JobError as error:
        assert "job 1" in str(error)


@pytest.mark.parametrize(
    ("status", "time"),
    [
        ("queued", (RECEIVED, 7)),
        ("waiting", (RECEIVED + 1, 500)),
        ("canceling", (RECEIVED + 1, 501)),
        ("running", (RECEIVED + 2, 1000)),
        ("success", (RECEIVED + 3, 1500)),
        ("canceled", (RECEIVED + 3, 1500)),
        ("error", (RECEIVED + 3, 1500)),
    ],
)
def test_event_times_are_those_of_the_predecessor(status: str, time: tuple[int, int]) -> None:
    job = make_job(1, make_op("OP_X", status))
    assert make_event_time(job, job.ops[0]) == time


def test_an_operation_that_never_ran_ends_with_its_job() -> None:
    ops = [make_op("OP_A", "error"), {**make_op("OP_B", "queued"), "status": "error"}]
    job = make_job(1, *ops, end_timestamp=[RECEIVED + 9, 1])
    assert make_event_time(job, job.ops[1]) == (RECEIVED + 9, 1)


@given(
    st.lists(st.tuples(st.integers(0, 1 << 31), st.integers(0, 999_999)), min_size=3, max_size=3)
)
def test_a_later_state_is_later_whatever_the_clock_did(times: list[tuple[int, int]]) -> None:
    stamps = dict(zip(("start_timestamp", "exec_timestamp", "end_timestamp"), times, strict=True))
    seen = []
    for status in ("queued", "waiting", "running", "success"):
        job = make_job(1, {**make_op("OP_X", status), **stamps})
        seen.append((make_event_time(job, job.ops[0]), make_order(job.ops[0])))
    assert seen == sorted(set(seen))
    assert all(0 <= micro < 1_000_000 for (_, micro), _ in seen)


def test_every_state_has_an_order() -> None:
    jobs = [make_job(1, make_op("OP_X", status), make_op("OP_Y", status)) for status in STATUSES]
    assert all(make_order(job.ops[0]) < 4 <= make_order(job.ops[1]) for job in jobs)
