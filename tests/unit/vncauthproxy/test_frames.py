"""Frames split and unmasked, against those that the websockets library makes and reads."""

import os
import random
from collections.abc import Iterable

from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode

from testbed.cutting import cut_randomly
from vncauthproxy.connections.frames import Frames, make_head, unmask

SOAK = bool(os.environ.get("SNF_SOAK"))
LIMIT = 1000
WHOLE = st.tuples(st.just(Opcode.BINARY), st.binary(max_size=LIMIT), st.just(True))
CONTROLS = st.tuples(
    st.sampled_from([Opcode.PING, Opcode.PONG, Opcode.CLOSE]),
    st.binary(max_size=125),
    st.just(True),
)
FRAGMENTS = st.tuples(
    st.sampled_from([Opcode.BINARY, Opcode.CONT, Opcode.TEXT]),
    st.binary(max_size=300),
    st.booleans(),
)


def serialize(frame: tuple[Opcode, bytes, bool], *, mask: bool = True) -> bytes:
    opcode, data, final = frame
    return Frame(opcode, data, final).serialize(mask=mask)


def split(pieces: Iterable[bytes]) -> list[tuple[bool, bytes]]:
    """What Frames make of it, neighbours of one kind joined."""
    frames, joined = Frames(LIMIT), list[tuple[bool, bytes]]()
    for piece in pieces:
        for each in frames.split(piece):
            assert each.data
            if joined and joined[-1][0] == each.is_rfb:
                joined[-1] = (each.is_rfb, joined[-1][1] + each.data)
            else:
                joined.append((each.is_rfb, each.data))
    return joined


@given(st.lists(WHOLE | CONTROLS), st.randoms(use_true_random=False))
def test_whole_binary_messages_are_unmasked_and_the_rest_is_passed_on(
    frames: list[tuple[Opcode, bytes, bool]], source: random.Random
) -> None:
    sent = [(frame, serialize(frame)) for frame in frames]
    expected: list[tuple[bool, bytes]] = []
    for (opcode, data, _), raw in sent:
        is_rfb = opcode is Opcode.BINARY
        shown = data if is_rfb else raw
        if expected and expected[-1][0] == is_rfb:
            expected[-1] = (is_rfb, expected[-1][1] + shown)
        elif shown:
            expected.append((is_rfb, shown))
    assert split(cut_randomly(b"".join(raw for _, raw in sent), source, 40)) == expected


@given(st.lists(FRAGMENTS), st.randoms(use_true_random=False))
def test_fragments_are_for_the_library_to_the_last(
    frames: list[tuple[Opcode, bytes, bool]], source: random.Random
) -> None:
    first = serialize((Opcode.BINARY, b"begin", False))
    rest = [serialize((opcode, data, False)) for opcode, data, _ in frames]
    last = serialize((Opcode.CONT, b"end", True))
    raw = b"".join((first, *rest, last))
    after = serialize((Opcode.BINARY, b"whole", True))
    assert split(cut_randomly(raw + after, source, 40)) == [(False, raw), (True, b"whole")]


def test_whole_message_between_fragments_is_for_the_library_to_refuse() -> None:
    first = serialize((Opcode.BINARY, b"begin", False))
    whole = serialize((Opcode.BINARY, b"whole", True))
    assert split([first + whole]) == [(False, first + whole)]


def test_frames_that_are_too_long_or_not_masked_are_for_the_library() -> None:
    for raw in (
        serialize((Opcode.BINARY, bytes(LIMIT + 1), True)),
        serialize((Opcode.BINARY, b"clear", True), mask=False),
    ):
        assert split([raw]) == [(False, raw)]


def test_heads_are_those_of_the_library() -> None:
    for size in (0, 1, 125, 126, 65535, 65536, 1 << 18):
        data = bytes(size)
        assert make_head(size) + data == serialize((Opcode.BINARY, data, True), mask=False)


@given(st.binary(max_size=300), st.binary(min_size=4, max_size=4))
def test_mask_is_taken_off(data: bytes, mask: bytes) -> None:
    masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(data))
    assert unmask(memoryview(masked), mask) == data


@settings(max_examples=100_000 if SOAK else 300, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 200))
def test_any_stream_is_split_alike_however_it_is_cut(data: bytes, at: int) -> None:
    assert split([data]) == split([data[:at], data[at:]])
