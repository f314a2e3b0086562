"""The manual page of snf-image says what the code does."""

import argparse
import re
import typing
from pathlib import Path
from typing import Any

import pytest

from snf_image_host.cli import make_parser

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
