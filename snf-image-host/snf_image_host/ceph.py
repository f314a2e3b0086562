"""What a deployment must know of Ceph: which RBD image a URI means, and the key to it."""

import configparser
import re
from dataclasses import dataclass
from pathlib import Path

from snf_ganeti.errors import NodeError

_CONF = "/etc/ceph/ceph.conf"
_KEYRINGS = ("/etc/ceph/ceph.client.{user}.keyring", "/etc/ceph/ceph.keyring")
_PART = re.compile(r"(?:[^:\\]|\\.)*", re.DOTALL)
_IMAGE = re.compile(r"([^/@]+)/(?:([^/@]*)/)?([^/@]+)(?:@([^/@]+))?")


@dataclass(frozen=True)
class RbdImage:
    """An image in RBD. user: the cephx user without `client.`; keyring: a path, or empty."""

    pool: str
    name: str
    namespace: str = ""
    snapshot: str = ""
    user: str = "admin"
    conf: str = _CONF
    keyring: str = ""


def parse_rbd_uri(uri: str) -> RbdImage:
    r"""`rbd:POOL/[NAMESPACE/]IMAGE[@SNAPSHOT][:KEY=VALUE…]` as QEMU's rbd driver takes it; a
    backslash takes the meaning of what follows. Raises ValueError."""
    _, image, *pairs = (_unescape(part) for part in _split(uri))
    match = _IMAGE.fullmatch(image)
    if not match:
        raise ValueError("it is not POOL/IMAGE")
    options = dict(pair.partition("=")[::2] for pair in pairs)
    unknown = options.keys() - {"id", "conf", "keyring"}
    if unknown:
        raise ValueError(f"its option {min(unknown)[:40]} is not known; ceph.conf may hold it")
    pool, namespace, name, snapshot = match.groups(default="")
    return RbdImage(
        pool,
        name,
        namespace,
        snapshot,
        user=options.get("id", "admin"),
        conf=options.get("conf", _CONF),
        keyring=options.get("keyring", ""),
    )


def _split(text: str) -> list[str]:
    """The parts between colons that no backslash stands before."""
    parts, at = [], 0
    while at <= len(text):
        match = _PART.match(text, at)
        assert match
        parts.append(match[0])
        at = match.end() + 1
    return parts


def _unescape(part: str) -> str:
    return re.sub(r"\\(.)", r"\1", part, flags=re.DOTALL)


def find_key(image: RbdImage) -> str:
    """The cephx key in the user's keyring, base64; empty when there is no keyring.

    Raises NodeError for a keyring that has no key of the user.
    """
    paths = [image.keyring] if image.keyring else [k.format(user=image.user) for k in _KEYRINGS]
    path = next((Path(each) for each in paths if Path(each).is_file()), None)
    if path is None:
        return ""
    try:
        return parse_keyring(path.read_text("utf-8"), image.user)
    except (OSError, ValueError, configparser.Error):
        raise NodeError(f"{path} has no key of client.{image.user}") from None


def parse_keyring(text: str, user: str) -> str:
    """Raises configparser.Error, ValueError."""
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.read_string("\n".join(line.strip() for line in text.splitlines()))
    return parser.get(f"client.{user}", "key").strip()
