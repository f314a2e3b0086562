"""Jobs as Ganeti writes them: one JSON object a file, `job-N` in the queue directory.

A job is `{id, ops, received_timestamp, start_timestamp, end_timestamp, …}`; an operation is
`{input: {OP_ID, …}, status, result, log: [[serial, time, type, message], …], start_timestamp,
exec_timestamp, end_timestamp, …}`; a timestamp is `[seconds, microseconds]`
(ganeti lib/jqueue/__init__.py, `_QueuedJob.Serialize`). What is not named here is ignored, so
a newer Ganeti may add to it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from snf_ganeti.errors import InputError

Stamp = tuple[int, int]
"""Seconds since the epoch, and microseconds."""

FINAL = frozenset({"canceled", "success", "error"})
STATUSES = ("queued", "waiting", "canceling", "running", "canceled", "success", "error")
SIZE_LIMIT = 64 << 20
"""Bytes of a job's file; a larger one is not read."""

_DECODER = json.JSONDecoder(parse_constant=lambda _: None)
_MICROSECONDS = 1_000_000
_PASSED = {"queued": 0, "waiting": 1, "canceling": 1, "running": 2}
"""How many of its times an operation in a state has; a final one has all three."""


class JobError(InputError):
    """A file that is not a job of Ganeti's, or not all of it."""


class JobDenied(JobError):
    """A file that this process may not read."""


@dataclass(frozen=True)
class Op:
    """One operation of a job. input: the opcode's parameters, secrets among them."""

    index: int
    op_id: str
    status: str
    input: Mapping[str, Any]
    result: Any
    message: str | None
    start: Stamp | None
    exec: Stamp | None
    end: Stamp | None

    @property
    def is_final(self) -> bool:
        return self.status in FINAL

    def __repr__(self) -> str:
        return f"Op({self.index}, {self.op_id}, {self.status})"


@dataclass(frozen=True)
class Job:
    """size: bytes of its file."""

    id: int
    ops: tuple[Op, ...]
    received: Stamp | None
    end: Stamp | None
    size: int = 0

    @property
    def is_final(self) -> bool:
        return all(op.is_final for op in self.ops)

    @property
    def last_time(self) -> float:
        """When it last changed state, in seconds since the epoch."""
        return max(seconds + micro / _MICROSECONDS for op in self.ops
                   for seconds, micro in (make_event_time(self, op),))  # fmt: skip


def parse_job(data: bytes, job_id: int) -> Job:
    """The job in a file named after `job_id`. Bytes that are not UTF-8 are replaced.

    Raises JobError: not JSON, cut short, another job's, or not a job at all.
    """
    try:
        fields = _DECODER.decode(data.decode("utf-8", "replace"))
    except (ValueError, RecursionError) as error:
        raise JobError(f"job {job_id} is not whole JSON: {_shorten(error)}") from None
    if not isinstance(fields, dict) or not isinstance(fields.get("ops"), list):
        raise JobError(f"job {job_id} has no list of operations")
    if str(fields.get("id")) != str(job_id):
        raise JobError(f"job {job_id} says that it is another job")
    if not fields["ops"]:
        raise JobError(f"job {job_id} has no operation")
    return Job(
        id=job_id,
        ops=tuple(_parse_op(job_id, index, op) for index, op in enumerate(fields["ops"])),
        received=_parse_stamp(fields.get("received_timestamp")),
        end=_parse_stamp(fields.get("end_timestamp")),
        size=len(data),
    )


def make_event_time(job: Job, op: Op) -> Stamp:
    """When an operation came to its state, by the master's clock at that time.

    Each state is later than the one before it even when the clock was set back meanwhile.
    """
    time = job.received or (0, 0)
    steps = [op.start, op.exec, op.end or job.end]
    for step in steps[: _PASSED.get(op.status, 3)]:
        time = _advance(time, step)
    return advance(time) if op.status == "canceling" else time


def advance(time: Stamp, by: int = 1) -> Stamp:
    """Some microseconds later."""
    seconds, micro = time
    return seconds + (micro + by) // _MICROSECONDS, (micro + by) % _MICROSECONDS


def _advance(before: Stamp, then: Stamp | None) -> Stamp:
    return max(advance(before), then or (0, 0))


def make_order(op: Op) -> int:
    """Where an operation's state stands among all states of its job."""
    return op.index * len(_PASSED) + _PASSED.get(op.status, 3)


def _parse_op(job_id: int, index: int, fields: Any) -> Op:
    where = f"operation {index} of job {job_id}"
    if not isinstance(fields, dict) or not isinstance(fields.get("input"), dict):
        raise JobError(f"{where} has no opcode")
    op_id, status = fields["input"].get("OP_ID"), fields.get("status")
    if not isinstance(op_id, str) or not isinstance(status, str):
        raise JobError(f"{where} has no OP_ID or no status")
    return Op(
        index=index,
        op_id=op_id,
        status=status,
        input=fields["input"],
        result=fields.get("result"),
        message=_find_message(fields.get("log")),
        start=_parse_stamp(fields.get("start_timestamp")),
        exec=_parse_stamp(fields.get("exec_timestamp")),
        end=_parse_stamp(fields.get("end_timestamp")),
    )


def _find_message(log: Any) -> str | None:
    """The last message for people; entries of other types are for programs, keys among them."""
    for entry in reversed(log if isinstance(log, list) else []):
        if isinstance(entry, list) and len(entry) == 4 and entry[2] == "message":
            return entry[3] if isinstance(entry[3], str) else None
    return None


def _parse_stamp(value: Any) -> Stamp | None:
    if not isinstance(value, list) or len(value) != 2:
        return None
    seconds, micro = value
    if type(seconds) is not int or type(micro) is not int or not 0 <= seconds < 1 << 40:
        return None
    return seconds + micro // _MICROSECONDS, micro % _MICROSECONDS


def _shorten(error: Exception) -> str:
    """The reason without what it quotes, which may be a secret."""
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at byte {error.pos}"
    return "a number has too many digits" if isinstance(error, ValueError) else "nested too deeply"
