"""File systems that grow while they are mounted: xfs and btrfs."""

from snf_image_helper.growth import grow_last
from snf_image_helper.partition_table import parse_swap
from snf_image_helper.task import Context, Task


def run(context: Context) -> None:
    swap = parse_swap(context.request.properties.get("SWAP", ""))
    grow_last(context.disks[0], swap, mounted=True)


TASK = Task(
    "FilesystemResizeMounted",
    40,
    run,
    needs_mount=True,
    excluded_by=("EXCLUDE_FILESYSTEMRESIZE_TASKS",),
)
