"""The filter of client messages, against a list of messages cut in any way."""

import os
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.cutting import cut_randomly
from vncauthproxy.protocol.client_messages import CLIPBOARD_LIMIT, ClientMessages, Kind
from vncauthproxy.protocol.rfb import ProtocolError

SOAK = bool(os.environ.get("SNF_SOAK"))
SHOWN = {
    "SetPixelFormat": b"\0\0\0\0" + bytes(16),
    "SetEncodings": b"\2\0\0\3" + b"\0\0\0\1\4\4\4\4\6\6\6\6",
    "FramebufferUpdateRequest": b"\3\1" + bytes(8),
    "EnableContinuousUpdates": b"\x96\1" + bytes(8),
    "Fence": b"\xf8\0\0\0" + b"\0\0\0\1" + b"\5hello",
    "QEMU audio": b"\xff\1\0\0",
    "QEMU audio format": b"\xff\1\0\2" + bytes(6),
}
TYPED = {
    "KeyEvent": b"\4\1\0\0\0\0\0\x61",
    "PointerEvent": b"\5\1\0\1\0\1",
    "QEMU key": b"\xff\0\0\1\0\0\0\x61\0\0\0\x1e",
    "gii": b"\xfc\x80\0\3abc",
    "gii, little endian": b"\xfc\0\3\0abc",
}
CUT = {
    "ClientCutText": b"\6\0\0\0\0\0\0\6hello\4",
    "extended clipboard": b"\6\0\0\0\xff\xff\xff\xfa\1\0\0\0ab",
}
CONTROL = {"xvp": b"\xfa\0\1\2", "SetDesktopSize": b"\xfb\0\4\0\3\0\1\0" + bytes(16)}
ALL = {**SHOWN, **TYPED, **CUT, **CONTROL}
MESSAGES = st.lists(st.sampled_from(sorted(ALL)), max_size=30)


@given(MESSAGES, st.booleans(), st.booleans(), st.randoms(use_true_random=False))
def test_what_passes_is_what_the_rules_let_pass(
    names: list[str], view_only: bool, clipboard: bool, source: random.Random
) -> None:
    messages = ClientMessages(view_only=view_only, clipboard=clipboard)
    passed = b"".join(
        messages.receive(piece)
        for piece in cut_randomly(b"".join(ALL[name] for name in names), source, 9)
    )
    allowed = {**SHOWN, **({} if view_only else {**TYPED, **CONTROL, **(CUT if clipboard else {})})}
    whole = b"".join(ALL[name] for name in names if name in allowed)
    # The head of a message is held back until it is whole, and every message here is.
    assert passed == whole
    assert messages.inputs == sum(name in TYPED for name in names)


def test_nothing_is_copied_when_nothing_is_kept_back() -> None:
    data = b"".join(ALL.values())
    assert ClientMessages().receive(data) == data


@given(st.integers(0, 40), st.randoms(use_true_random=False))
def test_server_is_not_asked_for_its_clipboard_where_that_is_forbidden(
    count: int, source: random.Random
) -> None:
    """The extension is taken out of the list of encodings, wherever it stands."""
    clipboard = bytes.fromhex("c0a1e5ce")
    listed = [source.choice([clipboard, b"\0\0\0\1", b"\xff\xff\xff\x11"]) for _ in range(count)]
    wanted = [encoding for encoding in listed if encoding != clipboard]

    def make(encodings: list[bytes]) -> bytes:
        return b"\2\0" + len(encodings).to_bytes(2, "big") + b"".join(encodings)

    key = TYPED["KeyEvent"]
    sent = cut_randomly(key + make(listed) + key, source, 9)
    messages = ClientMessages(clipboard=False)
    assert b"".join(map(messages.receive, sent)) == key + make(wanted) + key
    assert ClientMessages().receive(make(listed)) == make(listed)


def test_list_of_encodings_without_end_is_kept_by_nobody() -> None:
    with pytest.raises(ProtocolError, match="encodings of 262144 bytes"):
        ClientMessages(clipboard=False).receive(b"\2\0\xff\xff")


def test_rule_changes_with_the_next_message() -> None:
    messages = ClientMessages()
    key = TYPED["KeyEvent"]
    assert messages.receive(CUT["ClientCutText"][:10]) == CUT["ClientCutText"][:10]
    messages.view_only = True
    assert messages.receive(CUT["ClientCutText"][10:] + key) == CUT["ClientCutText"][10:]
    messages.view_only = False
    assert messages.receive(key) == key


def test_long_clipboard_passes_in_pieces() -> None:
    size = CLIPBOARD_LIMIT - 8
    messages = ClientMessages()
    head = b"\6\0\0\0" + size.to_bytes(4, "big")
    assert messages.receive(head + b"x") == head + b"x"
    rest = b"x" * (size - 1)
    for at in range(0, len(rest), 65536):
        assert messages.receive(rest[at : at + 65536]) == rest[at : at + 65536]
    assert messages.receive(TYPED["KeyEvent"]) == TYPED["KeyEvent"]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x4d", "unknown type 77"),
        (b"\1", "unknown type 1"),
        (b"\xff\2\0\0", "unknown type ff020000"),
        (b"\xff\1\0\7", "unknown type ff010007"),
        (b"\6\0\0\0\x40\0\0\0", "clipboard of 1073741832 bytes"),
        (b"\6\0\0\0\x80\0\0\0", "clipboard of 2147483656 bytes"),
    ],
)
def test_what_can_not_be_told_apart_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(ProtocolError, match=reason):
        ClientMessages().receive(data)


@settings(max_examples=100_000 if SOAK else 300, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 200), st.booleans(), st.booleans())
def test_any_stream_passes_or_is_refused_however_it_is_cut(
    data: bytes, at: int, view_only: bool, clipboard: bool
) -> None:
    outcomes = []
    for pieces in ((data,), (data[:at], data[at:])):
        messages = ClientMessages(view_only=view_only, clipboard=clipboard)
        try:
            outcomes.append(b"".join(map(messages.receive, pieces)))
        except ProtocolError as error:
            outcomes.append(str(error).encode())
    assert outcomes[0] == outcomes[1]


def test_every_kind_has_a_message() -> None:
    assert {Kind.DISPLAY, Kind.INPUT, Kind.CLIPBOARD, Kind.CONTROL} == set(Kind)
