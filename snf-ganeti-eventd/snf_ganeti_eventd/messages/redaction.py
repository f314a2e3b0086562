"""What of an opcode's input, log and result may be seen outside: by allow-list.

A `Spec` is the allow-list of one value: `Fields` keeps the keys it names, `Each` a list's items,
`Changes` Ganeti's lists of modifications, `Keep` a plain value; None keeps nothing.
"""

import contextlib
import functools
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

TEXT_LIMIT = 4096
"""Characters kept of any text."""
LIST_LIMIT = 1000
"""Items kept of any list."""
MARK = "[redacted]"

_SHORTEST_SECRET = 4
"""Characters; a shorter text is too common to be cut out of messages."""
_NESTING = 3
_CREDENTIALS = re.compile(r"(?<=://)[^/?#\s@]*@")
_QUERY = re.compile(r"(\b[a-z][a-z0-9+.-]*://[^\s?#]*)[?#]\S*", re.IGNORECASE)


@dataclass(frozen=True)
class Keep:
    """A number, a truth, nothing, or text without credentials in its URLs."""


@dataclass(frozen=True)
class Each:
    """A list whose items are kept by one spec."""

    item: "Spec"


@dataclass(frozen=True)
class Changes:
    """`[[action, {…}], [action, which, {…}], …]`, or a list of mappings."""

    item: "Spec"


@dataclass(frozen=True)
class Fields:
    """An object of which these keys are kept."""

    by_name: Mapping[str, "Spec"]

    @classmethod
    def of(cls, *names: str) -> "Fields":
        """Plain values with these names."""
        return cls(dict.fromkeys(names, Keep()))

    @functools.cached_property
    def ignored(self) -> frozenset[str]:
        """Keys that stand there with None: neither kept nor secrets."""
        return frozenset(name for name, spec in self.by_name.items() if spec is None)


Spec = Keep | Each | Changes | Fields | None


def filter_value(spec: Spec, value: Any) -> Any:
    """What a spec keeps of a value; what it does not keep is null or absent."""
    match spec, value:
        case Keep(), str():
            return strip_url(value)[:TEXT_LIMIT]
        case Keep(), bool() | int() | float() | None:
            return value
        case Each(item), list():
            return [filter_value(item, each) for each in value[:LIST_LIMIT]]
        case Changes(item), list():
            return [_filter_change(item, each) for each in value[:LIST_LIMIT]]
        case Fields(by_name), dict():
            return {key: filter_value(by_name[key], value[key]) for key in by_name if key in value}
    return None


def _filter_change(item: Spec, change: Any) -> Any:
    if isinstance(change, list):
        return [
            filter_value(item if isinstance(part, dict) else Keep(), part) for part in change[:3]
        ]
    return filter_value(item, change)


def strip_url(text: str) -> str:
    """Text whose URLs have lost user names, passwords and query strings (signatures)."""
    if "://" not in text:
        return text
    return _QUERY.sub(r"\1", _CREDENTIALS.sub("", text))


def find_dropped(spec: Spec, value: Any) -> list[str]:
    """The texts in a value that its spec does not keep. Text that is itself JSON counts with
    the texts inside it."""
    found: list[str] = []
    _find_dropped(spec, value, found)
    return found


def make_secrets(dropped: Iterable[str]) -> frozenset[str]:
    """Texts to be cut out of others, also as they look inside quotes."""
    found: set[str] = set()
    for text in dropped:
        if len(text) >= _SHORTEST_SECRET:
            found |= {text, repr(text)[1:-1], json.dumps(text)[1:-1]}
            found |= {text.encode("unicode_escape").decode(), text.strip()}
    return frozenset(each for each in found if len(each) >= _SHORTEST_SECRET)


def cut_secrets(text: str, secrets: frozenset[str]) -> str:
    """The text without any of the secrets, longest first, and without URLs' credentials."""
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, MARK)
    return strip_url(text)[:TEXT_LIMIT]


def _find_dropped(spec: Spec, value: Any, found: list[str]) -> None:
    match spec, value:
        case (_, None | bool()) | (Keep(), int() | float()):
            return
        case Keep(), str():
            found.extend(_find_credentials(value))
        case Each(item), list():
            for each in value:
                _find_dropped(item, each, found)
        case Changes(item), list():
            for each in value:
                for part in each if isinstance(each, list) else [each]:
                    _find_dropped(item if isinstance(part, dict) else Keep(), part, found)
        case Fields() as fields, dict():
            for key in value.keys() - fields.ignored:
                _find_dropped(fields.by_name.get(key), value[key], found)
        case _:
            found.extend(_find_leaves(value))


def _find_credentials(text: str) -> Iterator[str]:
    """Of a text with URLs that must not be seen whole: the whole, and what stands before @."""
    if strip_url(text) != text:
        yield text
        yield from (match[0].rstrip("@") for match in _CREDENTIALS.finditer(text))


def _find_leaves(value: Any, depth: int = 0) -> Iterator[str]:
    """Texts at any depth; depth: in how many texts of JSON we are, where numbers count, too."""
    match value:
        case dict() | list():
            for each in value.values() if isinstance(value, dict) else value:
                yield from _find_leaves(each, depth)
        case str():
            yield value
            if value[:1] in ("{", "[", '"') and depth < _NESTING:
                with contextlib.suppress(ValueError, RecursionError):
                    yield from _find_leaves(json.loads(value), depth + 1)
        case int() | float() if depth and not isinstance(value, bool):
            yield str(value)
