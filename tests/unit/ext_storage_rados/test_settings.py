"""Values of the right type that can't work; see tests/contract/test_settings.py, too."""

import re
from pathlib import Path

import pytest

from ext_storage_rados import settings
from ext_storage_rados.settings import Settings
from snf_ganeti.errors import SettingsError


def read(etc: Path, text: str) -> Settings:
    folder = etc / "ext-storage-rados"
    folder.mkdir()
    (folder / "ext-storage-rados.toml").write_text(text)
    return settings.read(etc)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('conf = "ceph.conf"', "conf must be an absolute path, not 'ceph.conf'"),
        ("timeout = 0", "timeout must be more than 0"),
        ("timeout = nan", "timeout must be more than 0, not nan"),
        ("qos_iops = -1", "qos_iops must be at least 0, not -1"),
        ('pool = ""', "pool must not be empty"),
        ('device = "nbd"', 'device must be one of "auto", "krbd", "export", not'),
        ("pools = 1", "unknown key pools; known here: conf, conversion_user, "),
    ],
)
def test_what_can_not_work_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(reason)):
        read(tmp_path, text)
