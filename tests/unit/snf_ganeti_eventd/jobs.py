"""Jobs as Ganeti writes them, for tests."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from snf_ganeti_eventd.jobs.job import Job, parse_job

RECEIVED = 1_767_000_000
STEPS = {"queued": 0, "waiting": 1, "canceling": 1, "running": 2}


def make_op(
    op_id: str, status: str = "success", *, start: int = RECEIVED, **fields: Any
) -> dict[str, Any]:
    """An operation that came to `status`; fields: its input, but `result` and `log`."""
    passed = STEPS.get(status, 3)
    stamps = [[start + step, 500 * step] if step <= passed else None for step in (1, 2, 3)]
    result, log = fields.pop("result", None), fields.pop("log", [])
    return {
        "input": {"OP_ID": op_id, "debug_level": 0, "priority": 0, **fields},
        "status": status,
        "result": result,
        "log": log,
        "start_timestamp": stamps[0],
        "exec_timestamp": stamps[1],
        "end_timestamp": stamps[2],
        "priority": 0,
    }


def make_bytes(
    job_id: int, ops: Sequence[Mapping[str, Any]], *, received: int = RECEIVED, **fields: Any
) -> bytes:
    """A job's file; fields: further ones of a job, such as a newer Ganeti may write."""
    ended = [op["end_timestamp"] for op in ops if op["end_timestamp"]]
    job = {
        "id": job_id,
        "ops": ops,
        "start_timestamp": ops[0]["start_timestamp"],
        "end_timestamp": ended[-1] if len(ended) == len(ops) else None,
        "received_timestamp": [received, 7],
        "livelock": None,
        "process_id": 1234,
        **fields,
    }
    return json.dumps(job).encode() + b"\n"


def make_job(job_id: int, *ops: Mapping[str, Any], **fields: Any) -> Job:
    return parse_job(make_bytes(job_id, ops, **fields), job_id)


class Queue:
    """A queue directory below a folder, written as Ganeti writes it."""

    def __init__(self, ganeti_dir: Path) -> None:
        self.ganeti_dir = ganeti_dir
        self.folder = ganeti_dir / "queue"
        (self.folder / "archive").mkdir(parents=True)
        (ganeti_dir / "ssconf_cluster_name").write_text("c1.example\n")

    def write(self, job_id: int, data: bytes) -> None:
        draft = self.folder / f"job-{job_id}x7gh.new"
        draft.write_bytes(data)
        draft.rename(self.folder / f"job-{job_id}")

    def put(self, job_id: int, *ops: Mapping[str, Any], **fields: Any) -> None:
        self.write(job_id, make_bytes(job_id, ops, **fields))

    def archive(self, job_id: int) -> None:
        folder = self.folder / "archive" / str(job_id // 10000)
        folder.mkdir(exist_ok=True)
        (self.folder / f"job-{job_id}").rename(folder / f"job-{job_id}")
