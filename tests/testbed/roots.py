"""The roots of machines: Debian made by mmdebstrap, and layers with packages on top of it.

Both are cached under build/roots, named by a hash of what went into them. A machine's own
changes go to its folder (overlayfs), so a root is never changed after it was made. A layer's
modification time is when somebody last asked for it: one that nobody asks for any more goes.
"""

import contextlib
import hashlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from snf_ganeti import process
from snf_ganeti.lock import lock_file
from testbed import processes
from testbed.machine import Bind, Machine

BUILD = Path(__file__).resolve().parents[2] / "build"
ROOTS = BUILD / "roots"

PACKAGES = (
    "apt",
    "ca-certificates",
    "dnsmasq-base",
    "ganeti",
    "init-system-helpers",
    "iproute2",
    "iputils-arping",
    "iputils-ping",
    "kmod",
    "netbase",
    "nftables",
    "openssh-server",
    "procps",
    "python3-pycurl",
    "qemu-system-x86",
    "socat",
    "tini",
)
_DPKG_OPTIONS = ("force-unsafe-io", "path-exclude=/usr/share/doc/*")
_DRAFT = ".machine-draft-"
RESOLVER = Bind(Path("/etc/resolv.conf"), "/etc/resolv.conf")
_DEBS = "/run/debs"
_BUILD_SECONDS = 900.0
_POLICY = "#!/bin/sh\nexit 101\n"
_LAYER = re.compile(r"machine-[a-z]+-[0-9a-f]{12}-[0-9a-f]{12}")
_UNUSED_SECONDS = 3 * 24 * 3600.0
"""How long a layer is kept that nobody asks for; a machine that was off so long can't have it."""


def build_base(suite: str) -> Path:
    """The root of a suite with all that machines need of Debian; made if it is not there."""
    key = _hash(repr(make_bootstrap_argv(suite, Path("ROOT"))).encode(), _POLICY.encode())
    root = ROOTS / f"machine-{suite}-{key}"
    with _lock():
        if not root.is_dir():
            with _make_draft() as draft:
                made = draft / "root"
                argv = make_bootstrap_argv(suite, made)
                process.run(argv, env=processes.make_mark(draft), timeout=_BUILD_SECONDS)
                # A package that is installed later starts nothing: each bed decides itself.
                policy = made / "usr/sbin/policy-rc.d"
                policy.write_text(_POLICY)
                policy.chmod(0o755)
                made.rename(root)
    return root


def build_layers(base: Path, debs: Sequence[Path]) -> tuple[Path, ...]:
    """The layers of a root in which `debs` are installed on `base`, top first.

    What they depend on comes from Debian. Without debs, it is the base alone.
    """
    if not debs:
        return (base,)
    contents = sorted((deb.name, hashlib.sha256(deb.read_bytes()).digest()) for deb in debs)
    return (_build_layer(base, _hash(repr(contents).encode()), debs, ()), base)


def build_root_with(base: Path, packages: Sequence[str]) -> tuple[Path, ...]:
    """The layers of a root in which Debian packages are installed on `base`, top first."""
    key = _hash(*(name.encode() for name in packages))
    return (_build_layer(base, key, (), packages), base)


def make_bootstrap_argv(suite: str, root: Path) -> list[str]:
    """mmdebstrap's argv. Without a mirror it takes Debian's own, security updates included."""
    return [
        "mmdebstrap",
        "--quiet",
        "--variant=minbase",
        "--mode=root",
        "--format=directory",
        '--aptopt=Acquire::Languages "none"',
        *(f"--dpkgopt={option}" for option in _DPKG_OPTIONS),
        f"--include={','.join(PACKAGES)}",
        suite,
        str(root),
    ]


def make_install_argv(debs: Sequence[Path], packages: Sequence[str] = ()) -> list[str]:
    """packages: by name, from Debian."""
    return [
        *("apt-get", "install", "--yes", "--quiet", "--no-install-recommends"),
        *(f"{_DEBS}/{deb.name}" for deb in debs),
        *packages,
    ]


def find_unused(roots: Path, now: float) -> list[Path]:
    """The layers that nobody has asked for in a while and no running machine has, whichever
    worktree that is of: they may share a folder. now: seconds since the epoch."""
    old = [
        path
        for path in roots.iterdir()
        if _LAYER.fullmatch(path.name) and path.stat().st_mtime < now - _UNUSED_SECONDS
    ]
    mounts = "".join(_read_mounts()) if old else ""
    return [path for path in old if path.name not in mounts]


def _build_layer(base: Path, key: str, debs: Sequence[Path], packages: Sequence[str]) -> Path:
    layer = base.with_name(f"{base.name}-{key}")
    with _lock():
        if not layer.is_dir():
            with _make_draft() as draft:
                _install(base, debs, draft, packages).upper.rename(layer)
        os.utime(layer)
        for unused in find_unused(ROOTS, time.time()):
            with _make_draft() as draft:  # which goes whole, now or by the next who builds
                unused.rename(draft / "layer")
    return layer


def _read_mounts() -> Iterator[str]:
    """What is mounted, in every namespace: each machine has its own."""
    for path in Path("/proc").glob("[1-9]*/mountinfo"):
        with contextlib.suppress(OSError):  # its process ended meanwhile
            yield path.read_text(errors="replace")


def _install(base: Path, debs: Sequence[Path], draft: Path, packages: Sequence[str]) -> Machine:
    """A machine, off again, whose upper folder holds what installing these wrote."""
    folder = draft / "debs"
    folder.mkdir()
    for deb in debs:
        shutil.copyfile(deb, folder / deb.name)
    machine = Machine(
        hostname="layer",
        folder=draft / "machine",
        layers=(base,),
        binds=(RESOLVER, Bind(folder, _DEBS)),
        shares_network=True,
    )
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    with machine.powered():
        machine.run("apt-get", "update", "--quiet", timeout=_BUILD_SECONDS)
        machine.run(*make_install_argv(debs, packages), env=quiet, timeout=_BUILD_SECONDS)
        machine.run("apt-get", "clean")
    return machine


@contextlib.contextmanager
def _lock() -> Iterator[None]:
    """One builder at a time; what a killed one left is ours to remove."""
    with lock_file(ROOTS / ".machines.lock", timeout=_BUILD_SECONDS):
        for left in ROOTS.glob(_DRAFT + "*"):
            processes.kill_marked(left)
            shutil.rmtree(left)
        yield


@contextlib.contextmanager
def _make_draft() -> Iterator[Path]:
    draft = Path(tempfile.mkdtemp(prefix=_DRAFT, dir=ROOTS))
    try:
        yield draft
    finally:
        shutil.rmtree(draft)


def _hash(*parts: bytes) -> str:
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:12]
