"""Guards of the tests that `make check` runs."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes says how busy the machine is, and nothing of the code. The examples
# are the same each time; `make soak` looks for others.
settings.register_profile(
    "suite",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=not os.environ.get("SNF_SOAK"),
    print_blob=True,
)
settings.load_profile("suite")

UNIT = Path(__file__).parent / "unit"
UNGUARDED = (
    "snf_image_helper/test_partition_table.py",
    "snf_image_helper/test_sshd_config.py",
    "snf_image_helper/test_tasks.py",
    "testbed",
)
"""Of UNIT: older than the guard. A file that gets its marks leaves this list."""

_SPAWNS = ("subprocess.Popen", "os.posix_spawn", "os.fork", "os.forkpty", "os.system", "os.exec")


class SpawnForbidden(BaseException):
    """A unit test starts a process. Not an Exception, so no code under test swallows it."""


class Guard:
    """Refuses new processes while it is armed. Python can't remove an audit hook again."""

    def __init__(self) -> None:
        self.armed = False
        sys.addaudithook(self._refuse)

    def _refuse(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.armed and event in _SPAWNS:
            raise SpawnForbidden(f"{event}{arguments}: mark the test with pytest.mark.spawn")


_guard = Guard()


@pytest.fixture(autouse=True)
def forbid_processes(request: pytest.FixtureRequest) -> Iterator[None]:
    """Unit tests start no process, but those that say so: they stay fast and hermetic."""
    path: Path = request.node.path
    guarded = path.is_relative_to(UNIT) and not any(
        path.is_relative_to(UNIT / each) for each in UNGUARDED
    )
    _guard.armed = guarded and request.node.get_closest_marker("spawn") is None
    yield
    _guard.armed = False
