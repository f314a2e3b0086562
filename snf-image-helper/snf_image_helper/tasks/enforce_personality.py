"""The files that the user wants in the guest."""

import base64
import binascii
import posixpath
import stat

from snf_image_helper.accounts import GROUP, PASSWD, find_group, find_user
from snf_image_helper.protocol import PersonalityFile
from snf_image_helper.task import Context, Skip, Task, TaskFailed
from snf_image_helper.tree import Tree

_FOLDER_MODE = 0o750


def run(context: Context) -> None:
    assert context.guest is not None
    if not context.request.personality:
        raise Skip("no files were given")
    tree = context.guest.tree
    passwd, group = tree.read_text(PASSWD), tree.read_text(GROUP)
    for file in context.request.personality:
        uid = find_user(passwd, file.owner).uid
        gid = find_group(group, file.group)
        _write(tree, file, uid, gid)


def _write(tree: Tree, file: PersonalityFile, uid: int, gid: int) -> None:
    if not file.path.startswith("/") or "\0" in file.path:
        raise TaskFailed(f"personality: {file.path!r} is not an absolute path")
    if not 0 <= file.mode <= 0o7777:
        raise TaskFailed(f"personality: {file.path}: mode {file.mode} is out of range")
    try:
        data = base64.b64decode("".join(file.contents.split()), validate=True)
    except (binascii.Error, ValueError):
        raise TaskFailed(f"personality: {file.path}: the contents are not base64") from None
    tree.make_dirs(posixpath.dirname(file.path), mode=_FOLDER_MODE, uid=uid, gid=gid)
    tree.write_bytes(file.path, data, mode=file.mode, uid=uid, gid=gid)
    found = tree.stat(file.path)
    if found is None or (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) != (
        file.mode, uid, gid
    ):  # fmt: skip
        raise TaskFailed(f"personality: {file.path}: mode or owner are not what was set")


TASK = Task("EnforcePersonality", 60, run, needs_mount=True)
