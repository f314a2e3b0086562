"""`snf-image check` and `build-helper` on a node. Needs root."""

import filecmp
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed import appliance
from testbed.bed import Bed
from testbed.deployed import SETTINGS
from testbed.machine import Bind
from testbed.snf_image import SITE, Node

HELPER = "/var/lib/snf-image/helper"
CHECKS = [
    *("settings", "user", "limits", "tools", "images", "spool", "cache", "memory"),
    *("appliance", "state", "helper"),
]


@pytest.fixture
def site(node: Node) -> Iterator[Node]:
    """The node; its settings are as they were again afterwards."""
    yield node
    node.machine.write(SETTINGS, SITE)


def check(node: Node) -> tuple[dict[str, dict[str, str]], str]:
    """Every finding by its name, and what was printed last."""
    done = node.machine.run("snf-image", "check", "--json", timeout=300, ok=range(256))
    document = json.loads(done.text)
    assert (document["status"] == "ok") == (done.status == 0)
    findings = {each["name"]: each for each in document["checks"]}
    return findings, (done.stderr.splitlines() or [""])[-1]


@pytest.mark.usefixtures("nothing_is_left")
def test_a_node_that_is_able_says_so(node: Node) -> None:
    findings, last = check(node)
    assert list(findings) == CHECKS
    assert not any(each["reason"] for each in findings.values()), findings
    assert "under tcg" in findings["helper"]["detail"]
    assert findings["limits"]["detail"] == "of each process alone: cgroup v2 is not mounted"
    assert findings["cache"]["detail"] == "/var/cache/snf-image, 0 images, 0 of 10240 MiB"
    assert last == ""


@pytest.mark.parametrize(
    ("lines", "name", "reason"),
    [
        ('helper_dir = "/srv/work"\n', "appliance", "no helper appliance was built; run: snf-ima"),
        ("helper_uids = [0, 5]\n", "settings", "helper_uids must be 65536 to 2147483647, not 0"),
        (
            "helper_uids = [90001, 90000]\n",
            "settings",
            "helper_uids must be the first and the last",
        ),
        ('spool_dir = "/absent"\n', "spool", "spool_dir /absent can't be used: No such file"),
        ("helper_memory = 1000000\n", "memory", "the helper takes 1000200"),
        ("helper_ram = 5\n", "settings", "unknown key helper_ram"),
        ('helper_memory = "1"\n', "settings", "helper_memory must be an integer"),
    ],
)
def test_a_node_that_is_not_able_says_why(site: Node, lines: str, name: str, reason: str) -> None:
    quick = "helper_boot_timeout = 0.1\n"  # this is not about its boot
    site.machine.write(SETTINGS, SITE + quick + lines)
    findings, last = check(site)
    assert reason in findings[name]["reason"]
    assert last == f"error: this node is not able to deploy: {name}: {findings[name]['reason']}"


def test_a_user_id_that_is_an_accounts_is_found(site: Node) -> None:
    site.machine.run("useradd", "--uid=70000", "tenant")
    quick = "helper_boot_timeout = 0.1\n"
    site.machine.write(SETTINGS, SITE + quick + "helper_uids = [70000, 70000]\n")
    try:
        findings, _ = check(site)
    finally:
        site.machine.run("userdel", "tenant")
    assert findings["user"]["reason"].startswith("the user id 70000 is tenant's; set helper_uids")


def test_files_that_are_not_what_was_built_are_found(site: Node) -> None:
    site.machine.run("cp", "--recursive", HELPER, "/run/helper")
    change = ("if=/dev/zero", "of=/run/helper/current/initrd", "bs=1", "count=1", "conv=notrunc")
    site.machine.run("dd", *change)
    lines = 'helper_dir = "/run/helper"\nhelper_boot_timeout = 0.1\n'
    site.machine.write(SETTINGS, SITE + lines)
    findings, _ = check(site)
    site.machine.run("rm", "--recursive", "/run/helper")
    assert (
        "initrd differs from what was built; run: snf-image build-helper"
        in (findings["appliance"]["reason"])
    )


def test_the_same_packages_give_the_same_bytes(bed: Bed, node: Node, tmp_path: Path) -> None:
    """The tests' appliance may be older than the mirror's packages: then two new ones are made."""
    first = build(bed, tmp_path / "first")
    second = appliance.FOLDER / "current"
    if read_packages(first) != read_packages(second):
        second = build(bed, tmp_path / "second")
    for name in ("manifest.json", "kernel", "initrd", "boot-prefix.img"):
        assert filecmp.cmp(first / name, second / name, shallow=False), name
    left = {path.name for path in first.parent.iterdir()}
    assert left == {".lock", "current", first.resolve().name}


def build(bed: Bed, folder: Path) -> Path:
    folder.mkdir()
    with bed.build_machine("again", (Bind(folder, HELPER, writable=True),)).powered() as machine:
        machine.run("snf-image", "build-helper", timeout=900)
    return folder / "current"


def read_packages(folder: Path) -> object:
    return json.loads((folder / "manifest.json").read_text())["packages"]
