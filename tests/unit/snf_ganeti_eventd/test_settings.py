"""Values of the right type that can't work; see tests/contract/test_settings.py, too."""

import re
from pathlib import Path

import pytest

from snf_ganeti.errors import SettingsError
from snf_ganeti_eventd import settings
from snf_ganeti_eventd.settings import Settings, parse_host, read_password


def read(etc: Path, text: str) -> Settings:
    folder = etc / "snf-ganeti-eventd"
    folder.mkdir()
    (folder / "snf-ganeti-eventd.toml").write_text(text)
    return settings.read(etc)


AMQP = 'transport = "amqp"\n[amqp]\npassword_file = "/x"\n'


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('transport = "http"', 'transport must be one of "log", "amqp"'),
        ('events = ["op", "jobs"]', "events has 'jobs'; there are: op, network"),
        ("rescan_interval = 0", "rescan_interval must be more than 0, not 0.0"),
        ('state_dir = "x"', "state_dir must be an absolute path, not 'x'"),
        ("[log]\nkeep = -1", "log.keep must be more than 0, not -1"),
        ('[metrics]\naddress = "0.0.0.0"', "metrics.address must be a loopback address"),
        ('[metrics]\naddress = "localhost"', "metrics.address must be a loopback address"),
        ("[metrics]\nport = 70000", "metrics.port must be 0 to 65535"),
        ('transport = "amqp"', "amqp.password_file is not set"),
        (AMQP + "hosts = []", "amqp.hosts names no host"),
        (AMQP + 'hosts = ["a:x"]', "amqp.hosts has 'a:x'; each is HOST or HOST:PORT"),
        (AMQP + 'hosts = ["amqp://u:p@h"]', "amqp.hosts has"),
        (AMQP + 'ca_file = "ca.pem"', "amqp.ca_file must be an absolute path"),
        (AMQP + 'exchange = ""', "amqp.exchange and amqp.username must not be empty"),
        ("[ampq]", "unknown key ampq; known here: amqp, events"),
    ],
)
def test_what_can_not_work_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(reason)):
        read(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("mq", ("mq", 5672)),
        ("mq:5673", ("mq", 5673)),
        ("192.0.2.1", ("192.0.2.1", 5672)),
        ("[2001:db8::1]", ("2001:db8::1", 5672)),
        ("[2001:db8::1]:5671", ("2001:db8::1", 5671)),
    ],
)
def test_hosts(text: str, address: tuple[str, int]) -> None:
    assert parse_host(text, tls=False) == address


def test_a_host_with_tls_has_another_port() -> None:
    assert parse_host("mq", tls=True) == ("mq", 5671)


def test_a_password_is_the_first_line(tmp_path: Path) -> None:
    path = tmp_path / "password"
    with pytest.raises(SettingsError, match="can't be read: No such file"):
        read_password(path)
    path.write_text("\n")
    with pytest.raises(SettingsError, match="has no password"):
        read_password(path)
    path.write_text("pass word \nmore")
    assert read_password(path) == "pass word "
