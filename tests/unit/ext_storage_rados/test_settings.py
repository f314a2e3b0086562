"""The settings' file and manual page say what the dataclass says."""

import dataclasses
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from ext_storage_rados import settings
from ext_storage_rados.settings import Settings
from snf_ganeti.errors import SettingsError

COMPONENT = Path(__file__).parents[3] / "ext-storage-rados"
SHIPPED = COMPONENT / "conf/ext-storage-rados.toml"
MANUAL = COMPONENT / "man/ext-storage-rados.toml.5"


def read(etc: Path, text: str) -> Settings:
    folder = etc / "ext-storage-rados"
    folder.mkdir()
    (folder / "ext-storage-rados.toml").write_text(text)
    return settings.read(etc)


def make_plain(values: Settings) -> dict[str, Any]:
    """A dataclass's values as TOML would give them."""
    plain: dict[str, Any] = {}
    for each in dataclasses.fields(values):
        value = getattr(values, each.name)
        plain[each.name] = (
            list(value)
            if isinstance(value, tuple)
            else str(value)
            if isinstance(value, Path)
            else value
        )
    return plain


def uncomment(text: str) -> str:
    """The file with its keys in force; prose has a blank after the sign."""
    return re.sub(r"^#(?=\S)", "", text, flags=re.MULTILINE)


def read_manual() -> str:
    """The keys and defaults of the manual page, as TOML."""
    page = MANUAL.read_text().partition(".SH KEYS")[2]
    lines = re.findall(r"^\.B (\w+ = .*)$", page, re.MULTILINE)
    return "\n".join(lines).replace(r"\(dq", '"').replace(r"\-", "-")


def test_the_shipped_file_changes_nothing(tmp_path: Path) -> None:
    assert read(tmp_path, SHIPPED.read_text()) == Settings() == settings.read(Path("/nowhere"))


def test_the_shipped_file_has_every_key_with_its_default() -> None:
    assert tomllib.loads(uncomment(SHIPPED.read_text())) == make_plain(Settings())


def test_the_manual_has_every_key_with_its_default() -> None:
    assert tomllib.loads(read_manual()) == make_plain(Settings())


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('conf = "ceph.conf"', "conf must be an absolute path, not 'ceph.conf'"),
        ("timeout = 0", "timeout must be more than 0"),
        ("timeout = nan", "timeout can't be less than 0, and is nan"),
        ("qos_iops = -1", "qos_iops can't be less than 0, and is -1"),
        ('pool = ""', "pool must not be empty"),
        ('device = "nbd"', 'device must be one of "auto", "krbd", "export", not'),
        ("pools = 1", "unknown key pools; known here: conf, conversion_user, "),
    ],
)
def test_what_can_not_work_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(reason)):
        read(tmp_path, text)
