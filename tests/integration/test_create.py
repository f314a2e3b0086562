"""Ganeti deploys real Debian images, and their owners log in. Needs root.

What is asserted is what a running guest says over SSH, what e2fsprogs reads of a disk that is
off, and what Ganeti and the node themselves list.
"""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed import images
from testbed.deployed import (
    PASSWORD,
    PASSWORD_HASH,
    Deployed,
    Personality,
    make_key,
)
from testbed.ganeti import Cluster, find_disk
from testbed.images import RECIPES, Recipe
from testbed.ssh import Host, Login, log_in

pytestmark = pytest.mark.usefixtures("root")

BOOT_SECONDS = 900.0
GIB = 1 << 30
BOOKWORM = RECIPES["bookworm-mbr-ext4"]
TRIXIE = RECIPES["trixie-gpt-ext4"]
GREETING = Personality("/srv/greeting/hello.txt", b"hello \xff\n", owner="debian", mode="0640")


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_key(tmp_path_factory.mktemp("owner") / "key")


@pytest.fixture(scope="module")
def instances(deployer: Cluster, key: Path) -> Iterator[dict[str, Deployed]]:
    """Two instances, added one after the other, then booting at the same time."""
    web = Deployed(
        name="web.bed.test",
        image=images.build(BOOKWORM).name,
        address="10.78.0.61",
        key=key,
        personality=(GREETING,),
        secrets={"img_passwd_hash": PASSWORD_HASH},
    )
    database = Deployed(
        name="db.bed.test",
        image=images.build_form(TRIXIE, "qcow2").name,
        format="qcow2",
        address="10.78.0.62",
        disks=("4G", "64M"),
        key=key,
        parameters={"img_properties": '{"swap": "b", "users": "root debian"}'},
        secrets={"img_passwd": PASSWORD},
    )
    with contextlib.ExitStack() as stack:
        for each in (web, database):
            stack.callback(deployer.remove_instance, each.name)
            deployer.add_instance(each.name, *each.make_options())
        yield {"web": web, "database": database}


@contextlib.contextmanager
def logged_in(cluster: Cluster, host: Host) -> Iterator[Login]:
    with log_in(cluster.bed.wire, host, BOOT_SECONDS) as login:
        yield login


def read_image(recipe: Recipe, path: str) -> str:
    return read_disk(images.build(recipe), recipe, path)


def read_disk(disk: Path, recipe: Recipe, path: str) -> str:
    """A file of an ext4 root, read by debugfs from the disk."""
    start = images.find_root(recipe.layout).start
    argv = ["debugfs", "-R", f"cat {path}", f"{disk}?offset={start}"]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def test_the_owner_logs_in_and_finds_what_was_asked_for(
    deployer: Cluster, instances: dict[str, Deployed]
) -> None:
    with logged_in(deployer, instances["web"].host) as login:
        assert login.run("hostname").strip() == "web.bed.test"
        assert login.run("hostname --fqdn").strip() == "web.bed.test"
        size = int(login.run("findmnt --noheadings --bytes --output SIZE /"))
        assert size > 2.7 * GIB
        assert login.run("cat /etc/machine-id").strip() != BOOKWORM.machine_id
        address = login.run("ip -4 -brief address show scope global")
        assert f" {instances['web'].address}/24" in address
        assert "default via 10.78.0.1 " in login.run("ip route")
        assert login.run(f"stat --format '%U %a' {GREETING.path}").strip() == "debian 640"
        assert login.client.open_sftp().open(GREETING.path).read() == GREETING.contents
        assert login.run("getent shadow root").split(":")[1] == PASSWORD_HASH
        assert login.run("systemctl is-system-running --wait").strip() == "running"
        shown = f"{login.host_key.kind} {login.host_key.key}"
    assert shown not in read_image(BOOKWORM, "/etc/ssh/ssh_host_ed25519_key.pub")


def test_a_qcow2_image_with_swap_and_a_user_who_logs_in_by_password(
    deployer: Cluster, instances: dict[str, Deployed]
) -> None:
    database = instances["database"]
    with logged_in(deployer, database.host) as login:
        assert login.run("hostname").strip() == "db.bed.test"
        assert int(login.run("findmnt --noheadings --bytes --output SIZE /")) > 3.6 * GIB
        assert login.run("swapon --noheadings --show=NAME").strip() == "/dev/vdb"
        assert login.run("cat /etc/machine-id").strip() != TRIXIE.machine_id
        address = login.run("ip -4 -brief address show scope global")
        assert f" {database.address}/24" in address
        hashed = login.run("getent shadow debian").split(":")[1]
        assert hashed.startswith("$6$")
    with logged_in(deployer, Host(database.address, user="debian", password=PASSWORD)) as login:
        assert login.run("id --user --name").strip() == "debian"


def test_reinstall_makes_a_new_machine(deployer: Cluster, instances: dict[str, Deployed]) -> None:
    database = instances["database"]
    deployer.run("gnt-instance", "shutdown", "--timeout=1", database.name)
    disk = find_disk(deployer, database.name)
    before = read_disk(disk, TRIXIE, "/etc/machine-id")
    secret = f"--os-parameters-secret=img_passwd={PASSWORD}"
    deployer.run("gnt-instance", "reinstall", "--force", secret, database.name)
    after = read_disk(disk, TRIXIE, "/etc/machine-id")
    assert after != before
    assert len(after.strip()) == 32
    assert read_disk(disk, TRIXIE, "/etc/hostname") == f"{database.name}\n"
