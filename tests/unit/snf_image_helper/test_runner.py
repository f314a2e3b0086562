"""The runner: order, exclusion, failure, cancellation, and what the host hears of it."""

from collections.abc import Callable

import pytest

from snf_ganeti.errors import CommandError
from snf_image_helper.protocol import Action, Event, Request, RunResult, TaskEnd, TaskStart
from snf_image_helper.runner import Cancelled, run_tasks
from snf_image_helper.task import Context, Skip, Task, TaskFailed
from snf_image_helper.tree import TreeError


def make_context(action: Action = "create", **properties: str) -> Context:
    request = Request(action, "web.example.org", 1, properties=properties)
    return Context(request, [], lambda message: None)


def do_nothing(context: Context) -> None:
    pass


def fail_with(error: BaseException) -> Callable[[Context], None]:
    def run(context: Context) -> None:
        raise error

    return run


def run(tasks: list[Task], context: Context) -> tuple[RunResult, list[Event]]:
    events: list[Event] = []
    return run_tasks(tasks, context, events.append), events


def ends(events: list[Event]) -> list[tuple[str, str, str]]:
    return [(e.task, e.result, e.reason) for e in events if isinstance(e, TaskEnd)]


def test_tasks_run_in_order_and_each_says_so() -> None:
    order: list[str] = []

    def note(name: str) -> Callable[[Context], None]:
        return lambda context: order.append(name)

    tasks = [Task("A", 1, note("A")), Task("B", 2, note("B"))]
    result, events = run(tasks, make_context())
    assert result == RunResult("ok", "")
    assert order == ["A", "B"]
    assert [e.task for e in events if isinstance(e, TaskStart)] == ["A", "B"]
    assert ends(events) == [("A", "done", ""), ("B", "done", "")]


def test_after_a_failure_only_what_gives_back_still_runs() -> None:
    tasks = [
        Task("First", 1, fail_with(TaskFailed("user nobody2 is not in /etc/passwd"))),
        Task("Second", 2, do_nothing),
        Task("Unmount", 3, do_nothing, always=True),
    ]
    result, events = run(tasks, make_context())
    assert result == RunResult("error", "First: user nobody2 is not in /etc/passwd")
    assert [name for name, _, _ in ends(events)] == ["First", "Unmount"]


def test_the_first_failure_is_the_reason() -> None:
    tasks = [
        Task("First", 1, fail_with(TaskFailed("one"))),
        Task("Last", 2, fail_with(TaskFailed("two")), always=True),
    ]
    assert run(tasks, make_context())[0].reason == "First: one"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (TreeError("/etc/hosts is not a regular file"), "/etc/hosts is not a regular file"),
        (CommandError(["resize2fs"], 1, "a\nno space\n"), "resize2fs failed (1): no space"),
        (FileNotFoundError(2, "No such file", "/dev/sda9"), "/dev/sda9: No such file"),
        (ZeroDivisionError("oops"), "internal error: ZeroDivisionError: oops"),
        (TaskFailed("two\nlines \x1b[31m"), "two lines [31m"),
        (Cancelled(), "the host's deadline passed"),
    ],
)
def test_every_error_is_one_line(error: BaseException, reason: str) -> None:
    _, events = run([Task("Only", 1, fail_with(error))], make_context())
    assert ends(events) == [("Only", "failed", reason)]


@pytest.mark.parametrize(
    ("task", "property_name"),
    [
        (Task("AddSwap", 1, do_nothing), "EXCLUDE_TASK_ADDSWAP"),
        (Task("AddSwap", 1, do_nothing), "EXCLUDE_ALL_TASKS"),
        (Task("AddSwap", 1, do_nothing, needs_mount=True), "EXCLUDE_MOUNTED_TASKS"),
        (Task("Grow", 1, do_nothing, excluded_by=("EXCLUDE_GROWTH",)), "EXCLUDE_GROWTH"),
    ],
)
def test_an_excluded_task_names_its_property(task: Task, property_name: str) -> None:
    _, events = run([task], make_context("create", **{property_name: "yes"}))
    assert ends(events) == [(task.name, "skipped", f"excluded by {property_name}")]


def test_a_task_without_the_mount_it_needs_is_skipped() -> None:
    _, events = run([Task("Name", 1, do_nothing, needs_mount=True)], make_context())
    assert ends(events) == [("Name", "skipped", "the image is not mounted")]


def test_a_task_may_have_nothing_to_do() -> None:
    _, events = run([Task("AddSwap", 1, fail_with(Skip("no swap was asked for")))], make_context())
    assert ends(events) == [("AddSwap", "skipped", "no swap was asked for")]


def test_another_action_leaves_a_task_out() -> None:
    tasks = [Task("Both", 1, do_nothing, actions=("create", "rename")), Task("One", 2, do_nothing)]
    _, events = run(tasks, make_context("rename"))
    assert [name for name, _, _ in ends(events)] == ["Both"]
