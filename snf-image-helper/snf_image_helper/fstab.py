"""The guest's fstab, fstab(5): parsed, and extended by a line."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

PATH = "/etc/fstab"
_NO_FILES = frozenset({"swap", "iso9660", "udf"})
_NOT_AT_BOOT = frozenset({"noauto", "bind", "rbind", "_netdev", "loop"})


@dataclass(frozen=True)
class Entry:
    """One line: what is mounted, where, as which type, how."""

    source: str
    target: str
    type: str
    options: tuple[str, ...]

    @property
    def is_local(self) -> bool:
        """Is it a file system on a disk, which the guest mounts by itself?"""
        return (
            (self.source.startswith("/dev/") or parse_source(self.source) is not None)
            and self.target.startswith("/")
            and self.type not in _NO_FILES
            and not _NOT_AT_BOOT & set(self.options)
        )

    @property
    def may_be_missing(self) -> bool:
        return "nofail" in self.options

    @property
    def subvolume(self) -> tuple[str, ...]:
        """The options that choose a btrfs subvolume."""
        return tuple(each for each in self.options if re.match(r"subvol(id)?=", each))


def parse_fstab(text: str) -> list[Entry]:
    """The entries, in order; comments and lines of less than two fields are none."""
    rows = (line.split() for line in text.split("\n") if not line.lstrip().startswith("#"))
    return [_parse(row) for row in rows if len(row) >= 2]


def _parse(row: list[str]) -> Entry:
    source, target, kind, options = [*row, *("auto", "defaults")[max(0, len(row) - 2) :]][:4]
    return Entry(_unquote(source), _unescape(target), kind, tuple(options.split(",")))


def _unescape(text: str) -> str:
    """Octal escapes stand for blanks: `\\040` is a space."""
    return re.sub(r"\\([0-3][0-7]{2})", lambda match: chr(int(match[1], 8)), text)


def _unquote(text: str) -> str:
    """A source may be written as UUID="…"."""
    return re.sub(r'^(\w+)="(.*)"$', r"\1=\2", _unescape(text))


_TAGS: Mapping[str, str] = {
    "UUID": "uuid",
    "LABEL": "label",
    "PARTUUID": "partuuid",
    "PARTLABEL": "partlabel",
}


def parse_source(source: str) -> tuple[str, str] | None:
    """A source that names by tag, as (field of a superblock, value): `UUID=…`, or
    `/dev/disk/by-uuid/…`; None for other sources."""
    if match := re.fullmatch(r"/dev/disk/by-(\w+)/(.+)", source):
        tag, value = match[1].upper(), re.sub(r"\\x([0-9a-f]{2})", _decode_hex, match[2])
    else:
        tag, _, value = source.partition("=")
    return (_TAGS[tag], value) if tag in _TAGS and value else None


def _decode_hex(match: re.Match[str]) -> str:
    return chr(int(match[1], 16))


def add_line(text: str, line: str) -> str:
    """The text with one more line; every other byte as it was."""
    return f"{text}{'' if not text or text.endswith(chr(10)) else chr(10)}{line}\n"
