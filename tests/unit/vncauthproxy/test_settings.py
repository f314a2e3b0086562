"""Values of the right type that can't work; see tests/contract/test_settings.py, too."""

import re
from pathlib import Path

import pytest

from snf_ganeti.errors import SettingsError
from vncauthproxy import settings
from vncauthproxy.settings import Settings


def read(etc: Path, text: str) -> Settings:
    folder = etc / "vncauthproxy"
    folder.mkdir()
    (folder / "vncauthproxy.toml").write_text(text)
    return settings.read(etc)


def test_no_limit_of_idle_and_no_drain_are_zero(tmp_path: Path) -> None:
    found = read(tmp_path, "[limits]\nidle = 0\ndrain = 0\n")
    assert (found.limits.idle, found.limits.drain) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[listen]\nport = 65536", "listen.port must be 1 to 65535, not 65536"),
        ('[listen]\ncertificate = "cert.pem"', "listen.certificate must be an absolute path"),
        ('[listen]\npublic_url = "http://a"', "listen.public_url must be an https:// URL"),
        ("[limits]\nhandshake = 0", "limits.handshake must be more than 0, not 0.0"),
        ("[limits]\nsession = inf", "limits.session must be more than 0, not inf"),
        ("[limits]\nconnections = -1", "limits.connections must be more than 0, not -1"),
        ("[limits]\nidle = nan", "limits.idle must be at least 0, not nan"),
        ('[targets]\nca = "ca.pem"', "targets.ca must be an absolute path, not 'ca.pem'"),
        ('[targets]\ntls = "on"', 'targets.tls must be one of "off", "prefer", "require", not'),
        ('[targets]\nports = "9-5"', "targets.ports must be a range such as 5900-5999"),
        ('[targets]\nnetworks = ["10.0.0.1/8"]', "targets.networks must be a network such as"),
        ('[ganeti]\nrapi = "https://u:p@a"', "ganeti.rapi must be an https:// URL without"),
    ],
)
def test_what_can_not_work_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(reason)):
        read(tmp_path, text)
