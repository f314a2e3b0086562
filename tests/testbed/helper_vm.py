"""Helper VMs of the installed packages that stay, and what the kernel tells of their QEMU."""

import contextlib
import functools
import json
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snf_ganeti import process
from snf_image_host.confinement import cgroup
from testbed import appliance
from testbed.deadline import wait_for
from testbed.deployed import SETTINGS
from testbed.snf_image import SITE, WORK, Node

_QEMU = "qemu-system-x86"  # the kernel keeps 15 characters
_START_SECONDS = 120.0
_INIT = Path(__file__).parents[2] / "snf-image-helper/appliance/init"
LOOK_AROUND = Path(__file__).with_name("helper_probe.py")
"""A probe: what a program inside could talk to."""
LIMIT_GROUPS = Path(__file__).with_name("cgroup_probe.py")
"""A probe: what the control groups of runs do, under a kernel that has cgroup v2."""
_HOLD = """
import contextlib, pathlib, signal, sys
from snf_image_host import settings
from snf_image_host.customization import find_helper
from snf_image_host.helper_vm.helper import start_helper
from snf_image_host.confinement.identity import open_jail
from snf_image_host.targets.local import open_local_target
site = settings.read()
with contextlib.ExitStack() as stack:
    disks = [stack.enter_context(open_local_target(pathlib.Path(path))) for path in sys.argv[1:]]
    jail = stack.enter_context(open_jail(site))
    helper = stack.enter_context(start_helper(find_helper(site, jail)))
    helper.attach([disk.vm_disk for disk in disks])
    assert helper.restored
    print("attached", flush=True)
    signal.pause()
"""
_RUN = """
import json, pathlib, sys, time
from snf_image_helper.protocol import Request, Warned
from snf_image_host import settings
from snf_image_host.customization import find_helper
from snf_image_host.helper_vm.helper import start_helper
from snf_image_host.helper_vm.session import make_entropy
from snf_image_host.confinement.identity import open_jail
from snf_image_host.targets.local import open_local_target
site, said = settings.read(), {}
def keep(event):
    if isinstance(event, Warned):
        name, text = event.messages
        said[name] = json.loads(text)
with (
    open_local_target(pathlib.Path(sys.argv[1])) as disk,
    open_jail(site) as jail,
    start_helper(find_helper(site, jail)) as helper,
):
    helper.attach([disk.vm_disk])
    helper.run(Request("create", "web", 1, entropy=make_entropy(), time=time.time()), keep)
print(json.dumps(said))
"""

_TIME = """
import json, pathlib, sys, time
from snf_ganeti.errors import InputError
from snf_image_helper.protocol import Request, TaskStart
from snf_image_host import settings
from snf_image_host.customization import find_helper
from snf_image_host.helper_vm.helper import start_helper
from snf_image_host.helper_vm.session import make_entropy
from snf_image_host.confinement.identity import open_jail
from snf_image_host.targets.local import open_local_target
site, times = settings.read(), []
def keep(event):
    if isinstance(event, TaskStart):
        times.append(time.monotonic() - begun)
with open_jail(site) as jail, open_local_target(pathlib.Path(sys.argv[1])) as disk:
    vm = find_helper(site, jail)
    begun = time.monotonic()
    with start_helper(vm) as helper:
        helper.attach([disk.vm_disk])
        assert helper.restored
        try:
            helper.run(Request("create", "web", 1, entropy=make_entropy(), time=time.time()), keep)
        except InputError:
            pass  # there is no guest
print(times[0])
"""


@dataclass(frozen=True)
class Mount:
    point: str
    read_only: bool


@dataclass(frozen=True)
class Memory:
    """A mapping of a VM's memory. path: the file, as the process has it mapped."""

    inode: int
    private: bool
    path: Path


@dataclass(frozen=True)
class Process:
    """A process, by its id on this machine; see proc(5)."""

    pid: int

    @property
    def folder(self) -> Path:
        return Path(f"/proc/{self.pid}")

    @property
    def name(self) -> str:
        return (self.folder / "comm").read_text().strip()

    def read_status(self) -> dict[str, str]:
        lines = (line.partition(":") for line in (self.folder / "status").read_text().splitlines())
        return {name: value.strip() for name, _, value in lines}

    def read_limits(self) -> dict[str, int]:
        """The hard limits that there are."""
        found = re.findall(
            r"^(Max .*?)\s{2,}\S+\s+(\d+)\b", (self.folder / "limits").read_text(), re.M
        )
        return {name: int(hard) for name, hard in found}

    def read_namespace(self, kind: str) -> str:
        return str((self.folder / "ns" / kind).readlink())

    def read_mounts(self) -> list[Mount]:
        rows = (line.split() for line in (self.folder / "mountinfo").read_text().splitlines())
        return [Mount(row[4], "ro" in row[5].split(",")) for row in rows]

    def read_memory(self) -> dict[str, int]:
        """Bytes by kind, over all mappings."""
        text = (self.folder / "smaps_rollup").read_text()
        return {
            name: int(size) << 10 for name, size in re.findall(r"^(\w+): +(\d+) kB", text, re.M)
        }

    def list_interfaces(self) -> list[str]:
        return re.findall(r"^ *(\S+):", (self.folder / "net/dev").read_text(), re.M)

    def list_root(self) -> set[str]:
        return {path.name for path in (self.folder / "root").iterdir()}

    def list_descriptors(self) -> list[str]:
        return [str(path.readlink()) for path in (self.folder / "fd").iterdir()]

    def find_memory(self) -> Memory:
        pattern = r"^(\S+) ..\S(.) \S+ \S+ (\d+) +/memfd:snf-image-helper"
        (found,) = re.findall(pattern, (self.folder / "maps").read_text(), re.M)
        span, sharing, inode = found
        return Memory(int(inode), sharing == "p", self.folder / "map_files" / span)

    def find_descendant(self, name: str) -> "Process | None":
        for task in (self.folder / "task").iterdir():
            for child in (task / "children").read_text().split():
                with contextlib.suppress(OSError):  # it ended meanwhile
                    process = Process(int(child))
                    found = process if process.name == name else process.find_descendant(name)
                    if found is not None:
                        return found
        return None


@contextlib.contextmanager
def running_helpers(node: Node, count: int, *disks: Path) -> Iterator[Sequence[Process]]:
    """The QEMUs of `count` helpers, each of a process of its own, that have been restored and
    wait for their request; the disks are plugged into each."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(_running_helper(node, index, disks)) for index in range(count)]


@contextlib.contextmanager
def _running_helper(node: Node, index: int, disks: Sequence[Path]) -> Iterator[Process]:
    log = node.work / f"helper{index}.log"
    log.unlink(missing_ok=True)
    paths = (f"{WORK}/{disk.name}" for disk in disks)
    with node.machine.spawn("python3", "-I", "-c", _HOLD, *paths, output=log) as child:

        def is_attached() -> bool:
            text = log.read_text()
            assert child.poll() is None, text
            return "attached" in text

        wait_for("a restored helper", is_attached, _START_SECONDS)
        qemu = Process(child.pid).find_descendant(_QEMU)
        assert qemu is not None
        yield qemu


def measure_first_task(node: Node, disk: Path) -> float:
    """Seconds from starting a helper, which is restored, to the begin of its first task."""
    argv = ("python3", "-I", "-c", _TIME, f"{WORK}/{disk.name}")
    return float(node.machine.run(*argv, timeout=300).text)


def take_over(node: Node, disk: Path, probe: Path = LOOK_AROUND) -> dict[str, Any]:
    """What a program other than the runner finds in a helper VM."""
    folder = node.work / "taken-over"
    _build_probe(folder, probe)
    node.machine.write(SETTINGS, f'{SITE}helper_dir = "{WORK}/{folder.name}"\n')
    try:
        argv = ("python3", "-I", "-c", _RUN, f"{WORK}/{disk.name}")
        found: dict[str, Any] = json.loads(node.machine.run(*argv, timeout=300).text)
        return found
    finally:
        node.machine.write(SETTINGS, SITE)
        shutil.rmtree(folder)


def _build_probe(helper_dir: Path, program: Path) -> None:
    """The appliance with another program than the runner: a second archive over its root."""
    built = (appliance.FOLDER / "current").resolve()
    folder = helper_dir / "probe"
    shutil.copytree(built, folder, ignore=shutil.ignore_patterns("state"))
    (helper_dir / "current").symlink_to(folder.name)
    with (folder / "initrd").open("ab") as file:
        file.write(_pack_probe(program))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["initrd"]["size"] = (folder / "initrd").stat().st_size
    (folder / "manifest.json").write_text(json.dumps(manifest))


@functools.cache
def _pack_probe(program: Path) -> bytes:
    with tempfile.TemporaryDirectory() as scratch:
        for name, source in {
            f"testbed/{program.name}": program,
            "testbed/probe.py": program.with_name("probe.py"),
            "snf_image_host/confinement/cgroup.py": Path(cgroup.__file__),
        }.items():
            module = Path(scratch, name)
            module.parent.mkdir(parents=True, exist_ok=True)  # packages without an __init__ do
            shutil.copyfile(source, module)
        init = Path(scratch, "init")
        # Not isolated, as the runner is: these modules lie in the root.
        probing = f"-m testbed.{program.stem}"
        init.write_text(_INIT.read_text().replace("-I -m snf_image_helper", probing))
        init.chmod(0o755)
        argv = ["cpio", "--create", "--quiet", "--format=newc", f"--directory={scratch}"]
        names = (path.relative_to(scratch) for path in sorted(Path(scratch).rglob("*")))
        return process.run(argv, stdin="".join(f"{name}\n" for name in names).encode()).stdout
