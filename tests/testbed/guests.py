"""Small disk images that look like an installed guest, for tests of tasks.

A guest here is a file system with what the helper's tasks read and change, and no programs:
it is built in about a second and does not boot. `LAYOUTS` has those that tests are run on:

    guests.build(guests.LAYOUTS["mbr-logical"], path)
    guests.build(Layout(table="gpt", filesystem="xfs", fstab="LABEL"), path)

The files get the owners that a guest has, so building needs root.
"""

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from snf_ganeti import process
from snf_ganeti.errors import InputError
from testbed import disk_image
from testbed.damage import DAMAGES
from testbed.partitioning import FSTAB_STYLES, DiskLayout, Volume, lay_out, make_fstab

HOSTNAME = "image"
MACHINE_ID = "0123456789abcdef0123456789abcdef"
USER = "debian"
OLD_HASH = "$y$j9T$F5Jx5fExrKuPp53xLKQ..1$X3DX6M94c7o.9agCG9G317fhZg9SqC.5i5rd.RhAtQ7"
"""The password hash that `USER` has in every guest; root's is locked."""
ROOT_SIZES: Mapping[str, int] = {"ext2": 32, "ext3": 32, "ext4": 32, "xfs": 300, "btrfs": 120}
"""MiB of the root: the least that each mkfs takes, with some room for what tasks write."""
NETWORKS = ("ifupdown", "networkd", "netplan")


@dataclass(frozen=True)
class Layout:
    """A guest's disk, in the terms in which tests tell guests apart.

    table: mbr, gpt or none. fstab: one of partitioning.FSTAB_STYLES. logical: the root is a
    logical partition, the last of an extended one. separate: mount points with a file
    system of their own (ext4, 16 MiB), placed before the root. swap: a partition before the
    root too. size: MiB of the root, 0 for the least. damage: a name of damage.DAMAGES.
    """

    table: str = "mbr"
    filesystem: str = "ext4"
    fstab: str = "UUID"
    logical: bool = False
    separate: tuple[str, ...] = ()
    swap: bool = False
    network: str = "ifupdown"
    size: int = 0
    damage: str = ""

    @property
    def disk(self) -> DiskLayout:
        """Where things lie on the disk, and their UUIDs. Raises InputError."""
        if self.fstab not in FSTAB_STYLES or (self.fstab == "PARTLABEL" and self.table != "gpt"):
            raise InputError(f"a {self.table} disk has no fstab by {self.fstab}")
        volumes = [Volume("ext4", 16, mountpoint) for mountpoint in self.separate]
        if self.swap:
            volumes.append(Volume("swap", 8))
        size = self.size or ROOT_SIZES[self.filesystem]
        volumes.append(Volume(self.filesystem, size, "/", logical=self.logical))
        return lay_out(repr(self), self.table, volumes)


LAYOUTS: Mapping[str, Layout] = {
    "mbr-primary": Layout(),
    "mbr-logical": Layout(logical=True, separate=("/boot",)),
    "mbr-partuuid": Layout(fstab="PARTUUID", swap=True),
    "mbr-device": Layout(fstab="device", separate=("/boot", "/home")),
    "gpt": Layout(table="gpt"),
    "gpt-label": Layout(table="gpt", fstab="LABEL", separate=("/home",)),
    "gpt-partuuid": Layout(table="gpt", fstab="PARTUUID", network="networkd"),
    "gpt-partlabel": Layout(table="gpt", fstab="PARTLABEL", swap=True, network="netplan"),
    "no-table": Layout(table="none", fstab="device"),
    "ext2": Layout(filesystem="ext2"),
    "ext3": Layout(filesystem="ext3"),
    "xfs": Layout(table="gpt", filesystem="xfs"),
    "btrfs": Layout(table="gpt", filesystem="btrfs"),
    "needs-check": Layout(damage="needs-check"),
    "corrupt-ext4": Layout(damage="inode-table"),
    "corrupt-xfs": Layout(filesystem="xfs", damage="checksum"),
    "corrupt-btrfs": Layout(filesystem="btrfs", damage="checksum"),
    "no-superblock": Layout(damage="magic"),
}


def build(layout: Layout, path: Path) -> DiskLayout:
    """Make the disk image of a guest at `path`, sparse, over what was there.

    Gives where things lie. Raises InputError: a layout that can't be; CommandError.
    """
    disk = layout.disk
    with tempfile.TemporaryDirectory(prefix="guest-") as scratch:
        tree = Path(scratch, "root")
        write_tree(layout, disk, tree)
        damage = DAMAGES[layout.damage][layout.filesystem] if layout.damage else None
        disk_image.build(disk, tree, path, damage)
    return disk


def write_tree(layout: Layout, disk: DiskLayout, tree: Path) -> None:
    """The guest's files, below `tree`, which is made."""
    tree.mkdir(mode=0o755)
    for name in _FOLDERS:
        (tree / name).mkdir(parents=True, exist_ok=True)
    for name, text in {**_FILES, **_NETWORK_FILES[layout.network]}.items():
        _write(tree / name, text)
    _write(tree / "etc/fstab", make_fstab(disk, layout.fstab))
    for name, target in _LINKS.items():
        (tree / name).symlink_to(target)
    if layout.network != "ifupdown":
        wanted = tree / "etc/systemd/system/multi-user.target.wants"
        wanted.mkdir(parents=True)
        (wanted / _NETWORKD).symlink_to(f"/lib/systemd/system/{_NETWORKD}")
    _make_host_keys(tree / "etc/ssh")
    for name, (owner, group, mode) in _ACCESS.items():
        shutil.chown(tree / name, owner, group)
        (tree / name).chmod(mode)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    if path.parent.name in ("bin", "sbin"):
        path.chmod(0o755)


def _make_host_keys(folder: Path) -> None:
    """Real ones: that a task replaced them shows in what they are, not that they are."""
    for kind in ("ed25519", "ecdsa"):
        path = str(folder / f"ssh_host_{kind}_key")
        argv = ["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", f"root@{HOSTNAME}"]
        process.run([*argv, "-f", path])


_NETWORKD = "systemd-networkd.service"
_FOLDERS = (
    *("boot", "dev", "home/debian", "proc", "root", "run", "srv", "sys", "tmp"),
    *("usr/bin", "usr/sbin", "usr/lib/systemd/system", "usr/lib/udev"),
    *("var/lib/dbus", "var/log", "var/tmp", "etc/ssh/sshd_config.d"),
)
_LINKS: Mapping[str, str] = {
    "bin": "usr/bin",
    "sbin": "usr/sbin",
    "lib": "usr/lib",
    "etc/os-release": "../usr/lib/os-release",
    "var/lib/dbus/machine-id": "/etc/machine-id",
    "var/run": "/run",
}
_ACCESS: Mapping[str, tuple[int, int, int]] = {
    "root": (0, 0, 0o700),
    "home/debian": (1000, 1000, 0o755),
    "etc/shadow": (0, 42, 0o640),
    "etc/gshadow": (0, 42, 0o640),
    "tmp": (0, 0, 0o1777),
    "var/tmp": (0, 0, 0o1777),
}
_FILES: Mapping[str, str] = {
    "usr/lib/os-release": (
        'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nNAME="Debian GNU/Linux"\n'
        'VERSION_ID="12"\nVERSION_CODENAME=bookworm\nID=debian\n'
    ),
    "etc/debian_version": "12.0\n",
    "etc/passwd": (
        "root:x:0:0:root:/root:/bin/bash\n"
        "daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin\n"
        "sshd:x:100:65534::/run/sshd:/usr/sbin/nologin\n"
        f"{USER}:x:1000:1000:Debian:/home/debian:/bin/bash\n"
        "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
    ),
    "etc/shadow": (
        "root:!:19500:0:99999:7:::\n"
        "daemon:*:19500:0:99999:7:::\n"
        "sshd:!:19500::::::\n"
        f"{USER}:{OLD_HASH}:19500:0:99999:7:::\n"
        "nobody:*:19500:0:99999:7:::\n"
    ),
    "etc/group": f"root:x:0:\nshadow:x:42:\n{USER}:x:1000:\nnogroup:x:65534:\n",
    "etc/gshadow": f"root:*::\nshadow:*::\n{USER}:!::\nnogroup:*::\n",
    "etc/hostname": f"{HOSTNAME}\n",
    "etc/hosts": f"127.0.0.1\tlocalhost\n127.0.1.1\t{HOSTNAME}\n::1\tlocalhost ip6-localhost\n",
    "etc/machine-id": f"{MACHINE_ID}\n",
    "etc/ssh/sshd_config": (
        "Include /etc/ssh/sshd_config.d/*.conf\nUsePAM yes\nSubsystem sftp internal-sftp\n"
    ),
    "usr/bin/bash": "",
    "usr/sbin/sshd": "",
    f"usr/lib/systemd/system/{_NETWORKD}": "",
}
_NETWORK_FILES: Mapping[str, Mapping[str, str]] = {
    "ifupdown": {
        "etc/network/interfaces": (
            "auto lo\niface lo inet loopback\n\nallow-hotplug eth0\niface eth0 inet dhcp\n"
        ),
        "usr/sbin/ifup": "",
        "usr/sbin/dhclient": "",
        "usr/lib/udev/ifupdown-hotplug": "",
    },
    "networkd": {
        "etc/systemd/network/80-dhcp.network": "[Match]\nName=en*\n\n[Network]\nDHCP=yes\n",
    },
    "netplan": {
        "etc/netplan/50-dhcp.yaml": (
            "network:\n  version: 2\n  ethernets:\n    all:\n"
            "      match: {name: en*}\n      dhcp4: true\n"
        ),
        "usr/sbin/netplan": "",
    },
}
"""What each network system is known by: its programs, which are empty, and a setup by DHCP."""
