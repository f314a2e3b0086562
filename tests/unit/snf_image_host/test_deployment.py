"""What a deployment and a renaming come to, decided without touching anything."""

from dataclasses import replace
from typing import Any

import pytest

from snf_ganeti.errors import InputError
from snf_image_helper.protocol import Address, Nic, PersonalityFile
from snf_image_host import deployment, environ, renaming
from snf_image_host.image import ImageOrder
from snf_image_host.os_parameters.checksum import Checksum
from snf_image_host.os_parameters.parameters import Parameters
from snf_image_host.settings import Settings

MAC = "52:54:00:00:00:01"
INSTANCE = environ.Instance(
    name="web.example.org",
    disks=(environ.Disk(0, 1 << 30, path="/srv/a"), environ.Disk(1, 1 << 30, path="/srv/b")),
    nics=(
        environ.Nic(0, MAC, "bridged", ip="192.0.2.5", network_subnet="192.0.2.0/24"),
        environ.Nic(1, MAC, "bridged"),
    ),
)
PARAMETERS = Parameters(
    "debian",
    "qcow2",
    img_passwd="s3cr3t",
    img_properties={"USERS": "debian", "SWAP": "2:64"},
    inst_properties={"SWAP": "b"},
    img_personality=(PersonalityFile("/etc/motd", "eA=="),),
    auth_keys="ssh-ed25519 AAAA\n",
    img_checksum=Checksum("sha256", "00"),
)


def plan(
    instance: environ.Instance = INSTANCE, parameters: Parameters = PARAMETERS
) -> deployment.Plan:
    return deployment.make_plan(instance, parameters, Settings())


def test_a_plan_holds_all_that_was_asked_for() -> None:
    made = plan()
    assert made.order == ImageOrder("debian", "qcow2", Checksum("sha256", "00"))
    assert (made.disks, made.warnings) == (INSTANCE.disks, ())
    request = made.request
    assert request is not None
    assert (request.action, request.hostname, request.disk_count) == ("create", INSTANCE.name, 2)
    assert request.nics == (Nic(MAC, Address("192.0.2.5", 24), None), Nic(MAC, "dhcp", None))
    assert request.properties == {"USERS": "debian", "SWAP": "b"}
    assert (request.password, request.auth_keys) == ("s3cr3t", "ssh-ed25519 AAAA\n")
    assert request.personality == PARAMETERS.img_personality
    assert "s3cr3t" not in repr(made)


def test_without_any_task_there_is_nothing_to_ask_the_helper_for() -> None:
    excluded = replace(PARAMETERS, inst_properties={"EXCLUDE_ALL_TASKS": "perhaps"})
    made = plan(parameters=excluded)
    assert made.request is None
    assert made.warnings == ("property EXCLUDE_ALL_TASKS is neither yes nor no: it is a yes",)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"disks": ()}, "web.example.org has no disk; add one"),
        ({"name": "a_b"}, "'a_b' is not a host name"),
        ({"disks": (environ.Disk(0, 1, "ro", path="/x"),)}, "disk 0 is read-only"),
        ({"nics": (environ.Nic(0, "x", "bridged"),)}, "NIC 0: mac 'x' is not the address"),
    ],
)
def test_what_can_not_be_is_refused(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=f"^{reason}"):
        plan(replace(INSTANCE, **change))


def test_a_deployment_without_a_name_keeps_the_images() -> None:
    request = plan(replace(INSTANCE, name="")).request
    assert request is not None and request.hostname == ""


def test_what_this_version_does_not_do_is_refused() -> None:
    with pytest.raises(InputError, match="img_luks_key: this version does not support it"):
        plan(parameters=replace(PARAMETERS, img_luks_key="s3cr3t"))


def test_a_renaming_knows_both_names() -> None:
    renamed = replace(INSTANCE, old_name="old.example.org")
    request = renaming.make_plan(renamed, {"ROOT_PARTITION": "2"}).request
    assert request is not None
    assert (request.action, request.hostname) == ("rename", "web.example.org")
    assert (request.old_hostname, request.disk_count) == ("old.example.org", 2)
    assert request.properties == {"ROOT_PARTITION": "2"}


@pytest.mark.parametrize(
    "name", ["EXCLUDE_ALL_TASKS", "EXCLUDE_MOUNTED_TASKS", "EXCLUDE_TASK_ASSIGNHOSTNAME"]
)
def test_a_renaming_can_be_excluded(name: str) -> None:
    assert renaming.make_plan(INSTANCE, {name: "yes"}).request is None


def test_a_renaming_needs_a_name_and_a_disk() -> None:
    with pytest.raises(InputError, match="is not a host name"):
        renaming.make_plan(replace(INSTANCE, name="-"), {})
    with pytest.raises(InputError, match="has no disk"):
        renaming.make_plan(replace(INSTANCE, disks=()), {})
