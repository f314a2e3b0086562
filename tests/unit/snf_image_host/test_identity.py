"""User ids that runs claim; what they keep apart, tests/integration/test_jail.py shows."""

import contextlib
import os
import pwd
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from snf_ganeti.errors import NodeError
from snf_image_host.confinement import identity
from snf_image_host.confinement.identity import make_limits, open_jail
from snf_image_host.settings import Settings

SITE = Settings(helper_uids=(77000, 77002))
HOLD = f"""
import sys, pathlib
sys.path[:0] = {sys.path!r}
from snf_image_host.confinement.identity import open_jail
from snf_image_host.settings import Settings
with open_jail(Settings(helper_uids=(77000, 77002)), pathlib.Path(sys.argv[1])) as jail:
    print(jail.uid, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def claims(tmp_path: Path) -> Path:
    return tmp_path / "state/uids.lock"


@pytest.fixture(autouse=True)
def _no_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    def find_parent(settings: Settings) -> None:
        raise NodeError("none here")

    monkeypatch.setattr(identity, "find_parent", find_parent)


def test_runs_at_the_same_time_are_different_users(claims: Path) -> None:
    with open_jail(SITE, claims) as first, open_jail(SITE, claims) as second:
        assert {first.uid, second.uid} == {77000, 77001}
        assert (first.gid, second.gid) == (first.uid, second.uid)
    with open_jail(SITE, claims) as again:
        assert again.uid == 77000
    assert os.listdir(claims.parent) == [claims.name]


def test_when_all_are_taken_that_is_told(claims: Path) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(open_jail(SITE, claims))
        with pytest.raises(NodeError, match="from 77000 to 77002 are in use; set helper_uids"):
            stack.enter_context(open_jail(SITE, claims))


def test_an_id_under_which_something_still_runs_is_not_taken(
    claims: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identity, "find_owners", lambda: {0, 77000})
    with open_jail(SITE, claims) as jail:
        assert jail.uid == 77001


def test_the_owners_of_processes_are_seen() -> None:
    assert os.geteuid() in identity.find_owners()


def test_an_account_is_nobody_to_be(claims: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    account = pwd.getpwnam("root")
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: account)
    with (
        pytest.raises(NodeError, match="the user id 77000 is root's; set helper_uids"),
        open_jail(SITE, claims),
    ):
        pass


@pytest.mark.spawn
def test_the_claim_of_one_that_was_killed_is_free(claims: Path) -> None:
    argv = [sys.executable, "-c", HOLD, str(claims)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"77000\n"
        with open_jail(SITE, claims) as jail:
            assert jail.uid == 77001
        child.kill()
        child.wait()
        with open_jail(SITE, claims) as jail:
            assert jail.uid == 77000


def test_the_limit_of_memory_leaves_room_beside_the_guests() -> None:
    assert make_limits(replace(SITE, helper_memory=512)).memory == (512 << 20) + (1 << 30)
