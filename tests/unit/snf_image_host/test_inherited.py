"""Properties of a cloned disk, as a command that stands for the storage's tells them."""

from dataclasses import replace
from pathlib import Path

import pytest

from snf_ganeti.errors import InputError
from snf_image_host.environ import Disk
from snf_image_host.inherited import complete
from snf_image_host.os_parameters.parameters import Parameters

DISK = Disk(0, 1 << 30, path="/dev/loop3")
CLONED = Parameters(img_id="null", img_format="diskdump")


def make_program(tmp_path: Path, script: str) -> Path:
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return program


@pytest.mark.spawn
def test_a_clone_inherits(tmp_path: Path) -> None:
    program = make_program(
        tmp_path,
        '[ "$*" = "show --json --volume /dev/loop3" ] || exit 1\n'
        """echo '{"name": "v", "origin": "images/debian12@golden",'\n"""
        """echo ' "properties": {"OSFAMILY": "linux", "USERS": "root"}}'""",
    )
    inherited = {"OSFAMILY": "linux", "USERS": "root"}
    assert complete(CLONED, DISK, program).properties == inherited

    named = replace(CLONED, img_id="rbd:images/debian12@golden")
    assert complete(named, DISK, program) == replace(CLONED, img_properties=inherited)
    other = replace(CLONED, img_id="rbd:images/other@golden")
    assert complete(other, DISK, program) is other
    given = replace(named, img_properties={"USERS": "me"})
    assert complete(given, DISK, program) == replace(given, img_id="null")


@pytest.mark.spawn
def test_what_the_user_gave_stays(tmp_path: Path) -> None:
    program = make_program(tmp_path, "exit 1")
    given = Parameters("null", "diskdump", img_properties={"USERS": "me"})
    copied = Parameters("debian", "diskdump")
    assert complete(given, DISK, program) is given
    assert complete(copied, DISK, program) is copied


@pytest.mark.spawn
def test_other_storages_add_nothing(tmp_path: Path) -> None:
    assert complete(CLONED, DISK, tmp_path / "absent") is CLONED
    assert complete(CLONED, DISK, make_program(tmp_path, "exit 2")) is CLONED


@pytest.mark.spawn
def test_properties_that_can_not_be_used(tmp_path: Path) -> None:
    for text in ("[]", "no JSON", '{"origin": "", "properties": {"A": []}}'):
        with pytest.raises(InputError, match="the properties of disk 0's image can't be used"):
            complete(CLONED, DISK, make_program(tmp_path, f"echo '{text}'"))
