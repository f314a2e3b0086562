"""Values of the right type that can't work; see tests/contract/test_settings.py, too."""

import re
from dataclasses import asdict
from pathlib import Path

import pytest

from snf_ganeti.errors import SettingsError
from snf_image_host import settings
from snf_image_host.settings import Settings


def read(etc: Path, text: str) -> Settings:
    folder = etc / "snf-image-host"
    folder.mkdir()
    (folder / "snf-image-host.toml").write_text(text)
    return settings.read(etc)


def test_the_predecessors_defaults_are_kept() -> None:
    found = Settings()
    assert asdict(found.addressing) == {
        "dhcp_tags": ("auto", "dhcp", "nfdhcpd"),
        "stateful_dhcpv6_tags": ("dhcpv6", "stateful_dhcpv6"),
        "stateless_dhcpv6_tags": ("nfdhcpd", "stateless_dhcpv6"),
        "default_nic_config": "dhcp",
    }
    assert (found.image_dir, found.helper_soft_timeout) == (Path("/var/lib/snf-image"), 120)


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
        ("helper_uids = [0, 90000]", "helper_uids must be 65536 to 2147483647, not 0"),
        ("helper_uids = [90001, 90000]", "helper_uids must be the first and the last of a range"),
        ("helper_uids = [90000, 2147483648]", "helper_uids must be 65536 to 2147483647, not 2"),
        ('accelerator = "xen"', 'accelerator must be one of "auto", "kvm", "tcg", not'),
        ('[addressing]\ndefault_nic_config = "x"', "addressing.default_nic_config must be one of"),
        ("[adressing]", "unknown key adressing; known here: accelerator, addressing"),
    ],
)
def test_what_can_not_work_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(reason)):
        read(tmp_path, text)
