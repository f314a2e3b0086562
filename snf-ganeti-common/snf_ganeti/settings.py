"""Settings of a component: TOML files read into one frozen dataclass.

`/etc/<component>/<component>.toml` comes first, then `conf.d/*.toml` by name; a later file
overrides single keys. Tables are nested dataclasses, and arrays of tables tuples of them. The
dataclass declares every key, its type and its default once; a key it does not know, another type,
a path that is not absolute and a number out of its bounds are errors that name file, key and what
is expected. Nothing is executed.
"""

import dataclasses
import math
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from snf_ganeti.errors import SettingsError

Settings = TypeVar("Settings")

ETC = Path("/etc")
_WORDS: Mapping[Any, str] = {
    str: "a string",
    int: "an integer",
    float: "a number",
    bool: "true or false",
    Path: "an absolute path",
}


@dataclass(frozen=True)
class Bounds:
    """Which numbers a key takes, both ends included: `Annotated[int, Bounds(576, 65535)]`.

    A number without bounds is more than 0, and no number is infinite: a deadline of nothing and
    one that never comes each stop a service in their own way.
    """

    least: float
    most: float = math.inf

    def __contains__(self, number: float) -> bool:
        return self.least <= number <= self.most and number < math.inf

    def __str__(self) -> str:
        return f"at least {self.least}" if self.most == math.inf else f"{self.least} to {self.most}"


Port = Annotated[int, Bounds(1, 65535)]


def find_files(component: str, etc: Path = ETC) -> list[Path]:
    """The settings files of a component, in the order in which they apply."""
    folder = etc / component
    main = folder / f"{component}.toml"
    return [path for path in (main, *sorted(folder.glob("conf.d/*.toml"))) if path.is_file()]


def read_settings(kind: type[Settings], component: str, etc: Path = ETC) -> Settings:
    """Read all settings files of a component into a `kind`. Raises SettingsError."""
    merged: dict[str, Any] = {}
    for path in find_files(component, etc):
        try:
            table = tomllib.loads(path.read_text("utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise SettingsError(f"{path} is not valid TOML: {error}") from None
        except OSError as error:
            raise SettingsError(f"{path} can't be read: {error.strerror}") from None
        _merge(merged, parse_table(kind, table, str(path)))
    return _construct(kind, merged)


def parse_table(
    kind: type[Any], table: Mapping[str, Any], where: str, at: str = ""
) -> dict[str, Any]:
    """Check a TOML table against a dataclass; give its values in the declared types."""
    hints = typing.get_type_hints(kind, include_extras=True)
    fields = {field.name for field in dataclasses.fields(kind)}
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in fields:
            known = ", ".join(sorted(fields))
            raise SettingsError(f"{where}: unknown key {at}{key}", hint=f"known here: {known}")
        values[key] = _parse_value(hints[key], value, where, at + key)
    return values


def _parse_value(hint: Any, value: Any, where: str, key: str) -> Any:
    if dataclasses.is_dataclass(hint) and isinstance(value, dict):
        return parse_table(typing.cast(type[Any], hint), value, where, key + ".")
    if get_origin(hint) in (Union, types.UnionType):  # only "X | None" is used: TOML has no null
        return _parse_value(get_args(hint)[0], value, where, key)
    if get_origin(hint) is Literal and value in get_args(hint):
        return value
    if get_origin(hint) is tuple and isinstance(value, list):
        return tuple(_parse_value(get_args(hint)[0], item, where, key) for item in value)
    if hint is Path and isinstance(value, str) and value.startswith("/"):
        return Path(value)
    kind, bounds = get_args(hint) if get_origin(hint) is Annotated else (hint, None)
    if kind is float and type(value) is int:
        value = float(value)
    if kind not in _WORDS or type(value) is not kind:
        raise SettingsError(f"{where}: {key} must be {describe_type(hint)}, not {value!r}")
    if kind in (int, float) and not (0 < value < math.inf if bounds is None else value in bounds):
        raise SettingsError(f"{where}: {key} must be {bounds or 'more than 0'}, not {value!r}")
    return value


def describe_type(hint: Any) -> str:
    """A type in words, for messages and for the manual."""
    if dataclasses.is_dataclass(hint):
        return "a table"
    if get_origin(hint) in (Annotated, Union, types.UnionType):
        return describe_type(get_args(hint)[0])
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(f'"{word}"' for word in get_args(hint))
    if get_origin(hint) is tuple:
        return "a list, each " + describe_type(get_args(hint)[0])
    return _WORDS[hint]


def _merge(base: dict[str, Any], over: Mapping[str, Any]) -> None:
    for key, value in over.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            _merge(base[key], value)
        else:
            base[key] = value


def _construct(kind: type[Settings], values: Mapping[str, Any]) -> Settings:
    hints = typing.get_type_hints(kind)
    return kind(**{key: _construct_value(hints[key], value) for key, value in values.items()})


def _construct_value(hint: Any, value: Any) -> Any:
    if isinstance(value, dict):
        return _construct(hint, value)
    if isinstance(value, tuple):  # an array of tables, or of plain values
        return tuple(_construct_value(get_args(hint)[0], item) for item in value)
    return value
