"""The console's manual pages, unit and API document say what the code does."""

import argparse
import configparser
import json
import re
import typing
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from vncauthproxy import api
from vncauthproxy.commands import client, main, passwd

ROOT = Path(__file__).parents[2]
COMPONENT = ROOT / "vncauthproxy"
OPENAPI = json.loads((COMPONENT / "web/openapi.json").read_text())


def read_roff(name: str) -> str:
    """A page's source with its escapes undone."""
    text = (COMPONENT / "man" / name).read_text()
    for escape, plain in {r"\-": "-", r"\(dq": '"', r"\~": " ", r"\fR": "", r"\(aq": "'"}.items():
        text = text.replace(escape, plain)
    return text


def find_options(parser: argparse.ArgumentParser) -> set[str]:
    return {name for each in parser._actions for name in each.option_strings} - {"-h", "--help"}


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
