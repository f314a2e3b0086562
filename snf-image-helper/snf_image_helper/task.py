"""A customization task: what it declares, what it gets, how it answers.

Each module in `tasks/` declares one `Task` named TASK. Tasks run in the order of their
`order`; the runner mounts nothing itself: tasks between MountImage and UmountImage declare
`needs_mount` and find the guest's tree in their context.
"""

import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from snf_image_helper import tasks
from snf_image_helper.disk import Disk, Partition
from snf_image_helper.guest import Guest
from snf_image_helper.protocol import Action, Request


class Skip(Exception):
    """Raised by a task that has nothing to do; the text says why."""


class TaskFailed(Exception):
    """Raised by a task that can't do its work; the text is one line for the operator."""


@dataclass
class Context:
    """What the tasks of one run share. `guest` is there while the image is mounted.

    warn: sends a warning to the host; tell: what was found, as image properties. mounted: mount
    points in the order of mounting, the root first. root_partition: its number on the first disk,
    0 without a table. last: the first disk's last partition and what it holds, once it was asked.
    """

    request: Request
    disks: Sequence[Disk]
    warn: Callable[[str], None]
    guest: Guest | None = None
    mounted: list[str] = field(default_factory=list)
    root_partition: int = 0
    last: tuple[Partition, str] | None = None
    tell: Callable[[Mapping[str, str]], None] = lambda properties: None


@dataclass(frozen=True)
class Task:
    """One customization task, as data, and its work.

    name: as the operator sees it and as `EXCLUDE_TASK_<NAME>` excludes it.
    excludable: by its own property; those for all or for all mounted tasks reach every task.
    excluded_by: further properties that exclude it.
    actions: the requests it takes part in.
    run: does the work and reads back what it wrote; returns nothing, raises Skip or
    TaskFailed (or CommandError of a tool).
    always: runs after a failure too (it gives back what another task took).
    """

    name: str
    order: int
    run: Callable[[Context], None]
    needs_mount: bool = False
    excludable: bool = True
    excluded_by: tuple[str, ...] = ()
    actions: tuple[Action, ...] = ("create",)
    always: bool = False


def find_tasks() -> list[Task]:
    """Every task of the package, in the order in which they run."""
    names = (name for _, name, _ in pkgutil.iter_modules(tasks.__path__))
    modules = [importlib.import_module(f"{tasks.__name__}.{name}") for name in names]
    return sorted((module.TASK for module in modules), key=lambda task: task.order)


TRUE_WORDS = frozenset({"yes", "true", "on", "1", "set"})
FALSE_WORDS = frozenset({"no", "false", "off", "0", "unset", ""})


def read_flag(properties: Mapping[str, str], name: str) -> bool:
    """A yes/no property: the usual words; anything else that is not empty means yes."""
    return properties.get(name, "").strip().lower() not in FALSE_WORDS


def find_users(properties: Mapping[str, str]) -> list[str]:
    """The users that get the password and the keys."""
    return properties.get("USERS", "").split() or ["root"]


def find_exclusion(task: Task, properties: Mapping[str, str]) -> str | None:
    """The property that keeps a task from running, or None."""
    names = ["EXCLUDE_ALL_TASKS", *task.excluded_by]
    if task.excludable:
        names.append(f"EXCLUDE_TASK_{task.name.upper()}")
    if task.needs_mount:
        names.append("EXCLUDE_MOUNTED_TASKS")
    return next((name for name in names if read_flag(properties, name)), None)
