"""The cursor: what it keeps, and what it refuses."""

import hashlib
import itertools
import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snf_ganeti_eventd.publication.cursor import (
    CLOCK_LIMIT,
    Cursor,
    CursorError,
    Ranges,
    format_cursor,
    parse_cursor,
    read_cursor,
    write_cursor,
)

NUMBERS = st.lists(st.integers(0, 60), max_size=80)


@given(NUMBERS)
def test_ranges_are_a_set(numbers: list[int]) -> None:
    ranges = Ranges()
    for number in numbers:
        ranges.add(number)
    assert {number for number in range(-1, 62) if number in ranges} == set(numbers)
    assert ranges.highest == max(numbers, default=0)
    pairs = list(ranges)
    assert all(end + 1 < start for (_, end), (start, _) in itertools.pairwise(pairs))


def test_fifty_thousand_jobs_in_any_order_are_one_range() -> None:
    numbers = list(range(1, 50_001))
    random.Random(7).shuffle(numbers)
    cursor = Cursor()
    for number in numbers:
        cursor.finish(number, None)
    assert len(format_cursor(cursor)) < 250


@given(NUMBERS, st.dictionaries(st.integers(1, 99), st.lists(st.sampled_from(["", "running"]))))
def test_a_cursor_is_read_as_it_was_written(done: list[int], jobs: dict[int, list[str]]) -> None:
    cursor = Cursor()
    cursor.open.update(jobs)
    for number in done:
        cursor.finish(number, (1000 + number, 5))
    cursor.record_time("op:snf-7", 3, (5, 6))
    assert format_cursor(parse_cursor(format_cursor(cursor))) == format_cursor(cursor)


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "cursor"
    assert read_cursor(path) is None
    cursor = Cursor()
    cursor.record(5, 1, "running")
    write_cursor(path, format_cursor(cursor))
    found = read_cursor(path)
    assert found is not None and found.open == {5: ["", "running"]}
    assert [each.name for each in tmp_path.iterdir()] == ["cursor"]


def sign(document: object) -> bytes:
    line = json.dumps(document).encode()
    return line + b"\n" + hashlib.sha256(line).hexdigest().encode() + b"\n"


GOOD: dict[str, Any] = {"version": 1, "done": [[1, 4]], "open": {}, "anchor": None, "clock": {}}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "checksum"),
        (b"\0" * 100, "checksum"),
        (format_cursor(Cursor())[:-10], "checksum"),
        (format_cursor(Cursor()).replace(b"1", b"2", 1), "checksum"),
        (sign({**GOOD, "version": 2}), "it is of version 2, and this program knows 1"),
        (sign({**GOOD, "done": [[4, 1]]}), "its ranges are not in order"),
        (sign({**GOOD, "done": [[1, 4], [3, 5]]}), "its ranges are not in order"),
        (sign({**GOOD, "done": [["1", 4]]}), "its ranges are not in order"),
        (sign({**GOOD, "open": {"7": ["dancing"]}}), "it names a state that is none"),
        (sign({**GOOD, "clock": {"x": [1]}}), "it is malformed"),
        (sign([]), "it is malformed"),
        (sign({"version": 1}), "it is malformed"),
    ],
)
def test_a_cursor_that_is_none_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(CursorError, match=reason):
        parse_cursor(data)


def test_a_clock_that_was_set_back_hides_no_later_job() -> None:
    cursor = Cursor()
    cursor.record_time("op:a", 10, (5000, 0))
    assert cursor.make_time("op:b", 11, 3, (4000, 0)) == (4000, 0)
    late = cursor.make_time("op:a", 11, 3, (4000, 0))
    assert late > (5000, 0)
    cursor.record_time("op:a", 11, late)
    # The same fact again, as after a crash, and the next job.
    assert cursor.make_time("op:a", 11, 3, (4000, 0)) == late
    assert cursor.make_time("op:a", 12, 0, (4001, 0)) > late
    assert cursor.make_time("op:a", 12, 3, (6000, 0)) == (6000, 0)
    # An old job that is published again keeps its time.
    assert cursor.make_time("op:a", 9, 3, (3000, 0)) == (3000, 0)


def test_states_of_one_job_stay_in_order() -> None:
    cursor = Cursor()
    cursor.record_time("op:a", 1, (5000, 0))
    times = [cursor.make_time("op:a", 2, order, (4000, order)) for order in range(4)]
    assert times == sorted(set(times))


def test_clocks_are_bounded() -> None:
    cursor = Cursor()
    for number in range(CLOCK_LIMIT + 10):
        cursor.record_time(f"op:{number}", number, (number, 0))
    assert len(cursor.clock) == CLOCK_LIMIT
    assert "op:9" not in cursor.clock and "op:10" in cursor.clock
