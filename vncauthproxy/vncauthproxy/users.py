"""The users of the legacy protocol: a file of lines `USER:HASH`, hashes as of crypt(5)."""

import ctypes
import hmac
import re
import threading
from pathlib import Path

from snf_ganeti.errors import InputError, NodeError, SettingsError

_NAME = re.compile(r"[a-z_][a-z0-9_]{0,30}")
_HASH = re.compile(r"\$(5|6|y|gy|7|2b)\$[!-9;-~]+")
_METHOD = b"$6$"
_NOBODY = "$6$vncauthproxynobo$" + "." * 86
"""Checked for users that there are not, so that they take as long as others."""

_crypt_is_busy = threading.Lock()


def read_users(path: Path) -> dict[str, str]:
    """Hash by name; none when the file is not there. Raises SettingsError, NodeError."""
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise NodeError(f"{path} can't be read: {error}") from None
    users = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, _, hashed = line.strip().partition(":")
        if not _NAME.fullmatch(name) or not _HASH.fullmatch(hashed):
            raise SettingsError(f"{path}:{number}: this is not a user and a hash of crypt(5)")
        users[name] = hashed
    return users


def check_name(name: str) -> None:
    """Raises InputError."""
    if not _NAME.fullmatch(name):
        raise InputError(f"{name!r} can't be a user's name", hint="a-z, 0-9 and _, at most 31")


def verify(users: dict[str, str], name: str, password: str) -> bool:
    """Takes as long for a user that there is not as for a wrong password."""
    hashed = users.get(name)
    found = _crypt(password, (hashed or _NOBODY).encode())
    return hmac.compare_digest(found, hashed or "") and hashed is not None


def hash_password(password: str) -> str:
    """SHA-512 with a new salt, which the predecessor reads, too."""
    library = _open_library()
    with _crypt_is_busy:
        salt = library.crypt_gensalt(_METHOD, 0, None, 0)
    return _crypt(password, bytes(salt))


def _crypt(password: str, setting: bytes) -> str:
    """libcrypt itself: Python has no binding of it from 3.13 on. Its result is its own."""
    if "\0" in password:
        return "*0"
    with _crypt_is_busy:
        made = _open_library().crypt(password.encode(), setting)
    if not made:
        raise NodeError("crypt(3) can't hash a password")
    return str(made.decode())


def _open_library() -> ctypes.CDLL:
    library = ctypes.CDLL("libcrypt.so.1", use_errno=True)
    library.crypt_gensalt.argtypes = [
        *(ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p, ctypes.c_int),
    ]
    library.crypt.argtypes = [ctypes.c_char_p, ctypes.c_char_p]
    library.crypt_gensalt.restype = library.crypt.restype = ctypes.c_char_p
    return library
