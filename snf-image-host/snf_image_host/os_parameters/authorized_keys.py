"""SSH public keys, as lines of an authorized_keys file; sshd(8) describes the format.

A line is `[options] type base64 [comment]`. Options have no blanks outside double quotes. The
base64 is the key's blob, which begins with its type again (RFC 4253, section 6.6).
"""

import base64
import binascii
import re

TYPES = (
    "ssh-ed25519",
    "ssh-rsa",
    "ssh-dss",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
)
_CERTIFICATE = "-cert-v01@openssh.com"
TEXT_LIMIT = 1 << 20

_KEY = "|".join(
    re.escape(name)
    for each in TYPES
    for name in (each, each.removesuffix("@openssh.com") + _CERTIFICATE)
)
_OPTIONS = r'(?:[^\s"]|"(?:[^"\\]|\\.)*")+'
_LINE = re.compile(
    rf"(?:(?!(?:{_KEY})[ \t]){_OPTIONS}[ \t]+)?(?P<type>{_KEY})[ \t]+(?P<blob>[A-Za-z0-9+/=]+)"
    r"(?:[ \t]+.*)?"
)


def parse_authorized_keys(text: str) -> str:
    """Check every line; give the keys, a line each. Empty lines and comments are left out.

    Raises ValueError, which names the line, from 1.
    """
    if len(text) > TEXT_LIMIT:
        raise ValueError(f"it is longer than {TEXT_LIMIT} characters")
    keys = []
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), 1):
        key = line.strip()
        if not key or key.startswith("#"):
            continue
        if not is_key(key):
            raise ValueError(f"line {number} is not an SSH public key")
        keys.append(key)
    return "".join(f"{key}\n" for key in keys)


def is_key(line: str) -> bool:
    """Is it a line with a key of a known type, whole as far as its first field tells?"""
    found = _LINE.fullmatch(line)
    if not found or not line.replace("\t", " ").isprintable():
        return False
    try:
        blob = base64.b64decode(found["blob"], validate=True)
    except (binascii.Error, ValueError):
        return False
    length = int.from_bytes(blob[:4], "big")
    return len(blob) > 4 + length and blob[4 : 4 + length] == found["type"].encode()
