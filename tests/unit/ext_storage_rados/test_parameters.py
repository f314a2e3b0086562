"""Disk parameters: the table, the provider's list, and what is refused."""

from pathlib import Path

import pytest

from ext_storage_rados.names import ImageName, SnapshotName
from ext_storage_rados.parameters import TABLE, make_list, parse_location, parse_parameters
from ext_storage_rados.settings import Settings
from snf_ganeti.errors import InputError

COMPONENT = Path(__file__).parents[3] / "ext-storage-rados"


def test_defaults_are_the_settings() -> None:
    settings = Settings(pool="p", namespace="n", user="u", qos_iops=7)
    parsed = parse_parameters({"provider": "rados", "access": "None"}, settings)
    assert (parsed.pool, parsed.namespace, parsed.user, parsed.qos_iops) == ("p", "n", "u", 7)
    assert (parsed.access, parsed.origin, parsed.reuse_data) == ("kernelspace", None, False)
    assert "exclusive-lock" in parsed.features


def test_each_parameter_is_parsed() -> None:
    parsed = parse_parameters(
        {
            "pool": "vms",
            "namespace": "team",
            "user": "someone",
            "access": "userspace",
            "origin": "debian12@golden",
            "reuse_data": "False",
            "features": "layering+exclusive-lock",
            "stripe_unit": "64K",
            "stripe_count": "4",
            "data_pool": "ec",
            "qos_iops": "500",
            "qos_bps": "10M",
            "origin_size": "1073741824",
        },
        Settings(),
    )
    assert parsed.origin == SnapshotName(ImageName("images", "", "debian12"), "golden")
    assert parsed.features == ("layering", "exclusive-lock")
    assert (parsed.stripe_unit, parsed.stripe_count) == (65536, 4)
    assert (parsed.qos_iops, parsed.qos_bps) == (500, 10 << 20)
    assert (parsed.pool, parsed.namespace, parsed.user) == ("vms", "team", "someone")
    assert (parsed.access, parsed.data_pool) == ("userspace", "ec")


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ({"orgin": "a@b"}, "the disk parameter orgin is not known; there are: pool, "),
        ({"pool": "a/b"}, "the disk parameter pool: it 'a/b' is not a name"),
        ({"access": "kernel"}, "access is 'kernel', not kernelspace or userspace"),
        ({"origin": "debian"}, "the disk parameter origin: 'debian' names no snapshot"),
        ({"reuse_data": "maybe"}, "reuse_data is 'maybe', not True or False"),
        ({"features": "magic"}, "features is 'magic', not some of layering, "),
        ({"features": "layering"}, "features lacks exclusive-lock"),
        ({"qos_iops": "-1"}, "qos_iops is '-1', not a whole number"),
        ({"qos_iops": "1e3"}, "qos_iops is '1e3', not a whole number"),
        ({"qos_bps": "fast"}, "qos_bps is 'fast', not bytes, or a number with"),
        ({"stripe_unit": "4096"}, "stripe_unit and stripe_count go together"),
        ({"origin": "a@b", "reuse_data": "True"}, "origin and reuse_data exclude each other"),
    ],
)
def test_what_is_refused(raw: dict[str, str], reason: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_parameters(raw, Settings())
    assert reason in str(caught.value)


def test_a_volume_is_found_whatever_else_it_was_given() -> None:
    raw = {"pool": "vms", "origin": "nonsense", "unknown": "x", "qos_iops": "many"}
    assert parse_location(raw, Settings()).pool == "vms"


def test_the_providers_list_is_the_table() -> None:
    assert (COMPONENT / "provider/parameters.list").read_text() == make_list()


def test_the_manual_has_each_parameter() -> None:
    page = (COMPONENT / "man/ext-storage-rados.7").read_text()
    section = page.partition(".SH PARAMETERS")[2].partition(".SH ")[0]
    documented = [
        line.split()[1].rstrip("=") for line in section.splitlines() if line.startswith(".BI ")
    ]
    assert documented == list(TABLE)
