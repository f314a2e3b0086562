"""The guard against processes in unit tests."""

import os
import subprocess
from collections.abc import Callable

import pytest


@pytest.mark.parametrize(
    "start",
    [lambda: subprocess.run(["true"]), lambda: os.system("true"), os.fork],
    ids=["subprocess", "system", "fork"],
)
def test_an_unmarked_test_starts_no_process(start: Callable[[], object]) -> None:
    with pytest.raises(BaseException, match="mark the test with") as caught:
        start()
    assert not isinstance(caught.value, Exception)  # "except Exception" must not hide it


@pytest.mark.spawn
def test_a_marked_test_does() -> None:
    assert subprocess.run(["true"]).returncode == 0
