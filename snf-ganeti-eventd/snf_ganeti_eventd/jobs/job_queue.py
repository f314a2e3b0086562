"""Ganeti's queue directory: `job-N` of jobs that go on or ended lately, and the archive,
`archive/<N div 10000>/job-N`. Ganeti replaces files whole and moves them to the archive."""

import functools
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from snf_ganeti.errors import NodeError
from snf_ganeti_eventd.jobs.job import SIZE_LIMIT, Job, JobDenied, JobError, parse_job

JOB_FILE = re.compile(r"job-(0|[1-9][0-9]{0,17})", re.ASCII)
ARCHIVE_GROUP = 10000


def parse_name(name: str) -> int | None:
    """The job of a file's name; Ganeti's temporary files, and anything else, are of none."""
    match = JOB_FILE.fullmatch(name)
    return int(match[1]) if match else None


@dataclass
class JobQueue:
    """The queue below Ganeti's data directory. Its methods raise NodeError for a queue that
    can't be read; one that is not there is empty."""

    ganeti_dir: Path
    _archive_times: dict[str, int] = field(default_factory=dict, repr=False)

    @functools.cached_property
    def folder(self) -> Path:
        return self.ganeti_dir / "queue"

    @functools.cached_property
    def archive(self) -> Path:
        return self.folder / "archive"

    def list_live(self) -> list[int]:
        """The jobs that are not in the archive, lowest first."""
        return sorted(_list_jobs(self.folder))

    def list_archived(self, *, all_groups: bool = True) -> list[int]:
        """The jobs in the archive, lowest first; without `all_groups`, only those in folders
        that changed since they were listed last."""
        found: list[int] = []
        for group in _list_folders(self.archive):
            changed = Path(group.path).stat().st_mtime_ns
            if all_groups or self._archive_times.get(group.name) != changed:
                found.extend(_list_jobs(Path(group.path)))
                self._archive_times[group.name] = changed
        return sorted(found)

    def read(self, job_id: int) -> Job | None:
        """A job, from wherever it is; None when it is gone. Raises JobError."""
        data = self.read_bytes(job_id)
        return None if data is None else parse_job(data, job_id)

    def read_bytes(self, job_id: int) -> bytes | None:
        """The content of a job's file; None when it is gone. Raises JobError."""
        # Text, not Path: this is read for every state of every job.
        live = f"{self.folder}/job-{job_id}"
        archived = f"{self.folder}/archive/{job_id // ARCHIVE_GROUP}/job-{job_id}"
        # It may be moved between two looks, and an archived job is never moved back.
        for path in (live, archived, live, archived):
            try:
                data = _read_file(path)
            except FileNotFoundError:
                continue
            except PermissionError:
                raise JobDenied(f"{path} can't be read: permission denied") from None
            except OSError as error:
                raise JobError(f"{path} can't be read: {error.strerror}") from None
            if len(data) > SIZE_LIMIT:
                raise JobError(f"{path} is larger than {SIZE_LIMIT >> 20} MiB")
            return data
        return None


def _read_file(path: str) -> bytes:
    """A file's content, or a byte more than SIZE_LIMIT. Of one that grows meanwhile it gives a
    part, and its next notice follows.

    Python's own `file.read(limit)` would first make room for the limit. Raises OSError.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, min(os.fstat(descriptor).st_size, SIZE_LIMIT) + 1)
    finally:
        os.close(descriptor)


def _list_jobs(folder: Path) -> Iterator[int]:
    with _scan(folder) as entries:
        for entry in entries:
            job_id = parse_name(entry.name)
            if job_id is not None:
                yield job_id


def _list_folders(folder: Path) -> list["os.DirEntry[str]"]:
    with _scan(folder) as entries:
        return [entry for entry in entries if entry.name.isdecimal() and entry.is_dir()]


class _Empty:
    """Like a folder that has nothing."""

    def __enter__(self) -> Iterator["os.DirEntry[str]"]:
        return iter(())

    def __exit__(self, *_: object) -> None:
        pass


def _scan(folder: Path) -> "os._ScandirIterator[str] | _Empty":
    try:
        return os.scandir(folder)
    except FileNotFoundError:
        return _Empty()
    except OSError as error:
        raise NodeError(
            f"{folder} can't be read: {error.strerror}",
            hint="the service's unit gives the daemon what it needs; commands want root",
        ) from None
