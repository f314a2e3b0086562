"""The guest's file tree: every path is resolved inside its root.

The kernel does it: openat2(2) with RESOLVE_IN_ROOT takes the tree's root for `/` and for
every `..` and absolute symlink on the way, and RESOLVE_NO_MAGICLINKS closes /proc. What is
read must be a regular file of bounded size: a FIFO or a device where a file is expected is
refused, not waited for.
"""

import contextlib
import ctypes
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import PurePosixPath

READ_LIMIT = 4 << 20
"""Bytes of a file that a task reads as text."""

_SYS_OPENAT2 = 437  # the same number on every architecture
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_IN_ROOT = 0x10

_libc = ctypes.CDLL(None, use_errno=True)


class TreeError(Exception):
    """A path of the guest that is not what it must be; the text is one line."""


class _OpenHow(ctypes.Structure):
    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


def _openat2(directory: int, path: str, flags: int, mode: int) -> int:
    if "\0" in path:
        raise OSError(errno.EINVAL, "it holds a null byte", path)
    how = _OpenHow(flags | os.O_CLOEXEC, mode, _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS)
    name = os.fsencode(path)
    while True:
        found = _libc.syscall(_SYS_OPENAT2, directory, name, ctypes.byref(how), ctypes.sizeof(how))
        if found >= 0:
            return int(found)
        code = ctypes.get_errno()
        if code not in (errno.EAGAIN, errno.EINTR):  # EAGAIN: a rename raced with `..`
            raise OSError(code, os.strerror(code), path)


class Tree:
    """A mounted guest. Paths are absolute paths of the guest, as `/etc/hostname`."""

    def __init__(self, root: str) -> None:
        self.root = root
        self._fd = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        owner = os.fstat(self._fd)
        self._uid, self._gid = owner.st_uid, owner.st_gid  # who owns what has no older owner

    def close(self) -> None:
        os.close(self._fd)

    @contextlib.contextmanager
    def open(self, path: str, flags: int = os.O_RDONLY, mode: int = 0) -> Iterator[int]:
        """A descriptor of `path`, symlinks followed inside the root. Raises OSError."""
        descriptor = _openat2(self._fd, path, flags, mode)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def stat(self, path: str) -> os.stat_result | None:
        """What is at `path` after its symlinks; None when there is nothing."""
        try:
            with self.open(path, os.O_PATH) as descriptor:
                return os.fstat(descriptor)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise TreeError(f"{path}: {error.strerror}") from None

    def is_file(self, path: str) -> bool:
        found = self.stat(path)
        return found is not None and stat.S_ISREG(found.st_mode)

    def is_dir(self, path: str) -> bool:
        found = self.stat(path)
        return found is not None and stat.S_ISDIR(found.st_mode)

    def list_dir(self, path: str, limit: int = 10_000) -> list[str]:
        """The sorted names in a directory; empty when it is absent. Raises TreeError."""
        if not self.is_dir(path):
            return []
        try:
            with self.open(path, os.O_RDONLY | os.O_DIRECTORY) as descriptor:
                names = sorted(os.listdir(descriptor))
        except OSError as error:
            raise TreeError(f"{path}: {error.strerror}") from None
        if len(names) > limit:
            raise TreeError(f"{path} has more than {limit} entries")
        return names

    def read_bytes(self, path: str, limit: int = READ_LIMIT) -> bytes:
        """A regular file's content. Raises TreeError: absent, not a file, too large."""
        try:
            with self.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY) as descriptor:
                _require_file(descriptor, path)
                with open(descriptor, "rb", closefd=False) as file:
                    data = file.read(limit + 1)
        except OSError as error:
            raise TreeError(f"{path}: {error.strerror}") from None
        if len(data) > limit:
            raise TreeError(f"{path} is larger than {limit} bytes")
        return data

    def read_text(self, path: str, limit: int = READ_LIMIT) -> str:
        """A file as text; bytes that are not UTF-8 survive a later `write_text`."""
        return self.read_bytes(path, limit).decode("utf-8", "surrogateescape")

    def write_text(
        self,
        path: str,
        text: str,
        *,
        mode: int | None = None,
        uid: int | None = None,
        gid: int | None = None,
    ) -> None:
        self.write_bytes(path, text.encode("utf-8", "surrogateescape"), mode=mode, uid=uid, gid=gid)

    def write_bytes(
        self,
        path: str,
        data: bytes,
        *,
        mode: int | None = None,
        uid: int | None = None,
        gid: int | None = None,
    ) -> None:
        """Replace a file in one step and read it back.

        Mode and owner, where not given, stay those of the file replaced, or are 0644 and
        the owner of the tree's root. A symlink at `path` is followed inside the root to the
        file it names.
        Raises TreeError, the old file still in place.
        """
        target = self._follow(path)
        old = self.stat(target)
        if old is not None and not stat.S_ISREG(old.st_mode):
            raise TreeError(f"{path} is not a regular file")
        mode = mode if mode is not None else stat.S_IMODE(old.st_mode) if old else 0o644
        uid = uid if uid is not None else old.st_uid if old else self._uid
        gid = gid if gid is not None else old.st_gid if old else self._gid
        try:
            with self._parent(target) as (folder, name):
                _replace(folder, name, data, mode, uid, gid)
        except OSError as error:
            raise TreeError(f"{path}: {error.strerror}") from None
        if self.read_bytes(path, len(data)) != data:
            raise TreeError(f"{path} does not hold what was written")

    def make_dirs(
        self, path: str, *, mode: int = 0o755, uid: int | None = None, gid: int | None = None
    ) -> None:
        """Make a directory and its missing parents, each with this mode and owner."""
        uid = self._uid if uid is None else uid
        gid = self._gid if gid is None else gid
        so_far = "/"
        for part in _parts(path):
            parent, so_far = so_far, f"{so_far.rstrip('/')}/{part}"
            if self.is_dir(so_far):
                continue
            try:
                with self.open(parent, os.O_RDONLY | os.O_DIRECTORY) as folder:
                    os.mkdir(part, 0o700, dir_fd=folder)
                    os.chown(part, uid, gid, dir_fd=folder, follow_symlinks=False)
                with self.open(so_far, os.O_RDONLY | os.O_DIRECTORY) as made:
                    os.fchmod(made, mode)
            except OSError as error:
                raise TreeError(f"{so_far}: {error.strerror}") from None

    def remove(self, path: str) -> bool:
        """Remove a file or symlink itself; False when there was none. Raises TreeError."""
        try:
            with self._parent(path) as (folder, name):
                os.unlink(name, dir_fd=folder)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise TreeError(f"{path}: {error.strerror}") from None
        return True

    @contextlib.contextmanager
    def _parent(self, path: str) -> Iterator[tuple[int, str]]:
        parts = _parts(path)
        if not parts:
            raise TreeError(f"{path} names no file")
        with self.open("/" + "/".join(parts[:-1]), os.O_RDONLY | os.O_DIRECTORY) as folder:
            yield folder, parts[-1]

    def _follow(self, path: str, depth: int = 8) -> str:
        """The path that a chain of symlinks in the last component ends at, in guest terms."""
        parts = _parts(path)
        try:
            with self._parent(path) as (folder, name):
                link = os.readlink(name, dir_fd=folder)
        except OSError:  # not a symlink, or not there: it is its own end
            return path
        if depth == 0:
            raise TreeError(f"{path}: too many symlinks")
        parent = "/" + "/".join(parts[:-1])
        return self._follow(os.path.join(parent, link), depth - 1)


def _parts(path: str) -> list[str]:
    """The components of a guest path; `..` stays, for the kernel to resolve."""
    if "\0" in path:
        raise TreeError(f"{path} holds a null byte")
    return [part for part in PurePosixPath("/", path).parts[1:] if part != "."]


def _require_file(descriptor: int, path: str) -> None:
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise TreeError(f"{path} is not a regular file")


def _replace(folder: int, name: str, data: bytes, mode: int, uid: int, gid: int) -> None:
    draft = f".{name[:200]}.{secrets.token_hex(4)}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(draft, flags, 0o600, dir_fd=folder)
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()  # a write after it would take the set-user-id bit away, but from root's
            os.fchown(descriptor, uid, gid)
            os.fchmod(descriptor, mode)
        os.rename(draft, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(draft, dir_fd=folder)
        raise
