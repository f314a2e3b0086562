"""Locks between processes, held and lost by real ones."""

import fcntl
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from snf_ganeti.errors import LockError
from snf_ganeti.lock import lock_file


def is_free(path: Path) -> bool:
    """Judged by the kernel, through another open file."""
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def test_a_lock_is_held_for_the_block_alone(tmp_path: Path) -> None:
    path = tmp_path / "run/lock"
    with lock_file(path):
        assert not is_free(path)
    assert is_free(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_lock_is_given_back_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyError), lock_file(tmp_path / "lock"):
        raise KeyError
    assert is_free(tmp_path / "lock")


def test_a_second_holder_is_refused_and_told_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with lock_file(path), pytest.raises(LockError) as caught, lock_file(path):
        pass
    assert str(caught.value) == (
        f"{path} is held by another run; wait for it to end, then try again"
    )


def test_waiting_has_an_end(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    begun = time.monotonic()
    with lock_file(path), pytest.raises(LockError), lock_file(path, timeout=0.2):
        pass
    assert 0.2 <= time.monotonic() - begun < 60


def test_shared_holders_keep_out_an_exclusive_one(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with lock_file(path, shared=True), lock_file(path, shared=True):
        assert not is_free(path)


def test_a_symlink_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="Too many levels"), lock_file(tmp_path / "lock"):
        pass
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.spawn
def test_a_lock_is_free_when_its_holder_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    code = (
        "import sys, time; from pathlib import Path; from snf_ganeti.lock import lock_file\n"
        "with lock_file(Path(sys.argv[1])): print('held', flush=True); time.sleep(600)\n"
    )
    environ = {"PYTHONPATH": os.pathsep.join(sys.path)}
    argv = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, env=environ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"held\n"
        assert not is_free(path)
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert is_free(path)


@pytest.mark.spawn
def test_a_lock_is_held_by_whoever_inherits_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with lock_file(path) as descriptor:
        child = subprocess.Popen(["sleep", "600"], pass_fds=[descriptor])
    with child:
        assert not is_free(path)
        child.kill()
        child.wait()
    assert is_free(path)
