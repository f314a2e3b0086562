"""What a run did, stage by stage: told as it happens, and summed up at its end."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from snf_ganeti.errors import SnfError, Terminated
from snf_image_helper.protocol import Event, Failed, RunResult, TaskEnd, Warned, make_event
from snf_image_host import monitor
from snf_image_host.monitor import Send


@dataclass(frozen=True)
class Stage:
    """A stage that is over, well or not."""

    name: str
    seconds: float


class Journal:
    """Follows one run; whoever follows it gets every event as it comes, `image-result` last."""

    def __init__(self, *sends: Send) -> None:
        self._sends = list(sends)
        self.stages: list[Stage] = []
        self.tasks: list[TaskEnd] = []
        self.warnings: list[str] = []
        self._result: RunResult | None = None

    def follow(self, send: Send) -> None:
        """Hand every event from now on to `send`, too."""
        self._sends.append(send)

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time what the block does."""
        begun = time.monotonic()
        try:
            yield
        finally:
            self.stages.append(Stage(name, round(time.monotonic() - begun, 3)))

    def tell(self, message: str) -> None:
        self._send(monitor.make_info([message], time.time()))

    def warn(self, message: str) -> None:
        self.warnings.append(message)
        self.tell(f"warning: {message}")

    def show_copied(self, position: int, total: int) -> None:
        """How far the copy is, in bytes; total is 0 while nobody knows it."""
        self._send(monitor.make_copy_progress(position, total, time.time()))

    def follow_helper(self, event: Event) -> None:
        """Hand on what the helper says. Its result is not the run's: the disk is not closed."""
        match event:
            case RunResult():
                return
            case TaskEnd():
                self.tasks.append(event)
            case Warned(messages):
                self.warnings += messages
            case Failed():
                pass
        self._send(make_event(event, time.time()))

    def close(self, reason: str = "") -> None:
        """The end, and why it is one; an empty reason means that all went well. Once is all."""
        if self._result is not None:
            return
        if reason:
            self._send(monitor.make_error([reason], time.time()))
        self._result = RunResult("error" if reason else "ok", reason)
        self._send(make_event(self._result, time.time()))

    def make_document(self) -> dict[str, Any]:
        """The summary as `snf-image deploy --json` prints it; its keys are a contract."""
        result = self._result or RunResult("error", "it did not end")
        return {
            "status": result.status,
            "reason": result.reason or None,
            "stages": [asdict(stage) for stage in self.stages],
            "tasks": [asdict(task) for task in self.tasks],
            "warnings": self.warnings,
        }

    def _send(self, event: monitor.Event) -> None:
        for send in self._sends:
            send(event)


@contextlib.contextmanager
def closing(journal: Journal) -> Iterator[Journal]:
    """Close a journal with the block, whichever way that ends."""
    try:
        yield journal
    except (Exception, Terminated) as error:
        journal.close(_describe(error))
        raise
    journal.close()


def _describe(error: BaseException) -> str:
    if isinstance(error, SnfError):
        return str(error)
    if isinstance(error, Terminated):
        return f"it was ended by signal {error.number}"
    return f"internal error: {type(error).__name__}: {error}"
