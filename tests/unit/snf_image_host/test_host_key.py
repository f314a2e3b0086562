"""The RSA key that is made beside the copy, judged by ssh-keygen."""

import subprocess
from pathlib import Path

import pytest

from snf_image_host import host_key
from snf_image_host.host_key import start_host_key

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


@pytest.mark.parametrize("argv", [("false",), ("true",), ("sleep", "60")])
def test_a_key_that_does_not_come_is_left_to_the_helper(
    monkeypatch: pytest.MonkeyPatch, argv: tuple[str, ...]
) -> None:
    monkeypatch.setattr(host_key, "_ARGV", argv)
    monkeypatch.setattr(host_key, "_TIMEOUT", 0.2)
    with start_host_key() as key:
        assert key.read() == ""
