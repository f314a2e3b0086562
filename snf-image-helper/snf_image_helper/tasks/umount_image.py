"""Every file system of the image unmounted, the last mounted first."""

import os
from pathlib import Path

from snf_image_helper.filesystem import unmount
from snf_image_helper.task import Context, Skip, Task, TaskFailed


def run(context: Context) -> None:
    if not context.mounted:
        raise Skip("nothing is mounted")
    if context.guest is not None:
        context.guest.tree.close()
        context.guest = None
    os.sync()
    root = context.mounted[0]
    while context.mounted:
        unmount(context.mounted[-1])
        context.mounted.pop()
    targets = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    if root in targets:
        raise TaskFailed(f"{root} is still mounted")


TASK = Task("UmountImage", 80, run, excludable=False, actions=("create", "rename"), always=True)
