"""Which system gets the NICs, and what becomes of the others."""

from pathlib import Path

import pytest

from snf_image_helper.guest import Guest
from snf_image_helper.protocol import Nic, Request
from snf_image_helper.task import Context, Skip, TaskFailed
from snf_image_helper.tasks.configure_network import TASK
from snf_image_helper.tree import Tree
from unit.snf_image_helper.nics import CELLS

WANTS = "etc/systemd/system/multi-user.target.wants"
SIGNS = {
    "netplan": ("usr/sbin/netplan", "etc/netplan/50-cloud-init.yaml"),
    "network_manager": (f"{WANTS}/NetworkManager.service",),
    "networkd": (
        f"{WANTS}/systemd-networkd.service",
        "lib/systemd/system/systemd-networkd.service",
    ),
    "ifupdown": ("sbin/ifup", "lib/udev/ifupdown-hotplug", "sbin/dhclient"),
    "idle networkd": ("lib/systemd/system/systemd-networkd.service",),
}
FILES = {
    "netplan": "etc/netplan/60-nics.yaml",
    "network_manager": "etc/NetworkManager/system-connections/nic0.nmconnection",
    "networkd": "etc/systemd/network/10-nic0.network",
    "ifupdown": "etc/network/interfaces",
    "idle networkd": "etc/systemd/network/10-nic0.network",
}


def configure(root: Path, *names: str, nics: tuple[Nic, ...] = CELLS["dhcp"]) -> None:
    for name in names:
        for sign in SIGNS[name]:
            (root / sign).parent.mkdir(parents=True, exist_ok=True)
            (root / sign).touch()
    request = Request("create", "guest", 1, nics=nics)
    guest = Guest(Tree(str(root)), "linux", {"PRETTY_NAME": "Plan 9"})
    TASK.run(Context(request, [], lambda message: None, guest))


@pytest.mark.parametrize("name", SIGNS)
def test_the_system_that_the_guest_uses_gets_the_nics(name: str, tmp_path: Path) -> None:
    configure(tmp_path, name)
    written = {path for path in FILES.values() if (tmp_path / path).exists()}
    assert written == {FILES[name]}
    private = name in ("netplan", "network_manager")
    assert (tmp_path / FILES[name]).stat().st_mode & 0o777 == (0o600 if private else 0o644)


@pytest.mark.parametrize(
    ("chosen", "other"),
    [("netplan", "networkd"), ("network_manager", "ifupdown"), ("networkd", "ifupdown"),
     ("ifupdown", "idle networkd")],
)  # fmt: skip
def test_the_first_of_several_is_chosen(chosen: str, other: str, tmp_path: Path) -> None:
    configure(tmp_path, chosen, other)
    assert (tmp_path / FILES[chosen]).exists()
    assert not (tmp_path / FILES[other]).exists()


def test_those_not_chosen_let_go_of_nics(tmp_path: Path) -> None:
    (tmp_path / "etc/network").mkdir(parents=True)
    (tmp_path / "etc/network/interfaces").write_text("auto lo ens3\niface ens3 inet dhcp\n")
    configure(tmp_path, "networkd", "ifupdown")
    assert (tmp_path / "etc/network/interfaces").read_text() == "auto lo\n"


def test_cloud_init_is_told_to_leave_the_network(tmp_path: Path) -> None:
    (tmp_path / "etc/cloud/cloud.cfg.d").mkdir(parents=True)
    configure(tmp_path, "networkd")
    (config,) = (tmp_path / "etc/cloud/cloud.cfg.d").iterdir()
    assert config.read_text() == "network: {config: disabled}\n"


def test_without_nics_there_is_nothing_to_do(tmp_path: Path) -> None:
    for nics in ((), CELLS["nothing to do"]):
        with pytest.raises(Skip):
            configure(tmp_path, nics=nics)


def test_an_unknown_guest_is_a_failure_with_a_way_out(tmp_path: Path) -> None:
    with pytest.raises(TaskFailed, match=r"Plan 9.*netplan.*EXCLUDE_TASK_CONFIGURENETWORK"):
        configure(tmp_path)


def test_nothing_is_written_when_a_plan_fails(tmp_path: Path) -> None:
    (tmp_path / "etc/systemd/network").mkdir(parents=True)
    (tmp_path / "etc/systemd/network/a.network").write_bytes(b"x" * (5 << 20))
    with pytest.raises(Exception, match=r"a\.network is larger"):
        configure(tmp_path, "netplan", "networkd")
    assert not (tmp_path / FILES["netplan"]).exists()
