"""The settings' file and manual page say what the dataclass says."""

import dataclasses
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from snf_ganeti.errors import SettingsError
from snf_image_host import settings
from snf_image_host.settings import Settings

COMPONENT = Path(__file__).parents[3] / "snf-image-host"
SHIPPED = COMPONENT / "conf/snf-image-host.toml"
MANUAL = COMPONENT / "man/snf-image-host.toml.5"


def read(etc: Path, text: str) -> Settings:
    folder = etc / "snf-image-host"
    folder.mkdir()
    (folder / "snf-image-host.toml").write_text(text)
    return settings.read(etc)


def make_plain(value: Any) -> Any:
    """A dataclass's values as TOML would give them."""
    if dataclasses.is_dataclass(value):
        return {each.name: make_plain(getattr(value, each.name))
                for each in dataclasses.fields(value)}  # fmt: skip
    if isinstance(value, tuple):
        return [make_plain(each) for each in value]
    return str(value) if isinstance(value, Path) else value


def uncomment(text: str) -> str:
    """The file with its keys in force; prose has a blank after the sign."""
    return re.sub(r"^#(?=\S)", "", text, flags=re.MULTILINE)


def read_manual() -> str:
    """The keys and defaults of the manual page, as TOML."""
    page = MANUAL.read_text().partition(".SH KEYS")[2].partition(".SH VARIANTS")[0]
    lines = re.findall(r"^\.(?:B|SS) (\[\w+\]|\w+ = .*)$", page, re.MULTILINE)
    return "\n".join(lines).replace(r"\(dq", '"').replace(r"\-", "-")


def test_the_shipped_file_changes_nothing(tmp_path: Path) -> None:
    assert read(tmp_path, SHIPPED.read_text()) == Settings() == settings.read(Path("/nowhere"))


def test_the_shipped_file_has_every_key_with_its_default() -> None:
    assert tomllib.loads(uncomment(SHIPPED.read_text())) == make_plain(Settings())


def test_the_manual_has_every_key_with_its_default() -> None:
    assert tomllib.loads(read_manual()) == make_plain(Settings())


def test_the_predecessors_defaults_are_kept() -> None:
    found = make_plain(Settings())
    assert found["addressing"] == {
        "dhcp_tags": ["auto", "dhcp", "nfdhcpd"],
        "stateful_dhcpv6_tags": ["dhcpv6", "stateful_dhcpv6"],
        "stateless_dhcpv6_tags": ["nfdhcpd", "stateless_dhcpv6"],
        "default_nic_config": "dhcp",
    }
    assert (found["image_dir"], found["helper_soft_timeout"]) == ("/var/lib/snf-image", 120)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('image_dir = "images"', "image_dir must be an absolute path, not 'images'"),
        ("helper_memory = 0", "helper_memory must be more than 0, not 0"),
        ("helper_soft_timeout = -1", "helper_soft_timeout must be more than 0, not -1.0"),
        ("helper_hard_timeout = nan", "helper_hard_timeout must be more than 0, not nan"),
        ("helper_boot_timeout = inf", "helper_boot_timeout must be more than 0, not inf"),
        ('progress_monitor = "x"', "progress_monitor must be an absolute path, not 'x'"),
        ("helper_uids = [90000]", "helper_uids must be the first and the last of a range"),
        ("helper_uids = [0, 90000]", "helper_uids must be the first and the last of a range"),
        ("helper_uids = [90001, 90000]", "helper_uids must be the first and the last of a range"),
        ("helper_uids = [90000, 2147483648]", "they are from 65536 to 2147483647"),
        ('accelerator = "xen"', 'accelerator must be one of "auto", "kvm", "tcg", not'),
        ('[addressing]\ndefault_nic_config = "x"', "addressing.default_nic_config must be one of"),
        ("[adressing]", "unknown key adressing; known here: accelerator, addressing"),
    ],
)
def test_what_can_not_work_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(reason)):
        read(tmp_path, text)
