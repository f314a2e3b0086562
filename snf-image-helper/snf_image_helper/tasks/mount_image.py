"""The image's root found and mounted, and below it what its fstab lists."""

from snf_image_helper.mounts import mount_image
from snf_image_helper.task import Context, Task, TaskFailed


def run(context: Context) -> None:
    family = context.request.properties.get("OSFAMILY", "").lower() or "linux"
    if family != "linux":
        raise TaskFailed(f"OSFAMILY={family}: this helper customizes Linux guests only")
    mount_image(context)


TASK = Task(
    "MountImage",
    30,
    run,
    excludable=False,
    excluded_by=("EXCLUDE_MOUNTED_TASKS",),
    actions=("create", "rename", "inspect"),
)
