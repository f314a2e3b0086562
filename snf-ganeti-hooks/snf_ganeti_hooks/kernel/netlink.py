"""Changes that the kernel makes to interfaces, routes, neighbours and rules: rtnetlink(7).

Reading is left to `ip -json`. What a NIC needs is said here in some ten messages because the
alternatives cost more than all else: `ip` lists every interface before it names a neighbour, so
that each NIC takes longer than the one before, and pyroute2 0.7 takes 0.14 s to import and
knows no protocol of proxy entries, by which ours are found again.
"""

import contextlib
import os
import socket
import struct
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from snf_ganeti.errors import DeadlineError, NodeError

NEW_LINK, NEW_ROUTE, DELETE_ROUTE, NEW_NEIGHBOUR, DELETE_NEIGHBOUR = 16, 24, 25, 28, 29
NEW_RULE, DELETE_RULE = 32, 33
REPLACE, EXCLUSIVE, CREATE = 0x100, 0x200, 0x400

_HEAD = struct.Struct("=IHHII")
_REQUEST, _ACK = 0x1, 0x4
_ERROR = 2
_NETLINK, _CAP_ACK, _EXT_ACK = 270, 10, 11  # linux/netlink.h
_CAPPED, _HAS_REASON, _REASON = 0x100, 0x200, 1
_SECONDS = 10.0
_BUFFER = 1 << 16


@dataclass(frozen=True)
class Change:
    """One message. kind, flags: of its head; body: the rest. subject: what it is about, in
    words. harmless: errors that say that it is so already."""

    kind: int
    flags: int
    body: bytes
    subject: str
    harmless: Collection[int] = ()


def make_attributes(values: Iterable[tuple[int, bytes | int | str]]) -> bytes:
    """Pairs of type and value; a number is one of 32 bits, a text ends with a zero."""
    return b"".join(_make_attribute(kind, value) for kind, value in values)


def _make_attribute(kind: int, value: bytes | int | str) -> bytes:
    if isinstance(value, int):
        value = struct.pack("=I", value)
    elif isinstance(value, str):
        value = value.encode() + b"\0"
    padding = bytes(-len(value) % 4)
    return struct.pack("=HH", 4 + len(value), kind) + value + padding


def make(changes: Iterable[Change], *, force: bool = False) -> None:
    """Have the changes made in order, ending at the first that fails unless `force`.

    Raises NodeError, DeadlineError.
    """
    with _open_socket() as kernel:
        for number, change in enumerate(changes, 1):
            try:
                _make_one(kernel, number, change)
            except NodeError:
                if not force:
                    raise


@contextlib.contextmanager
def _open_socket() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as kernel:
        kernel.setsockopt(_NETLINK, _CAP_ACK, 1)
        kernel.setsockopt(_NETLINK, _EXT_ACK, 1)
        kernel.settimeout(_SECONDS)
        yield kernel


def _make_one(kernel: socket.socket, number: int, change: Change) -> None:
    length = _HEAD.size + len(change.body)
    head = _HEAD.pack(length, change.kind, _REQUEST | _ACK | change.flags, number, 0)
    try:
        kernel.send(head + change.body)
        code, reason = parse_answer(kernel.recv(_BUFFER))
    except TimeoutError:
        raise DeadlineError(f"the kernel's answer about {change.subject}", _SECONDS) from None
    except OSError as error:
        code, reason = error.errno or 0, ""
    if code and code not in change.harmless:
        raise NodeError(f"{change.subject} can't be set: {reason or os.strerror(code)}")


def parse_answer(data: bytes) -> tuple[int, str]:
    """The error of an answer, 0 for success, and the kernel's own words for it, or none."""
    _, kind, flags, _, _ = _HEAD.unpack_from(data)
    if kind != _ERROR:
        return 0, ""
    (code,) = struct.unpack_from("=i", data, _HEAD.size)
    at = _HEAD.size + 4
    (asked,) = struct.unpack_from("=I", data, at)
    at += _HEAD.size if flags & _CAPPED else asked + -asked % 4
    while flags & _HAS_REASON and at + 4 <= len(data):
        size, attribute = struct.unpack_from("=HH", data, at)
        if attribute == _REASON:
            return -code, data[at + 4 : at + size].rstrip(b"\0").decode("utf-8", "replace")
        at += max(4, size + -size % 4)
    return -code, ""
