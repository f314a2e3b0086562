"""What was copied reaches the disk beside the customization, or is the reason why it failed."""

import errno
import os
import threading
from pathlib import Path

import pytest

from snf_ganeti.errors import InputError, NodeError
from snf_image_host.customization import flushing
from snf_image_host.targets.local import FileTarget, open_local_target


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk"
    path.write_bytes(bytes(4096))
    return path


def test_the_disk_takes_what_was_written_while_the_block_goes_on(
    disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, over = threading.Event(), threading.Event()
    ended = []

    def flush(self: FileTarget) -> None:
        begun.set()
        assert over.wait(10)
        ended.append(True)

    monkeypatch.setattr(FileTarget, "flush", flush)
    with open_local_target(disk) as target, flushing(target):
        assert begun.wait(10)
        assert not ended
        over.set()
    assert ended


@pytest.mark.parametrize("failing", [False, True])
def test_a_disk_that_lost_its_writes_is_the_reason(
    disk: Path, monkeypatch: pytest.MonkeyPatch, failing: bool
) -> None:
    def fail(self: FileTarget) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(FileTarget, "flush", fail)
    with (
        open_local_target(disk) as target,
        pytest.raises(NodeError, match="disk can't be made durable: Input/output error"),
        flushing(target),
    ):
        if failing:
            raise InputError("MountImage: no root file system found")
