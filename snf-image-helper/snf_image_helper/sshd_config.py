"""The guest's sshd_config(5), as far as it says where users' keys are, and such keys."""

import base64
import binascii
import fnmatch
import itertools
import os
import re
import shlex
from collections.abc import Iterator

from snf_image_helper.accounts import User
from snf_image_helper.task import TaskFailed
from snf_image_helper.tree import Tree

PATH = "/etc/ssh/sshd_config"
DEFAULT_KEYS_FILE = ".ssh/authorized_keys"
_INCLUDE_DEPTH = 16  # sshd's own
_INCLUDE_LIMIT = 64
"""Files in all: they may include each other, and many times."""


def find_keys_file(tree: Tree, user: User) -> str:
    """The first file in which sshd looks for a user's keys, as a path of the guest.

    Raises TaskFailed when sshd reads none, TreeError.
    """
    values = next(
        (v for name, v in read_options(tree, PATH) if name == "authorizedkeysfile"),
        [DEFAULT_KEYS_FILE],
    )
    if values[0].lower() == "none":
        raise TaskFailed(f"{PATH} says AuthorizedKeysFile none: sshd would not read any key")
    return os.path.normpath(os.path.join(user.home, expand_tokens(values[0], user)))


def expand_tokens(text: str, user: User) -> str:
    """sshd_config's TOKENS: %h, %u, %U and %%."""
    tokens = {"%h": user.home, "%u": user.name, "%U": str(user.uid), "%%": "%"}
    return re.sub("%[huU%]", lambda match: tokens[match[0]], text)


def read_options(tree: Tree, path: str) -> Iterator[tuple[str, list[str]]]:
    """The options that hold for everyone, includes in place: (name in lower case, values).

    What follows a Match holds for some only, up to the end of its file. For sshd, the
    first value of a name counts. Raises TaskFailed: too many includes.
    """
    return _read_options(tree, path, 0, itertools.count(1))


def _read_options(
    tree: Tree, path: str, depth: int, numbers: Iterator[int]
) -> Iterator[tuple[str, list[str]]]:
    if not tree.is_file(path):
        return
    if next(numbers) > _INCLUDE_LIMIT:
        raise TaskFailed(f"{PATH} includes more than {_INCLUDE_LIMIT} files")
    for line in tree.read_text(path).splitlines():
        name, values = _parse_line(line)
        if name == "match":
            return
        if name == "include" and depth < _INCLUDE_DEPTH:
            for pattern in values:
                for each in _find_included(tree, os.path.join("/etc/ssh", pattern)):
                    yield from _read_options(tree, each, depth + 1, numbers)
        elif name and values:
            yield name, values


def _parse_line(line: str) -> tuple[str, list[str]]:
    """`Name value…` or `Name=value`, values in double quotes where they hold blanks."""
    match = re.match(r"\s*(\w+)(?:\s*=\s*|\s+)(.+)", line)
    if match is None:
        return "", []
    try:
        return match[1].lower(), shlex.split(match[2], comments=True)
    except ValueError:  # a quote without its end: sshd refuses it, so it sets nothing
        return "", []


def _find_included(tree: Tree, pattern: str) -> list[str]:
    folder, name = os.path.split(pattern)
    return [f"{folder}/{each}" for each in tree.list_dir(folder) if fnmatch.fnmatch(each, name)]


_KEY = re.compile(r"(?:^|\s)((?:ssh|ecdsa|sk-ssh|sk-ecdsa)-[\w@.-]+)\s+([A-Za-z0-9+/]+=*)(?:\s|$)")


def parse_keys(text: str) -> dict[tuple[str, str], str]:
    """Lines in the form of authorized_keys, by (type, base64). Raises TaskFailed.

    A key's data begins with the name of its type (RFC 4253 §6.6): what does not is no key.
    """
    keys: dict[tuple[str, str], str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        key = parse_key(line)
        if key is None:
            raise TaskFailed(f"line {number} of the SSH keys is not a public key")
        keys.setdefault(key, line.strip())
    return keys


def parse_key(line: str) -> tuple[str, str] | None:
    """The (type, base64) of a line of authorized_keys, or None when there is no key."""
    match = _KEY.search(line)
    if match is None:
        return None
    kind = match[1].encode()
    try:
        data = base64.b64decode(match[2], validate=True)
    except binascii.Error:
        return None
    is_key = data.startswith(len(kind).to_bytes(4, "big") + kind) and len(data) > len(kind) + 20
    return (match[1], match[2]) if is_key else None


def add_keys(old: str, new: dict[tuple[str, str], str]) -> str:
    """authorized_keys with the keys that it lacks; its own lines stay byte for byte."""
    present = {parse_key(line) for line in old.splitlines() if not line.startswith("#")}
    added = "".join(f"{line}\n" for key, line in new.items() if key not in present)
    return old + ("\n" if old and added and not old.endswith("\n") else "") + added
