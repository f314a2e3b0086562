"""Every file system of the image unmounted, the last mounted first, and all that was written
on the disks: when the result is told, this machine may end at any moment."""

import os
from pathlib import Path

from snf_image_helper.filesystem import unmount
from snf_image_helper.task import Context, Skip, Task, TaskFailed


def run(context: Context) -> None:
    mounted = bool(context.mounted)
    if mounted:
        _unmount_all(context)
    for disk in context.disks:
        _flush(disk.path)
    if not mounted:
        raise Skip("nothing is mounted")


def _unmount_all(context: Context) -> None:
    if context.guest is not None:
        context.guest.tree.close()
        context.guest = None
    root = context.mounted[0]
    while context.mounted:
        unmount(context.mounted.pop())
    targets = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    if root in targets:
        raise TaskFailed(f"{root} is still mounted")


def _flush(path: str) -> None:
    """What the tools and the last unmounting wrote. Raises OSError: it did not reach the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


TASK = Task(
    "UmountImage", 80, run, excludable=False, actions=("create", "rename", "inspect"), always=True
)
