"""The boot loader's place and its own settings; tests/integration boots one."""

import io
import struct
import tarfile

import pytest

from snf_ganeti.errors import NodeError
from snf_image_host.copying.boot_prefix import (
    SECTOR,
    SIZE,
    make_boot_prefix,
    make_core_argv,
    make_settings_archive,
)

BOOT = bytes(range(1, 129)) * 4
CORE = b"\xc0" * 3000


def test_the_core_lies_behind_the_boot_sector_and_is_found() -> None:
    prefix = make_boot_prefix(BOOT, CORE)
    assert len(prefix) == SIZE == 2048 * SECTOR
    assert struct.unpack_from("<Q", prefix, 0x5C) == (1,)
    assert struct.unpack_from("<Q", prefix, 2 * SECTOR - 12) == (2,)
    assert prefix[SECTOR : SECTOR + 500] == CORE[:500]
    assert not any(prefix[SECTOR + len(CORE) :])


def test_the_partition_table_is_left_to_whoever_writes_the_disk() -> None:
    assert not any(make_boot_prefix(BOOT, CORE)[0x1B8:SECTOR])


def test_a_core_without_room_is_refused() -> None:
    with pytest.raises(NodeError, match="room"):
        make_boot_prefix(BOOT, bytes(SIZE))


def test_the_same_settings_give_the_same_archive() -> None:
    archive = make_settings_archive()
    assert archive == make_settings_archive()
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        assert tar.getnames() == ["boot/grub/grub.cfg"]
    assert "--memdisk=/settings.tar" in make_core_argv("/settings.tar", "/core.img")
