"""The queue directory."""

from pathlib import Path

import pytest

from snf_ganeti.errors import NodeError
from snf_ganeti_eventd.jobs import job_queue
from snf_ganeti_eventd.jobs.job import JobError
from snf_ganeti_eventd.jobs.job_queue import JobQueue, parse_name
from unit.snf_ganeti_eventd.jobs import Queue, make_op


@pytest.mark.parametrize(
    ("name", "job_id"),
    [
        ("job-7", 7),
        ("job-123456", 123456),
        *((name, None) for name in ("job-", "job-7.tmp", "job-7abcd.new", "job-07", "job-x",
                                    "xjob-7", "serial", "job-٧", "job-" + "9" * 30)),
    ],
)  # fmt: skip
def test_only_jobs_are_jobs(name: str, job_id: int | None) -> None:
    assert parse_name(name) == job_id


def test_live_and_archived_jobs_are_found_and_read(tmp_path: Path) -> None:
    queue, files = JobQueue(tmp_path), Queue(tmp_path)
    for job_id in (3, 12, 10001):
        files.put(job_id, make_op("OP_X"))
    files.archive(3)
    files.archive(10001)
    (files.folder / "job-4.new").write_text("half")
    assert (queue.list_live(), queue.list_archived()) == ([12], [3, 10001])
    assert [queue.read(each).id for each in (3, 12, 10001)] == [3, 12, 10001]  # type: ignore[union-attr]
    assert queue.read(5) is None


def test_an_archive_that_did_not_change_is_not_listed_again(tmp_path: Path) -> None:
    queue, files = JobQueue(tmp_path), Queue(tmp_path)
    for job_id in (1, 2):
        files.put(job_id, make_op("OP_X"))
    files.archive(1)
    assert queue.list_archived() == [1]
    assert queue.list_archived(all_groups=False) == []
    files.archive(2)
    assert queue.list_archived(all_groups=False) == [1, 2]


def test_a_queue_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert JobQueue(tmp_path / "none").list_live() == JobQueue(tmp_path).list_archived() == []


def test_a_queue_that_is_none_says_so(tmp_path: Path) -> None:
    (tmp_path / "queue").write_text("")
    with pytest.raises(NodeError, match="queue can't be read: Not a directory"):
        JobQueue(tmp_path).list_live()


def test_a_job_that_is_too_large_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_queue, "SIZE_LIMIT", 100)
    files = Queue(tmp_path)
    files.put(1, make_op("OP_X"))
    with pytest.raises(JobError, match="job-1 is larger than"):
        JobQueue(tmp_path).read(1)


def test_ten_megabytes_are_a_job(tmp_path: Path) -> None:
    files = Queue(tmp_path)
    files.put(1, make_op("OP_X", big="x" * (10 << 20)))
    job = JobQueue(tmp_path).read(1)
    assert job is not None and job.size > 10 << 20
