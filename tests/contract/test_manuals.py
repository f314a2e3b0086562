"""The manual pages and the shipped settings say what the code does."""

import argparse
import re
import tomllib
import typing
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest

from snf_image_host.cli import make_parser
from snf_image_host.settings import Settings

ROOT = Path(__file__).parents[2]
MAN = ROOT / "snf-image-host/man"


def read_roff(path: Path) -> str:
    """A page's source with its escapes undone."""
    text = path.read_text()
    for escape, plain in {r"\-": "-", r"\(dq": '"', r"\~": " ", r"\&": "", "\\c\n": ""}.items():
        text = text.replace(escape, plain)
    return text


def read_section(text: str, heading: str) -> str:
    return text.split(f".SH {heading}\n")[1].split("\n.SH ")[0]


def find_commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    (verbs,) = (each for each in parser._actions if each.dest == "==SUPPRESS==" or each.choices)
    assert verbs.choices is not None
    return dict(typing.cast(Any, verbs.choices))


def find_options(parser: argparse.ArgumentParser) -> set[str]:
    return {name for each in parser._actions for name in each.option_strings} - {"-h", "--help"}


def flatten(kind: type[Any], at: str = "") -> dict[str, Any]:
    """Every key of a settings dataclass with its default, those of tables with their table."""
    hints = typing.get_type_hints(kind)
    defaults = kind()
    found: dict[str, Any] = {}
    for each in fields(kind):
        value = getattr(defaults, each.name)
        if is_dataclass(hints[each.name]):
            found |= flatten(hints[each.name], f"{at}{each.name}.")
        else:
            found[at + each.name] = value
    return found


def plain(value: Any) -> Any:
    """A default as TOML holds it."""
    return (
        list(value)
        if isinstance(value, tuple)
        else str(value)
        if isinstance(value, Path)
        else value
    )


def flatten_table(table: dict[str, Any], at: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in table.items():
        found |= (
            flatten_table(value, f"{at}{key}.") if isinstance(value, dict) else {at + key: value}
        )
    return found


DEFAULTS = {key: plain(value) for key, value in flatten(Settings).items()}


def test_the_commands_are_those_of_the_page() -> None:
    section = read_section(read_roff(MAN / "snf-image.8"), "COMMANDS")
    assert set(re.findall(r"^\.TP\n\.BI? ([a-z-]+)", section, re.MULTILINE)) == set(
        find_commands(make_parser())
    )


@pytest.mark.parametrize("where", ["SYNOPSIS", "OPTIONS"])
def test_the_options_are_those_of_the_page(where: str) -> None:
    parser = make_parser()
    section = read_section(read_roff(MAN / "snf-image.8"), where)
    known = find_options(parser).union(*map(find_options, find_commands(parser).values()))
    assert set(re.findall(r"--[a-z-]+", section)) == known


def test_each_command_has_its_options_under_its_heading() -> None:
    section = read_section(read_roff(MAN / "snf-image.8"), "OPTIONS")
    for name, parser in find_commands(make_parser()).items():
        part = section.split(f".SS Of {name}\n")[1].split(".SS ")[0]
        assert set(re.findall(r"^\.BI? (--[a-z-]+)", part, re.MULTILINE)) == find_options(parser)


def test_the_settings_page_has_every_key_with_its_default() -> None:
    section = read_section(read_roff(MAN / "snf-image-host.toml.5"), "KEYS")
    lines = re.findall(r"^\.TP\n\.B (.* = .*)$|^\.SS (\[.*\])$", section, re.MULTILINE)
    assert flatten_table(tomllib.loads("\n".join(key or table for key, table in lines))) == DEFAULTS


def test_the_shipped_file_shows_every_key_with_its_default_and_sets_none() -> None:
    text = (ROOT / "snf-image-host/conf/snf-image-host.toml").read_text()
    assert flatten_table(tomllib.loads(text)) == {}
    shown = re.sub(r"^#(?=[a-z0-9_]+ = )", "", text, flags=re.MULTILINE)
    assert flatten_table(tomllib.loads(shown)) == DEFAULTS
