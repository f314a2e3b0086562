"""Runs, and their way to a target, which is judged by plain reads and the file system's count."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from snf_ganeti.errors import InputError, NodeError
from snf_image_host.copying.disk_copy import BLOCK, CHUNK, Buffers, Run, copy_runs, split_runs
from snf_image_host.targets.local import FileTarget, open_local_target

SIZE = 4 * CHUNK


def make_buffer(*parts: bytes) -> memoryview:
    return memoryview(bytearray(b"".join(parts)))


def split(*parts: bytes) -> list[tuple[int, int, bool]]:
    runs = split_runs(100, make_buffer(*parts))
    return [(run.start, run.length, run.data is not None) for run in runs]


def test_zeros_are_found_in_blocks() -> None:
    data, zeros = b"x" * BLOCK, bytes(BLOCK)
    assert split(data, zeros, zeros, data) == [
        (100, BLOCK, True),
        (100 + BLOCK, 2 * BLOCK, False),
        (100 + 3 * BLOCK, BLOCK, True),
    ]


@pytest.mark.parametrize("tail", [1, 511, BLOCK - 1])
def test_the_last_block_may_be_short(tail: int) -> None:
    assert split(bytes(BLOCK + tail)) == [(100, BLOCK + tail, False)]
    assert split(bytes(BLOCK), bytes(tail - 1) + b"x") == [
        (100, BLOCK, False),
        (100 + BLOCK, tail, True),
    ]


def test_one_byte_makes_a_block_data() -> None:
    assert split(bytes(BLOCK - 1) + b"x") == [(100, BLOCK, True)]
    assert split(b"x" + bytes(BLOCK - 1)) == [(100, BLOCK, True)]


def test_a_run_carries_its_own_bytes() -> None:
    buffer = make_buffer(b"a" * BLOCK, bytes(BLOCK), b"b" * BLOCK)
    datas = [bytes(run.data) for run in split_runs(0, buffer) if run.data is not None]
    assert datas == [b"a" * BLOCK, b"b" * BLOCK]


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A disk full of what its last owner left."""
    path = tmp_path / "disk"
    path.write_bytes(b"\xee" * SIZE)
    return path


def copy(runs: Iterator[Run], path: Path) -> None:
    with open_local_target(path) as target:
        copy_runs(runs, target, lambda run: (run.start, SIZE), lambda position, total: None)


def make_runs() -> Iterator[Run]:
    yield Run(0, BLOCK, make_buffer(b"a" * BLOCK))
    yield Run(BLOCK, 2 * CHUNK)
    yield Run(BLOCK + 2 * CHUNK, BLOCK, make_buffer(b"b" * BLOCK))


def test_zeros_replace_what_was_there_and_take_no_space(disk: Path) -> None:
    copy(make_runs(), disk)
    content = disk.read_bytes()
    assert content[:BLOCK] == b"a" * BLOCK
    assert content[BLOCK : BLOCK + 2 * CHUNK] == bytes(2 * CHUNK)
    assert content[BLOCK + 2 * CHUNK :][:BLOCK] == b"b" * BLOCK
    assert len(content) == SIZE
    assert disk.stat().st_blocks * 512 <= 8 * BLOCK


def test_zeros_are_written_where_no_hole_can_be_made(
    disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("snf_image_host.targets.local.punch_hole", lambda *_: False)
    copy(make_runs(), disk)
    content = disk.read_bytes()
    assert content[BLOCK : BLOCK + 2 * CHUNK] == bytes(2 * CHUNK)
    assert content[-BLOCK:] == b"\xee" * BLOCK  # behind the image nothing was promised


def test_many_runs_in_few_buffers_keep_their_bytes(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.touch()
    os.truncate(path, 64 * BLOCK)

    def make() -> Iterator[Run]:
        buffers = Buffers()
        for number in range(64):
            buffer = buffers.take()
            buffer[:BLOCK] = bytes([number + 1]) * BLOCK
            yield Run(number * BLOCK, BLOCK, buffer[:BLOCK])

    copy(make(), path)
    assert path.read_bytes() == b"".join(bytes([n + 1]) * BLOCK for n in range(64))


def test_what_making_the_runs_raises_is_raised(disk: Path) -> None:
    def make() -> Iterator[Run]:
        yield Run(0, BLOCK)
        raise InputError("the image ended early")

    with pytest.raises(InputError, match="ended early"):
        copy(make(), disk)


def test_a_disk_that_fails_is_one_line_with_the_place(
    disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: FileTarget, start: int, data: memoryview) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(FileTarget, "write", fail)
    with pytest.raises(NodeError, match=r"disk can't be written at byte 0: Input/output error"):
        copy(make_runs(), disk)


def test_an_endless_maker_ends_with_the_copy(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def make() -> Iterator[Run]:
        while True:
            yield Run(0, BLOCK, make_buffer(b"a" * BLOCK))

    def fail(self: FileTarget, start: int, data: memoryview) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(FileTarget, "write", fail)
    with pytest.raises(NodeError, match="No space left"):
        copy(make(), disk)


def test_a_disk_that_fails_before_the_copy_is_one_line(
    disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: FileTarget) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(FileTarget, "erase", fail)
    with pytest.raises(NodeError, match="disk can't be erased: Input/output error"):
        copy(make_runs(), disk)
