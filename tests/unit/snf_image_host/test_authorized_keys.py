"""SSH public keys, made and judged by OpenSSH."""

import subprocess
from pathlib import Path

import pytest

from snf_image_host.os_parameters.authorized_keys import is_key, parse_authorized_keys

ED25519 = (
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFm8VFNXhlUr1eMsTmZ2+XY3zCxPsH1wbJGD5ANyGWfD user@host"
)


def make_key(folder: Path, kind: str, *options: str) -> str:
    argv = ["ssh-keygen", "-q", "-t", kind, *options, "-N", "", "-C", "a b", "-f", "key"]
    subprocess.run(argv, cwd=folder, check=True)
    return (folder / "key.pub").read_text()


@pytest.mark.spawn
@pytest.mark.parametrize(
    ("kind", "options"),
    [("ed25519", ()), ("rsa", ("-b", "2048")), ("ecdsa", ("-b", "256")), ("ecdsa", ("-b", "521"))],
)
def test_what_openssh_makes_is_a_key(tmp_path: Path, kind: str, options: tuple[str, ...]) -> None:
    key = make_key(tmp_path, kind, *options)
    assert parse_authorized_keys(key) == key


@pytest.mark.spawn
def test_a_certificate_is_a_key(tmp_path: Path) -> None:
    make_key(tmp_path, "ed25519")
    argv = ["ssh-keygen", "-q", "-s", "key", "-I", "x", "key.pub"]
    subprocess.run(argv, cwd=tmp_path, check=True)
    assert is_key((tmp_path / "key-cert.pub").read_text().strip())


@pytest.mark.spawn
@pytest.mark.parametrize(
    "options",
    [
        "no-pty,no-agent-forwarding",
        'command="echo \\"hi there\\" # x",no-pty',
        'from="192.0.2.0/24,*.example.org"',
        'environment="A=ssh-rsa b"',
    ],
)
def test_options_are_those_that_openssh_takes(tmp_path: Path, options: str) -> None:
    line = f"{options} {ED25519}"
    (tmp_path / "keys").write_text(line + "\n")
    subprocess.run(["ssh-keygen", "-l", "-f", "keys"], cwd=tmp_path, check=True)
    assert is_key(line)


def test_empty_lines_comments_and_other_line_ends_are_left_out() -> None:
    text = f"# mine\r\n\r\n  {ED25519}  \r\n\n{ED25519}"
    assert parse_authorized_keys(text) == f"{ED25519}\n{ED25519}\n"
    assert parse_authorized_keys("\n") == ""


@pytest.mark.parametrize(
    "line",
    [
        "hello",
        "ssh-ed25519",
        "ssh-ed25519 AAAA x",
        "ssh-ed25519 ==== x",
        ED25519.replace("ssh-ed25519", "ssh-rsa", 1),
        ED25519.replace("ssh-ed25519", "ssh-rot13", 1),
        f'command="open {ED25519}',
        f"no-pty no-x11 {ED25519}",
        ED25519.replace(" user", " \x1b[2J"),
        "-----BEGIN OPENSSH PRIVATE KEY-----",
    ],
)
def test_what_is_no_key_is_named_by_its_line_and_not_quoted(line: str) -> None:
    with pytest.raises(ValueError, match=r"^line 2 is not an SSH public key$"):
        parse_authorized_keys(f"{ED25519}\n{line}\n")
