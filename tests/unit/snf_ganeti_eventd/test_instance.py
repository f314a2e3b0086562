"""An instance's details, from what LUXI says."""

import asyncio
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from snf_ganeti_eventd.messages.instance import (
    FIELDS,
    Inspector,
    InstanceError,
    find_profile,
    make_details,
)

ROW: Mapping[str, Any] = {
    "name": "snf-7",
    "tags": ["synnefo:network:snf-nic-3:limited", "other"],
    "hvparams": {
        "boot_order": "disk",
        "cdrom_image_path": "http://u:p@h/a.iso",
        "kernel_args": "s",
    },
    "nic.names": ["snf-nic-3", None],
    "nic.uuids": ["u-1", "u-2"],
    "nic.networks.names": ["snf-net-2", None],
    "nic.ips": ["192.0.2.9", None],
    "nic.macs": ["aa:00:00:11:22:33", "aa:00:00:11:22:34"],
    "nic.modes": ["bridged", "routed"],
    "nic.links": ["br0", "rt"],
    "disk.names": ["snf-vol-5"],
    "disk.uuids": ["d-1"],
    "disk.sizes": [10240],
}


def test_details_are_the_predecessors() -> None:
    assert set(ROW) == set(FIELDS)
    details = make_details(ROW)
    assert details["instance_nics"] == [
        {"name": "snf-nic-3", "network": "snf-net-2", "ip": "192.0.2.9",
         "mac": "aa:00:00:11:22:33", "mode": "bridged", "link": "br0", "uuid": "u-1",
         "firewall": "limited"},
        {"name": None, "network": None, "ip": None, "mac": "aa:00:00:11:22:34",
         "mode": "routed", "link": "rt", "uuid": "u-2"},
    ]  # fmt: skip
    assert details["instance_disks"] == [{"name": "snf-vol-5", "size": 10240, "uuid": "d-1"}]
    assert details["instance_hvparams"] == {
        "boot_order": "disk",
        "cdrom_image_path": "http://h/a.iso",
    }


def test_what_luxi_does_not_know_is_left_out() -> None:
    details = make_details({**dict.fromkeys(FIELDS), "name": "snf-7"})
    assert details["instance_nics"] == details["instance_disks"] == []


@pytest.mark.parametrize(
    ("tags", "profile"),
    [
        ((), None),
        (("synnefo:network:0:protected",), "protected"),
        (("synnefo:network:0:protected", "synnefo:network:eth:limited"), "limited"),
        (("synnefo:network:eth:limited", "synnefo:network:u-1:unprotected"), "unprotected"),
        (("synnefo:network:1:limited", "limited", "synnefo:network:0:odd"), None),
    ],
)
def test_the_most_specific_tag_wins(tags: Sequence[str], profile: str | None) -> None:
    assert find_profile(tags, 0, "eth", "u-1") == profile


def test_a_silent_ganeti_is_not_asked_for_a_while(caplog: pytest.LogCaptureFixture) -> None:
    asked: list[Sequence[str]] = []

    def query(names: Sequence[str]) -> list[Mapping[str, Any]]:
        asked.append(names)
        raise InstanceError("no socket")

    inspector = Inspector(query, 5)

    async def inspect() -> None:
        assert await inspector.inspect(["a"]) == {}
        assert await inspector.inspect(["b", "c"]) == {}

    asyncio.run(inspect())
    assert (asked, inspector.failures) == ([["a"]], 3)
    assert caplog.text.count("LUXI: no socket") == 1


def test_ganeti_is_not_waited_for_longer_than_allowed() -> None:
    is_given_up = threading.Event()

    def query(names: Sequence[str]) -> list[Mapping[str, Any]]:
        is_given_up.wait()
        return [ROW]

    async def give_up() -> None:
        assert await Inspector(query, 0.05).inspect(["snf-7"]) == {}
        is_given_up.set()

    asyncio.run(give_up())
    slow = Inspector(query, 30)
    assert list(asyncio.run(slow.inspect(["snf-7"]))) == ["snf-7"]
