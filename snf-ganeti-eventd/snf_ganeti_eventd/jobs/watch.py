"""Watching the queue and the node's role: what changed, and when to look at everything."""

from dataclasses import dataclass
from pathlib import Path

from snf_ganeti_eventd import ssconf
from snf_ganeti_eventd.jobs import inotify
from snf_ganeti_eventd.jobs.inotify import Inotify, Notice
from snf_ganeti_eventd.jobs.job_queue import parse_name

# Ganeti gives a new job's file to its group only after the file is in its place: ATTRIB.
_QUEUE_MASK = (
    inotify.MOVED_TO
    | inotify.CLOSE_WRITE
    | inotify.ATTRIB
    | inotify.DELETE_SELF
    | inotify.MOVE_SELF
)
_FOLDER_MASK = inotify.MOVED_TO | inotify.CLOSE_WRITE | inotify.CREATE


@dataclass(frozen=True)
class Changes:
    """jobs: whose files were written, in order. must_rescan: some changes are not known.
    overflowed: because there were too many. role: the node's role may be another."""

    jobs: tuple[int, ...] = ()
    must_rescan: bool = False
    overflowed: bool = False
    role: bool = False


class Watcher:
    """Watches the queue of a Ganeti data directory, from whenever it exists."""

    def __init__(self, ganeti_dir: Path) -> None:
        self._ganeti_dir = ganeti_dir
        self._inotify = Inotify()
        self._folder = self._inotify.add(ganeti_dir, _FOLDER_MASK)
        self._queue: int | None = None
        self._watch_queue()

    def fileno(self) -> int:
        return self._inotify.fileno()

    def close(self) -> None:
        self._inotify.close()

    def read(self) -> Changes:
        """What changed since the last call; returns at once."""
        jobs: dict[int, None] = {}
        must_rescan = overflowed = role = False
        while notices := self._inotify.read():
            for notice in notices:
                if notice.mask & inotify.OVERFLOW:
                    overflowed = must_rescan = role = True
                elif notice.watch == self._folder:
                    role |= notice.name in (ssconf.MASTER, ssconf.CLUSTER)
                    must_rescan |= notice.name == "queue" and self._watch_queue()
                elif notice.watch == self._queue:
                    must_rescan |= self._read_queue(notice, jobs)
        return Changes(tuple(jobs), must_rescan, overflowed, role)

    def refresh(self) -> bool:
        """Watch what could not be watched before; gives whether that began something."""
        began = False
        if self._folder is None:
            self._folder = self._inotify.add(self._ganeti_dir, _FOLDER_MASK)
            began = self._folder is not None
        return (self._queue is None and self._watch_queue()) or began

    def _watch_queue(self) -> bool:
        before = self._queue
        self._queue = self._inotify.add(self._ganeti_dir / "queue", _QUEUE_MASK)
        return self._queue is not None and self._queue != before

    def _read_queue(self, notice: Notice, jobs: dict[int, None]) -> bool:
        """Note a changed job; gives whether the queue itself is another."""
        if notice.mask & (inotify.IGNORED | inotify.DELETE_SELF | inotify.MOVE_SELF):
            self._queue = None
            return self._watch_queue()
        job_id = parse_name(notice.name)
        if job_id is not None:
            jobs.pop(job_id, None)
            jobs[job_id] = None
        return False
