"""An instance's disk as a customized clone, against a full copy of the same image to RBD.

What is deployed is a server of 2 GiB that holds half a GiB; all of the customization is
emulated, the copy is not. `spawn-full` has the same server with the data of its users.
"""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench.benchmark import Benchmark, Runs
from bench.deploy import make_options
from bench.rados import Site, measure, open_site
from testbed import appliance, images
from testbed.ceph import OSD_SIZE
from testbed.deployed import IMAGES, make_key
from testbed.machine import Bind
from testbed.roots import BUILD
from testbed.volumes import POOL

WORK = "/srv/work"
"""Where the node sees the benchmark's own folder."""
_ROUNDS = 3
_GIBIBYTES = 3


@contextlib.contextmanager
def prepared(name: str, osd_size: int = OSD_SIZE) -> Iterator[tuple[Site, Path, Path]]:
    """A site that can deploy, a folder that its node has as WORK, and a key pair in it."""
    BUILD.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=BUILD) as work:
        binds = (appliance.BIND, Bind(images.FOLDER, IMAGES), Bind(Path(work), WORK))
        with open_site(name, binds, osd_size) as site:
            yield site, Path(work), make_key(Path(work, "key"))


def spawn(site: Site, volume: str, origin: str, gibibytes: int, key: Path) -> None:
    """Clone, attach, customize."""
    site.script("create", volume, origin=origin, size=gibibytes << 10)
    device = site.script("attach", volume)
    deploy = ("snf-image", "deploy", "--image=null", "--format=diskdump", f"--disk={device}")
    site.run(*deploy, *make_options(key))


def copy(site: Site, file: str, image: str) -> None:
    """The image alone, which is not customized then. image: with its pool."""
    argv = ("qemu-img", "convert", "-f", "raw", "-O", "raw", file, f"rbd:{image}")
    site.run(*argv, timeout=900)


def run() -> tuple[Runs, Runs]:
    file = f"{IMAGES}/{images.build(images.RECIPES['bench']).name}"
    ours, peer = [], []
    with prepared("spawn") as (site, _, key):
        publish = ("snf-rados-image", "--user=admin", "publish", file, "--name=server")
        origin = site.run(*publish).strip()
        for number in range(_ROUNDS):
            ours.append(measure(spawn, site, f"v{number}", origin, _GIBIBYTES, key))
            peer.append(measure(copy, site, file, f"{POOL}/copy{number}"))
            site.remove(f"v{number}")
            site.run("rbd", "rm", "--no-progress", f"{POOL}/copy{number}")
    return ours, peer


BENCHMARK = Benchmark("spawn", "s", 0.2, "qemu-img convert to RBD", run)
