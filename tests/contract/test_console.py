"""The console's manual pages, settings, unit and API document say what the code does."""

import argparse
import configparser
import json
import re
import tomllib
import typing
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from vncauthproxy import api, client, main, passwd
from vncauthproxy.settings import Settings

ROOT = Path(__file__).parents[2]
COMPONENT = ROOT / "vncauthproxy"
OPENAPI = json.loads((COMPONENT / "web/openapi.json").read_text())
UNSET = "PATH"
"""What pages show as the value of a key that has none."""


def read_roff(name: str) -> str:
    """A page's source with its escapes undone."""
    text = (COMPONENT / "man" / name).read_text()
    for escape, plain in {r"\-": "-", r"\(dq": '"', r"\~": " ", r"\fR": "", r"\(aq": "'"}.items():
        text = text.replace(escape, plain)
    return text


def flatten(kind: type[Any], at: str = "") -> dict[str, Any]:
    """Every key of a settings dataclass with its default as TOML holds it."""
    hints = typing.get_type_hints(kind)
    found: dict[str, Any] = {}
    for each in fields(kind):
        if is_dataclass(hints[each.name]):
            found |= flatten(hints[each.name], f"{at}{each.name}.")
        else:
            found[at + each.name] = make_plain(getattr(kind(), each.name))
    return found


def make_plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [make_plain(each) for each in value]
    if value is None:
        return UNSET
    return str(value) if isinstance(value, Path) else value


def flatten_table(table: dict[str, Any], at: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in table.items():
        is_table = isinstance(value, dict)
        found |= flatten_table(value, f"{at}{key}.") if is_table else {at + key: value}
    return found


def find_options(parser: argparse.ArgumentParser) -> set[str]:
    return {name for each in parser._actions for name in each.option_strings} - {"-h", "--help"}


def test_the_settings_page_has_every_key_with_its_default() -> None:
    section = read_roff("vncauthproxy.toml.5").split(".SH KEYS\n")[1].split("\n.SH ")[0]
    lines = re.findall(r"^\.TP\n\.B (.* = .*)$|^\.SS (\[.*\])$", section, re.MULTILINE)
    shown = tomllib.loads("\n".join(key or table for key, table in lines))
    assert flatten_table(shown) == flatten(Settings)


def test_the_shipped_file_shows_every_key_with_its_default_and_sets_none() -> None:
    text = (COMPONENT / "conf/vncauthproxy.toml").read_text()
    assert flatten_table(tomllib.loads(text)) == {}
    shown = re.sub(r"^#(?=[a-z0-9_]+ = )", "", text, flags=re.MULTILINE)
    assert flatten_table(tomllib.loads(shown)) == flatten(Settings)


def find_commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    (commands,) = (each for each in parser._actions if isinstance(each.choices, dict))
    return dict(typing.cast(Any, commands.choices))


def test_the_pages_have_every_command_and_option() -> None:
    page = read_roff("vncauthproxy.8")
    parser = main.make_parser()
    commands = find_commands(parser)
    section = page.split(".SH COMMANDS\n")[1].split("\n.SH ")[0]
    assert set(re.findall(r"^\.TP\n\.BI? ([a-z-]+)", section, re.MULTILINE)) == set(commands)
    known = find_options(parser).union(*map(find_options, commands.values()))
    assert set(re.findall(r"--[a-z-]+", page)) == known

    for name, parsers in {
        "vncauthproxy-client.1": (client.make_open_parser(), client.make_forward_parser()),
        "vncauthproxy-passwd.8": (passwd.make_parser(),),
    }.items():
        shown = set(re.findall(r"(?<![\w-])--?[a-zA-Z][a-z-]*", read_roff(name)))
        known = set().union(*map(find_options, parsers))
        assert shown == known, name


def test_the_unit_runs_the_command_unprivileged() -> None:
    unit = configparser.RawConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment]
    unit.read(ROOT / "debian/vncauthproxy.service")
    program, command = unit["Service"]["ExecStart"].split()
    assert (
        f"vncauthproxy/bin/{Path(program).name} {Path(program).parent.relative_to('/')}"
        in (ROOT / "debian/vncauthproxy.install").read_text().splitlines()
    )
    assert command in find_commands(main.make_parser())
    assert unit["Service"]["User"] in (ROOT / "debian/vncauthproxy.postinst").read_text()


def test_the_api_document_has_the_routes_of_the_code() -> None:
    documented = {
        path: {method.upper() for method in item if method != "parameters"}
        for path, item in OPENAPI["paths"].items()
    }
    assert documented == {path: set(routes) for path, routes in api.ROUTES.items()}
    for path, routes in api.ROUTES.items():
        for method, route in routes.items():
            operation = OPENAPI["paths"][path][method.lower()]
            assert ("401" in operation["responses"]) == route.closed
            assert ("security" in operation) == (not route.closed)


def test_the_api_document_has_the_keys_of_the_code() -> None:
    schemas = OPENAPI["components"]["schemas"]
    for schema in schemas.values():
        Draft202012Validator.check_schema(schema)
    assert set(schemas["Order"]["properties"]) == set(api.ORDER_KINDS)


@pytest.mark.parametrize("word", ["#/components/schemas/", "#/components/responses/"])
def test_the_references_of_the_api_document_lead_somewhere(word: str) -> None:
    kind = word.split("/")[2]
    used = set(re.findall(re.escape(word) + r"(\w+)", json.dumps(OPENAPI)))
    assert used <= set(OPENAPI["components"][kind])
