"""A machine id of its own, machine-id(5)."""

import re
import uuid

from snf_image_helper.task import Context, Skip, Task
from snf_image_helper.tree import Tree

_SYSTEMD = "/etc/machine-id"
_DBUS = "/var/lib/dbus/machine-id"


def run(context: Context) -> None:
    assert context.guest is not None
    tree = context.guest.tree
    had_dbus = bool(_read_id(tree, _DBUS))
    if not _read_id(tree, _SYSTEMD):
        if had_dbus:
            # The first boot would take this one over, the same in every copy of the image.
            tree.remove(_DBUS)
        raise Skip("the image has none; its first boot makes one")
    made = f"{uuid.uuid4().hex}\n"
    tree.write_text(_SYSTEMD, made)
    if had_dbus:  # if it is a symlink to the other, the same is written twice
        tree.write_text(_DBUS, made)


def _read_id(tree: Tree, path: str) -> str:
    """The id in a file; empty when there is none yet (absent, empty, "uninitialized")."""
    text = tree.read_text(path, 1024).strip() if tree.is_file(path) else ""
    return text if re.fullmatch("[0-9a-f]{32}", text) else ""


TASK = Task("ChangeMachineId", 50, run, needs_mount=True)
