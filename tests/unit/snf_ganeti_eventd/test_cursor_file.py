"""The cursor's file, when the disk does not do what it should."""

import asyncio
from pathlib import Path

import pytest

from snf_ganeti_eventd.publication.cursor import Cursor
from snf_ganeti_eventd.publication.cursor_file import CursorFile


def make_cursor(*jobs: int) -> Cursor:
    cursor = Cursor()
    for job_id in jobs:
        cursor.finish(job_id, None)
    return cursor


def test_the_last_of_several_writes_stays(tmp_path: Path) -> None:
    file = CursorFile(tmp_path / "cursor")

    async def save_while_saving() -> None:
        first = asyncio.create_task(file.save(make_cursor(1)))
        await asyncio.sleep(0)
        first.cancel()
        await file.close(make_cursor(1, 2))

    asyncio.run(save_while_saving())
    assert CursorFile(tmp_path / "cursor").read().done.highest == 2


def test_a_write_that_fails_is_logged_once_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = CursorFile(tmp_path / "folder/cursor")

    async def save() -> list[bool]:
        results = [await file.save(Cursor()) for _ in range(2)]
        (tmp_path / "folder").mkdir()
        return [*results, await file.save(Cursor())]

    assert asyncio.run(save()) == [False, False, True]
    assert caplog.text.count("can't be written") == 1


def test_a_cursor_that_is_damaged_is_put_aside(tmp_path: Path) -> None:
    path = tmp_path / "cursor"
    path.write_text("{}\n")
    assert CursorFile(path).read().done.highest == 0
    assert not path.exists() and (tmp_path / "cursor.unusable").exists()
