"""Names reach Ceph's tools and QEMU's URIs: what either takes apart is refused."""

import pytest

from ext_storage_rados.names import ImageName, SnapshotName, parse_image, parse_snapshot
from snf_ganeti.errors import InputError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("debian12@golden", SnapshotName(ImageName("images", "ns", "debian12"), "golden")),
        ("vms/a@b", SnapshotName(ImageName("vms", "", "a"), "b")),
        ("vms/team/a@b", SnapshotName(ImageName("vms", "team", "a"), "b")),
    ],
)
def test_snapshots(text: str, expected: SnapshotName) -> None:
    assert parse_snapshot(text, pool="images", namespace="ns") == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("debian12", "names no snapshot; write"),
        ("a/b/c/d@e", "'a/b/c/d@e' names no snapshot; write"),
        ("@golden", "the image '' is not a name"),
        ("a@", "the snapshot '' is not a name"),
        ("a@b@c", "the snapshot 'b@c' is not a name"),
        ("a b@c", "the image 'a b' is not a name"),
        ("-a@c", "the image '-a' is not a name"),
        ("p:q/a@c", "the pool 'p:q' is not a name"),
        ("p//a@c", "the namespace '' is not a name"),
        ("a\n@c", "is not a name"),
        ("x" * 300 + "@c", "the image has 300 characters, and more than 95"),
    ],
)
def test_what_names_no_snapshot(text: str, reason: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_snapshot(text, pool="images")
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_name_reads_back() -> None:
    for text in ("p/i", "p/n/i"):
        assert str(parse_image(text, pool="other")) == text
