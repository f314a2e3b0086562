"""Root file systems of Debian guests, from the Debian mirror, cached as tar archives."""

import hashlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from snf_ganeti import process
from snf_ganeti.lock import lock_file
from testbed import processes
from testbed.roots import BUILD

FOLDER = BUILD / "rootfs"
USER = "debian"
_BUILD_SECONDS = 900.0
_DRAFT = ".draft-"

_PACKAGES = (
    *("linux-image-cloud-amd64", "initramfs-tools", "zstd", "systemd-sysv", "udev", "dbus"),
    *("openssh-server", "iproute2", "kmod", "login", "passwd", "procps"),
)
_DHCP_CLIENTS: Mapping[str, str] = {"bookworm": "isc-dhcp-client", "trixie": "dhcpcd-base"}
_MASKED = (
    *("apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "fstrim.timer"),
    *("e2scrub_all.timer", "e2scrub_reap.service", "man-db.timer", "logrotate.timer"),
    *("systemd-networkd-wait-online.service", "ifupdown-wait-online.service"),
)
"""What would run while an emulated guest boots, or wait for a network that a test lacks."""

_INITRAMFS = """\
MODULES=list
RESUME=none
"""
_INITRAMFS_MODULES = (
    *("virtio_pci", "virtio_blk", "virtio_scsi", "sd_mod", "xfs", "btrfs"),
    "virtio_net",  # ifupdown's patterns match the NICs that are there when it starts
)
_INTERFACES = """\
auto lo
iface lo inet loopback

auto /en*=dhcp
iface dhcp inet dhcp
"""
_NETWORKD = """\
[Match]
Name=en*

[Network]
DHCP=yes
"""
_NETPLAN = """\
network:
  version: 2
  ethernets:
    all:
      match: {name: "en*"}
      dhcp4: true
"""


@dataclass(frozen=True)
class Network:
    """A network configuration system: packages, its setup by DHCP, units to enable."""

    packages: tuple[str, ...]
    path: str
    text: str
    units: tuple[str, ...] = ()


NETWORKS: Mapping[str, Network] = {
    "ifupdown": Network(("ifupdown",), "etc/network/interfaces", _INTERFACES),
    "networkd": Network(
        (), "etc/systemd/network/80-dhcp.network", _NETWORKD, ("systemd-networkd",)
    ),
    "netplan": Network(
        ("netplan.io",), "etc/netplan/50-dhcp.yaml", _NETPLAN, ("systemd-networkd",)
    ),
}


@dataclass(frozen=True)
class Rootfs:
    """What a root file system is made of. documented: keeps manuals and documentation."""

    suite: str
    network: str
    packages: tuple[str, ...] = ()
    documented: bool = False

    @property
    def all_packages(self) -> tuple[str, ...]:
        client = (_DHCP_CLIENTS[self.suite],) if self.network == "ifupdown" else ()
        return (*_PACKAGES, *NETWORKS[self.network].packages, *client, *self.packages)

    @property
    def path(self) -> Path:
        """Where its tar archive is, or will be; the name says what went into it."""
        argv = repr(make_argv(self, Path("TAR"))).encode()
        key = hashlib.sha256(argv + Path(__file__).read_bytes()).hexdigest()[:12]
        return FOLDER / f"{self.suite}-{self.network}-{key}.tar"


def make_argv(rootfs: Rootfs, tar: Path) -> list[str]:
    """mmdebstrap's argv. Without a mirror it takes Debian's own, security updates included."""
    left_out = () if rootfs.documented else ("doc", "man", "locale", "info")
    return [
        "mmdebstrap",
        "--quiet",
        "--variant=minbase",
        "--mode=root",
        "--format=tar",
        '--aptopt=Acquire::Languages "none"',
        "--dpkgopt=force-unsafe-io",
        *(f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in left_out),
        f"--include={','.join(rootfs.all_packages)}",
        *(f"--essential-hook={hook}" for hook in _make_early_hooks()),
        *(f"--customize-hook={hook}" for hook in _make_late_hooks(NETWORKS[rootfs.network])),
        rootfs.suite,
        str(tar),
    ]


def _make_early_hooks() -> Iterator[str]:
    """Before the kernel comes and its initramfs is made: a small one boots sooner."""
    modules = "".join(f"{name}\n" for name in _INITRAMFS_MODULES)
    yield 'mkdir --parents "$1/etc/initramfs-tools/conf.d"'
    yield f'printf %s "{_INITRAMFS}" >"$1/etc/initramfs-tools/conf.d/guest"'
    yield f'printf %s "{modules}" >"$1/etc/initramfs-tools/modules"'


def _make_late_hooks(network: Network) -> Iterator[str]:
    yield f'chroot "$1" useradd --create-home --shell /bin/bash --uid 1000 {USER}'
    yield 'chroot "$1" passwd --lock root'
    yield f'chroot "$1" systemctl --quiet mask {" ".join(_MASKED)}'
    for unit in ("ssh", *network.units):
        yield f'chroot "$1" systemctl --quiet enable {unit}'


def build(rootfs: Rootfs) -> Path:
    """The tar archive of a root file system, made if it is not there. Needs root.

    Raises CommandError; LockError when another builder holds the cache too long.
    """
    path = rootfs.path
    with lock_file(FOLDER / ".lock", timeout=_BUILD_SECONDS):
        for left in FOLDER.glob(_DRAFT + "*"):
            processes.kill_marked(left)
            shutil.rmtree(left)
        if not path.exists():
            with _make_draft() as draft:
                argv = make_argv(rootfs, draft / "tar")
                env = {**processes.make_mark(draft), "TMPDIR": str(draft)}
                process.run(argv, env=env, timeout=_BUILD_SECONDS)
                (draft / "tar").rename(path)
    return path


@contextmanager
def extracted(rootfs: Rootfs) -> Iterator[Path]:
    """The files of a root file system in a folder that the caller may change."""
    tar = build(rootfs)
    with tempfile.TemporaryDirectory(prefix="root-") as folder:
        argv = ["tar", "--extract", "--xattrs", "--xattrs-include=*", "--numeric-owner"]
        process.run([*argv, f"--directory={folder}", f"--file={tar}"], timeout=_BUILD_SECONDS)
        tree = Path(folder)
        network = NETWORKS[rootfs.network]
        (tree / network.path).parent.mkdir(parents=True, exist_ok=True)
        (tree / network.path).write_text(network.text)
        yield tree


@contextmanager
def _make_draft() -> Iterator[Path]:
    draft = Path(tempfile.mkdtemp(prefix=_DRAFT, dir=FOLDER))
    draft.chmod(0o755)  # apt downloads as a user of its own
    try:
        yield draft
    finally:
        shutil.rmtree(draft)
