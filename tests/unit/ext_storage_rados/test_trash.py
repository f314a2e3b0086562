"""The trash of a pool, as Ceph 16 keeps it; removing itself is tested on a real cluster."""

import pytest

from ext_storage_rados.trash import Entry, make_state_request, parse_entry

TIMES = bytes(16)


def make_spec(source: int, name: bytes, state: bytes) -> bytes:
    body = bytes([source]) + len(name).to_bytes(4, "little") + name + TIMES + state
    return bytes([1 + len(state), 1]) + len(body).to_bytes(4, "little") + body


@pytest.mark.parametrize(
    ("value", "entry"),
    [
        (make_spec(0, b"of-a-user", b"\0"), Entry("10a", "of-a-user", False, False)),
        (make_spec(4, b"debian12", b"\0"), Entry("10a", "debian12", True, False)),
        (make_spec(4, b"debian12", b"\1"), Entry("10a", "debian12", True, True)),
        (make_spec(3, b"old", b""), Entry("10a", "old", False, False)),
    ],
)
def test_entry_says_what_is_done_and_why(value: bytes, entry: Entry) -> None:
    assert parse_entry("10a", value) == entry


def test_state_is_set_where_it_is_another() -> None:
    assert make_state_request("10ab") == b"\4\0\0\0" + b"10ab" + b"\0\1"
