"""This node's copies of remote images, named by their checksums.

    sha256-HEX          an image, whole
    sha256-HEX.part     one that is being fetched: who fetches it holds the file locked
    lock                held while the folder is put in order

A file gets its name when all of it is there, and is compared with its name each time before it
is used. So nothing here has to survive a loss of power, and a file that was harmed, by whatever,
is fetched anew. A `.part` that nobody holds is what a kill left. Only root enters the folder; a
jailed program reads a file by the descriptor that it inherits.

The files together stay within a limit, and leave a part of their file system free: those that
were used longest ago go first.
"""

import contextlib
import fcntl
import hashlib
import logging
import os
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from snf_ganeti.errors import LockError
from snf_ganeti.lock import lock_file
from snf_image_host.copying.page_cache import WriteBehind
from snf_image_host.os_parameters.checksum import Checksum

log = logging.getLogger(__name__)

_PART, _LOCK = ".part", "lock"
_NAME = re.compile(r"sha(256-[0-9a-f]{64}|512-[0-9a-f]{128})")
_LOCK_TIMEOUT = 20.0
_POLL = 0.2
_READ = 1 << 20
_RESERVE = 64 << 20
"""Bytes for which room is made at a time when nobody knows an image's size."""
_FREE_SHARE = 10
"""One part in so many of the file system stays free."""
_TROUBLE = (OSError, LockError)
"""What keeps an image from being kept, and no deployment from its end."""


@dataclass(frozen=True)
class CachedFile:
    """size: bytes, as far as it is known of one that is being fetched. used: bytes on the disk.
    whole: it is an image."""

    path: Path
    size: int
    used: int
    time: int
    whole: bool


class ImageCache:
    """folder: made when it is needed. limit: bytes of all files."""

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder = folder
        self.limit = limit

    @contextlib.contextmanager
    def open(self, checksum: Checksum, patience: float) -> Iterator["int | Draft | None"]:
        """A descriptor of the image, sound and whole; or a place for it, to be filled now.

        While another run fills it this one waits. None: it can't be kept, or the other is not
        through after `patience` seconds.
        """
        with contextlib.ExitStack() as stack:
            found = None
            try:
                self._prepare()
                found = self._find(checksum, patience)
            except _TROUBLE as error:
                log.warning("the image is not kept in %s: %s", self.folder, error)
            if isinstance(found, int):
                stack.callback(os.close, found)
            elif found is not None:
                stack.callback(found.close)
            yield found

    def list_files(self) -> list[CachedFile]:
        """All that counts, what was used longest ago first. Raises OSError."""
        found = []
        for path in self.folder.iterdir():
            if _NAME.fullmatch(path.name.removesuffix(_PART)):
                with contextlib.suppress(FileNotFoundError):
                    status = path.stat(follow_symlinks=False)
                    used, whole = status.st_blocks * 512, path.suffix != _PART
                    found.append(CachedFile(path, status.st_size, used, status.st_mtime_ns, whole))
        return sorted(found, key=lambda file: file.time)

    def make_room(self, size: int, own: Path) -> bool:
        """Have a file of `size` bytes fit beside the others, `own` being that file so far; what
        a killed run left goes, too. Raises OSError, LockError."""
        with lock_file(self.folder / _LOCK, timeout=_LOCK_TIMEOUT):
            files = [
                file
                for file in self.list_files()
                if file.whole or file.path == own or not _remove_abandoned(file.path)
            ]
            excess = size + sum(file.size for file in files if file.path != own)
            excess -= min(self.limit, self._find_disk_limit(files))
            victims = [file for file in files if file.whole]
            if excess > sum(file.size for file in victims):
                return False
            for file in victims:
                if excess <= 0:
                    break
                log.info("%s goes: another image needs the room", file.path)
                file.path.unlink(missing_ok=True)
                excess -= file.size
        return True

    def _find_disk_limit(self, files: list[CachedFile]) -> int:
        disk = shutil.disk_usage(self.folder)
        return sum(file.used for file in files) + disk.free - disk.total // _FREE_SHARE

    def _prepare(self) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.folder.stat().st_mode & 0o077:
            self.folder.chmod(0o700)

    def _find(self, checksum: Checksum, patience: float) -> "int | Draft | None":
        path = self.folder / f"{checksum.algorithm}-{checksum.digest}"
        part = path.with_name(path.name + _PART)
        begun = time.monotonic()
        waiting = False
        while True:
            image = _open_sound(path, checksum)
            if image is not None:
                return image
            file = _try_lock(part)
            if file is not None:
                os.truncate(file, 0)  # what a killed run left
                draft = Draft(self, checksum, file, part)
                if not path.exists():
                    return draft
                draft.close()  # it was finished just now
            elif time.monotonic() - begun > patience:
                return None
            elif not waiting:
                log.info("another deployment fetches this image: waiting for it")
                waiting = True
            time.sleep(_POLL)


class Draft:
    """An image as far as it was fetched. What fails here ends the keeping, and nothing else."""

    def __init__(self, cache: ImageCache, checksum: Checksum, file: int, part: Path) -> None:
        self._cache = cache
        self._checksum = checksum
        self._file = file
        self._part = part
        self._hash = hashlib.new(checksum.algorithm)
        self._behind = WriteBehind(file)
        self._size = self._reserved = 0
        self._kept = True

    def reserve(self, size: int) -> None:
        """Make room for an image of so many bytes."""
        with self._surviving():
            if not self._cache.make_room(size, self._part):
                raise OSError(f"there is no room for {size} bytes")
            os.truncate(self._file, size)  # what others see as taken
            self._reserved = size

    def write(self, data: memoryview) -> None:
        """The next bytes."""
        if self._kept and self._size + len(data) > self._reserved:
            self.reserve(self._reserved + _RESERVE)
        if not self._kept:
            return
        with self._surviving():
            at = 0
            while at < len(data):
                at += os.pwrite(self._file, data[at:], self._size + at)
            self._hash.update(data)
            self._behind.note(self._size, len(data))
            self._size += len(data)

    def finish(self) -> None:
        """That was all: it gets its name, if it is what it should be."""
        if not self._kept:
            return
        self._kept = False
        if self._hash.hexdigest() == self._checksum.digest:  # else who reads it says so
            with self._surviving():
                os.truncate(self._file, self._size)
                os.fchmod(self._file, 0o444)  # a jailed program opens it anew
                self._part.rename(self._part.with_suffix(""))

    def close(self) -> None:
        """Whoever waits goes on; what has no name by now is gone."""
        with contextlib.suppress(OSError):
            if os.path.samestat(self._part.stat(), os.fstat(self._file)):
                self._part.unlink()
        os.close(self._file)

    @contextlib.contextmanager
    def _surviving(self) -> Iterator[None]:
        try:
            yield
        except _TROUBLE as error:
            self._kept = False
            with contextlib.suppress(OSError):
                os.truncate(self._file, 0)
            log.warning("the image is not kept in %s: %s", self._cache.folder, error)


def _open_sound(path: Path, checksum: Checksum) -> int | None:
    """A descriptor of the image at `path`. One that is damaged goes. Raises OSError."""
    try:
        image = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    try:
        if _is_sound(image, checksum):
            os.utime(path)
            return image
        log.warning("%s is damaged: the image is fetched anew", path)
        path.unlink(missing_ok=True)
    except BaseException:
        os.close(image)
        raise
    os.close(image)
    return None


def _is_sound(image: int, checksum: Checksum) -> bool:
    digest, at = hashlib.new(checksum.algorithm), 0
    with memoryview(bytearray(_READ)) as buffer:
        try:
            while count := os.preadv(image, [buffer], at):
                digest.update(buffer[:count])
                at += count
        except OSError as error:
            log.warning("a kept image can't be read at byte %d: %s", at, error.strerror)
            return False
    return digest.hexdigest() == checksum.digest


def _try_lock(path: Path) -> int | None:
    """Open a file, made if it is not there, and lock it; None when another run holds it."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(file), path.stat(follow_symlinks=False)):
                return file
        except FileNotFoundError:
            pass  # its last holder has finished it, or given it up
        except BlockingIOError:
            os.close(file)
            return None
        os.close(file)


def _remove_abandoned(part: Path) -> bool:
    """Remove a file that was being fetched, if who did it is gone."""
    try:
        file = os.open(part, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        part.unlink(missing_ok=True)
    except BlockingIOError:
        return False
    finally:
        os.close(file)
    log.info("%s was left by a run that was killed: it is gone", part)
    return True
