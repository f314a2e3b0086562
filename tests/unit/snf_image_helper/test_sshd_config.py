"""Where sshd looks for keys, and what a key is; keys are made by ssh-keygen."""

import subprocess
from pathlib import Path

import pytest

from snf_image_helper.accounts import User
from snf_image_helper.sshd_config import add_keys, find_keys_file, parse_key, parse_keys
from snf_image_helper.task import TaskFailed
from snf_image_helper.tree import Tree

ANN = User("ann", 1000, 100, "/home/ann")


def make_key(folder: Path, kind: str, comment: str = "ann@here") -> str:
    path = folder / f"key-{kind}-{len(list(folder.iterdir()))}"
    argv = ["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", comment, "-f", str(path)]
    subprocess.run(argv, check=True)
    return path.with_name(path.name + ".pub").read_text().strip()


def make_tree(root: Path, files: dict[str, str]) -> Tree:
    folder = root / "etc/ssh"
    (folder / "sshd_config.d").mkdir(parents=True)
    for name, text in files.items():
        (folder / name).write_text(text)
    return Tree(str(root))


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (None, "/home/ann/.ssh/authorized_keys"),
        ("#AuthorizedKeysFile /x\n", "/home/ann/.ssh/authorized_keys"),
        ("authorizedkeysfile\t/etc/ssh/keys/%u /other\n", "/etc/ssh/keys/ann"),
        ('AuthorizedKeysFile="/a b/%%%U" # c\n', "/a b/%1000"),
        ("AuthorizedKeysFile %h/../keys\n", "/home/keys"),
        ("AuthorizedKeysFile a\nAuthorizedKeysFile b\n", "/home/ann/a"),
        ("Match User bob\nAuthorizedKeysFile none\n", "/home/ann/.ssh/authorized_keys"),
        ("Include /etc/ssh/sshd_config.d/*.conf\nAuthorizedKeysFile last\n", "/home/ann/drop"),
        ("Include sshd_config.d/*.conf\n", "/home/ann/drop"),
        ("AuthorizedKeysFile 'open\n", "/home/ann/.ssh/authorized_keys"),
    ],
)
def test_the_first_file_that_sshd_reads(tmp_path: Path, config: str | None, expected: str) -> None:
    files = {"sshd_config": config} if config is not None else {}
    files["sshd_config.d/10.conf"] = "Match all\nAuthorizedKeysFile matched\n"
    files["sshd_config.d/20.conf"] = "AuthorizedKeysFile drop\n"
    files["sshd_config.d/README"] = "AuthorizedKeysFile readme\n"
    assert find_keys_file(make_tree(tmp_path, files), ANN) == expected


def test_a_file_that_includes_itself_ends(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, {"sshd_config": "Include /etc/ssh/sshd_config\n"})
    assert find_keys_file(tree, ANN) == "/home/ann/.ssh/authorized_keys"


def test_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TaskFailed, match="would not read any key"):
        find_keys_file(make_tree(tmp_path, {"sshd_config": "AuthorizedKeysFile none\n"}), ANN)


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_keys_of_every_kind_are_keys(tmp_path: Path, kind: str) -> None:
    key = make_key(tmp_path, kind)
    assert parse_key(key) == tuple(key.split()[:2])
    assert parse_key(f'from="10.0.0.0/8",command="a \\" b" {key}') == tuple(key.split()[:2])


@pytest.mark.parametrize("bad", ["hello", "ssh-rsa AAAA x", "-----BEGIN OPENSSH PRIVATE KEY-----"])
def test_what_is_no_key_is_named_by_its_line(tmp_path: Path, bad: str) -> None:
    with pytest.raises(TaskFailed, match="line 3 of the SSH keys is not a public key"):
        parse_keys(f"# mine\n{make_key(tmp_path, 'ed25519')}\n{bad}\n")


def test_a_key_of_another_type_than_it_says_is_none(tmp_path: Path) -> None:
    key = make_key(tmp_path, "ed25519").replace("ssh-ed25519", "ssh-rsa")
    assert parse_key(key) is None


def test_keys_are_added_once(tmp_path: Path) -> None:
    one, two = make_key(tmp_path, "ed25519"), make_key(tmp_path, "ecdsa")
    old = f"# \udcff\nno-pty {one}"
    new = add_keys(old, parse_keys(f"{one}\n\n{two}\r\n{two}\n"))
    assert new == f"{old}\n{two}\n"
    assert add_keys(new, parse_keys(f"{one}\n{two}\n")) == new


def test_includes_without_end_are_refused(tmp_path: Path) -> None:
    bomb = "Include sshd_config.d/*.conf\n" * 100
    tree = make_tree(tmp_path, {"sshd_config": bomb, "sshd_config.d/10.conf": bomb})
    with pytest.raises(TaskFailed, match="sshd_config includes more than 64 files"):
        find_keys_file(tree, ANN)
