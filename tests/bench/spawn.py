"""An instance's disk as a customized clone, against a full copy of the same image to RBD.

What is deployed is a server of 2 GiB; all of the customization is emulated, the copy is not.
"""

import tempfile
from pathlib import Path

from bench.benchmark import Benchmark, Runs
from bench.deploy import make_options
from bench.rados import Site, measure, open_site
from testbed import appliance, images
from testbed.deployed import IMAGES, make_key
from testbed.machine import Bind
from testbed.roots import BUILD
from testbed.volumes import POOL

_ROUNDS = 3
_GIBIBYTES = 3


def spawn(site: Site, volume: str, origin: str, key: Path) -> None:
    """Clone, attach, customize."""
    site.script("create", volume, origin=origin, size=_GIBIBYTES << 10)
    device = site.script("attach", volume)
    deploy = ("snf-image", "deploy", "--image=null", "--format=diskdump", f"--disk={device}")
    site.run(*deploy, *make_options(key))


def copy(site: Site, file: str, volume: str) -> None:
    """The image alone, which is not customized then."""
    site.run("qemu-img", "convert", "-f", "raw", "-O", "raw", file, f"rbd:{POOL}/{volume}")


def run() -> tuple[Runs, Runs]:
    image = images.build(images.RECIPES["bench"])
    file, binds = f"{IMAGES}/{image.name}", (appliance.BIND, Bind(images.FOLDER, IMAGES))
    ours, peer = [], []
    with open_site("spawn", binds) as site, tempfile.TemporaryDirectory(dir=BUILD) as work:
        key = make_key(Path(work, "key"))
        publish = ("snf-rados-image", "--user=admin", "publish", file, "--name=server")
        origin = site.run(*publish).strip()
        for number in range(_ROUNDS):
            ours.append(measure(spawn, site, f"v{number}", origin, key))
            peer.append(measure(copy, site, file, f"copy{number}"))
            site.script("detach", f"v{number}")
            site.script("remove", f"v{number}")
            site.run("rbd", "rm", "--no-progress", f"{POOL}/copy{number}")
    return ours, peer


BENCHMARK = Benchmark("spawn", "s", 0.2, "qemu-img convert to RBD", run)
