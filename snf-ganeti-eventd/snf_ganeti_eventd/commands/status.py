"""`snf-ganeti-eventd status`: how far behind the daemon is, from its cursor and the queue."""

import json
import time
from dataclasses import asdict, dataclass

from snf_ganeti.errors import LockError, NodeError
from snf_ganeti.lock import lock_file
from snf_ganeti_eventd import ssconf
from snf_ganeti_eventd.daemon import CURSOR, LOCK
from snf_ganeti_eventd.jobs.job import JobError
from snf_ganeti_eventd.jobs.job_queue import JobQueue
from snf_ganeti_eventd.messages.message import find_news
from snf_ganeti_eventd.publication.cursor import Cursor, CursorError, read_cursor
from snf_ganeti_eventd.settings import Settings


@dataclass(frozen=True)
class Status:
    """pending: jobs with states that are not published; oldest: seconds since the oldest of
    these was reached; last_job: the highest that is known to be published."""

    running: bool
    master: bool
    cluster: str
    transport: str
    last_job: int
    pending: int
    oldest: float
    unreadable: int


def read_status(settings: Settings) -> Status:
    """Raises NodeError when the queue or the cursor can't be read."""
    role = ssconf.read_role(settings.ganeti_dir)
    queue = JobQueue(settings.ganeti_dir)
    cursor = _read_cursor(settings)
    pending, oldest, unreadable = 0, time.time(), 0
    for job_id in sorted({*queue.list_live(), *queue.list_archived()}):
        if job_id in cursor.done:
            continue
        try:
            job = queue.read(job_id)
        except JobError:
            unreadable += 1
            continue
        if job is not None and find_news(job, cursor.open.get(job_id, ())):
            pending += 1
            oldest = min(oldest, job.last_time)
    return Status(
        running=is_running(settings),
        master=role.is_master,
        cluster=role.cluster,
        transport=settings.transport,
        last_job=cursor.done.highest,
        pending=pending,
        oldest=max(0.0, round(time.time() - oldest, 3)) if pending else 0.0,
        unreadable=unreadable,
    )


def is_running(settings: Settings) -> bool:
    """Does the daemon hold its lock?"""
    path = settings.state_dir / LOCK
    if not path.exists():
        return False
    try:
        with lock_file(path):
            return False
    except LockError:
        return True
    except OSError as error:
        raise NodeError(f"{path} can't be opened: {error.strerror}") from None


def run(settings: Settings, *, as_json: bool) -> int:
    """Print it; the status is 1 when the master's daemon does not run."""
    status = read_status(settings)
    if as_json:
        print(json.dumps(asdict(status)))
    else:
        print("\n".join(make_lines(status)))
    return 0 if status.running or not status.master else 1


def make_lines(status: Status) -> list[str]:
    """For people."""
    behind = (
        f"{status.pending} jobs wait, the oldest for {status.oldest:.1f} s"
        if status.pending
        else "nothing waits"
    )
    lines = [
        f"daemon      {'runs' if status.running else 'does not run'}",
        f"this node   {'is the master' if status.master else 'is not the master'} of "
        f"{status.cluster or 'no cluster'}",
        f"transport   {status.transport}",
        f"published   up to job {status.last_job}",
        f"behind      {behind}",
    ]
    return lines + ([f"unreadable  {status.unreadable} files"] if status.unreadable else [])


def _read_cursor(settings: Settings) -> Cursor:
    path = settings.state_dir / CURSOR
    try:
        return read_cursor(path) or Cursor()
    except CursorError as error:
        raise NodeError(f"cursor {path}: {error}", hint="the daemon makes a new one") from None
    except OSError as error:
        raise NodeError(f"cursor {path} can't be read: {error.strerror}") from None
