"""The tasks of one request, in order, each reported as it begins and as it ends."""

import logging
import time
from collections.abc import Callable, Sequence

from snf_ganeti.errors import SnfError
from snf_image_helper.protocol import Event, Result, RunResult, TaskEnd, TaskStart, clean_text
from snf_image_helper.task import Context, Skip, Task, TaskFailed, find_exclusion
from snf_image_helper.tree import TreeError

log = logging.getLogger(__name__)

Emit = Callable[[Event], None]


class Cancelled(BaseException):
    """The host asked for the end; raised in the middle of whatever runs."""


def run_tasks(tasks: Sequence[Task], context: Context, emit: Emit) -> RunResult:
    """Run what the request's action and properties leave of `tasks`.

    After a failure only the tasks that give something back (`always`) still run. The
    result's reason is that of the first failure, led by the task's name.
    """
    failure = ""
    for task in tasks:
        if context.request.action not in task.actions or (failure and not task.always):
            continue
        emit(TaskStart(task.name))
        begun = time.monotonic()
        result, reason = _run_task(task, context)
        emit(TaskEnd(task.name, result, reason, round(time.monotonic() - begun, 3)))
        if result == "failed" and not failure:
            failure = f"{task.name}: {reason}"
    return RunResult("error", failure) if failure else RunResult("ok", "")


def _run_task(task: Task, context: Context) -> tuple[Result, str]:
    exclusion = find_exclusion(task, context.request.properties)
    if exclusion is not None:
        return "skipped", f"excluded by {exclusion}"
    if task.needs_mount and context.guest is None:
        return "skipped", "the image is not mounted"
    try:
        task.run(context)
    except Skip as skip:
        return "skipped", clean_text(str(skip))
    except (TaskFailed, TreeError, SnfError) as error:
        return "failed", clean_text(str(error))
    except OSError as error:
        return "failed", clean_text(_describe(error))
    except Cancelled:
        return "failed", "the host's deadline passed"
    except Exception as bug:
        log.exception("this is a bug in task %s", task.name)
        return "failed", clean_text(f"internal error: {type(bug).__name__}: {bug}")
    return "done", ""


def _describe(error: OSError) -> str:
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}"
