"""Tests run in a VM with Debian's kernel, on the root that the bed's machines have.

The VM's disk holds that root, with the packages installed and the kernel's layer on top, and
the tests. Its init runs pytest, tells how that ended on the serial port, and switches off.
"""

import contextlib
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from snf_ganeti import process
from snf_ganeti.errors import DeadlineError, NodeError
from testbed import debian_kernel
from testbed.debian_kernel import Kernel

TESTS = Path(__file__).parents[1]
_SIZE = 4 << 30
_BUILD_SECONDS = 300.0
_FOLDER = "srv/vm"
_STATUS = re.compile(r"^=status=(\d+)=", re.MULTILINE)
_CONFTEST = '''\
"""The bed of a VM: its machines have the VM's own root."""

import subprocess
from pathlib import Path

import pytest

from testbed.bed import BEDS, Bed

TRACKING = """
nft add table bridge probe
nft add chain bridge probe probe
nft add rule bridge probe probe ct state established
"""


@pytest.fixture(scope="session")
def bed():
    subprocess.run(["unshare", "--net", "sh", "-ec", TRACKING], check=True)
    BEDS.mkdir(parents=True)
    bed = Bed("vm", (Path("/"),))
    bed.folder.mkdir()
    return bed
'''
_INIT = """\
#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 PYTHONDONTWRITEBYTECODE=1
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t tmpfs build /srv/build
for module in tun fuse loop overlay nf_conntrack_bridge; do modprobe $module; done
ip link set lo up
uname -a
cd /srv/vm
PYTHONPATH=/srv/vm python3 -m pytest -p no:cacheprovider --import-mode=importlib @OPTIONS@ 2>&1
echo "=status=$?="
busybox poweroff -f
"""


@dataclass(frozen=True)
class Outcome:
    """status: pytest's. output: all that the VM said."""

    status: int
    output: str


def run_tests(
    layers: tuple[Path, ...], modules: Sequence[str], options: Sequence[str], seconds: float
) -> Outcome:
    """Run modules of tests/integration in a VM. layers: of the root, top first.

    Raises DeadlineError, NodeError.
    """
    layer = debian_kernel.build_layer(layers[-1])
    kernel = debian_kernel.find_kernel(layer)
    with tempfile.TemporaryDirectory(prefix="kernel-vm-") as scratch:
        folder = Path(scratch)
        _write_tests(folder / "tests", modules, options)
        disk = folder / "disk"
        with disk.open("wb") as file:
            file.truncate(_SIZE)
        with _merged((folder / "tests", layer, *layers), folder / "root") as root:
            argv = ["mke2fs", "-q", "-F", "-t", "ext4", "-O", "^has_journal"]
            process.run([*argv, "-d", str(root), str(disk)], timeout=_BUILD_SECONDS)
        console = folder / "console"
        with process.spawn(make_argv(kernel, disk, console)) as child:
            _wait(child, seconds, console)
        output = console.read_text(errors="replace").replace("\r", "")
    found = _STATUS.search(output)
    if found is None:
        raise NodeError(f"the VM ended without a word: {output[-2000:]}")
    return Outcome(int(found[1]), output)


def _write_tests(folder: Path, modules: Sequence[str], options: Sequence[str]) -> None:
    """The bed's code, the modules, and the init that runs them."""
    inside = folder / _FOLDER
    shutil.copytree(TESTS / "testbed", inside / "testbed")
    (folder / "srv/build").mkdir()
    for module in modules:
        shutil.copyfile(TESTS / "integration" / module, inside / module)
    (inside / "conftest.py").write_text(_CONFTEST)
    init = inside / "init"
    init.write_text(_INIT.replace("@OPTIONS@", shlex.join([*options, *modules])))
    init.chmod(0o755)


@contextlib.contextmanager
def _merged(layers: Sequence[Path], target: Path) -> Iterator[Path]:
    """The layers as one folder, which can't be changed."""
    target.mkdir()
    lower = ":".join(map(str, layers))
    process.run(["mount", "-t", "overlay", "-o", f"ro,lowerdir={lower}", "overlay", str(target)])
    try:
        yield target
    finally:
        process.run(["umount", str(target)])


def _wait(child: subprocess.Popen[bytes], seconds: float, console: Path) -> None:
    try:
        child.wait(seconds)
    except subprocess.TimeoutExpired:
        said = console.read_text(errors="replace")[-2000:]
        raise DeadlineError("the tests in the VM", seconds, hint=said) from None


def make_argv(kernel: Kernel, disk: Path, console: Path) -> list[str]:
    """QEMU's argv; the disk is the VM's to change."""
    return [
        "qemu-system-x86_64",
        *("-machine", "pc,accel=tcg", "-cpu", "max", "-m", "1536", "-smp", "2"),
        *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"),
        *("-kernel", str(kernel.image), "-initrd", str(kernel.initrd)),
        *("-append", f"root=/dev/vda rw console=ttyS0 quiet panic=-1 init=/{_FOLDER}/init"),
        *("-serial", f"file:{console}"),
        *("-drive", f"file={disk},format=raw,if=virtio,cache=unsafe"),
        *("-object", "rng-random,id=rng0,filename=/dev/urandom"),
        *("-device", "virtio-rng-pci,rng=rng0"),
    ]
