"""`vncauthproxy-passwd FILE USER`: the users of the legacy protocol."""

import argparse
import getpass
import os
import sys
import tempfile
from pathlib import Path

from snf_ganeti.errors import InputError, NodeError, run_main
from snf_ganeti.lock import lock_file
from vncauthproxy import users

_MODE = 0o640


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="vncauthproxy-passwd",
        description="Set a user's password, read from the terminal or from standard input.",
    )
    parser.add_argument("file", type=Path)
    parser.add_argument("user")
    parser.add_argument("-n", "--dry-run", action="store_true", help="print it, change nothing")
    parser.add_argument("-d", "-D", "--delete", action="store_true", help="delete the user")
    return parser


def main() -> int:
    given = make_parser().parse_args()
    users.check_name(given.user)
    line = None if given.delete else f"{given.user}:{users.hash_password(_read_password())}"
    if given.dry_run:
        print(line or f"{given.user} would be deleted")
        return 0
    with lock_file(given.file.with_name(f".{given.file.name}.lock")):
        change_user(given.file, given.user, line)
    return 0


def change_user(path: Path, user: str, line: str | None) -> None:
    """Replace a user's line, add it, or delete it; others, comments too, stay as they are.

    The file is replaced whole, with its owner and mode. Raises InputError, NodeError.
    """
    try:
        lines = path.read_text().splitlines() if path.exists() else []
        kept = [each for each in lines if each.partition(":")[0] != user]
        if line is None and len(kept) == len(lines):
            raise InputError(f"{path} has no user {user}")
        _replace(path, "".join(f"{each}\n" for each in [*kept, *([line] if line else [])]))
    except OSError as error:
        raise NodeError(f"{path} can't be changed: {error.strerror}") from None


def _replace(path: Path, text: str) -> None:
    owner = path.stat() if path.exists() else None
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=".", delete=False) as draft:
        try:
            draft.write(text)
            draft.flush()
            os.fsync(draft.fileno())
            if owner:
                os.fchown(draft.fileno(), owner.st_uid, owner.st_gid)
            elif os.geteuid() == 0:  # for whom the folder is
                os.fchown(draft.fileno(), 0, path.parent.stat().st_gid)
            os.fchmod(draft.fileno(), owner.st_mode & 0o7777 if owner else _MODE)
            Path(draft.name).replace(path)
        except BaseException:
            Path(draft.name).unlink(missing_ok=True)
            raise


def _read_password() -> str:
    if not sys.stdin.isatty():
        password = sys.stdin.readline(4096).rstrip("\n")
    else:
        password = getpass.getpass("Password: ")
        if getpass.getpass("Again: ") != password:
            raise InputError("the two passwords are not the same")
    if not password:
        raise InputError("the password is empty")
    return password


def run() -> None:
    run_main(main)
