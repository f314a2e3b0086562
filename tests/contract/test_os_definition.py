"""The OS definition as Ganeti's OS interface, version 20, wants it: ganeti-os-interface(7)."""

import ast
import stat
from dataclasses import fields
from pathlib import Path

import pytest

from snf_image_helper.protocol import Request
from snf_image_helper.task import FALSE_WORDS, TRUE_WORDS
from snf_image_helper.tasks.change_password import make_hash
from snf_image_host import environ, formats
from snf_image_host.os_parameters import properties
from snf_image_host.os_parameters.parameters import Parameters, parse_parameters
from snf_image_host.os_parameters.table import TABLE, OsParameter
from snf_image_host.os_parameters.values import FORMATS

ROOT = Path(__file__).parents[2]
DEFINITION = ROOT / "snf-image-host/os"
SCRIPTS = ("create", "export", "import", "rename", "verify")
NAMES = [
    "img_id",
    "img_format",
    "img_passwd",
    "img_passwd_hash",
    "img_properties",
    "inst_properties",
    "img_personality",
    "auth_keys",
    "os_product_key",
    "os_answer_file",
    "config_url",
    "cloud_userdata",
    "img_checksum",
    "img_luks_key",
]
"""What sites give: the predecessor's twelve, and two of ours."""


def read_table(heading: str) -> list[list[str]]:
    """The cells of the rows of the first table after a heading of the users' page."""
    text = (ROOT / "docs/os-parameters.md").read_text()
    after = text[text.index(f"# {heading}\n") :].split("\n|---", 1)[1]
    rows = after.split("\n\n")[0].splitlines()[1:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def test_the_files_are_those_of_the_interface() -> None:
    # create_untrusted would make Ganeti run the definition in a VM of its own.
    lists = {"ganeti_api_version", "parameters.list", "variants.list"}
    assert {path.name for path in DEFINITION.iterdir()} == {*SCRIPTS, *lists}


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_is_executable_and_isolated_from_the_callers_environment(name: str) -> None:
    path = DEFINITION / name
    assert stat.S_IMODE(path.stat().st_mode) & 0o111 == 0o111
    # import and export inherit the environment of Ganeti's daemon, PYTHONPATH included.
    assert path.read_text().splitlines()[0] == "#!/usr/bin/python3 -I"


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_does_nothing_but_call_its_entry_point(name: str) -> None:
    *imports, call = ast.parse((DEFINITION / name).read_text()).body
    assert all(isinstance(each, ast.ImportFrom) for each in imports)
    entry = "import_" if name == "import" else name
    assert ast.unparse(call) == f"run_main(scripts.{entry})"


def test_the_version_is_the_one_that_the_scripts_require() -> None:
    assert (DEFINITION / "ganeti_api_version").read_text() == f"{environ.API_VERSION}\n" == "20\n"


def test_there_is_one_variant() -> None:
    assert (DEFINITION / "variants.list").read_text() == "default\n"


def test_ganeti_reads_every_parameter_and_its_description() -> None:
    lines = (DEFINITION / "parameters.list").read_text().splitlines()
    pairs = [line.split(None, 1) for line in lines]  # as Ganeti does
    assert [name for name, _ in pairs] == NAMES
    assert pairs == [[row.name, row.help] for row in TABLE]


def test_each_parameter_has_its_field() -> None:
    assert [each.name for each in fields(Parameters)] == NAMES


def test_no_secret_is_in_the_repr() -> None:
    shown = {each.name for each in fields(Parameters) if each.repr}
    assert not shown & {row.name for row in TABLE if row.secret}
    assert {row.name for row in TABLE if row.secret} >= {
        "img_passwd", "img_passwd_hash", "img_luks_key", "img_personality", "cloud_userdata"
    }  # fmt: skip


@pytest.mark.parametrize(("row", "cells"), zip(TABLE, read_table("OS parameters"), strict=True))
def test_the_users_page_has_every_parameter(row: OsParameter, cells: list[str]) -> None:
    notes = {"required": row.required, "secret": row.secret, "not yet": not row.supported}
    noted = ", ".join(word for word, true in notes.items() if true)
    assert cells == [f"`{row.name}`", row.help, row.form, noted]


def test_the_users_page_has_every_property() -> None:
    kinds = {True: "yes or no", False: "text"}
    expected = [[f"`{each.name}`", each.help, kinds[each.flag]] for each in properties.KNOWN]
    assert read_table("Image properties") == expected


def test_what_verify_takes_as_a_format_is_one() -> None:
    assert set(FORMATS) == set(formats.FORMATS)


def test_host_and_helper_agree_on_yes_and_no() -> None:
    assert (properties.TRUE_WORDS, properties.FALSE_WORDS) == (TRUE_WORDS, FALSE_WORDS)


@pytest.mark.parametrize(
    "hashed",
    [
        "$1$saltsalt$qjXMvbEw8oaL.CzflDtaK/",
        "$5$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc8",
        "$2b$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW",
        "$sha1$40000$jtNX3nZ2$hBNaIXkt4wBI2o5rsi8KejSjNqIq",
        *("!", "*", "!!", "!*"),
    ],
)
def test_what_verify_takes_as_a_hash_the_helper_takes(hashed: str) -> None:
    given = {"img_id": "x", "img_format": "diskdump", "img_passwd_hash": hashed}
    assert parse_parameters(given).img_passwd_hash == hashed
    assert make_hash(Request("create", "web", 1, password_hash=hashed)) == hashed
