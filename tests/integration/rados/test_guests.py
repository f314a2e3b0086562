"""Instances whose disks are clones of a golden Debian, booted and logged in to. Needs root.

What is asserted is what the guests say over SSH, and what Ceph's own `rbd` tells.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import replace

import pytest

from testbed import images
from testbed.ceph import Ceph
from testbed.deadline import wait_for
from testbed.deployed import IMAGES as IMAGE_FILES
from testbed.deployed import Deployed, make_key
from testbed.ganeti import Cluster
from testbed.images import RECIPES
from testbed.machine import Machine
from testbed.ssh import Login, log_in
from testbed.volumes import (
    MEBIBYTE,
    find_volume,
    find_workers,
    list_trash,
    list_volumes,
    list_watchers,
    show_volume,
)

BOOT_SECONDS = 600.0
AGENT = "--hypervisor-parameters=kvm:use_guest_agent=true"
DISK, GROWN, CLONE, GROWTH = 2048, 2304, 2560, 256
"""Sizes in MiB: of a clone, grown, of a clone of that, and by how much that grows."""
GOLDEN, OWN = "debian12", "my-debian"
WRITER = """
mkfifo /run/passed
sha256sum </run/passed >/run/sum 2>/dev/null &
{
    for _ in $(seq 1000); do
        [ ! -e /run/enough ] || break
        head --bytes=1M /dev/urandom
    done | tee /run/passed | dd of=/root/load bs=1M iflag=fullblock oflag=direct conv=fsync
    touch /run/written
} >/dev/null 2>&1 &
"""
"""Writes past the guest's page cache until told, and sums up what never was on the disk."""


@pytest.fixture(scope="module")
def debian(deployer: Cluster, node: Machine) -> Iterator[str]:
    """A golden image of Debian with QEMU's guest agent; its users are root and debian."""
    image = images.build(RECIPES["bookworm-agent"])
    publish = ("snf-rados-image", "publish", f"{IMAGE_FILES}/{image.name}")
    properties = ("--property=OSFAMILY=linux", "--property=USERS=root debian")
    yield node.run(*publish, f"--name={GOLDEN}", *properties, timeout=300).text.strip()
    for name in (OWN, GOLDEN):
        node.run("snf-rados-image", "retire", "--deferred", name, ok=(0, 2))


@pytest.fixture(scope="module")
def first(debian: str, tmp_path_factory: pytest.TempPathFactory) -> Deployed:
    """What is asked for: no copy is named, only the snapshot that the disk is a clone of."""
    return Deployed(
        name="first.bed.test",
        image=f"rbd:{debian}",
        address="10.78.0.71",
        disks=(f"{DISK}M,provider=rados,origin={GOLDEN}@golden",),
        template="ext",
        key=make_key(tmp_path_factory.mktemp("owner") / "key"),
    )


@contextlib.contextmanager
def logged_in(cluster: Cluster, instance: Deployed, user: str = "root") -> Iterator[Login]:
    with log_in(cluster.bed.wire, replace(instance.host, user=user), BOOT_SECONDS) as login:
        yield login


def find_uncopied(node: Machine, *names: str) -> list[str]:
    """Those of the instances whose creation says that there was nothing to copy."""
    logs = (f"/var/log/ganeti/os/add-snf-image+default-{name}-*.log" for name in names)
    told = "disk 0 holds the image already"
    found = node.run("sh", "-c", f"grep --files-with-matches '{told}' {' '.join(logs)}").text
    return [name for name in names if name in found]


def test_clones_live_from_golden_image_to_reinstallation(
    deployer: Cluster, ceph: Ceph, node: Machine, first: Deployed
) -> None:
    """One story, as each boot takes its time: a clone, an image of it while it runs, a clone
    of that which QEMU opens by itself, its export, import and reinstallation."""
    second = replace(
        first,
        name="second.bed.test",
        image="null",
        address="10.78.0.72",
        disks=(f"{CLONE}M,provider=rados,origin={OWN}@golden,access=userspace",),
    )
    third = replace(second, name="third.bed.test", address="10.78.0.73")
    with contextlib.ExitStack() as stack:
        stack.callback(remove, deployer, "first", "second", "third")
        deployer.add_instance(first.name, *first.make_options(), AGENT)
        source = find_volume(deployer, first.name)
        with logged_in(deployer, first, "debian") as login:  # a user by the image's properties
            assert login.run("hostname").strip() == first.name
        with logged_in(deployer, first) as login:
            assert int(login.run("findmnt -nbo SIZE /")) > 1800 * MEBIBYTE
            deployer.run("gnt-instance", "grow-disk", first.name, "0", f"{GROWN - DISK}M")
            login.run("echo 'never synced' >/root/late")
            node.run("snf-rados-image", "snapshot", source, "--name", OWN, timeout=120)
            told = login.run("journalctl --unit=qemu-guest-agent --output=cat")
            assert "guest-fsfreeze called" in told
            login.run("echo changed >/root/late && sync")  # it is thawed
            assert_writes_outlive_the_osd(ceph, login)

        deployer.add_instance(second.name, *second.make_options())
        clone = find_volume(deployer, second.name)
        assert show_volume(ceph, clone)["parent"]["image"] == OWN
        assert len(list_watchers(ceph, clone)) == 1  # QEMU; who customized it has closed it
        deployer.run("gnt-instance", "remove", "--force", "--shutdown-timeout=0", first.name)
        assert source not in list_volumes(ceph)
        assert source in list_trash(ceph)  # its data is the clone's, too
        with logged_in(deployer, second) as login:
            assert login.run("hostname").strip() == second.name
            assert login.run("cat /root/late").strip() == "never synced"
            login.run("echo 3 >/proc/sys/vm/drop_caches && cat /usr/bin/* >/dev/null")
            login.run("echo second >/root/mine && sync")
        assert find_workers(node, clone) == []
        assert find_uncopied(node, first.name, second.name) == [first.name, second.name]

        export = ("gnt-backup", "export", f"--node={node.hostname}", "--remove-instance")
        deployer.run(*export, second.name, timeout=900)
        deployer.run(*make_import_argv(node, second.name, third), timeout=900)
        options = [each for each in third.make_options() if each.startswith("--os-parameters=")]
        reinstall = ("gnt-instance", "reinstall", "--force", *options, third.name)
        deployer.run(*reinstall, timeout=600)
        deployer.run("gnt-instance", "grow-disk", third.name, "0", f"{GROWTH}M")
        deployer.run("gnt-instance", "start", third.name)
        with logged_in(deployer, third) as login:
            assert login.run("hostname").strip() == third.name
            assert find_disk_size(login) == (CLONE + GROWTH) * MEBIBYTE
            assert login.run("cat /root/mine").strip() == "second"
    node.run("snf-rados-image", "retire", OWN)  # the last that needs the first one's data
    assert not {source, clone} & (list_volumes(ceph) | list_trash(ceph))


def assert_writes_outlive_the_osd(ceph: Ceph, login: Login) -> None:
    """The OSD is killed under a guest that writes: it waits, and has lost nothing."""
    login.run(WRITER)
    wait_for("the guest's writes", lambda: login.run("find /root -name load -size +4M").strip(), 60)
    ceph.stop_osd(0)
    login.run("test ! -e /run/written")
    ceph.start_osd(0)
    login.run("touch /run/enough; until [ -e /run/written -a -s /run/sum ]; do sleep 1; done", 300)
    login.run("echo 3 >/proc/sys/vm/drop_caches")
    assert login.run("sha256sum </root/load", 300) == login.run("cat /run/sum")


def find_disk_size(login: Login) -> int:
    """Bytes of the disk that holds the guest's root."""
    disk = login.run("lsblk --noheadings --output=PKNAME $(findmnt --output=SOURCE -n /)").strip()
    return int(login.run(f"lsblk --bytes --nodeps --noheadings --output=SIZE /dev/{disk}"))


def make_import_argv(node: Machine, source: str, target: Deployed) -> list[str]:
    (network,) = (each for each in target.make_options() if each.startswith("--net="))
    return [
        *("gnt-backup", "import", f"--node={node.hostname}", f"--src-node={node.hostname}"),
        f"--src-dir={source}",
        *("--disk-template=ext", f"--disk=0:size={CLONE}M,provider=rados", network),
        *("--no-name-check", "--no-ip-check", target.name),
    ]


def remove(cluster: Cluster, *names: str) -> None:
    listed = cluster.run("gnt-instance", "list", "--no-headers", "--output=name").split()
    for name in listed:
        if name.partition(".")[0] in names:
            cluster.remove_instance(name)
