"""What scripts and the service say to each other, and what the kernel says to both."""

import os
import socket
import struct
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from snf_ganeti_hooks import request
from snf_ganeti_hooks.kernel import netlink
from snf_ganeti_hooks.kernel.uplinks import is_relevant

COMPONENT = Path(__file__).parents[3] / "snf-ganeti-hooks"
ENVIRON = [(b"INTERFACE", b"tap0"), (b"TAGS", b"a=b \xff"), (b"IP", b"")]


def test_a_request_is_what_it_was_made_from() -> None:
    parsed = request.parse_request(request.make_request(ENVIRON))
    assert [(os.fsencode(name), os.fsencode(value)) for name, value in parsed.items()] == ENVIRON


@pytest.mark.parametrize("data", [b"", b"A=1", b"A=1\0" + b"x" * request.LIMIT + b"\0"])
def test_a_request_that_was_cut_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="cut off"):
        request.parse_request(data)


def test_an_answer_is_bounded() -> None:
    assert request.make_answer(4, ["one", "error: two"]) == b"\x04one\nerror: two\n"
    assert len(request.make_answer(0, ["x" * request.LIMIT])) == request.LIMIT


def test_no_answer_is_none(tmp_path: Path) -> None:
    """Nobody listens; or who does goes away."""
    path = str(tmp_path / "socket")
    assert request.ask(b"A=1\0", path) is None
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(path)
        listener.listen()
        thread = threading.Thread(target=lambda: listener.accept()[0].close())
        thread.start()
        assert request.ask(b"A=1\0", path) is None
        thread.join()
        assert request.ask(b"x" * (8 << 20), path) is None  # more than a packet holds


@pytest.mark.spawn
def test_a_script_imports_nothing_of_size() -> None:
    code = f"import sys; sys.path.append({str(COMPONENT)!r}); import snf_ganeti_hooks.request"
    code += "; print(*sys.modules)"
    shown = subprocess.run([sys.executable, "-ISc", code], capture_output=True, check=True)
    assert not {"json", "re", "socket", "typing", "collections", "pathlib", "logging"} & {
        *shown.stdout.decode().split()
    }


def make_message(kind: int, body: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 1, 0) + body


ROUTE, LINK = 24, 16
DEFAULT = make_message(ROUTE, struct.pack("=BBBBBBBBI", 2, 0, 0, 0, 0, 0, 0, 0, 0))
HOST = make_message(ROUTE, struct.pack("=BBBBBBBBI", 2, 32, 0, 0, 0, 0, 0, 0, 0))
TAP = make_message(LINK, struct.pack("=BxHiII", 0, 1, 7, 0, 0))
UPLINK = make_message(LINK, struct.pack("=BxHiII", 0, 1, 3, 0, 0))


@pytest.mark.parametrize(
    ("data", "relevant"),
    [
        (DEFAULT, True),
        (HOST, False),
        (TAP, False),
        (UPLINK, True),
        (HOST + TAP + DEFAULT, True),
        (HOST + TAP, False),
        (b"", False),
        (b"\0" * 64, False),
    ],
)
def test_only_default_routes_and_uplinks_count(data: bytes, relevant: bool) -> None:
    assert is_relevant(data, frozenset({3})) is relevant


def test_the_kernels_own_words_are_given() -> None:
    capped = struct.pack("=IHHII", 0, 2, 0x300, 1, 0) + struct.pack("=i", -22) + bytes(16)
    reason = b"Invalid prefix\0"
    attribute = struct.pack("=HH", 4 + len(reason), 1) + reason + b"\0"
    assert netlink.parse_answer(capped + attribute) == (22, "Invalid prefix")
    assert netlink.parse_answer(struct.pack("=IHHIIi", 0, 2, 0x100, 1, 0, 0) + bytes(16)) == (0, "")
