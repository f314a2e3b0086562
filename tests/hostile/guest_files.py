"""Guests whose files are not what a task expects: special files, ways out of the root, masses.

Those that a task must refuse are an image each. The tricks that must come to nothing share
images: the deployment succeeds, and what it wrote is where it belongs.
"""

import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hostile.attack import Attack
from hostile.guest import (
    Edit,
    all_of,
    append,
    device,
    fifo,
    folder,
    hard_link,
    link,
    make_guest,
    missing,
    socket,
    sparse,
    text,
)
from testbed.guests import OLD_HASH, USER

_SIZE = 40
_TIB = 1 << 40
_PASSWD = "daemon:x:1:1::/:/bin/sh\ndebian:x:1000:1000::/home/debian:/bin/sh\n"
_NOT_A_FILE = "is not a regular file"

_FstabRow = tuple[str, str, str, str]
_Row = tuple[str, str, Edit, str]
"""Name, what, change of the guest, pattern of the reason."""


def _root(fields: str) -> Edit:
    """/etc/passwd in which root's line goes on like this."""
    return text("etc/passwd", f"root:x:{fields}\n{_PASSWD}")


_ACCOUNTS: Sequence[_Row] = (
    ("fifo", "reading it would wait forever", fifo("etc/passwd"), f"/etc/passwd {_NOT_A_FILE}"),
    ("socket", "it can't be opened", socket("etc/passwd"), "/etc/passwd: No such device"),
    (
        "zero",
        "/dev/zero in its place",
        device("etc/passwd", stat.S_IFCHR, 1, 5),
        "/etc/passwd: Perm",
    ),
    (
        "disk",
        "the disk in its place",
        device("etc/passwd", stat.S_IFBLK, 8, 0),
        "/etc/passwd: Perm",
    ),
    ("folder", "a folder in its place", folder("etc/passwd"), f"/etc/passwd {_NOT_A_FILE}"),
    ("circle", "a symlink to itself", link("etc/passwd", "passwd"), "/etc/passwd: Too many levels"),
    ("missing", "no such file", missing("etc/passwd"), "/etc/passwd: No such file"),
    (
        "helper",
        "the helper's own memory by a symlink",
        link("etc/passwd", "/proc/self/mem"),
        "/etc/passwd: No such file",
    ),
    (
        "out",
        "a symlink up and out of the root",
        link("etc/passwd", "../../../../../../etc/helper-modules"),
        "/etc/passwd: No such file",
    ),
    (
        "terabyte",
        "a sparse file of a TiB",
        sparse("etc/passwd", _TIB),
        "/etc/passwd is larger than",
    ),
    ("lines", "a million lines", text("etc/passwd", "user:x:1:1\n" * 10**6), "passwd is larger"),
    ("empty", "no line at all", text("etc/passwd", ""), "user root does not exist"),
    ("id-word", "an id that is no number", _root("zero:0::/root:/bin/sh"), "no numeric id"),
    ("id-2-64", "an id beyond 64 bits", _root(f"{2**64}:0::/root:/bin/sh"), "no numeric id"),
    ("id-digits", "an id of 10000 digits", _root(f"{'9' * 10**4}:0::/root:/sh"), "no numeric id"),
    ("id-minus-1", "the id that means none", _root(f"{2**32 - 1}:0::/root:/sh"), "no numeric id"),
    (
        "home-null",
        "a home with a null byte",
        _root("0:0::/ro\0ot:/bin/sh"),
        "null byte|Invalid arg",
    ),
    (
        "home-long",
        "a home of 5000 characters, and the reason behind it",
        _root(f"0:0::/{'x' * 5000}:/sh"),
        "File name too long",
    ),
    (
        "home-file",
        "a home that is a file",
        _root("0:0::/etc/hosts:/bin/sh"),
        "Not a directory|File exists",
    ),
)
_FILES: Sequence[_Row] = (
    ("shadow-fifo", "writing it would wait", fifo("etc/shadow"), f"/etc/shadow {_NOT_A_FILE}"),
    ("shadow-folder", "a folder in its place", folder("etc/shadow"), f"/etc/shadow {_NOT_A_FILE}"),
    (
        "shadow-null",
        "/dev/null in its place",
        device("etc/shadow", stat.S_IFCHR, 1, 3),
        "/etc/shadow: Permission denied",
    ),
    ("hostname-fifo", "a FIFO", fifo("etc/hostname"), f"/etc/hostname {_NOT_A_FILE}"),
    ("hostname-folder", "a folder", folder("etc/hostname"), f"/etc/hostname {_NOT_A_FILE}"),
    ("hosts-socket", "a socket", socket("etc/hosts"), "/etc/hosts: No such device"),
    ("hosts-terabyte", "a sparse TiB", sparse("etc/hosts", _TIB), "/etc/hosts is larger than"),
    ("etc-file", "a file where /etc is", text("etc", "x"), "no root file system found"),
    ("etc-circle", "/etc leads to itself", link("etc", "etc"), "no root file system found"),
    ("etc-out", "/etc is the helper's own", link("etc", "/proc/1/root/etc"), "no root file system"),
    ("fstab-fifo", "a FIFO", fifo("etc/fstab"), f"/etc/fstab {_NOT_A_FILE}"),
    ("fstab-terabyte", "a sparse TiB", sparse("etc/fstab", _TIB), "/etc/fstab is larger than"),
    (
        "root-ssh-fifo",
        "a FIFO where a user's .ssh is",
        fifo("root/.ssh"),
        "/root/.ssh: (File exists|Not a directory)",
    ),
    (
        "keys-fifo",
        "authorized_keys is a FIFO",
        fifo("root/.ssh/authorized_keys"),
        f"authorized_keys {_NOT_A_FILE}",
    ),
    (
        "keys-terabyte",
        "authorized_keys of a sparse TiB",
        sparse("root/.ssh/authorized_keys", _TIB),
        "authorized_keys is larger than",
    ),
    (
        "keys-none",
        "sshd reads no keys at all",
        text("etc/ssh/sshd_config", "AuthorizedKeysFile none\n"),
        "AuthorizedKeysFile none",
    ),
    (
        "keys-null",
        "sshd reads the keys from /dev/null",
        all_of(
            device("dev/null", stat.S_IFCHR, 1, 3),
            text("etc/ssh/sshd_config", "AuthorizedKeysFile /dev/null/keys\n"),
        ),
        "InstallSSHKeys: /dev/null",
    ),
    (
        "sshd-bomb",
        "files that include each other, 100 times each",
        text("etc/ssh/sshd_config.d/a.conf", "Include /etc/ssh/sshd_config.d/*.conf\n" * 100),
        "sshd_config includes more than",
    ),
    (
        "host-key-folder",
        "a folder where a host key is",
        folder("etc/ssh/ssh_host_rsa_key"),
        "ssh_host_rsa_key: Is a directory",
    ),
    (
        "network-fifo",
        "a FIFO where the network is configured",
        fifo("etc/network/interfaces"),
        f"/etc/network/interfaces {_NOT_A_FILE}",
    ),
    (
        "unknown-network",
        "a system's name of 4000 wide characters, in a reason",
        all_of(
            text("usr/lib/os-release", f"PRETTY_NAME={chr(0x1F4A9) * 4000}\n"),
            missing("usr/sbin/ifup"),
            missing("usr/lib/systemd/system/systemd-networkd.service"),
        ),
        "no network configuration known",
    ),
)
_FSTABS: Sequence[_FstabRow] = (
    (
        "absent",
        "a file system that is nowhere",
        "UUID=12-34 /srv ext4 defaults 0 2",
        "no such file",
    ),
    ("on-file", "a mount on a file", "/dev/vda1 /etc/passwd ext4 defaults 0 2", "/etc/passwd"),
    ("crowd", "10000 mounts that may fail", "LABEL=x /srv ext4 nofail 0 0\n" * 10**4, "more than"),
    (
        "stack",
        "the same mount 2000 times",
        "/dev/vda1 /srv ext4 defaults 0 0\n" * 2000,
        "more than",
    ),
    (
        "over-root",
        "a mount over the root itself",
        "/dev/vda1 /. ext4 defaults 0 0",
        "over the root",
    ),
    ("dots", "a mount point of dots", "/dev/vda1 /../../.. ext4 defaults 0 0", "over the root"),
    ("null", "a mount point with a null byte", "/dev/vda1 /s\0v ext4 defaults 0 0", "null|Invalid"),
    (
        "long",
        "a mount point of 5000 letters",
        f"/dev/vda1 /{'x' * 5000} ext4 x 0 0",
        "File name too long",
    ),
)


@dataclass(frozen=True)
class Trick:
    """A change of a guest that must come to nothing, as far as `holds` shows it."""

    name: str
    what: str
    edits: Sequence[Edit]
    holds: Mapping[str, str] = field(default_factory=dict)


_NAME, _KEY = r"web\.example\.org", "ssh-ed25519 "
_FIRST = (
    Trick(
        "hostname-out",
        "/etc/hostname leads up and out of the root",
        [link("etc/hostname", "../../../../../../srv/out")],
        {"/srv/out": _NAME},
    ),
    Trick(
        "hosts-absolute",
        "/etc/hosts is an absolute symlink",
        [text("srv/hosts", "127.0.0.1 localhost\n"), link("etc/hosts", "/srv/hosts")],
        {"/srv/hosts": _NAME},
    ),
    Trick(
        "machine-id-helper",
        "/etc/machine-id is the helper's own by a magic link",
        [link("etc/machine-id", "/proc/1/root/etc/machine-id")],
    ),
    Trick("release-fifo", "os-release is a FIFO", [fifo("etc/os-release")]),
    Trick("mailname-fifo", "/etc/mailname is a FIFO", [fifo("etc/mailname")]),
    Trick("sshd-fifo", "sshd_config is a FIFO", [fifo("etc/ssh/sshd_config")]),
    Trick(
        "keys-out",
        "root's .ssh leads up and out of the root",
        [folder("srv/keys"), link("root/.ssh", "/../../../../srv/keys")],
        {"/srv/keys/authorized_keys": _KEY},
    ),
    Trick(
        "network-special",
        "a FIFO, a device and a folder among the network's files",
        [
            fifo("etc/network/interfaces.d/fifo"),
            device("etc/network/interfaces.d/zero", stat.S_IFCHR, 1, 5),
            folder("etc/network/interfaces.d/folder"),
        ],
        {"/etc/network/interfaces": r"192\.0\.2\.5"},
    ),
    Trick(
        "passwd-garbage",
        "lines of no fields, of a thousand, of bytes in no encoding",
        [append("etc/passwd", b"\n:::\nx\n\xff\xfe\xed\xa0\x80:y:z\n" + b":" * 1000 + b"\n")],
        {"/etc/passwd": "\xff\xfe"},
    ),
    Trick(
        "shadow-hard-link",
        "/etc/shadow has a second name, whose content is the image's business",
        [hard_link("srv/copy", "etc/shadow")],
        {"/srv/copy": f"{USER}:{OLD_HASH.replace('$', '[$]')}"},
    ),
    Trick(
        "host-key-link",
        "a host key that is removed is a symlink to /etc/shadow",
        [link("etc/ssh/ssh_host_rsa_key", "/etc/shadow")],
        {"/etc/shadow": f"{USER}:[$]6[$]"},
    ),
)
_SECOND = (
    Trick(
        "names-broken",
        "names in no encoding, with line ends, of 255 bytes",
        [
            folder("etc/network/interfaces.d"),
            lambda root: _touch_bytes(root, b"etc/ssh/ssh_host_\xff_key"),
            lambda root: _touch_bytes(root, b"etc/ssh/ssh_host_\n\x1b[2J"),
            lambda root: _touch_bytes(root, b"etc/network/interfaces.d/" + b"\xc3" * 255),
        ],
    ),
    Trick(
        "fstab-garbage",
        "bytes in no encoding, lines of 100 KB, odd escapes, missing sources that may be",
        [
            append("etc/fstab", b"\xff\xfe \x00\n" + b"x" * 10**5 + b"\n\\777 \\040\\012 ext4\n"),
            append("etc/fstab", "LABEL=gone /srv/gone ext4 nofail 0 0\n" * 40),
        ],
    ),
    Trick(
        "fstab-options",
        "mount options that would allow devices, and a mount point up and out",
        [append("etc/fstab", "/dev/vda1 /../../srv/in ext4 suid,dev,exec,context=x 0 0\n")],
    ),
    Trick(
        "include-itself",
        "sshd_config includes itself",
        [append("etc/ssh/sshd_config", "Include /etc/ssh/sshd_config\n")],
    ),
    Trick(
        "keys-up",
        "AuthorizedKeysFile leads up and out of the root",
        [append("etc/ssh/sshd_config", "AuthorizedKeysFile ../../../../../srv/up/%u\n")],
        {"/srv/up/root": _KEY, f"/srv/up/{USER}": _KEY},
    ),
    Trick(
        "home-up",
        "a home up and out of the root",
        [_root("0:0::/../../../srv/home:/bin/sh")],
    ),
    Trick(
        "cloud-out",
        "cloud-init's folder leads up and out of the root",
        [
            folder("srv/cloud"),
            folder("etc/cloud"),
            link("etc/cloud/cloud.cfg.d", "../../../../../srv/cloud"),
        ],
        {"/srv/cloud/99-disable-network-config.cfg": "disabled"},
    ),
    Trick(
        "hosts-wide",
        "a line of a hundred thousand names",
        [append("etc/hosts", f"127.0.1.1 {'x ' * 10**5}\n")],
        {"/etc/hosts": _NAME},
    ),
    Trick(
        "mailname-chain",
        "a chain of 30 symlinks",
        [
            *(link(f"srv/link{at}", f"link{at + 1}") for at in range(30)),
            link("etc/mailname", "/srv/link0"),
        ],
    ),
    Trick(
        "disk-device",
        "devices of the helper's disk in the guest, for everyone",
        [device(f"dev/sd{letter}", stat.S_IFBLK, 8, 0) for letter in "ab"],
    ),
)


def _touch_bytes(root: Path, name: bytes) -> None:
    with open(os.fsencode(root) + b"/" + name, "wb"):
        pass


def _make_refused(prefix: str, rows: Sequence[_Row]) -> tuple[Attack, ...]:
    return tuple(
        Attack(f"{prefix}-{name}", what, make_guest(edit), reason, size=_SIZE)
        for name, what, edit, reason in rows
    )


def _make_image(name: str, tricks: Sequence[Trick]) -> Attack:
    return Attack(
        name,
        "several tricks at once",
        make_guest(*(edit for trick in tricks for edit in trick.edits)),
        "",
        size=_SIZE,
        holds={path: pattern for trick in tricks for path, pattern in trick.holds.items()},
        tricks={trick.name: trick.what for trick in tricks},
    )


ATTACKS = (
    *_make_refused("passwd", _ACCOUNTS),
    *_make_refused("file", _FILES),
    *(
        Attack(f"fstab-{name}", what, make_guest(text("etc/fstab", line)), reason, size=_SIZE)
        for name, what, line, reason in _FSTABS
    ),
    _make_image("tricks-of-files", _FIRST),
    _make_image("tricks-of-names", _SECOND),
    Attack(
        "passwd-million",
        "a million lines that are just short enough to be read",
        make_guest(append("etc/passwd", "x:\n" * 10**6), append("etc/shadow", "x:\n" * 10**6)),
        "",
        size=_SIZE,
        holds={"/etc/shadow": f"{USER}:[$]6[$]"},
    ),
)
