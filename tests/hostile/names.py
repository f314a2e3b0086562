"""Images whose name, or what is found under it, leads out of the site's folder of images."""

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from hostile.attack import MIB, Attack, Make, write

_NONE = {"img_properties": '{"EXCLUDE_ALL_TASKS": "yes"}'}


def _link(target: str) -> Make:
    return lambda path: path.symlink_to(target)


def _sparse(size: int) -> Make:
    def make(path: Path) -> None:
        path.touch()
        os.truncate(path, size)

    return make


def _device(kind: int, major: int, minor: int) -> Make:
    return lambda path: os.mknod(path, kind | 0o666, os.makedev(major, minor))


_SOME = write(bytes(MIB))
_UNFIT = "img_id: it is unprintable or too long"
_OUT = "can't be opened under .*: it leads out of there"
_NO_NAME = "is no name of an image"
_ABSENT = "can't be opened under .*: No such file"
_ODD = "is no regular file"

_FOUND: Sequence[tuple[str, str, Make, str]] = (
    ("link-out", "a symlink to a file of the node", _link("/etc/shadow"), _OUT),
    ("link-up", "a symlink up and out", _link("../../../../etc/shadow"), _OUT),
    ("link-magic", "a symlink to the program's own memory", _link("/proc/self/mem"), _OUT),
    ("link-circle", "a symlink to itself", lambda path: path.symlink_to(path.name), "lead nowhere"),
    ("fifo", "a FIFO, which nobody writes to", os.mkfifo, _ODD),
    ("socket", "a socket", lambda path: os.mknod(path, stat.S_IFSOCK | 0o600), "No such device"),
    ("zero", "a device that never ends", _device(stat.S_IFCHR, 1, 5), _ODD),
    ("disk", "a disk of the node", _device(stat.S_IFBLK, 7, 0), _ODD),
    ("folder", "a folder", Path.mkdir, _ODD),
    ("empty", "a file of no bytes", write(b""), "is empty"),
    ("terabyte", "a sparse file of 8 TiB", _sparse(8 << 40), "needs a disk of"),
)
_NAMED: Sequence[tuple[str, str, str, str]] = (
    ("up", "dots in the name", "../../etc/shadow", _NO_NAME),
    ("absolute", "a file of the node by its path", "/etc/shadow", _NO_NAME),
    ("local-up", "dots behind the scheme", "local://../../etc/shadow", _NO_NAME),
    (
        "file",
        "a scheme for any file of the node",
        "file:///etc/shadow",
        "images can't come from file",
    ),
    (
        "json",
        "what QEMU would take for a description",
        'json:{"driver":"raw"}',
        "can't come from json",
    ),
    ("nbd", "a server on the node's network", "nbd://127.0.0.1/x", "images can't come from nbd"),
    ("option", "an option of some command", "--help", _ABSENT),
    ("line", "a line end, and an answer behind it", "x\nerror: all is well", _UNFIT),
    ("long", "a name of 5000 letters", "x" * 5000, _UNFIT),
    ("shell", "a command", "$(reboot);`reboot`|reboot", _ABSENT),
)

ATTACKS = (
    *(
        Attack(f"found-{name}", what, make, reason, helper=False, parameters=_NONE, untouched=True)
        for name, what, make, reason in _FOUND
    ),
    *(
        Attack(
            f"name-{name}",
            what,
            _SOME,
            reason,
            image=image,
            helper=False,
            parameters=_NONE,
            untouched=True,
        )
        for name, what, image, reason in _NAMED
    ),
)
