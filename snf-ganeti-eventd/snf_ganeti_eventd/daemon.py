"""The daemon: waits for changes, keeps the transport open, and publishes while it is master."""

import asyncio
import contextlib
import logging
import random
import signal
import time

from snf_ganeti import notify
from snf_ganeti.errors import NodeError, SnfError
from snf_ganeti.event_loop import feed_watchdog, make_runner
from snf_ganeti.lock import lock_file
from snf_ganeti_eventd import ssconf
from snf_ganeti_eventd.jobs.job_queue import JobQueue
from snf_ganeti_eventd.jobs.watch import Watcher
from snf_ganeti_eventd.messages.instance import Inspector, make_luxi_query
from snf_ganeti_eventd.metrics import Metrics
from snf_ganeti_eventd.publication.cursor_file import CursorFile
from snf_ganeti_eventd.publication.follower import Follower
from snf_ganeti_eventd.settings import Settings
from snf_ganeti_eventd.transport import Transport, make_transport

log = logging.getLogger(__name__)

CURSOR = "cursor"
LOCK = "lock"
_SAVE_SECONDS = 0.25
"""Between two writes of the cursor."""
_BACKOFF = (1.0, 30.0)
_PROBE_SECONDS = 10.0
"""After so much quiet a job whose messages nobody takes is tried again."""
_LAST_SECONDS = 10.0
"""How long the end waits for confirms."""


class Daemon:
    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self._queue = JobQueue(settings.ganeti_dir)
        self._watcher = Watcher(settings.ganeti_dir)
        self._file = CursorFile(settings.state_dir / CURSOR)
        query = make_luxi_query(settings.luxi_socket, settings.luxi_timeout / 2)
        self._inspector = Inspector(query, settings.luxi_timeout)
        self._follower = Follower(
            self._queue, self._file.read(), self._inspector, self.metrics,
            cluster="", events=settings.events,
        )  # fmt: skip
        self._transport: Transport = make_transport(settings)
        self._is_master = False
        self._rescan_reason = "start"
        self._rescan_at = 0.0
        self._wake = asyncio.Event()
        self._stop = asyncio.Event()
        self._has_news = asyncio.Event()
        self._problem = ""

    async def run(self) -> None:
        """Until SIGTERM or SIGINT; then what was sent is waited for, and the cursor written."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_reader(self._watcher.fileno(), self._note_changes)
        self.metrics.serve(self.settings.metrics)
        self._set_gauges()
        self._read_role()
        notify.send("READY=1")
        watchdog = asyncio.create_task(feed_watchdog())
        keeper = asyncio.create_task(self._keep_cursor())
        work = asyncio.create_task(self._work())
        stopped = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait({work, stopped}, return_when=asyncio.FIRST_COMPLETED)
            notify.send("STOPPING=1")
            self._wake.set()
            async with asyncio.timeout(_LAST_SECONDS):
                await work
        except TimeoutError:
            log.warning("the end: some messages are not confirmed; they are sent at the next start")
        finally:
            for task in (watchdog, keeper, work, stopped):
                task.cancel()
            loop.remove_reader(self._watcher.fileno())
            self._watcher.close()
            self._inspector.close()
            await self._file.close(self._follower.cursor)
            await self._transport.close()

    async def _work(self) -> None:
        """Publish as long as there is something, then wait for more."""
        delay = 0.0
        while not self._stop.is_set():
            try:
                self._rescan_if_due()
                if self._is_master and self._follower.backlog.has_work:
                    await self._publish()
                    delay = 0.0
                await self._sleep()
            except SnfError as error:
                delay = min(max(_BACKOFF[0], 2 * delay), _BACKOFF[1])
                self._report(str(error))
                await _wait(self._stop, delay * random.uniform(0.5, 1))  # noqa: S311 - no secret

    async def _publish(self) -> None:
        """Publish until nothing waits, or the node's role changed. Raises SnfError."""
        if not self._transport.is_open:
            await self._transport.open()
            log.info("publishing to %s", self._transport.address)
            self._follower.backlog.probe()
        while self._is_master and self._follower.has_work and not self._stop.is_set():
            self._note_answers(await self._follower.step(self._transport))
            await asyncio.sleep(0)  # what changed meanwhile is noted
        self._note_answers(await self._follower.settle())

    def _note_answers(self, all_taken: bool | None) -> None:
        """What was sent is answered, unless that is still to come. Raises SnfError when some
        of it has to be sent again."""
        if all_taken is None:
            return
        self._has_news.set()
        if not all_taken:
            raise SnfError(f"not confirmed: {self._transport.problem}")
        self._report("")

    async def _keep_cursor(self) -> None:
        """Write the cursor soon after it changed, and not too often."""
        while True:
            await self._has_news.wait()
            self._has_news.clear()
            if not await self._file.save(self._follower.cursor):
                self._has_news.set()  # it is tried again
            await asyncio.sleep(_SAVE_SECONDS)

    def _note_changes(self) -> None:
        """The watch has something: note it and wake the worker."""
        changes = self._watcher.read()
        if changes.role:
            self._read_role()
        if changes.must_rescan:
            self._rescan_reason = "overflow" if changes.overflowed else "queue"
            if changes.overflowed:
                log.warning("inotify: too many changes at once; the whole queue is looked at")
        if self._is_master:
            self._follower.backlog.add(changes.jobs)
        if changes != type(changes)():
            self._wake.set()

    def _read_role(self) -> None:
        """Am I the master? Whoever becomes it looks at everything; who was it, forgets."""
        role = ssconf.read_role(self.settings.ganeti_dir)
        self._follower.cluster = role.cluster
        if role.is_master != self._is_master:
            self._is_master = role.is_master
            log.info("this node is %s", "the master" if role.is_master else "not the master")
            if role.is_master:
                self._rescan_reason = self._rescan_reason or "master"
            else:
                self._follower.backlog.clear()
            self._report("")

    def _rescan_if_due(self) -> None:
        """Look at the whole queue, if there is a reason. Raises NodeError."""
        now = time.monotonic()
        reason = self._rescan_reason or ("timer" if now >= self._rescan_at else "")
        if not reason:
            return
        if self._watcher.refresh():
            reason = self._rescan_reason or "queue"
        self._read_role()
        if self._is_master:
            self._follower.rescan(all_archive=reason != "timer")
            self.metrics.rescans.labels(reason).inc()
        self._rescan_reason = ""
        self._rescan_at = now + self.settings.rescan_interval

    def _report(self, problem: str) -> None:
        """Log a trouble once, with its reason, and its end."""
        if problem and problem != self._problem:
            log.error("%s; events are kept until it works again", problem)
        self._problem = problem
        role = "master" if self._is_master else "not the master: waiting"
        notify.send(f"STATUS={problem or role}")

    async def _sleep(self) -> None:
        """Until something happened, or the next look is due."""
        backlog = self._follower.backlog
        seconds = max(0.0, self._rescan_at - time.monotonic())
        if not await _wait(self._wake, min(seconds, _PROBE_SECONDS) if backlog.parked else seconds):
            backlog.probe()
        self._wake.clear()

    def _set_gauges(self) -> None:
        follower, backlog = self._follower, self._follower.backlog
        self.metrics.pending.set_function(lambda: len(backlog) + follower.flying)
        self.metrics.parked.set_function(lambda: backlog.parked)
        self.metrics.oldest.set_function(lambda: backlog.oldest_age)
        self.metrics.connected.set_function(lambda: float(self._transport.is_open))
        self.metrics.master.set_function(lambda: float(self._is_master))


async def _wait(event: asyncio.Event, seconds: float) -> bool:
    """Until the event, or so long; gives whether it came."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            return await event.wait()
    return False


def run(settings: Settings) -> int:
    """Run the daemon. Raises LockError when one runs already, NodeError."""

    async def main() -> None:
        await Daemon(settings).run()

    try:
        with lock_file(settings.state_dir / LOCK), make_runner() as runner:
            runner.run(main())
    except PermissionError as error:
        raise NodeError(
            f"{error.filename} can't be opened: {error.strerror}",
            hint="the daemon runs as the user snf-ganeti-eventd",
        ) from None
    return 0
