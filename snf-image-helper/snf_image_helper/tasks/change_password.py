"""The password of the image's users; only its hash reaches the guest."""

import time

from snf_ganeti.password_hash import is_hash, is_lock
from snf_image_helper.accounts import (
    DEFAULT_METHOD,
    PASSWD,
    SHADOW,
    find_user,
    hash_password,
    set_password,
)
from snf_image_helper.protocol import Request
from snf_image_helper.task import Context, Skip, Task, TaskFailed, find_users

_DAY = 86400


def run(context: Context) -> None:
    assert context.guest is not None
    tree, request = context.guest.tree, context.request
    if not (request.password or request.password_hash):
        raise Skip("no password was given")
    passwd = tree.read_text(PASSWD)
    names = [find_user(passwd, name).name for name in find_users(request.properties)]
    shadow = tree.read_text(SHADOW)
    for name in names:
        shadow = set_password(shadow, name, make_hash(request), int(time.time()) // _DAY)
    tree.write_text(SHADOW, shadow)


def make_hash(request: Request) -> str:
    """What comes into the guest's shadow(5) as the password. Raises TaskFailed."""
    if not request.password_hash:
        method = request.properties.get("PASSWD_HASHING_METHOD") or DEFAULT_METHOD
        return hash_password(request.password, method.lower())
    if not (is_hash(request.password_hash) or is_lock(request.password_hash)):
        raise TaskFailed("the password hash does not have the form of crypt(5)")
    return request.password_hash


TASK = Task("ChangePassword", 50, run, needs_mount=True)
