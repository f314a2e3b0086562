"""An image file that nobody vouches for, made into raw bytes.

Whatever takes its structure apart runs as a user of its own, in a file system with nothing but
the node's programs, without network, within limits; its format is given, never guessed. It
works on nameless files that only it and we have open.
"""

import contextlib
import json
import os
import pwd
import subprocess
import tempfile
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from snf_ganeti import process
from snf_ganeti.errors import DeadlineError, InputError, NodeError

FORMATS = {"raw": "raw", "qcow2": "qcow2", "vmdk": "vmdk", "vhd": "vpc", "vhdx": "vhdx"}
"""Our name of a format → qemu-img's."""
MAGICS = (
    (b"\x1f\x8b", "gzip"),
    (b"\xfd7zXZ\0", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
)
"""The first bytes of a compressed stream, and the program that decompresses it."""

_SECONDS = 7200.0
_OUTPUT_LIMIT = 1 << 20
_ADDRESS_SPACE = 2 << 30
_CHUNK = 1 << 20
_LEAKS = 3  # `qemu-img check`: clusters that nobody uses, and no harm done
FOREIGN = ("backing-filename", "full-backing-filename", "data-file")


@dataclass(frozen=True)
class Jail:
    """As whom, and where, images are taken apart. size: the most bytes a file may get."""

    user: int
    group: int
    spool: Path
    size: int


@contextlib.contextmanager
def open_raw(source: IO[bytes], kind: str, jail: Jail) -> Iterator[IO[bytes]]:
    """The raw bytes of an image as a sparse file, for the block.

    source: read to its end, compressed or not. kind: of FORMATS. Raises InputError, NodeError.
    """
    with contextlib.ExitStack() as stack:
        packed = stack.enter_context(open_spool(jail))
        copy(source, packed, jail.size)
        program = find_decompressor(os.pread(packed.fileno(), 8, 0))
        plain = packed
        if program:
            plain = stack.enter_context(open_spool(jail))
            _run(jail, [program, "-dc"], "decompressed", stdin=packed, stdout=plain)
        if kind == "raw":
            yield plain
            return
        _check_header(plain, kind, jail)
        raw = stack.enter_context(open_spool(jail))
        argv = make_convert_argv(FORMATS[kind], plain.fileno(), raw.fileno())
        _run(jail, argv, f"converted from {kind}", files=(plain, raw))
        yield raw


def find_decompressor(start: bytes) -> str:
    """The program that decompresses a stream, by its first bytes; empty when it needs none."""
    return next((program for magic, program in MAGICS if start.startswith(magic)), "")


def make_convert_argv(driver: str, source: int, target: int) -> list[str]:
    """qemu-img's argv; the files are descriptors."""
    files = (f"/dev/fd/{source}", f"/dev/fd/{target}")
    return ["qemu-img", "convert", "-f", driver, "-O", "raw", *files]


def make_jail_argv(jail: Jail, argv: Sequence[str]) -> list[str]:
    """The whole argument list: limits, then namespaces, then the user."""
    return [
        *("prlimit", "--core=0", f"--as={_ADDRESS_SPACE}", f"--fsize={jail.size}", "--"),
        *("bwrap", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts"),
        *("--die-with-parent", "--new-session", "--cap-drop", "ALL"),
        *("--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID", "--cap-add", "CAP_SETPCAP"),
        *("--ro-bind", "/usr", "/usr", "--symlink", "usr/lib", "/lib"),
        *("--symlink", "usr/lib64", "/lib64", "--symlink", "usr/bin", "/bin"),
        *("--proc", "/proc", "--dev", "/dev", "--chdir", "/", "--"),
        *("setpriv", f"--reuid={jail.user}", f"--regid={jail.group}", "--clear-groups"),
        *("--inh-caps=-all", "--ambient-caps=-all", "--bounding-set=-all", "--no-new-privs"),
        *("--", *argv),
    ]


def check_header(text: str, kind: str) -> None:
    """What qemu-img says of an image, as JSON. Raises InputError: it would bring in other
    files, or can't be read without a key."""
    header = json.loads(text)
    details = header.get("format-specific", {}).get("data", {})
    if any(key in header or key in details for key in FOREIGN):
        raise InputError(
            f"the {kind} image needs another file beside it",
            hint="make it whole first: qemu-img convert",
        )
    if header.get("encrypted"):
        raise InputError(f"the {kind} image is encrypted", hint="decrypt it first")


@contextlib.contextmanager
def open_spool(jail: Jail) -> Iterator[IO[bytes]]:
    """A file without a name, which ends with whoever has it open; the jail's user owns it."""
    with tempfile.TemporaryFile(dir=jail.spool) as spool:
        os.fchown(spool.fileno(), jail.user, jail.group)
        yield spool


def copy(source: IO[bytes], target: IO[bytes], limit: int) -> None:
    """Copy to the end, leaving zeroes out. Raises InputError past `limit` bytes."""
    size = 0
    while chunk := source.read(_CHUNK):
        size += len(chunk)
        if size > limit:
            raise InputError(
                f"the image is larger than {limit >> 20} MiB", hint="see max_image_size"
            )
        if chunk.count(0) == len(chunk):
            target.seek(len(chunk), os.SEEK_CUR)
        else:
            target.write(chunk)
    target.truncate(size)
    target.flush()
    target.seek(0)


def find_jail(name: str, spool: Path, size: int) -> Jail:
    """Raises NodeError."""
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        hint = "install the package anew, or set conversion_user"
        raise NodeError(f"the user {name} does not exist on this node", hint=hint) from None
    return Jail(entry.pw_uid, entry.pw_gid, spool, size)


def check_end(text: str, size: int) -> None:
    """What `qemu-img check` says of a qcow2 image, as JSON. Raises InputError: its file, of
    `size` bytes, ends before its data does."""
    if json.loads(text).get("image-end-offset", 0) > size:
        raise InputError("the qcow2 image is cut off", hint="fetch it again")


def _check_header(plain: IO[bytes], kind: str, jail: Jail) -> None:
    """The header first: what it leads to is not to be opened, not even by a check."""
    file = f"/dev/fd/{plain.fileno()}"
    info = ["qemu-img", "info", "-f", FORMATS[kind], "--output=json", file]
    check_header(_run(jail, info, f"read as {kind}", files=(plain,)), kind)
    if kind == "qcow2":
        check = ["qemu-img", "check", "-f", "qcow2", "--output=json", file]
        text = _run(jail, check, "checked", files=(plain,), ok=(0, _LEAKS))
        check_end(text, os.fstat(plain.fileno()).st_size)


def _run(
    jail: Jail,
    argv: Sequence[str],
    done: str,
    *,
    files: Sequence[IO[bytes]] = (),
    stdin: IO[bytes] | None = None,
    stdout: IO[bytes] | None = None,
    ok: Collection[int] = (0,),
) -> str:
    """Run a program in the jail; gives what it printed. Raises InputError when it fails."""
    with (
        tempfile.TemporaryFile() as printed,
        tempfile.TemporaryFile() as errors,
        process.spawn(
            make_jail_argv(jail, argv),
            stdin=stdin or subprocess.DEVNULL,
            stdout=stdout or printed,
            stderr=errors,
            pass_fds=[file.fileno() for file in files],
        ) as child,
    ):
        try:
            status = child.wait(_SECONDS)
        except subprocess.TimeoutExpired:
            raise DeadlineError(argv[0], _SECONDS) from None
        if status not in ok:
            errors.seek(0)
            lines = errors.read(_OUTPUT_LIMIT).decode("utf-8", "replace").splitlines()
            reason = lines[-1] if lines else f"{argv[0]} ended with {status}"
            raise InputError(f"the image can't be {done}: {reason}", hint="check --format")
        printed.seek(0)
        return printed.read(_OUTPUT_LIMIT).decode("utf-8", "replace")
