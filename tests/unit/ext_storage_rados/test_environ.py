"""The environment of a script, as Ganeti 3.0 was seen to make it."""

import pytest

from ext_storage_rados.environ import Request, parse_request
from snf_ganeti.errors import SnfError

VOLUME = "a7b9b7a0-53c5-4ab0-b0f1-1f8f4b2c7b1e.ext.disk0"


def test_create() -> None:
    environ = {
        "VOL_NAME": VOLUME,
        "VOL_UUID": "a7b9",
        "VOL_SIZE": "10240",
        "EXTP_PROVIDER": "rados",
        "EXTP_ORIGIN": "debian12@golden",
        "EXTP_DATA-POOL": "ec",
        "PATH": "/bin",
    }
    assert parse_request(environ) == Request(
        volume=VOLUME,
        uuid="a7b9",
        size=10 << 30,
        parameters={"provider": "rados", "origin": "debian12@golden", "data_pool": "ec"},
    )


def test_the_others() -> None:
    base = {"VOL_NAME": VOLUME}
    assert parse_request({**base, "VOL_SIZE": "1", "VOL_NEW_SIZE": "2"}).new_size == 2 << 20
    assert parse_request({**base, "VOL_OPEN_EXCLUSIVE": "False"}).exclusive is False
    assert parse_request({**base, "VOL_OPEN_EXCLUSIVE": "True"}).exclusive is True
    taken = parse_request({**base, "VOL_SNAPSHOT_NAME": "v.snap", "VOL_SNAPSHOT_SIZE": "5"})
    assert (taken.snapshot, taken.size) == ("v.snap", 5 << 20)


@pytest.mark.parametrize(
    ("environ", "reason"),
    [
        ({}, "VOL_NAME is not set in the environment; Ganeti runs this script"),
        ({"VOL_NAME": "a/b"}, "the volume 'a/b' is not a name"),
        ({"VOL_NAME": "v", "VOL_SIZE": "1.5"}, "VOL_SIZE is '1.5', and not a whole number of MiB"),
        ({"VOL_NAME": "v", "VOL_SNAPSHOT_NAME": "v@s"}, "the snapshot 'v@s' is not a name"),
    ],
)
def test_what_ganeti_never_sends(environ: dict[str, str], reason: str) -> None:
    with pytest.raises(SnfError) as caught:
        parse_request(environ)
    assert reason in str(caught.value)
