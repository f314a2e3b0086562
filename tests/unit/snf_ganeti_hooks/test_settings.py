"""Values of the right type that can't work; see tests/contract/test_settings.py, too."""

import dataclasses
import re
from pathlib import Path

import pytest

from snf_ganeti.errors import SettingsError
from snf_ganeti_hooks import settings
from snf_ganeti_hooks.firewall.profile import Allow, ProfileSettings
from snf_ganeti_hooks.nic import Network
from snf_ganeti_hooks.settings import NetworkSettings, Settings

MANUAL = Path(__file__).parents[3] / "snf-ganeti-hooks/man/snf-ganeti-hooks.toml.5"
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


def test_the_manual_has_every_key_of_a_network() -> None:
    section = MANUAL.read_text().partition(".SH NETWORKS")[2].partition(".SH ")[0]
    named = set(re.findall(r"^\.BR? (\w+)", section, re.MULTILINE)) | {"name"}
    assert named == {each.name for each in dataclasses.fields(NetworkSettings)}


def test_a_network_has_its_own_and_else_the_sites(tmp_path: Path) -> None:
    text = '[dhcp]\nmtu = 1400\nntp = ["192.0.2.1"]\n[[network]]\nname = "a"\nntp = []\n'
    found = read(tmp_path, text)
    assert found.find_dhcp(Network("a")) == dataclasses.replace(found.dhcp, ntp=())
    assert found.find_dhcp(Network("b", uuid="a")).ntp == ()
    assert found.find_dhcp(Network("b")) == found.find_dhcp(None) == found.dhcp


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
        ("[dhcp]\nlease = 0", "dhcp.lease must be 120 to 2147483648, not 0"),
        ('[[network]]\nname = "a"\nmtu = 1', "network a: mtu must be 0 or an MTU, not 1"),
        ('[[network]]\nname = "a"\nntp = ["b"]', "network a: ntp must be an address, not 'b'"),
        ("[[network]]\nmtu = 1400", "network.name must be a network's name or UUID, not ''"),
        (2 * '[[network]]\nname = "a"\n', "network.name must be each network's own, not 'a'"),
        ('[[network]]\nname = "a"\ntags = ["b"]', "unknown key network.tags"),
        ('[dns]\nserver = "192.0.2.1"', "dns.zone must be the zone of names"),
        ('[dns]\nreverse_zones = ["..", "a"]', "dns.reverse_zones must be a zone"),
        ("[dns]\nport = 0", "dns.port must be 1 to 65535, not 0"),
        ('[[profile]]\nname = "a"\nallow = [{port = 1}]', "unknown key profile.allow.port"),
        ("[[profile]]\nname = 1", "profile.name must be a string"),
    ],
)
def test_what_can_not_work_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(reason)):
        read(tmp_path, text)
