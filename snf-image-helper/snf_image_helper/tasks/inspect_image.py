"""What is in the image, told to the host as the image properties that fit it."""

from collections.abc import Mapping

from snf_image_helper.accounts import PASSWD
from snf_image_helper.guest import Guest
from snf_image_helper.task import Context, Task
from snf_image_helper.tree import Tree

_MODULES = ("/usr/lib/modules", "/lib/modules")
_KERNELS_LIMIT = 10
_PEOPLE = range(1000, 60000)
"""User ids that people get: adduser.conf(5), login.defs(5)."""
_USERS_LIMIT = 20
_NO_SHELLS = ("nologin", "false", "sync")


def run(context: Context) -> None:
    assert context.guest is not None
    context.tell({"ROOT_PARTITION": str(context.root_partition), **find_properties(context.guest)})


def find_properties(guest: Guest) -> Mapping[str, str]:
    """Image properties of a mounted guest; those of which it says nothing are left out."""
    tree = guest.tree
    passwd = tree.read_text(PASSWD) if tree.is_file(PASSWD) else ""
    found = {
        "OSFAMILY": guest.family,
        "OS": guest.release.get("ID", ""),
        "DESCRIPTION": guest.name,
        "KERNEL": " ".join(find_kernels(tree)),
        "USERS": " ".join(find_people(passwd)),
    }
    return {name: value for name, value in found.items() if value}


def find_kernels(tree: Tree) -> list[str]:
    """The releases of Linux whose modules are there."""
    folder = next((path for path in _MODULES if tree.is_dir(path)), None)
    return sorted(tree.list_dir(folder))[:_KERNELS_LIMIT] if folder else []


def find_people(passwd: str) -> list[str]:
    """Who would want a password: root, and the people of passwd(5) that can log in."""
    rows = [row for row in (line.split(":") for line in passwd.split("\n")) if len(row) == 7]
    return [
        name
        for name, _, uid, _, _, _, shell in rows
        if name == "root" or (uid.isdecimal() and int(uid) in _PEOPLE and _logs_in(shell))
    ][:_USERS_LIMIT]


def _logs_in(shell: str) -> bool:
    return shell.rpartition("/")[2] not in _NO_SHELLS


TASK = Task("InspectImage", 40, run, needs_mount=True, excludable=False, actions=("inspect",))
