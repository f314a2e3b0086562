"""Jobs to look at: numbers only, since the queue itself keeps what is in them."""

import itertools
import time
from collections.abc import Container, Iterable


class Backlog:
    """An ordered set of jobs, and jobs set aside because nobody takes their messages.

    Memory is bounded by the number of jobs that Ganeti keeps; whatever is waiting is no more
    than its number here.
    """

    def __init__(self) -> None:
        self._since: dict[int, float] = {}
        self._parked: dict[str, dict[int, None]] = {}

    def __len__(self) -> int:
        return len(self._since) + self.parked

    @property
    def has_work(self) -> bool:
        return bool(self._since)

    @property
    def parked(self) -> int:
        """How many jobs are set aside."""
        return len(set().union(*self._parked.values()))

    @property
    def oldest_age(self) -> float:
        """Seconds since the job that waits longest was noticed."""
        first = next(iter(self._since.values()), None)
        return 0.0 if first is None else time.monotonic() - first

    def add(self, jobs: Iterable[int]) -> None:
        """Jobs that may have changed. One that waits already keeps its place."""
        now = time.monotonic()
        for job_id in jobs:
            self._since.setdefault(job_id, now)

    def take(self, count: int, but: Container[int] = ()) -> dict[int, float]:
        """The first jobs `but` these, with when they were noticed; they wait no longer."""
        free = (each for each in self._since.items() if each[0] not in but)
        taken = dict(itertools.islice(free, count))
        for job_id in taken:
            del self._since[job_id]
        return taken

    def put_back(self, taken: dict[int, float]) -> None:
        """Jobs that were taken wait again, in front."""
        if taken:
            self._since = {**taken, **self._since, **taken}

    def park(self, key: str, job_id: int) -> bool:
        """Set a job aside until a message with this routing key finds a taker; gives whether
        it is the first."""
        jobs = self._parked.setdefault(key, {})
        jobs[job_id] = None
        return len(jobs) == 1

    def is_parked(self, job_id: int) -> bool:
        return any(job_id in jobs for jobs in self._parked.values())

    def unpark(self, key: str) -> None:
        """Somebody takes messages with this key."""
        self.add(self._parked.pop(key, ()))

    def probe(self) -> None:
        """Try one job of each key again."""
        self.add([next(iter(jobs)) for jobs in self._parked.values()])

    def clear(self) -> None:
        self._since.clear()
        self._parked.clear()
