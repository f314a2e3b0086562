"""Ganeti's configuration against Ceph's pools; the configuration here is cut from a real one."""

import json
from pathlib import Path

import pytest

from ext_storage_rados.audit import Disk, compare, parse_disks, read_disks
from ext_storage_rados.names import ImageName
from snf_ganeti.errors import InputError, NodeError

UUID = "6c5f37dc-7d51-4a66-a0c1-0d6a3b2f1c1d"


def make_config() -> str:
    def make_disk(driver: str, name: str, **params: str) -> dict[str, object]:
        return {"dev_type": "ext", "logical_id": [driver, name], "params": params}

    return json.dumps(
        {
            "instances": {"i1": {"name": "web", "disks": ["d1", "d2"]}},
            "disks": {
                "d1": make_disk("rados", f"{UUID}.ext.disk0", provider="rados"),
                "d2": make_disk("rados", f"{UUID}.ext.disk1", pool="fast", namespace="team"),
                "d3": make_disk("other", f"{UUID}.ext.disk2"),
                "d4": {"dev_type": "plain", "logical_id": ["vg", "lv"]},
            },
        }
    )


def test_disks_of_the_provider_are_found() -> None:
    assert parse_disks(make_config(), "ganeti", "") == [
        Disk(ImageName("ganeti", "", f"{UUID}.ext.disk0"), "web"),
        Disk(ImageName("fast", "team", f"{UUID}.ext.disk1"), "web"),
    ]


def test_both_ways() -> None:
    disks = parse_disks(make_config(), "ganeti", "")
    kept = disks[0].image
    orphan = ImageName("ganeti", "", "7c5f37dc-7d51-4a66-a0c1-0d6a3b2f1c1d.ext.disk0")
    not_ours = ImageName("ganeti", "", "backup")
    findings = compare(disks, [kept, orphan, not_ours])
    assert [disk.image for disk in findings.lost] == [disks[1].image]
    assert findings.orphans == (orphan,)


def test_what_is_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(NodeError, match="run this on the master"):
        read_disks(tmp_path / "config.data", "ganeti", "")
    (tmp_path / "config.data").write_text("[]")
    with pytest.raises(InputError, match="is not a configuration of Ganeti"):
        read_disks(tmp_path / "config.data", "ganeti", "")
