"""The messages of FUSE that a file system of one regular file needs, as bytes and dataclasses.

Layouts and numbers are those of Linux's include/uapi/linux/fuse.h, protocol 7.31 and later.
Nothing here reads or writes a descriptor.
"""

import stat
import struct
from dataclasses import dataclass
from enum import IntEnum

ROOT = 1
"""The only node: the root, which is the file itself."""
MAX_WRITE = 1 << 20
BUFFER_SIZE = MAX_WRITE + 4096
"""Bytes that one request can have; the kernel refuses to hand it to a shorter buffer."""

_MAJOR, _MINOR = 7, 40
_RESEND_MINOR = 40
_IN = struct.Struct("<IIQQIIIHH")
_OUT = struct.Struct("<IiQ")
_INIT_IN = struct.Struct("<IIIII")
_INIT_OUT = struct.Struct("<IIIIHHIIHHII24x")
_READ_WRITE = struct.Struct("<QQIIQII")
_FALLOCATE = struct.Struct("<QQQII")
_ATTRIBUTES = struct.Struct("<QII6Q10I")
_OPEN_OUT = struct.Struct("<QII")
_WRITE_OUT = struct.Struct("<II")
_STATFS_OUT = struct.Struct("<5Q4I24x")
_SETATTR = struct.Struct("<I")

_ASYNC_READ, _BIG_WRITES, _ASYNC_DIO = 1 << 0, 1 << 5, 1 << 15
_MAX_PAGES, _INIT_EXT = 1 << 22, 1 << 30
_HAS_RESEND = 1 << (39 - 32)  # in the second word of flags
_WANTED = _ASYNC_READ | _BIG_WRITES | _ASYNC_DIO | _MAX_PAGES | _INIT_EXT
_DIRECT_IO = 1 << 0
_SIZE_CHANGES = 1 << 3
_NOTIFY_RESEND = 7
_BACKGROUND = 128  # requests that the kernel keeps under way
_BLOCK = 4096


class Opcode(IntEnum):
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    FSYNC = 20
    FLUSH = 25
    INIT = 26
    INTERRUPT = 36
    DESTROY = 38
    BATCH_FORGET = 42
    FALLOCATE = 43


UNANSWERED = frozenset({Opcode.FORGET, Opcode.BATCH_FORGET, Opcode.INTERRUPT})


@dataclass(frozen=True)
class Request:
    """A request's header. opcode: an Opcode, or a number that is none."""

    opcode: int
    unique: int


@dataclass(frozen=True)
class Extent:
    """A range of the file, in bytes."""

    offset: int
    length: int


@dataclass(frozen=True)
class Session:
    """What was agreed with the kernel. resends: it can send unanswered requests again."""

    minor: int
    resends: bool


def parse_request(message: memoryview) -> Request:
    _, opcode, unique, *_ = _IN.unpack_from(message)
    return Request(opcode, unique)


def parse_extent(message: memoryview) -> Extent:
    """Of READ and WRITE."""
    _, offset, length, *_ = _READ_WRITE.unpack_from(message, _IN.size)
    return Extent(offset, length)


def find_data(message: memoryview) -> memoryview:
    """What a WRITE writes."""
    return message[_IN.size + _READ_WRITE.size :]


def parse_fallocate(message: memoryview) -> tuple[Extent, int]:
    """The range and the mode of fallocate(2)."""
    _, offset, length, mode, _ = _FALLOCATE.unpack_from(message, _IN.size)
    return Extent(offset, length), mode


def changes_size(message: memoryview) -> bool:
    """Does a SETATTR truncate?"""
    (valid,) = _SETATTR.unpack_from(message, _IN.size)
    return bool(valid & _SIZE_CHANGES)


def parse_init(message: memoryview) -> Session:
    _, minor, _, flags, flags2 = _INIT_IN.unpack_from(message, _IN.size)
    extended = bool(flags & _INIT_EXT)
    resends = extended and minor >= _RESEND_MINOR and bool(flags2 & _HAS_RESEND)
    return Session(min(minor, _MINOR), resends)


def make_init_reply(session: Session) -> bytes:
    return _INIT_OUT.pack(
        _MAJOR,
        session.minor,
        0,  # no read-ahead: the loop device has its own
        _WANTED,
        _BACKGROUND,
        _BACKGROUND,
        MAX_WRITE,
        1,
        MAX_WRITE // _BLOCK,
        0,
        _HAS_RESEND if session.resends else 0,
        0,
    )


def make_attributes(size: int) -> bytes:
    """Those of the file, valid for no time: a volume can grow."""
    blocks = (size + 511) // 512
    times = (0, 0, 0)
    mode, links, owner, group, device = stat.S_IFREG | 0o600, 1, 0, 0, 0
    return _ATTRIBUTES.pack(
        *(0, 0, 0),
        *(ROOT, size, blocks, *times, *times, mode, links, owner, group, device, _BLOCK, 0),
    )


def make_open_reply() -> bytes:
    """Without a page cache: the loop device's users have theirs."""
    return _OPEN_OUT.pack(0, _DIRECT_IO, 0)


def make_write_reply(length: int) -> bytes:
    return _WRITE_OUT.pack(length, 0)


def make_statfs(size: int) -> bytes:
    return _STATFS_OUT.pack(size // _BLOCK, 0, 0, 1, 0, _BLOCK, 255, _BLOCK, 0)


def make_header(unique: int, length: int = 0, error: int = 0) -> bytes:
    """A reply's header. length: bytes that follow; error: a number of errno, or 0."""
    return _OUT.pack(_OUT.size + length, -error, unique)


def make_resend() -> bytes:
    """A notice to the kernel: send again what was read but not answered."""
    return _OUT.pack(_OUT.size, _NOTIFY_RESEND, 0)
