"""The RSA key that is made beside the copy, judged by ssh-keygen."""

import subprocess
import sys
from pathlib import Path

import pytest

from snf_image_host import host_key
from snf_image_host.host_key import start_host_key
from testbed.deadline import wait_for

pytestmark = pytest.mark.spawn


def test_every_key_is_a_new_one_that_ssh_reads(tmp_path: Path) -> None:
    shown = set()
    for name in ("one", "two"):
        path = tmp_path / name
        path.touch(mode=0o600)
        with start_host_key() as key:
            path.write_text(key.read())
        argv = ["ssh-keygen", "-l", "-f", str(path)]
        bits, digest, *_, kind = subprocess.run(
            argv, capture_output=True, text=True, check=True
        ).stdout.split()
        assert (bits, kind) == ("3072", "(RSA)")
        shown.add(digest)
    assert len(shown) == 2


def test_what_makes_a_key_dies_with_its_run(tmp_path: Path) -> None:
    script = f"""
import signal, sys
sys.path[:0] = {sys.path!r}
from snf_image_host import host_key
host_key._ARGV = ("sh", "-c", 'echo $$ >"$0"; exec sleep 1000', sys.argv[1])
with host_key.start_host_key():
    signal.pause()
"""
    told = tmp_path / "pid"
    with subprocess.Popen([sys.executable, "-c", script, told]) as parent:
        try:
            wait_for("its start", lambda: told.exists() and told.read_text(), 30)
        finally:
            parent.kill()
    wait_for("its end", lambda: not Path(f"/proc/{told.read_text().strip()}").exists(), 30)


@pytest.mark.parametrize("argv", [("false",), ("true",), ("sleep", "60")])
def test_a_key_that_does_not_come_is_left_to_the_helper(
    monkeypatch: pytest.MonkeyPatch, argv: tuple[str, ...]
) -> None:
    monkeypatch.setattr(host_key, "_ARGV", argv)
    monkeypatch.setattr(host_key, "_TIMEOUT", 0.2)
    with start_host_key() as key:
        assert key.read() == ""
