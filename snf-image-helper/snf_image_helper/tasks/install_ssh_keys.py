"""SSH keys for the image's users, where the guest's sshd looks for them."""

import os
import posixpath

from snf_image_helper.accounts import PASSWD, User, find_user
from snf_image_helper.sshd_config import add_keys, find_keys_file, parse_keys
from snf_image_helper.task import Context, Skip, Task, find_users
from snf_image_helper.tree import Tree


def run(context: Context) -> None:
    assert context.guest is not None
    tree = context.guest.tree
    keys = parse_keys(context.request.auth_keys)
    if not keys:
        raise Skip("no keys were given")
    passwd = tree.read_text(PASSWD)
    for name in find_users(context.request.properties):
        user = find_user(passwd, name)
        path = find_keys_file(tree, user)
        _make_folder(tree, user, posixpath.dirname(path))
        old = tree.read_text(path) if tree.stat(path) is not None else ""
        tree.write_text(path, add_keys(old, keys), mode=0o600, uid=user.uid, gid=user.gid)


def _make_folder(tree: Tree, user: User, folder: str) -> None:
    """The folder of the keys. sshd wants what is in a home to be its user's alone; a folder
    elsewhere stays as the image has it."""
    home = os.path.normpath(user.home)
    if not f"{folder}/".startswith(f"{home.rstrip('/')}/"):
        tree.make_dirs(folder)
        return
    tree.make_dirs(posixpath.dirname(home))
    tree.make_dirs(folder, mode=0o700, uid=user.uid, gid=user.gid)
    if folder == home:
        return
    with tree.open(folder, os.O_RDONLY | os.O_DIRECTORY) as descriptor:
        os.fchown(descriptor, user.uid, user.gid)
        os.fchmod(descriptor, 0o700)


TASK = Task("InstallSSHKeys", 50, run, needs_mount=True)
