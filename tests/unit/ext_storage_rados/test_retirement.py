"""The trash of a pool, as Ceph 16 keeps it; removing itself is tested on a real cluster."""

from ext_storage_rados.images.retirement import find_parents

TIMES = bytes(16)


def make_spec(source: int, name: bytes) -> bytes:
    body = bytes([source]) + len(name).to_bytes(4, "little") + name + TIMES
    return b"\x01\x01" + len(body).to_bytes(4, "little") + body


def test_only_what_had_clones_is_a_parent() -> None:
    trash = {"10a": make_spec(0, b"of-a-user"), "10b": make_spec(4, b"debian12")}
    assert find_parents(trash) == [("10b", "debian12")]
    assert find_parents({}) == []
