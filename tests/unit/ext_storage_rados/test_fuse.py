"""FUSE's messages against fuse.h: the bytes here were written down from the header."""

import errno
import struct

from ext_storage_rados.export import fuse

HEADER = struct.pack("<IIQQIIIHH", 0, 16, 0x8000000000000007, 1, 0, 0, 0, 0, 0)


def test_a_write_is_taken_apart() -> None:
    body = struct.pack("<QQIIQII", 0, 4096, 5, 0, 0, 0, 0) + b"hello"
    message = memoryview(HEADER + body)
    assert fuse.parse_request(message) == fuse.Request(fuse.Opcode.WRITE, 0x8000000000000007)
    assert fuse.parse_extent(message) == fuse.Extent(4096, 5)
    assert bytes(fuse.find_data(message)) == b"hello"


def test_a_hole_is_taken_apart() -> None:
    message = memoryview(HEADER + struct.pack("<QQQII", 0, 1 << 40, 1 << 20, 3, 0))
    assert fuse.parse_fallocate(message) == (fuse.Extent(1 << 40, 1 << 20), 3)


def test_the_handshake() -> None:
    extended, resend = 1 << 30, 1 << 7
    for minor, flags, flags2, expected in (
        (45, extended, resend, fuse.Session(40, True)),
        (45, extended, 0, fuse.Session(40, False)),
        (45, 0, resend, fuse.Session(40, False)),
        (31, extended, resend, fuse.Session(31, False)),
    ):
        message = memoryview(HEADER + struct.pack("<IIIII44x", 7, minor, 0, flags, flags2))
        assert fuse.parse_init(message) == expected
        reply = fuse.make_init_reply(expected)
        assert len(reply) == 64
        assert struct.unpack_from("<II", reply) == (7, expected.minor)
        assert bool(struct.unpack_from("<I", reply, 32)[0] & resend) is expected.resends


def test_attributes_say_the_size_and_a_regular_file() -> None:
    reply = fuse.make_attributes(10 << 30)
    assert len(reply) == 16 + 88
    assert struct.unpack_from("<Q", reply, 0) == (0,)  # valid for no time
    assert struct.unpack_from("<QQQ", reply, 16) == (1, 10 << 30, (10 << 30) // 512)
    assert struct.unpack_from("<I", reply, 16 + 60) == (0o100600,)


def test_replies_have_their_length_and_the_negative_error() -> None:
    assert fuse.make_header(9, 100) == struct.pack("<IiQ", 116, 0, 9)
    assert fuse.make_header(9, error=errno.EIO) == struct.pack("<IiQ", 16, -5, 9)
    assert fuse.make_resend() == struct.pack("<IiQ", 16, 7, 0)


def test_a_truncation_is_told_from_a_touch() -> None:
    assert fuse.changes_size(memoryview(HEADER + struct.pack("<I84x", 1 << 3)))
    assert not fuse.changes_size(memoryview(HEADER + struct.pack("<I84x", 1 << 5)))
