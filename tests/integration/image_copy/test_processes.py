"""The processes of a deployment: what they take, and what is left of them. /proc judges."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from snf_ganeti.errors import NodeError
from snf_image_host.confinement.jail import Jail
from snf_image_host.environ import Disk
from snf_image_host.image import ImageOrder, open_image
from snf_image_host.settings import Settings
from snf_image_host.targets import open_target
from testbed.deadline import wait_for
from testbed.descendants import find_descendants
from testbed.image_copy import JAIL, deploy, require_same, run

PYTHON = ("env", f"PYTHONPATH={':'.join(sys.path)}", sys.executable, "-c")


@pytest.mark.parametrize(
    ("name", "kind", "program"),
    [("qcow2", "qcow2", "qemu-img"), ("raw.xz", "diskdump", "xz"), ("raw.gz", "diskdump", "gzip")],
)
def test_a_jail_that_can_not_be_made_is_no_fault_of_the_image(
    folder: Path, tmp_path: Path, disk: Path, name: str, kind: str, program: str
) -> None:
    """Its control group has gone."""
    jail = Jail(JAIL.uid, JAIL.gid, tmp_path / "absent")
    with (
        pytest.raises(NodeError, match=f"the jail of {program} failed: .*absent"),
        open_image(ImageOrder(name, kind), Settings(image_dir=folder), jail) as image,
        open_target(Disk(0, 0, path=str(disk)), jail) as target,
    ):
        image.copy_to(target, lambda position, total: None)


@pytest.mark.parametrize(("name", "kind"), [("raw.xz", "diskdump"), ("qcow2.gz", "qcow2")])
def test_a_copy_that_is_killed_leaves_nothing_and_works_again(
    folder: Path, disk: Path, name: str, kind: str
) -> None:
    script = f"""
import signal
def stop(position, total):
    print("copying", flush=True)
    signal.pause()
import snf_image_host.copying.disk_copy as disk_copy
disk_copy._PROGRESS_INTERVAL = 0
{make_deployment(folder, disk, name, kind)}
    image.copy_to(target, stop)
"""
    with subprocess.Popen([*PYTHON, script], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        try:
            assert child.stdout.readline() == b"copying\n"
            theirs = list(find_descendants(child.pid))
            assert theirs
        finally:
            child.send_signal(signal.SIGKILL)
    wait_for("the jail to end", lambda: not any(map(is_alive, theirs)), 30)
    deploy(folder, disk, name, kind)
    require_same(folder, disk)


@pytest.mark.parametrize("name", ["raw.xz", "raw", "qcow2.zst"])
def test_memory_is_bounded_whatever_the_size(folder: Path, disk: Path, name: str) -> None:
    """Of the process that runs the deployment, with all that Python takes itself."""
    kind = name.partition(".")[0].replace("raw", "diskdump")
    script = f"""
{make_deployment(folder, disk, name, kind)}
    image.copy_to(target, lambda position, total: None)
status = Path("/proc/self/status").read_text()
print(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))
"""
    assert int(run(*PYTHON, script)) < 60 << 10


def make_deployment(folder: Path, disk: Path, name: str, kind: str) -> str:
    """A program with nothing in it but the product, up to where it has image and target."""
    return f"""\
from pathlib import Path
from snf_image_host.environ import Disk
from snf_image_host.image import ImageOrder, open_image
from snf_image_host.confinement.jail import Jail
from snf_image_host.settings import Settings
from snf_image_host.targets import open_target
jail = Jail({JAIL.uid}, {JAIL.gid})
settings = Settings(image_dir=Path({str(folder)!r}), spool_dir=Path({str(folder)!r}))
with (
    open_image(ImageOrder({name!r}, {kind!r}), settings, jail) as image,
    open_target(Disk(0, 0, path={str(disk)!r}), jail) as target,
):"""


def is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()
