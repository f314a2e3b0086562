"""The guest's accounts: passwd(5), group(5), shadow(5), and new password hashes."""

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass

from snf_ganeti.password_hash import is_hash
from snf_image_helper.task import TaskFailed

PASSWD = "/etc/passwd"  # noqa: S105
GROUP = "/etc/group"
SHADOW = "/etc/shadow"

DEFAULT_METHOD = "sha512"
_NO_ID = 2**32 - 1
_METHODS: Mapping[str, str] = {
    "md5": "$1$",
    "sha1": "$sha1$",
    "blowfish": "$2b$",
    "sha256": "$5$",
    "sha512": "$6$",
    "yescrypt": "$y$",
}


@dataclass(frozen=True)
class User:
    name: str
    uid: int
    gid: int
    home: str


def find_user(passwd: str, name: str) -> User:
    """The first line of passwd that has this name. Raises TaskFailed."""
    for line in passwd.split("\n"):
        fields = line.split(":")
        if fields[0] == name and len(fields) >= 6:
            uid, gid = _parse_id(fields[2]), _parse_id(fields[3])
            if uid is None or gid is None:
                raise TaskFailed(f"user {name} has no numeric id in {PASSWD}")
            return User(name, uid, gid, fields[5] or "/")
    raise TaskFailed(f"user {name} does not exist in {PASSWD}")


def find_group(group: str, name: str) -> int:
    """The id of a group. Raises TaskFailed."""
    for line in group.split("\n"):
        fields = line.split(":")
        gid = _parse_id(fields[2]) if fields[0] == name and len(fields) >= 3 else None
        if gid is not None:
            return gid
    raise TaskFailed(f"group {name} does not exist in {GROUP}")


def _parse_id(text: str) -> int | None:
    """An id that the kernel takes; its highest one means that none is given."""
    number = int(text) if text.isdecimal() and len(text) <= 10 else _NO_ID
    return number if number < _NO_ID else None


def set_password(shadow: str, name: str, hashed: str, day: int) -> str:
    """shadow with this user's hash, and `day` (since the epoch) as its last change.

    The fields of ageing and all other lines stay byte for byte. A user without a line gets
    one, as pwconv(8) would give it.
    """
    lines = shadow.split("\n")
    mine = [at for at, line in enumerate(lines) if line.startswith(f"{name}:")]
    for at in mine:
        fields = lines[at].split(":")
        fields[1:3] = [hashed, str(day)]
        lines[at] = ":".join(fields)
    if not mine:
        lines.insert(len(lines) - (lines[-1] == ""), f"{name}:{hashed}:{day}:0:99999:7:::")
        if lines[-1]:
            lines.append("")
    return "\n".join(lines)


def hash_password(password: str, method: str = DEFAULT_METHOD) -> str:
    """Hash with a fresh salt from the kernel's pool. Raises TaskFailed.

    libcrypt is called directly: Python has no binding of it from 3.13 on.
    """
    if method not in _METHODS:
        known = ", ".join(_METHODS)
        raise TaskFailed(f"PASSWD_HASHING_METHOD={method} is not one of {known}")
    if "\0" in password or "\n" in password:
        raise TaskFailed("the password holds a line end or a null byte")
    library = ctypes.CDLL("libcrypt.so.1", use_errno=True)
    library.crypt_gensalt.argtypes = [
        ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p, ctypes.c_int
    ]  # fmt: skip
    library.crypt.argtypes = [ctypes.c_char_p, ctypes.c_char_p]
    library.crypt_gensalt.restype = library.crypt.restype = ctypes.c_char_p
    salt = library.crypt_gensalt(_METHODS[method].encode(), 0, None, 0)
    hashed = library.crypt(password.encode(), salt) if salt else None
    if not hashed or not is_hash(hashed.decode()):  # a refusal is `*0` or `*1`
        raise TaskFailed(f"this system's libcrypt can't hash with {method}")
    return str(hashed.decode())
