"""File systems that grow while they are mounted: xfs and btrfs."""

from snf_image_helper.growth import grow_last
from snf_image_helper.task import Context, Task


def run(context: Context) -> None:
    grow_last(context, mounted=True)


TASK = Task(
    "FilesystemResizeMounted",
    40,
    run,
    needs_mount=True,
    excluded_by=("EXCLUDE_FILESYSTEMRESIZE_TASKS",),
)
