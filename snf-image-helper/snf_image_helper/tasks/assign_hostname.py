"""The guest's host name, and what follows from it."""

from snf_image_helper.hosts import rename_hosts
from snf_image_helper.protocol import is_hostname
from snf_image_helper.task import Context, Skip, Task, TaskFailed
from snf_image_helper.tree import Tree

_HOSTNAME = "/etc/hostname"
_HOSTS = "/etc/hosts"
_MAILNAME = "/etc/mailname"


def run(context: Context) -> None:
    assert context.guest is not None
    tree, request = context.guest.tree, context.request
    name = request.hostname
    if not name:
        raise Skip("no host name was given")
    if not is_hostname(name):
        raise TaskFailed(f"{name} is not a host name")
    old = request.old_hostname or _read_line(tree, _HOSTNAME)
    tree.write_text(_HOSTNAME, f"{name}\n")
    everywhere = bool(request.old_hostname)  # an image's own name may be any word
    hosts = tree.read_text(_HOSTS) if tree.stat(_HOSTS) is not None else "127.0.0.1\tlocalhost\n"
    tree.write_text(_HOSTS, rename_hosts(hosts, old, name, everywhere=everywhere))
    if tree.is_file(_MAILNAME) and (not everywhere or _read_line(tree, _MAILNAME) == old):
        tree.write_text(_MAILNAME, f"{name}\n")


def _read_line(tree: Tree, path: str) -> str:
    return tree.read_text(path).strip() if tree.is_file(path) else ""


TASK = Task("AssignHostname", 50, run, needs_mount=True, actions=("create", "rename"))
