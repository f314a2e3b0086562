"""Image properties: what an image, or an instance, asks of the customization.

The names are the predecessor's and are not case-sensitive; unknown ones are kept, since a
task of the image may read them. What this version does with each is in KNOWN.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from snf_image_host.os_parameters.strict_json import parse_json

TEXT_LIMIT = 1 << 20
_NAME_LIMIT = 200

TRUE_WORDS = frozenset({"yes", "true", "on", "1", "set"})
FALSE_WORDS = frozenset({"no", "false", "off", "0", "unset", ""})


@dataclass(frozen=True)
class Property:
    """flag: a yes or no. form: pattern of the values that can work, case ignored."""

    name: str
    help: str
    flag: bool = False
    form: str = ""


KNOWN = (
    Property(
        "OSFAMILY",
        "family of the guest's system; this version customizes `linux`",
        form="linux|windows|windows-legacy|freebsd|openbsd|netbsd",
    ),
    Property(
        "ROOT_PARTITION",
        "number of the partition that holds the root file system",
        form="[1-9][0-9]{0,2}",
    ),
    Property(
        "USERS",
        "users, separated by spaces, that get the password and keys; else root",
        form=r"\s*([a-z0-9_.][a-z0-9_.-]{0,62}\$?(\s+|$))+",
    ),
    Property(
        "SWAP",
        "`PARTITION:MIB` makes a swap partition; a disk's letter, `b` onwards, a disk",
        form="[1-9][0-9]{0,2}:[1-9][0-9]{0,8}|[b-z]|[a-z]{2}",
    ),
    Property(
        "PASSWD_HASHING_METHOD",
        "md5, sha1, blowfish, sha256, sha512 (the default) or yescrypt",
        form="md5|sha1|blowfish|sha256|sha512|yescrypt",
    ),
    Property("EXCLUDE_ALL_TASKS", "no customization at all", flag=True),
    Property("EXCLUDE_MOUNTED_TASKS", "no task that works on mounted file systems", flag=True),
    Property("EXCLUDE_FILESYSTEMRESIZE_TASKS", "file systems keep their size", flag=True),
)
"""Beside these, `EXCLUDE_TASK_<NAME>` excludes the task of that name."""

_FLAGS = frozenset(each.name for each in KNOWN if each.flag)
_FLAG_PREFIX = "EXCLUDE_TASK_"


def parse_properties(text: str) -> dict[str, str]:
    """A JSON object of text, numbers, true and false as name in upper case → text.

    Numbers keep their digits. Raises ValueError.
    """
    value = parse_json(text, limit=TEXT_LIMIT, parse_int=str, parse_float=str)
    if not isinstance(value, dict):
        raise ValueError("it is not a JSON object")
    properties: dict[str, str] = {}
    for name, item in value.items():
        _add(properties, name, item)
    return properties


def _add(properties: dict[str, str], name: str, value: object) -> None:
    if not name or len(name) > _NAME_LIMIT or not name.isprintable():
        raise ValueError(f"a property's name is empty, unprintable or over {_NAME_LIMIT} long")
    upper = name.upper()
    if upper in properties:
        raise ValueError(f"property {upper} is there twice")
    if isinstance(value, bool):
        value = str(value).lower()
    if not isinstance(value, str):
        raise ValueError(f"property {upper} is neither text, a number, true nor false")
    if "\0" in value:
        raise ValueError(f"property {upper} holds a null byte")
    properties[upper] = value


def find_doubtful_flags(properties: Mapping[str, str]) -> list[str]:
    """Names of flags whose value is no word for yes or no; they count as yes."""
    return [
        name
        for name, value in properties.items()
        if (name in _FLAGS or name.startswith(_FLAG_PREFIX))
        and value.strip().lower() not in TRUE_WORDS | FALSE_WORDS
    ]


def check_properties(properties: Mapping[str, str]) -> None:
    """Raises ValueError for the first known property whose value can't work; empty is absent."""
    for each in KNOWN:
        value = properties.get(each.name, "").strip()
        if value and each.form and not re.fullmatch(each.form, value, re.IGNORECASE):
            raise ValueError(f"property {each.name} does not fit: {each.help}")


def is_set(properties: Mapping[str, str], name: str) -> bool:
    """A flag: everything that is no word for no means yes."""
    return properties.get(name, "").strip().lower() not in FALSE_WORDS
