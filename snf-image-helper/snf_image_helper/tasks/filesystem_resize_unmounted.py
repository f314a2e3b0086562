"""File systems that grow while they are not mounted: ext2, ext3 and ext4."""

from snf_image_helper.growth import grow_last
from snf_image_helper.task import Context, Task


def run(context: Context) -> None:
    grow_last(context, mounted=False)


TASK = Task("FilesystemResizeUnmounted", 20, run, excluded_by=("EXCLUDE_FILESYSTEMRESIZE_TASKS",))
