"""Settings: TOML files into a dataclass, and what is refused."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import pytest

from snf_ganeti.errors import SettingsError
from snf_ganeti.settings import Bounds, describe_type, find_files, read_settings


@dataclass(frozen=True)
class Limits:
    seconds: float = 5.0
    tries: int = 3


@dataclass(frozen=True)
class Settings:
    folder: Path = Path("/var/lib/part")
    name: str = "x"
    debug: bool = False
    mode: Literal["auto", "off"] = "auto"
    tags: tuple[str, ...] = ("a",)
    user: str | None = None
    percent: Annotated[int, Bounds(0, 100)] = 50
    delay: Annotated[float, Bounds(0)] | None = None
    limits: Limits = field(default_factory=Limits)


KEYS = "debug, delay, folder, limits, mode, name, percent, tags, user"


def read(etc: Path, **files: str) -> Settings:
    """files: `main`, or a name in conf.d → TOML."""
    folder = etc / "part"
    (folder / "conf.d").mkdir(parents=True)
    for name, text in files.items():
        path = folder / "part.toml" if name == "main" else folder / "conf.d" / f"{name}.toml"
        path.write_text(text)
    return read_settings(Settings, "part", etc)


def test_without_files_all_is_default(tmp_path: Path) -> None:
    assert read_settings(Settings, "part", tmp_path) == Settings()


def test_every_type_is_read(tmp_path: Path) -> None:
    text = (
        'folder = "/srv"\nname = "y"\ndebug = true\nmode = "off"\ntags = ["b", "c"]\n'
        'user = "z"\npercent = 0\ndelay = 0\n[limits]\nseconds = 7\n'
    )
    limits = Limits(7.0, 3)
    expected = Settings(Path("/srv"), "y", True, "off", ("b", "c"), "z", 0, 0.0, limits)
    found = read(tmp_path, main=text)
    assert found == expected
    assert type(found.limits.seconds) is float


def test_later_files_override_single_keys_even_in_tables(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        main='name = "main"\n[limits]\ntries = 1\nseconds = 1',
        b="[limits]\ntries = 2",
        a='name = "a"\n[limits]\ntries = 9',
    )
    assert found == Settings(name="a", limits=Limits(1.0, 2))


def test_files_are_read_in_order_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "part/conf.d"
    folder.mkdir(parents=True)
    for name in ("20.toml", "10.toml", "30.toml.bak"):
        (folder / name).write_text("")
    assert [path.name for path in find_files("part", tmp_path)] == ["10.toml", "20.toml"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("nme = 1", f"unknown key nme; known here: {KEYS}"),
        ("[limits]\ntry = 1", "unknown key limits.try; known here: seconds, tries"),
        ("name = 1", "name must be a string, not 1"),
        ("debug = 1", "debug must be true or false, not 1"),
        ("limits = 1", "limits must be a table, not 1"),
        ("[limits]\ntries = true", "limits.tries must be an integer, not True"),
        ("[limits]\ntries = 1.5", "limits.tries must be an integer, not 1.5"),
        ('[limits]\nseconds = "1"', "limits.seconds must be a number, not '1'"),
        ('mode = "on"', 'mode must be one of "auto", "off", not \'on\''),
        ("tags = [1]", "tags must be a string, not 1"),
        ('tags = "a"', "tags must be a list, each a string, not 'a'"),
        ("folder = 1", "folder must be an absolute path, not 1"),
        ('folder = "srv"', "folder must be an absolute path, not 'srv'"),
        ("[limits]\nseconds = 0", "limits.seconds must be more than 0, not 0.0"),
        ("[limits]\nseconds = nan", "limits.seconds must be more than 0, not nan"),
        ("[limits]\nseconds = inf", "limits.seconds must be more than 0, not inf"),
        ("[limits]\ntries = -1", "limits.tries must be more than 0, not -1"),
        ("percent = 101", "percent must be 0 to 100, not 101"),
        ("percent = 1.0", "percent must be an integer, not 1.0"),
        ("delay = -0.5", "delay must be at least 0, not -0.5"),
        ("delay = inf", "delay must be at least 0, not inf"),
        ("user = 1", "user must be a string, not 1"),
    ],
)
def test_what_is_wrong_is_named_with_file_key_and_type(
    tmp_path: Path, text: str, reason: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        read(tmp_path, main=text)
    assert str(caught.value) == f"{tmp_path}/part/part.toml: {reason}"


@pytest.mark.parametrize("text", ["name = ", "name", "a = 1\na = 2"])
def test_what_is_not_toml_is_named(tmp_path: Path, text: str) -> None:
    with pytest.raises(SettingsError, match=r"conf\.d/x\.toml is not valid TOML: "):
        read(tmp_path, x=text)


def test_text_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "part").mkdir()
    (tmp_path / "part/part.toml").write_bytes(b'name = "\xff"')
    with pytest.raises(SettingsError, match="is not valid TOML"):
        read_settings(Settings, "part", tmp_path)


def test_types_are_described_for_the_manual() -> None:
    assert describe_type(tuple[Path, ...]) == "a list, each an absolute path"
    assert describe_type(str | None) == "a string"
    assert describe_type(Annotated[int, Bounds(0)]) == "an integer"
    assert describe_type(Limits) == "a table"
