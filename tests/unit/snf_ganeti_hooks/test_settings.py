"""The settings' file and manual page say what the dataclass says."""

import dataclasses
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from snf_ganeti.errors import SettingsError
from snf_ganeti_hooks import settings
from snf_ganeti_hooks.profile import Allow, ProfileSettings
from snf_ganeti_hooks.settings import Settings

COMPONENT = Path(__file__).parents[3] / "snf-ganeti-hooks"
SHIPPED = COMPONENT / "conf/snf-ganeti-hooks.toml"
MANUAL = COMPONENT / "man/snf-ganeti-hooks.toml.5"
PROFILE = """
[[profile]]
name = "web"
allow = [{ports = ["80", "8000-8100"]}, {protocol = "udp", sources = ["192.0.2.0/24"]}]
"""


def read(etc: Path, text: str) -> Settings:
    folder = etc / "snf-ganeti-hooks"
    folder.mkdir()
    (folder / "snf-ganeti-hooks.toml").write_text(text)
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
    page = MANUAL.read_text().partition(".SH KEYS")[2].partition(".SH PROFILES")[0]
    lines = re.findall(r"^\.(?:B|SS) (\[\w+\]|\w+ = .*)$", page, re.MULTILINE)
    return "\n".join(lines).replace(r"\(dq", '"').replace(r"\-", "-")


def test_the_shipped_file_changes_nothing(tmp_path: Path) -> None:
    assert read(tmp_path, SHIPPED.read_text()) == Settings() == settings.read(Path("/nowhere"))


def test_the_shipped_file_has_every_key_with_its_default() -> None:
    assert tomllib.loads(uncomment(SHIPPED.read_text())) == make_plain(Settings())


def test_the_manual_has_every_key_with_its_default() -> None:
    assert tomllib.loads(read_manual()) == make_plain(Settings())


def test_profiles_are_read_whole(tmp_path: Path) -> None:
    web = ProfileSettings(
        "web",
        allow=(
            Allow("tcp", ("80", "8000-8100")),
            Allow("udp", sources=("192.0.2.0/24",)),
        ),
    )
    assert read(tmp_path, PROFILE).profile == (web,)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('tap_mac = "01:00:00:00:00:00"', "tap_mac must be a MAC"),
        ('nfdhcpd_dir = "bindings"', "nfdhcpd_dir must be an absolute path, not 'bindings'"),
        ('[dhcp]\nnameservers = ["ns1"]', "dhcp.nameservers must be an address, not 'ns1'"),
        ('[dhcp]\nntp = ["fe80::1%eth0"]', "dhcp.ntp must be an address"),
        ('[dhcp]\nsearch = ["a\\nb"]', "dhcp.search must be a domain"),
        ('[dhcp]\nroutes = ["192.0.2.0/24"]', "dhcp.routes must be SUBNET via ADDRESS"),
        ('[dhcp]\nroutes = ["192.0.2.1/24 via 10.0.0.1"]', "dhcp.routes must be SUBNET via"),
        ("[dhcp]\nmtu = 100", "dhcp.mtu must be 0 or an MTU, not 100"),
        ("[dhcp]\nlease = 0", "dhcp.lease must be at least 120 s, not 0"),
        ('[dns]\nserver = "192.0.2.1"', "dns.zone must be the zone of names"),
        ('[dns]\nreverse_zones = ["..", "a"]', "dns.reverse_zones must be a zone"),
        ("[dns]\nport = 0", "dns.port must be a port"),
        ('[[profile]]\nname = "a"\nallow = [{port = 1}]', "unknown key profile.allow.port"),
        ("[[profile]]\nname = 1", "profile.name must be a string"),
    ],
)
def test_what_can_not_work_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(reason)):
        read(tmp_path, text)
