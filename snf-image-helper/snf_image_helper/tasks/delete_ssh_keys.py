"""SSH host keys of its own: those in the image are every copy's."""

import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path

from snf_ganeti import process
from snf_image_helper.protocol import Request
from snf_image_helper.task import Context, Skip, Task, TaskFailed

_KEY_SECONDS = 600.0
"""The search for primes has no bound, least of all emulated; the host's deadline ends it."""
_FOLDER = "/etc/ssh"
_OPTIONS: Mapping[str, tuple[str, ...]] = {
    "ed25519": (),
    "ecdsa": ("-b", "256"),
    "rsa": ("-b", "3072"),
}
_DEFAULT = ("ecdsa", "ed25519")
"""For a guest with sshd and without keys, which would otherwise not let anyone in."""


def run(context: Context) -> None:
    assert context.guest is not None
    tree = context.guest.tree
    files = [name for name in tree.list_dir(_FOLDER) if name.startswith("ssh_host_")]
    kinds = find_kinds(files) or (_DEFAULT if tree.is_file("/usr/sbin/sshd") else ())
    _require_entropy()
    pairs = {kind: _make_pair(kind, context.request) for kind in kinds}
    for name in (
        name for name in files if re.fullmatch(r"ssh_host_(\w+_)?key(\.pub|-cert\.pub)?", name)
    ):
        tree.remove(f"{_FOLDER}/{name}")
    if not kinds:
        raise Skip("the image has no SSH server")
    for kind, (private, public) in pairs.items():
        path = f"{_FOLDER}/ssh_host_{kind}_key"
        tree.write_bytes(path, private, mode=0o600)
        tree.write_bytes(f"{path}.pub", public, mode=0o644)


def find_kinds(files: list[str]) -> tuple[str, ...]:
    """The types of the host keys among these files, of those that are still made."""
    return tuple(kind for kind in _OPTIONS if f"ssh_host_{kind}_key" in files)


def make_argv(kind: str, hostname: str, path: str) -> list[str]:
    comment = _make_comment(hostname)
    return ["ssh-keygen", "-q", "-t", kind, *_OPTIONS[kind], "-N", "", "-C", comment, "-f", path]


def _make_comment(hostname: str) -> str:
    return f"root@{hostname}"


def _make_pair(kind: str, request: Request) -> tuple[bytes, bytes]:
    with tempfile.TemporaryDirectory() as folder:  # in memory, as all of the helper is
        path = Path(folder) / "key"
        if kind == "rsa" and request.rsa_key:
            return _complete_pair(path, request)
        process.run(make_argv(kind, request.hostname, str(path)), timeout=_KEY_SECONDS)
        return path.read_bytes(), path.with_suffix(".pub").read_bytes()


def _complete_pair(path: Path, request: Request) -> tuple[bytes, bytes]:
    """The host's key, read by the program that made all others."""
    path.touch(mode=0o600)
    path.write_text(request.rsa_key)
    kind, public, *_ = process.run(["ssh-keygen", "-y", "-f", str(path)]).text.split()
    return path.read_bytes(), f"{kind} {public} {_make_comment(request.hostname)}\n".encode()


def _require_entropy() -> None:
    try:
        os.getrandom(1, os.GRND_NONBLOCK)
    except BlockingIOError:
        raise TaskFailed("host keys can't be made: the random pool is not seeded yet") from None


TASK = Task("DeleteSSHKeys", 50, run, needs_mount=True)
