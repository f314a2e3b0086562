"""The files that a user wants in the guest: the predecessor's JSON array.

    [{"path": "/etc/motd", "contents": "<base64>", "owner": "root", "group": "root",
      "mode": 288}, …]

`owner`, `group` and `mode` are optional. A mode is a number (288 is 0440), or octal text.
"""

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any

from snf_image_helper.protocol import PersonalityFile
from snf_image_host.os_parameters.strict_json import parse_json

COUNT_LIMIT = 1000
SIZE_LIMIT = 16 << 20
"""Bytes of all files together."""
_TEXT_LIMIT = 2 * SIZE_LIMIT
_PATH_LIMIT = 4095  # PATH_MAX without its null byte
_NAME_LIMIT = 255  # NAME_MAX
_KEYS = frozenset({"path", "contents", "owner", "group", "mode"})
_ACCOUNT = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.-]{0,62}\$?")
_OCTAL = re.compile(r"(0o?)?[0-7]{1,4}")
_DEFAULT_MODE = 0o440


def parse_personality(text: str) -> tuple[PersonalityFile, ...]:
    """Raises ValueError, which names the file by its place, from 1, and quotes no contents."""
    value = parse_json(text, limit=_TEXT_LIMIT)
    if not isinstance(value, list):
        raise ValueError("it is not a JSON array")
    if len(value) > COUNT_LIMIT:
        raise ValueError(f"it has more than {COUNT_LIMIT} files")
    files: list[PersonalityFile] = []
    size = 0
    for place, item in enumerate(value, 1):
        try:
            file, length = _parse_file(item)
        except ValueError as error:
            raise ValueError(f"file {place}: {error}") from None
        files.append(file)
        size += length
    if size > SIZE_LIMIT:
        raise ValueError(f"its files are larger than {SIZE_LIMIT >> 20} MiB together")
    return tuple(files)


def _parse_file(item: object) -> tuple[PersonalityFile, int]:
    """A file, and the bytes of its contents."""
    if not isinstance(item, dict):
        raise ValueError("it is not a JSON object")
    unknown = sorted(set(item) - _KEYS)
    if unknown:
        raise ValueError(f"unknown key {unknown[0][:50]!r}; known are {', '.join(sorted(_KEYS))}")
    contents = "".join(_take_text(item, "contents").split())
    try:
        length = len(base64.b64decode(contents, validate=True))
    except (binascii.Error, ValueError):
        raise ValueError("its contents are not base64") from None
    file = PersonalityFile(
        path=_parse_path(_take_text(item, "path")),
        contents=contents,
        owner=_parse_account(item, "owner"),
        group=_parse_account(item, "group"),
        mode=_parse_mode(item.get("mode", _DEFAULT_MODE)),
    )
    return file, length


def _parse_path(path: str) -> str:
    parts = path.split("/")
    if not path.startswith("/") or not path.isprintable():
        raise ValueError("its path is not absolute, or is unprintable")
    if ".." in parts or parts[-1] in ("", "."):
        raise ValueError("its path has a .. in it, or names a folder")
    encoded = [len(part.encode()) for part in parts]
    if max(encoded) > _NAME_LIMIT or len(path.encode()) > _PATH_LIMIT:
        raise ValueError("its path is too long")
    return path


def _parse_account(item: Mapping[str, Any], key: str) -> str:
    name = _take_text(item, key) if key in item else "root"
    if not _ACCOUNT.fullmatch(name) or name.isdecimal():
        raise ValueError(f"its {key} is not a name")
    return name


def _parse_mode(value: object) -> int:
    if isinstance(value, str) and _OCTAL.fullmatch(value):
        value = int(value, 8)
    if type(value) is not int or not 0 <= value <= 0o7777:
        raise ValueError('its mode is neither a number as 288 nor octal text as "0440"')
    return value


def _take_text(item: Mapping[str, Any], key: str) -> str:
    value = item.get(key)
    if not isinstance(value, str):
        raise ValueError(f"its {key} is missing or not text")
    return value
