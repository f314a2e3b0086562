"""The manual page has every command and option of the program, and no other."""

import argparse
import re
from pathlib import Path

from ext_storage_rados.cli import make_parser

MANUAL = Path(__file__).parents[3] / "ext-storage-rados/man/snf-rados-image.8"


def find_commands() -> dict[str, argparse.ArgumentParser]:
    (verbs,) = (
        action
        for action in make_parser()._actions
        if isinstance(action, argparse._SubParsersAction)
    )
    return dict(verbs.choices)


def find_options() -> set[str]:
    parsers = [make_parser(), *find_commands().values()]
    options = {
        word for parser in parsers for each in parser._actions for word in each.option_strings
    }
    return options - {"-h", "--help"}


def test_commands() -> None:
    page = MANUAL.read_text().replace("\\-", "-")
    section = page.partition(".SH COMMANDS")[2].partition(".SH OPTIONS")[0]
    named = re.findall(r"^\.TP\n\.BI? ([a-z-]+)", section, re.MULTILINE)
    assert named == list(find_commands())


def test_options() -> None:
    page = MANUAL.read_text().replace("\\-", "-")
    section = page.partition(".SH OPTIONS")[2].partition(".SH EXIT")[0]
    named = re.findall(r"(?<![\w-])--?[a-z]+\b", section.replace("\\~", " "))
    assert set(named) == find_options()
